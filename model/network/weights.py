"""First weights: Keras' ImageNet ones, a file of them, or none. Never a silent random start."""

import os
import warnings
from pathlib import Path
from typing import Any

from model.settings import IMAGENET, NO_WEIGHTS, TrainSettings
from tfrecords.artifacts.files import hash_file
from tfrecords.errors import AoiError, refuse

FIRST_FILTERS, LAST_FILTERS = 32, 1024  # of MobileNet's convolutions at alpha 1
KERAS_ALPHA = {1.0: "1_0", 0.75: "7_5", 0.5: "5_0", 0.25: "2_5"}  # in the names of Keras' files
HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError)  # what h5py raises for damaged files
PROVIDE_PATH = "Give a file by train.weights=PATH or AOI_WEIGHTS (README, sites without internet), or none"


def weights_digest(weights: str) -> str:
    """What names the first weights in a fingerprint: their content, never their path.

    Raises:
        AoiError: a path that is no file.
    """
    if weights in (IMAGENET, NO_WEIGHTS):
        return weights
    if not os.path.isfile(weights):
        raise refuse(weights, "there is no such weights file", PROVIDE_PATH)
    return hash_file(Path(weights))


def ensure_weights(settings: TrainSettings) -> None:
    """Downloads what is to be downloaded and checks what is to be read, ahead of long work; a file without Keras.

    Raises:
        AoiError: weights that can't be had, or whose first or last convolution is not that of train.alpha.
    """
    weights_digest(settings.weights)
    if settings.weights == IMAGENET:
        cached = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"), "models")
        name = f"mobilenet_{KERAS_ALPHA.get(settings.alpha, 'none')}_*_no_top*"
        if not any(cached.glob(name)):
            load_pretrained(settings, size_px=224)
    elif settings.weights != NO_WEIGHTS:
        first, last = int(FIRST_FILTERS * settings.alpha), int(LAST_FILTERS * settings.alpha)
        found = _shapes(settings.weights)
        for wanted in ((3, 3, 3, first), (1, 1, last, last)):
            if wanted not in found:
                raise _other_weights(settings, f"it holds no kernel of {wanted}")


def _shapes(path: str) -> list[tuple[int, ...]]:
    """Of every array in an HDF5 file."""
    import h5py

    shapes: list[tuple[int, ...]] = []
    try:
        with h5py.File(path) as file:
            file.visititems(lambda name, item: shapes.append(getattr(item, "shape", ())))
    except HDF5_ERRORS as error:
        raise refuse(path, f"not a file of weights (HDF5: {_one_line(error)})", PROVIDE_PATH)
    return shapes


def _other_weights(settings: TrainSettings, why: str) -> AoiError:
    seen = f"not the weights of a MobileNet of alpha {settings.alpha:g} ({why})"
    return refuse(settings.weights, seen, "Give the file that belongs to train.alpha")


def load_pretrained(settings: TrainSettings, size_px: int) -> Any:
    """The RGB backbone, a keras.Model, with the named weights in it. Raises: AoiError, see `ensure_weights`."""
    from model.network.backbones import mobilenet

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Keras names every layer before it refuses the file
        if settings.weights == IMAGENET:
            try:
                return mobilenet(settings.alpha, size_px, 3, IMAGENET)
            except Exception as error:  # Keras raises a bare Exception when a download fails
                raise refuse("train.weights", f"imagenet can't be had ({_one_line(error)})", PROVIDE_PATH)
        backbone = mobilenet(settings.alpha, size_px, 3)
        try:
            backbone.load_weights(settings.weights)
        except HDF5_ERRORS as error:
            raise _other_weights(settings, _one_line(error))
        return backbone


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
