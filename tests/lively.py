"""A network whose answers differ from picture to picture, which few steps of training do not give; a HOME with it."""

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


def lively_home(made, own):
    """(HOME, champion, another model): the champion's answers differ from picture to picture.

    made: of the fixture of that name; own: a copy of its HOME, to which the champion is added.
    """
    from flows.products import Champions
    from flows.stages.evaluate import evaluate
    from flows.stages.stage import Job
    from model.card import Card, write_card
    from model.inference.litert import to_litert
    from model.manifests import ModelManifest
    from model.network.files import save
    from model.registry.store import CHAMPION
    from model.settings import NETWORK
    from tfrecords.artifacts.make import make
    from tfrecords.pictures.preprocessing import prepare

    data, _, settings, refs = made
    other = own.open(refs["train"], ModelManifest)
    files = sorted((data / "train_images").iterdir())[:30]
    network = lively_network(np.stack([prepare(file.read_bytes(), settings.preprocess)[..., None] for file in files]))

    def build(work):
        write_card(work, Card(other.manifest.classes, settings.preprocess, {NETWORK: 0}))
        (work / f"{NETWORK}.tflite").write_bytes(to_litert(network))
        save(network, work / f"{NETWORK}.keras")
        return other.manifest

    champion, _ = make(own.root / "models", "tiny", ModelManifest, "f" * 16, build)
    Champions(own, "tiny").note(CHAMPION, champion)
    some = settings.model_copy(update={"evaluate": settings.evaluate.model_copy(update={"max_escape_rate": 0.6})})
    evaluate(Job(own, some), champion.path.name)
    return own, champion, other
