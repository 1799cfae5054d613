"""First weights: Keras' ImageNet ones, a file of them, or none. Never a silent random start."""

import os
import warnings
from pathlib import Path
from typing import Any

from model.network.backbones import BACKBONES
from model.quiet import import_tensorflow
from model.settings import IMAGENET, NO_WEIGHTS, TrainSettings
from tfrecords.artifacts.files import hash_file
from tfrecords.errors import AoiError, refuse

HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError)  # what h5py raises for damaged files
PROVIDE_PATH = (
    "Name a weights file with train.weights=PATH or AOI_WEIGHTS (see docs/offline.md), "
    "or begin with random weights: train.weights=none"
)


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


def check_weights(settings: TrainSettings) -> None:
    """Raises AoiError for weights that are another backbone's or width's, without Keras or a download."""
    weights_digest(settings.weights)
    if settings.weights == IMAGENET:
        _imagenet_file(settings)
    elif settings.weights != NO_WEIGHTS:
        _check_kernels(settings)


def ensure_weights(settings: TrainSettings) -> None:
    """Downloads what is to be downloaded, ahead of long work. Raises: AoiError, see `check_weights`; for weights that
    can't be had.
    """
    check_weights(settings)
    if settings.weights == IMAGENET:
        cached = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"), "models")
        if not any(cached.glob(_imagenet_file(settings))):
            load_pretrained(settings, size_px=224)


def _check_kernels(settings: TrainSettings) -> None:
    backbone = BACKBONES[settings.backbone]
    first, last = backbone.kernels(settings.alpha)
    kernels = [shape for shape in _shapes(settings.weights) if len(shape) == 4]
    for wanted in (first, last):
        if wanted not in kernels:
            raise _other_weights(settings, f"it holds no kernel of {wanted}")
    if len(kernels) != backbone.convolutions:
        raise _other_weights(settings, f"it holds {len(kernels)} kernels, not {backbone.convolutions}")
    if (most := max(kernel[-1] for kernel in kernels)) > last[-1]:
        raise _other_weights(settings, f"it holds a kernel of {most} filters, more than {last[-1]}")


def _imagenet_file(settings: TrainSettings) -> str:
    """Pattern of the file that Keras caches. Raises: AoiError for a width that ImageNet's weights don't come in."""
    known = BACKBONES[settings.backbone].imagenet
    if settings.alpha not in known:
        seen = f"{settings.alpha:g}: imagenet has no weights of {settings.backbone} of this width"
        widths = ", ".join(f"{alpha:g}" for alpha in known)
        raise refuse("train.alpha", seen, f"Set one of {widths}; or train.weights=none, or a file of your own")
    return known[settings.alpha]


def _shapes(path: str) -> list[tuple[int, ...]]:
    """Of every array of the network in an HDF5 file; an optimizer's, which has copies of each, are none of it."""
    import h5py

    shapes: list[tuple[int, ...]] = []

    def visit(name: str, item: Any) -> None:
        if not name.startswith("optimizer"):
            shapes.append(getattr(item, "shape", ()))

    try:
        with h5py.File(path) as file:
            file.visititems(visit)
    except HDF5_ERRORS as error:
        raise refuse(path, f"not a file of weights (HDF5: {_one_line(error)})", PROVIDE_PATH)
    return shapes


def _other_weights(settings: TrainSettings, why: str) -> AoiError:
    seen = f"not the weights of {settings.backbone} of alpha {settings.alpha:g} ({why})"
    remedy = "Give the file that belongs to train.backbone and train.alpha, or set these to those of the file"
    return refuse(settings.weights, seen, remedy)


def load_pretrained(settings: TrainSettings, size_px: int) -> Any:
    """The RGB backbone, a keras.Model, with the named weights in it. Raises: AoiError, see `ensure_weights`."""
    import_tensorflow()
    from model.network.convolutions import convolutions

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Keras names every layer before it refuses the file
        if settings.weights == IMAGENET:
            _imagenet_file(settings)
            try:
                return convolutions(settings.backbone, settings.alpha, size_px, 3, IMAGENET)
            except Exception as error:  # Keras raises a bare Exception when a download fails
                raise refuse("train.weights", f"imagenet can't be had ({_one_line(error)})", PROVIDE_PATH)
        backbone = convolutions(settings.backbone, settings.alpha, size_px, 3)
        try:
            backbone.load_weights(settings.weights)
        except HDF5_ERRORS as error:
            raise _other_weights(settings, _one_line(error))
        return backbone


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
