"""What spoke for an answer, from the exported network alone."""

import keras
import numpy as np
import pytest
from lively import CLASSES, SIZE

from model.evaluation.gradcam import gradcam
from model.inference.class_maps import heat_of, open_class_maps
from model.inference.litert import to_litert
from model.inference.runtime import open_network
from model.network.build import build
from model.network.parts import head_of
from model.settings import TrainSettings


@pytest.fixture
def maps_of(tmp_path):
    """A function that exports a network and opens its class maps."""

    def opened(network, calibration=()):
        (tmp_path / "network.tflite").write_bytes(to_litert(network, calibration))
        return open_class_maps(tmp_path / "network.tflite")

    return opened


def test_they_are_the_ones_that_keras_computes(network, pictures, maps_of):
    evidence = maps_of(network)
    for image in pictures[:5]:
        for label in range(CLASSES):
            heat = heat_of(evidence(image)[..., label], SIZE)
            np.testing.assert_allclose(heat, gradcam(network, image[..., 0], label), atol=1e-4)


def test_their_mean_and_the_bias_are_the_answer(network, pictures, maps_of):
    evidence, bias = maps_of(network), head_of(network).get_weights()[1]
    logits = np.array([evidence(image).mean(axis=(0, 1)) for image in pictures[:5]]) + bias
    ours = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    np.testing.assert_allclose(ours, open_network(to_litert(network))(pictures[:5]), atol=1e-5)


def test_in_8_bits_they_show_the_same(network, pictures, maps_of):
    whole, rough = maps_of(network), maps_of(network, list(pictures))
    one, other = (np.array([evidence(image) for image in pictures[:5]]).ravel() for evidence in (whole, rough))
    assert np.corrcoef(one, other)[0, 1] > 0.8


def test_behind_flatten_there_are_none(maps_of):
    assert maps_of(build(TrainSettings(alpha=0.25, weights="none", head="flatten"), SIZE, CLASSES)) is None
