"""A network whose answers differ from picture to picture, which few steps of training do not give."""

import numpy as np

SIZE, CLASSES = 32, 3


def noise():
    """Noise of any contrast: uint8 (40, 32, 32, 1)."""
    rng = np.random.default_rng(2)
    contrast = rng.uniform(5, 60, (40, 1, 1, 1))
    return np.clip(rng.normal(128, contrast, (40, SIZE, SIZE, 1)), 0, 255).astype(np.uint8)


def lively_network(pictures):
    """A network of three classes, made for pictures uint8 (N, 32, 32, 1)."""
    import keras

    from model.network.build import build
    from model.network.parts import convolutions_of
    from model.settings import TrainSettings

    made = build(TrainSettings(alpha=0.25, weights="none"), SIZE, CLASSES)
    for layer in convolutions_of(made).layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0
    made(pictures, training=True)  # the statistics of these pictures; with those of none the signal dies out
    features = keras.Model(made.input, made.get_layer("dropout").input)(pictures).numpy()
    kernel = np.random.default_rng(1).normal(size=(features.shape[1], CLASSES))
    kernel /= 10 * (features.std(axis=0)[:, None] + 1e-6)
    made.get_layer("probabilities").set_weights([kernel, -features.mean(axis=0) @ kernel])
    return made
