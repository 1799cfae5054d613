"""What a training runs on: one device, or several of this machine that share each step.

Free of TensorFlow until a training begins, or several GPUs are at hand: fingerprints need the number of devices.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from model.quiet import import_tensorflow
from model.settings import Recipe, TrainSettings
from tfrecords.errors import install, refuse
from tfrecords.settings import AUTO
from tfrecords.system import nvidia_gpus

MOST = 16  # that train.devices can be
HALF = "mixed_float16"
NO_GPU = "TensorFlow sees no GPU here"


def gpus() -> int:
    """How many GPUs TensorFlow uses here."""
    if (offered := nvidia_gpus()) < 2:
        return offered
    import_tensorflow()
    import tensorflow as tf

    return len(tf.config.list_physical_devices("GPU"))


def with_devices(settings: TrainSettings, pictures: int, count: Callable[[], int] = gpus) -> TrainSettings:
    """The same with a number of devices in place of `auto`: the most that share a step evenly.

    pictures: that train; count: how many GPUs there are. The frozen recipe has no steps to share: it takes one device,
    and nothing in 16 bits.
    """
    if settings.recipe == Recipe.FROZEN:
        return settings.model_copy(update={"devices": 1, "mixed_precision": False})
    if settings.devices != AUTO:
        return settings
    sharing = range(1, min(count(), pictures, MOST) + 1)
    devices = max((number for number in sharing if settings.batch_size % number == 0), default=1)
    return settings.model_copy(update={"devices": devices})


@contextmanager
def on_devices(settings: TrainSettings) -> Iterator[None]:
    """Networks that are made or loaded meanwhile train on `settings.devices` devices, each a part of every step.

    Their variables are on all of them, and gradients are summed over all (tf.distribute.MirroredStrategy).

    Raises: AoiError where there are fewer, or where there is no GPU for 16 bits.
    """
    import keras
    import tensorflow as tf

    if settings.mixed_precision and not tf.config.list_physical_devices("GPU"):
        remedy = f"Leave it out: a processor is no faster in 16 bits. With an NVIDIA GPU, {install('gpu')}"
        raise refuse("train.mixed_precision", f"true, and {NO_GPU}", remedy)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(HALF if settings.mixed_precision else before)
    try:
        with _strategy(settings.devices).scope():
            yield
    finally:
        keras.config.set_dtype_policy(before)


@cache  # the messages of two strategies in one process would be taken for each other's
def _strategy(devices: int) -> Any:
    import tensorflow as tf

    if devices == 1:
        return tf.distribute.get_strategy()
    # Without a GPU the parts of the processor: one, unless TensorFlow was told to divide it.
    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(found) < devices:
        seen = f"{devices}, and " + (f"this machine has {len(found)} GPUs" if found[0].device_type == "GPU" else NO_GPU)
        remedy = f"Set train.devices=auto, which takes what is there. With NVIDIA GPUs, {install('gpu')}"
        raise refuse("train.devices", seen, remedy)
    return tf.distribute.MirroredStrategy([device.name for device in found[:devices]])
