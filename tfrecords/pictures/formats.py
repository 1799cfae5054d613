"""The table of picture formats: a file is told by its content, checked, and decoded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from tfrecords.pictures import png
from tfrecords.pictures.errors import PictureError
from tfrecords.settings import Color, PreprocessSettings

# Callers spread whole pictures over the cores; OpenCV's own threads would spin beside theirs, waiting for work.
cv2.setNumThreads(1)


@dataclass(frozen=True)
class Format:
    """One picture format.

    suffixes: of its file names, in lower case; signature: its first bytes; check: (file, whether to check checksums)
    to what the file declares, with `width` and `height` in pixels, raises PictureError where the file is damaged;
    decode: (file, what `check` returned, color) to pixels as `decode` returns them, raises PictureError.
    """

    name: str
    suffixes: tuple[str, ...]
    signature: bytes
    check: Callable[[bytes, bool], Any]
    decode: Callable[[bytes, Any, Color], np.ndarray]


FORMATS = (Format("PNG", (".png",), png.SIGNATURE, png.check, png.decode),)
SUFFIXES = tuple(suffix for form in FORMATS for suffix in form.suffixes)


def inspect(data: bytes) -> Any:
    """Checks a picture file without decoding it. Returns: what it declares, with `width` and `height` in pixels.

    Raises:
        PictureError: empty, of no known format, or damaged; see the `check` of its format.
    """
    return format_of(data).check(data, True)


def decode(data: bytes, settings: PreprocessSettings, checksums: bool = True) -> np.ndarray:
    """The picture: uint8 (height, width), 0 black to 255 white; (height, width, 3), RGB, where `settings.color` is rgb.

    checksums: False leaves out the check of checksums, for bytes that are known to have passed `inspect`.

    Raises:
        PictureError: see `inspect`; or a declared size above `settings.max_megapixels`, or pixels that do not decode.
    """
    form = format_of(data)
    declared = form.check(data, checksums)
    if declared.width * declared.height > settings.max_megapixels * 1e6:
        raise PictureError(
            f"the {form.name} declares {declared.width} x {declared.height} pixels, "
            f"more than {settings.max_megapixels:g} megapixels",
            "raise preprocess.max_megapixels, or take the picture out with its row",
        )
    return form.decode(data, declared, settings.color)


def format_of(data: bytes) -> Format:
    """The format whose signature the file begins with. Raises: PictureError where there is none."""
    if not data:
        raise PictureError("the file is empty")
    for form in FORMATS:
        if data.startswith(form.signature):
            return form
    names = " or ".join(form.name for form in FORMATS)
    raise PictureError(f"the file is not a {names}", f"save the picture as {names}, or take it out with its row")
