"""A trained network in use: Keras, which exports are measured against."""

import keras
import numpy as np
import tensorflow as tf

from model.inference.formats import Network, Outputs, moments
from model.network.parts import head_of, pass_through


def compiled(network: keras.Model, batch_size: int = 32) -> Network:
    """The network as a plain function; Keras' own predict() takes longer."""
    spec = tf.TensorSpec([None, *network.input_shape[1:]], tf.uint8)
    call = tf.function(pass_through(network), input_signature=[spec])

    def run(images: np.ndarray, evidence: bool) -> Outputs:
        starts = range(0, max(1, len(images)), batch_size)  # no picture at all has outputs too, of their shapes
        kernel = head_of(network).get_weights()[0] if evidence else np.empty(0)
        parts = []
        for at in starts:
            seen = call(tf.constant(images[at : at + batch_size]))
            probabilities, features, fine, maps = (each.numpy() for each in seen)
            texture = np.reshape([moments(each) for each in fine], (-1, 2 * fine.shape[-1]))
            spoke = [maps @ kernel] if maps.shape[-1] == len(kernel) else []
            parts.append([probabilities, features, texture.astype(np.float32), *spoke])
        return Outputs(*(np.concatenate(each) for each in zip(*parts, strict=True)))

    return Network(run)
