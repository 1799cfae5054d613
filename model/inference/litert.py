"""From Keras to LiteRT."""

import warnings
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from model.quiet import stderr_closed


def to_litert(network: keras.Model, calibration: Sequence[np.ndarray] = ()) -> bytes:
    """A network's inference as a .tflite file: uint8 (B, S, S, C) to float32, as in Keras. The same bytes every time.

    calibration: pictures uint8 (S, S, C), from which the ranges of activations are learned; with them weights and
    activations become 8 bits (post-training quantization, Jacob et al., arXiv:1712.05877).
    """
    signature = [tf.TensorSpec([None, *network.input_shape[1:]], tf.uint8, name="picture")]
    call = tf.function(lambda pictures: network(pictures, training=False), input_signature=signature)
    # With variables as constants the converter needs no SavedModel, which would take four times as long.
    frozen = convert_variables_to_constants_v2(call.get_concrete_function())
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    if len(calibration):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([picture[None]] for picture in calibration)
    with stderr_closed(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it misses statistics of inputs that are uint8 as they are
        return converter.convert()
