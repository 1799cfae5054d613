"""The parts of a classifier, whatever its backbone. The names stand in the files of trained models, and stay."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from model.inference.formats import level

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


def pass_through(network: keras.Model) -> Callable[[Any], tuple[Any, Any, Any, Any]]:
    """What it gives in use, and what it gives that from, in one pass.

    Pictures uint8 (B, S, S, C) to tensors: probabilities (B, classes), features (B, F), the earlier maps that tell of
    texture, and the last maps, from which the features are pooled or flattened, float32 (B, h, w, filters).
    """
    backbone, head = convolutions_of(network), head_of(network)
    scale = keras.Model(network.input, network.get_layer(SCALE).output)
    maps = backbone.get_layer(FEATURES).input
    kinds = keras.layers.InputLayer, keras.layers.ZeroPadding2D  # not what a layer makes of a picture
    made = [layer.output for layer in backbone.layers if not isinstance(layer, kinds)]
    places = [each for each in made if len(each.shape) == 4]
    fine = level([each.shape[1] for each in places], maps.shape[1])
    texture = [each for each in places if each.shape[1] == fine][-1]
    convolutions = keras.Model(backbone.input, [texture, maps, backbone.output])

    def call(pictures: Any) -> tuple[Any, Any, Any, Any]:
        fine_maps, last, features = convolutions(scale(pictures), training=False)
        return head(features), features, fine_maps, last

    return call


def last_maps(network: keras.Model, pictures: np.ndarray) -> np.ndarray:
    """What its features are pooled or flattened from: pictures uint8 (B, S, S, C) to float32 (B, h, w, filters)."""
    return keras.ops.convert_to_numpy(pass_through(network)(pictures)[-1])


def seed_dropout(network: keras.Model, seed: int, epoch: int) -> None:
    """Makes what is dropped in an epoch follow from seed and epoch alone, so that it is the same when resumed.

    Dropout's own state is not in a checkpoint, and Keras seeds it from Python's generator, which other threads use.
    """
    layers = [*network.layers, *convolutions_of(network).layers]
    seeded = [layer.seed_generator for layer in layers if hasattr(layer, "seed_generator")]  # none at a rate of 0
    for index, generator in enumerate(seeded):
        generator.state.assign([seed, epoch + index * STREAM])
