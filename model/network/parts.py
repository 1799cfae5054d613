"""The parts of a classifier, whatever its backbone. The names stand in the files of trained models, and stay."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

PICTURE, COLORS, SCALE, DROPOUT, HEAD = "picture", "colors", "scale", "dropout", "probabilities"
FEATURES = "features"  # in the backbone
STREAM = 2**24  # steps of training that a dropout layer's numbers last, before they are the next layer's


def convolutions_of(network: keras.Model) -> keras.Model:
    """Its convolutions: scaled float (B, S, S, C) to features (B, F)."""
    (backbone,) = (layer for layer in network.layers if isinstance(layer, keras.Model))
    return backbone


def head_of(network: keras.Model) -> keras.layers.Dense:
    """Its last layer: features (B, F) to probabilities (B, classes)."""
    return network.get_layer(HEAD)


def extractor(network: keras.Model) -> keras.Model:
    """What its last layer sees: pictures uint8 (B, S, S, C) to features float32 (B, F)."""
    return keras.Model(network.input, network.get_layer(DROPOUT).input)


def pass_through(network: keras.Model) -> Callable[[Any], tuple[Any, Any, Any]]:
    """What it gives in use, and what it gives that from, in one pass.

    Pictures uint8 (B, S, S, C) to tensors: probabilities (B, classes), features (B, F), and the maps which these are
    pooled or flattened from, float32 (B, h, w, filters).
    """
    backbone, head = convolutions_of(network), head_of(network)
    scale = keras.Model(network.input, network.get_layer(SCALE).output)
    convolutions = keras.Model(backbone.input, [backbone.get_layer(FEATURES).input, backbone.output])

    def call(pictures: Any) -> tuple[Any, Any, Any]:
        maps, features = convolutions(scale(pictures), training=False)
        return head(features), features, maps

    return call


def last_maps(network: keras.Model, pictures: np.ndarray) -> np.ndarray:
    """What its features are pooled or flattened from: pictures uint8 (B, S, S, C) to float32 (B, h, w, filters)."""
    return keras.ops.convert_to_numpy(pass_through(network)(pictures)[2])


def seed_dropout(network: keras.Model, seed: int, epoch: int) -> None:
    """Makes what is dropped in an epoch follow from seed and epoch alone, so that it is the same when resumed.

    Dropout's own state is not in a checkpoint, and Keras seeds it from Python's generator, which other threads use.
    """
    layers = [*network.layers, *convolutions_of(network).layers]
    seeded = [layer.seed_generator for layer in layers if hasattr(layer, "seed_generator")]  # none at a rate of 0
    for index, generator in enumerate(seeded):
        generator.state.assign([seed, epoch + index * STREAM])
