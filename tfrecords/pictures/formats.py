"""The table of picture formats: a file is told by its content, checked, and decoded."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tfrecords.pictures import bmp, jpeg, png, tiff, webp
from tfrecords.pictures.declared import Declared
from tfrecords.pictures.errors import PictureError
from tfrecords.pictures.opencv import cv2
from tfrecords.pictures.region import cut_out
from tfrecords.settings import AUTO, Color, Fit, PreprocessSettings

FULL_DEPTH = 16  # bits


class Format(NamedTuple):
    """One picture format.

    suffixes: of its file names, in lower case; signature: pattern of its first bytes; check: (file, whether to check
    checksums) to what the file declares, raises PictureError where the file is damaged; decode: (file, what `check`
    returned, color) to pixels, uint8 or uint16, (height, width) or (height, width, 3), RGB, raises PictureError. Where
    `color` is gray and the file has color, it may decode to either.
    """

    name: str
    suffixes: tuple[str, ...]
    signature: bytes
    check: Callable[[bytes, bool], Declared]
    decode: Callable[[bytes, Any, Color], np.ndarray]

    def wrote(self, data: bytes) -> bool:
        """Whether a file begins as those of this format do."""
        return re.match(self.signature, data, re.DOTALL) is not None


FORMATS = (
    Format("PNG", (".png",), re.escape(png.SIGNATURE), png.check, png.decode),
    Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), jpeg.SIGNATURE, jpeg.check, jpeg.decode),
    Format("BMP", (".bmp", ".dib"), bmp.SIGNATURE, bmp.check, bmp.decode),
    Format("TIFF", (".tif", ".tiff"), tiff.SIGNATURE, tiff.check, tiff.decode),
    Format("WebP", (".webp",), webp.SIGNATURE, webp.check, webp.decode),
)
# What else comes under a picture's name: the pattern of its first bytes, and what to call it.
OTHERS = {
    rb"GIF8": "a GIF",
    rb"\0\0\0.jP  |\xff\x4f\xff\x51": "a JPEG 2000",
    rb".{4}ftypavi[fs]": "an AVIF",
    rb".{4}ftyp(hei|hev|mif|msf)": "a HEIC",
    rb"P[1-7]\s": "a PNM",
    rb"8BPS": "a Photoshop file",
    rb"%PDF": "a PDF",
    rb"PK\x03\x04": "a zip",
    rb"\s*<": "a web page or XML",
    rb"version https://git-lfs": "a pointer of Git LFS in the picture's place",
    rb"\0{16}": "zeros, as a copy that broke off leaves them",
}
SUFFIXES = tuple(suffix for form in FORMATS for suffix in form.suffixes)


def inspect(data: bytes) -> Declared:
    """Checks a picture file without decoding it. Returns: what it declares.

    Raises:
        PictureError: empty, of no known format, or damaged; see the `check` of its format.
    """
    return format_of(data).check(data, True)


def decode(data: bytes, settings: PreprocessSettings, checksums: bool = True) -> np.ndarray:
    """The picture: uint8 (height, width), 0 black to 255 white; (height, width, 3), RGB, where `settings.color` is rgb.

    It is the part that `settings.crop` names. Of more than 8 bits it is what `settings.bit_depth` takes for the range.

    checksums: False leaves out the check of checksums, for bytes that are known to have passed `inspect`.

    Raises:
        PictureError: see `samples`.
    """
    return in_bytes(samples(data, settings, checksums), settings)


def samples(data: bytes, settings: PreprocessSettings, checksums: bool = True) -> np.ndarray:
    """As `decode`, but uint16 where the file has more than 8 bits per sample: these are as they are in the file.

    Raises:
        PictureError: see `inspect`; or a declared size above `settings.max_megapixels`, pixels that do not decode, a
            part that lies outside the picture, or one that padding would make too large.
    """
    form = format_of(data)
    declared = form.check(data, checksums)
    if declared.width * declared.height > settings.max_megapixels * 1e6:
        raise PictureError(
            f"the {form.name} declares {declared.width} x {declared.height} pixels, "
            f"more than {settings.max_megapixels:g} megapixels",
            "raise preprocess.max_megapixels, or take the picture out with its row",
        )
    pixels = form.decode(data, declared, settings.color)
    if settings.crop:
        pixels = cut_out(pixels, settings.crop)
    height, width = pixels.shape[:2]
    if settings.fit == Fit.PAD and max(height, width) ** 2 > settings.max_megapixels * 1e6:
        raise PictureError(
            f"{width} x {height} pixels, padded to a square, take more than {settings.max_megapixels:g} megapixels",
            "set preprocess.fit to stretch, or preprocess.crop to a part, or raise preprocess.max_megapixels",
        )
    if settings.color == Color.GRAY:
        return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)


def in_bytes(pixels: np.ndarray, settings: PreprocessSettings) -> np.ndarray:
    """What `samples` returned, in 8 bits: of uint16 the highest 8 of the `settings.bit_depth` bits. What lies above
    these is white. Auto that nobody has resolved counts as 16 bits.
    """
    if pixels.dtype == np.uint8:
        return pixels
    depth = FULL_DEPTH if settings.bit_depth == AUTO else settings.bit_depth
    return (np.minimum(pixels, 2**depth - 1) >> (depth - 8)).astype(np.uint8)


def saturates(pixels: np.ndarray, settings: PreprocessSettings) -> bool:
    """Whether what `samples` returned has values above the bits of `settings.bit_depth`."""
    return pixels.dtype == np.uint16 and settings.bit_depth != AUTO and int(pixels.max()) >= 2**settings.bit_depth


def format_of(data: bytes) -> Format:
    """The format whose signature the file begins with. Raises: PictureError where there is none."""
    if not data:
        raise PictureError("the file is empty")
    for form in FORMATS:
        if form.wrote(data):
            return form
    *names, last = (form.name for form in FORMATS)
    known = f"{', '.join(names)} or {last}"
    found = next((f"; it is {name}" for begin, name in OTHERS.items() if re.match(begin, data, re.DOTALL)), "")
    raise PictureError(f"the file is not a {known}{found}", f"save the picture as {known}, or take it out with its row")
