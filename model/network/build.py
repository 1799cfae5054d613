"""The network: a backbone on gray or RGB pictures, global average pooling (or flatten, to compare), softmax."""

from collections.abc import Sequence

import keras
import numpy as np

from model.network.backbones import BACKBONES, Scaling
from model.network.convolutions import convolutions
from model.network.parts import COLORS, DROPOUT, HEAD, PICTURE, SCALE, seed_dropout
from model.network.weights import load_pretrained
from model.settings import NO_WEIGHTS, TrainSettings
from tfrecords.settings import AUTO

# Keras' own momentum of 0.99 remembers some 100 steps; at a high rate the weights have moved on by then, and
# validation falls (to 0.83 on NEU). 0.9 follows them, and from scratch it is there within the first epoch.
BATCH_NORM_MOMENTUM = 0.9


def build(settings: TrainSettings, size_px: int, classes: int, channels: int = 1) -> keras.Model:
    """The untrained classifier: uint8 (B, size, size, channels), 0..255, to float32 probabilities (B, classes).

    channels: 3 for RGB: the backbone as it is. 1 for gray: its first convolution sees the picture in one channel, or
    in one for each way in which R, G and B are scaled; pretrained kernels of colors that are scaled alike are summed,
    which is the same function of a gray picture.

    Raises:
        AoiError: weights that can't be had or don't fit; none are ever replaced by random ones.
    """
    row = BACKBONES[settings.backbone]
    inputs = row.inputs(channels)
    backbone = convolutions(settings.backbone, settings.alpha, size_px, len(inputs), head=settings.head)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = BATCH_NORM_MOMENTUM
            layer.synchronized = settings.devices not in (AUTO, 1)  # statistics of a whole step, as on one device
    picture = keras.Input((size_px, size_px, channels), dtype="uint8", name=PICTURE)
    hidden = backbone(_scaled(picture, [scaling for scaling, _ in inputs]))
    hidden = keras.layers.Dropout(settings.dropout, seed=settings.seed, name=DROPOUT)(hidden)
    head = keras.layers.Dense(classes, activation="softmax", dtype="float32", name=HEAD)
    network = keras.Model(picture, head(hidden), name=f"aoi_{settings.backbone}")
    _draw([*backbone.layers, head], settings.seed)
    seed_dropout(network, settings.seed, epoch=0)
    if settings.weights != NO_WEIGHTS:
        kernels = [places for _, places in inputs]
        _transfer(load_pretrained(settings, size_px), backbone, row.first_convolution, kernels)
    return network


def _scaled(picture: keras.KerasTensor, scalings: Sequence[Scaling]) -> keras.KerasTensor:
    """uint8 (B, S, S, 1 or 3) to float32 (B, S, S, scalings), gray repeated where there are several."""
    if picture.shape[-1] != len(scalings):
        picture = keras.layers.Concatenate(name=COLORS)([picture] * len(scalings))
    alike = len(set(scalings)) == 1
    factors, offsets = scalings[0] if alike else zip(*scalings, strict=True)
    return keras.layers.Rescaling(factors, offset=offsets, name=SCALE)(picture)


def _draw(layers: Sequence[keras.Layer], seed: int) -> None:
    """Kernels from the seed alone. Keras seeds its own from Python's generator, which other threads use."""
    for index, layer in enumerate(layers):
        if hasattr(layer, "kernel"):
            layer.kernel.assign(keras.initializers.GlorotUniform(seed * 1_000 + index)(layer.kernel.shape))


def _transfer(source: keras.Model, target: keras.Model, first: str, places: Sequence[Sequence[int]]) -> None:
    """The weights of an RGB backbone to one whose first convolution, `first`, has the sums of some kernels of RGB.

    places: in RGB, of those that each of its input channels sums.
    """
    for theirs, ours in zip(source.layers, target.layers, strict=True):
        values = theirs.get_weights()
        if theirs.name == first:
            kernel, *bias = values
            values = [np.stack([kernel[:, :, at].sum(axis=2) for at in places], axis=2), *bias]
        ours.set_weights(values)
