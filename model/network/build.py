"""The network: MobileNet on one gray channel, global average pooling (or flatten, to compare), softmax."""

from collections.abc import Sequence

import keras

from model.network.backbones import mobilenet
from model.network.weights import load_pretrained
from model.settings import NO_WEIGHTS, TrainSettings

# Keras' own momentum of 0.99 remembers some 100 steps; at a high rate the weights have moved on by then, and
# validation falls (to 0.83 on NEU). 0.9 follows them, and from scratch it is there within the first epoch.
BATCH_NORM_MOMENTUM = 0.9


def build(settings: TrainSettings, size_px: int, classes: int) -> keras.Model:
    """The untrained classifier: uint8 (B, size, size, 1), 0..255, to float32 probabilities (B, classes).

    Source: Howard et al., MobileNets, arXiv:1704.04861, as keras.applications has it. Its first convolution
    sees one channel; pretrained kernels are summed over RGB, which is the same function of a gray picture.

    Raises:
        AoiError: weights that can't be had or don't fit; none are ever replaced by random ones.
    """
    backbone = mobilenet(settings.alpha, size_px, channels=1, head=settings.head)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = BATCH_NORM_MOMENTUM
    picture = keras.Input((size_px, size_px, 1), dtype="uint8", name="picture")
    hidden = keras.layers.Rescaling(1 / 127.5, offset=-1, name="scale")(picture)
    hidden = backbone(hidden)
    hidden = keras.layers.Dropout(settings.dropout, seed=settings.seed, name="dropout")(hidden)
    head = keras.layers.Dense(classes, activation="softmax", dtype="float32", name="probabilities")
    network = keras.Model(picture, head(hidden), name="aoi_mobilenet")
    _draw([*backbone.layers, head], settings.seed)
    if settings.weights != NO_WEIGHTS:
        _transfer(load_pretrained(settings, size_px), backbone)
    return network


def _draw(layers: Sequence[keras.Layer], seed: int) -> None:
    """Kernels from the seed alone. Keras seeds its own from Python's generator, which other threads use."""
    for index, layer in enumerate(layers):
        if hasattr(layer, "kernel"):
            layer.kernel.assign(keras.initializers.GlorotUniform(seed * 1_000 + index)(layer.kernel.shape))


def _transfer(source: keras.Model, target: keras.Model) -> None:
    for theirs, ours in zip(source.layers, target.layers, strict=True):
        values = theirs.get_weights()
        if theirs.name == "conv1":
            values = [values[0].sum(axis=2, keepdims=True)]
        ours.set_weights(values)
