"""A backbone of the table as a Keras model, which networks are built on and weights are loaded into."""

import re
from collections import Counter

import keras

from model.network.backbones import BACKBONES, BackboneName
from model.settings import Head


def convolutions(
    name: BackboneName, alpha: float, size_px: int, channels: int, weights: str | None = None, head: Head = Head.GAP
) -> keras.Model:
    """A backbone without its top: scaled float (B, size, size, channels) to features (B, filters).

    weights: "imagenet", for three channels, or None. head: "gap" averages the last maps (B, h, w, filters) over their
    places; "flatten" lays the places side by side, so that there are h * w times as many features.

    Every layer has a name of its own: Keras would number them by what the process built before, and the numbers
    would stand in the model's file.
    """
    backbone = BACKBONES[name]
    shape = (size_px, size_px, channels)
    scaled = keras.Input(shape, name="scaled")
    maps = getattr(keras.applications, backbone.constructor)(
        input_shape=shape, input_tensor=scaled, include_top=False, weights=weights, **backbone.arguments(alpha)
    )
    _number(maps)
    layer = keras.layers.GlobalAveragePooling2D if head == Head.GAP else keras.layers.Flatten
    return keras.Model(scaled, layer(name="features")(maps.output), name=name.value)


def _number(model: keras.Model) -> None:
    """Numbers the operations that have no name of their own from 0 in every model, in the order of its graph."""
    counts: Counter[str] = Counter()
    for operation in model.operations:
        kind = re.sub(r"_\d+$", "", operation.name)
        if kind.replace("_", "") == type(operation).__name__.lower():  # re_lu_7, of ReLU
            operation.name = f"{kind}_{counts[kind]}"
            counts[kind] += 1
