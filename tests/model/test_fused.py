"""Batch normalization in one kernel: what Keras' own layer computes, and nothing of it in a trained model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from model.network.backbones import BACKBONES, ONE_WIDTH, BackboneName
from model.network.build import build
from model.settings import TrainSettings
from model.training.fused import FusedBatchNormalization, fused

SHAPE = (4, 5, 6, 7)
SEEN = SHAPE[0] * SHAPE[1] * SHAPE[2]


@pytest.fixture
def pair():
    """Keras' layer and the fused one, of the same weights."""
    rng = np.random.default_rng(5)
    layers = [kind(momentum=0.9) for kind in (keras.layers.BatchNormalization, FusedBatchNormalization)]
    values = [rng.uniform(0.5, 1.5, SHAPE[-1]) for _ in range(4)]
    for layer in layers:
        layer.build(SHAPE)
        layer.set_weights(values)
    return layers


def maps():
    return tf.constant(np.random.default_rng(6).normal(3, 2, SHAPE).astype(np.float32))


def test_outside_of_training_it_gives_what_keras_gives(pair):
    ours, theirs = (layer(maps(), training=False).numpy() for layer in pair)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_in_training_outputs_and_gradients_are_those_of_keras(pair):
    found = []
    for layer in pair:
        inputs = maps()
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=True)
            loss = tf.reduce_sum(outputs**3)
        weights = [layer.gamma.value, layer.beta.value]
        found.append([outputs, *tape.gradient(loss, [inputs, *weights])])
    for theirs, ours in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_it_remembers_mean_and_variance_of_the_sample(pair):
    before = pair[0].get_weights()[3]
    for layer in pair:
        layer(maps(), training=True)
    (*_, mean, variance), (*_, our_mean, our_variance) = (layer.get_weights() for layer in pair)
    np.testing.assert_allclose(our_mean, mean, rtol=1e-5)
    seen = (variance - 0.9 * before) * SEEN / (SEEN - 1)
    np.testing.assert_allclose(our_variance, 0.9 * before + seen, rtol=1e-4)


@pytest.mark.parametrize("name", BackboneName)
def test_of_every_backbone_a_copy_answers_alike_under_the_same_names(name):
    alpha = 1.0 if BACKBONES[name].widths == ONE_WIDTH else 0.25
    network = build(TrainSettings(backbone=name, alpha=alpha, weights="none"), 32, 3)
    copy = fused(network)
    assert [weight.path for weight in copy.weights] == [weight.path for weight in network.weights]
    kinds = {type(layer) for part in copy.layers if isinstance(part, keras.Model) for layer in part.layers}
    assert FusedBatchNormalization in kinds
    assert keras.layers.BatchNormalization not in kinds
    pictures = np.random.default_rng(3).integers(0, 256, (4, 32, 32, 1), dtype=np.uint8)
    answers = copy(pictures, training=False).numpy()
    np.testing.assert_allclose(answers, network(pictures, training=False).numpy(), atol=1e-4)
