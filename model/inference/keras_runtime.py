"""A trained network in use: Keras, which exports are measured against."""

import keras
import numpy as np
import tensorflow as tf

from model.inference.formats import Network


def compiled(network: keras.Model, batch_size: int = 32) -> Network:
    """The network as a plain function; Keras' own predict() takes longer."""
    spec = tf.TensorSpec([None, *network.input_shape[1:]], tf.uint8)
    call = tf.function(lambda batch: network(batch, training=False), input_signature=[spec])

    def run(images: np.ndarray) -> np.ndarray:
        starts = range(0, len(images), batch_size)
        parts = [call(tf.constant(images[at : at + batch_size])).numpy() for at in starts]
        return np.concatenate([np.zeros((0, network.output_shape[-1]), np.float32), *parts])

    return run
