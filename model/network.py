"""The network: MobileNet on one gray channel, global average pooling (or flatten, to compare), softmax."""

import io
import json
import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from model.backbone import mobilenet
from model.runtime import Network
from model.settings import NO_WEIGHTS, TrainSettings
from model.weights import load_pretrained
from tfrecords.errors import refuse

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


def compiled(network: keras.Model, batch_size: int = 32) -> Network:
    """The network as a plain function; Keras' own predict() takes longer."""
    spec = tf.TensorSpec([None, *network.input_shape[1:]], tf.uint8)
    call = tf.function(lambda batch: network(batch, training=False), input_signature=[spec])

    def run(images: np.ndarray) -> np.ndarray:
        starts = range(0, len(images), batch_size)
        parts = [call(tf.constant(images[at : at + batch_size])).numpy() for at in starts]
        return np.concatenate([np.zeros((0, network.output_shape[-1]), np.float32), *parts])

    return run


def save(model: keras.Model, path: Path) -> None:
    """Writes a .keras file whose bytes depend on the model alone: Keras puts clock and addresses into its zip."""
    whole = path.with_suffix(".tmp.keras")
    model.save(whole)
    buffer = io.BytesIO()
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(buffer, "w") as target:
        for name in sorted(source.namelist()):
            data = source.read(name)
            if name == "metadata.json":
                data = json.dumps({**json.loads(data), "date_saved": ""}).encode()
            if name == "config.json":
                data = _renumber(data)
            target.writestr(zipfile.ZipInfo(name), data)
    whole.write_bytes(buffer.getvalue())
    os.replace(whole, path)


def _renumber(config: bytes) -> bytes:
    """Object ids, which are memory addresses, by order of appearance."""
    order: dict[bytes, int] = {}
    return re.sub(rb'("shared_object_id": )(\d+)', lambda m: m[1] + b"%d" % order.setdefault(m[2], len(order)), config)


def load(path: Path, compile: bool = False) -> keras.Model:
    """The model in a .keras file, without running code from it (Keras' safe mode).

    compile: with its optimizer, to train on.

    Raises:
        AoiError: not a readable model file.
    """
    try:
        return keras.saving.load_model(path, compile=compile, safe_mode=True)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise refuse(path, f"not a model that can be loaded ({str(error)[:200]})", "Train again with --force")
