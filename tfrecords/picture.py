"""From the bytes of a PNG to the pixels of a record. Ingest and the served model both go through here."""

import struct
import zlib
from dataclasses import dataclass, replace

import cv2
import numpy as np

from tfrecords.settings import PreprocessSettings

VERSION = 2  # of the pixels that `prepare` makes; raise it when they change, so that datasets are made anew

# Callers spread whole pictures over the cores; OpenCV's own threads would spin beside theirs, waiting for work.
cv2.setNumThreads(1)

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ANIMATION = (b"acTL", b"fcTL", b"fdAT")


class PictureError(ValueError):
    """Bytes that are no usable PNG; its text says what was seen."""


@dataclass(frozen=True)
class Header:
    """What a PNG declares: width and height in pixels, and whether it is an animation."""

    width: int
    height: int
    animated: bool = False


def inspect(data: bytes) -> Header:
    """Checks the frame of a PNG without decoding it: signature, chunk lengths, checksums, end mark.

    cv2 decodes a cut or flipped file to a partly gray picture without an error, so the frame is checked first.
    Source: PNG specification, third edition, sections 5.2 to 5.6.

    Raises:
        PictureError: empty, not a PNG, cut off, no chunk where one must begin, or one whose checksum does not hold.
    """
    if not data:
        raise PictureError("the file is empty")
    if not data.startswith(PNG_SIGNATURE):
        raise PictureError("the file is not a PNG")
    header, pixels, animated, at = None, False, False, len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, end = data[at + 4 : at + 8], at + 12 + length
        if end > len(data):
            break
        if not kind.isalpha():
            raise PictureError(f"the PNG is damaged (no chunk begins at byte {at})")
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise PictureError(f"the PNG is damaged (checksum of its {kind.decode()} chunk at byte {at})")
        if header is None:
            if kind != b"IHDR" or length != 13:
                raise PictureError("the PNG does not begin with its header")
            header = Header(*struct.unpack_from(">II", data, at + 8))
        pixels = pixels or kind == b"IDAT"
        animated = animated or kind in ANIMATION
        if kind == b"IEND":
            if not pixels:
                raise PictureError("the PNG holds no pixels")
            return replace(header, animated=animated)
        at = end
    raise PictureError(f"the PNG is cut off after {len(data)} bytes")


def decode(data: bytes, max_megapixels: float) -> np.ndarray:
    """The picture as cv2 sees it in gray: uint8 (height, width), 0 black to 255 white.

    Color becomes luma (0.299 R + 0.587 G + 0.114 B), 16 bits keep their high byte, a palette is looked up,
    1, 2 and 4 bits are stretched to 0..255, alpha is dropped, of an animation the still picture counts, and an
    Exif orientation turns the picture.

    Raises:
        PictureError: see `inspect`; or a declared size above `max_megapixels`, or pixels that do not decode.
    """
    header = inspect(data)
    if header.width * header.height > max_megapixels * 1e6:
        raise PictureError(
            f"the PNG declares {header.width} x {header.height} pixels, more than {max_megapixels:g} megapixels"
        )
    try:
        still = _still(data) if header.animated else data
        pixels = cv2.imdecode(np.frombuffer(still, np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error as error:
        raise PictureError(f"the pixels do not decode ({error.err})") from None
    if pixels is None:
        raise PictureError("the pixels do not decode")
    return pixels


def _still(data: bytes) -> bytes:
    """An inspected PNG without the chunks that make it an animation.

    cv2 would show a frame in place of the still picture, and a damaged animation ends the whole process.
    Source: https://github.com/opencv/opencv/issues/27744
    """
    kept, kind, end = [PNG_SIGNATURE], b"", len(PNG_SIGNATURE)
    while kind != b"IEND":
        at, kind = end, data[end + 4 : end + 8]
        end = at + 12 + struct.unpack_from(">I", data, at)[0]
        if kind not in ANIMATION:
            kept.append(data[at:end])
    return b"".join(kept)


def equalize(pixels: np.ndarray, settings: PreprocessSettings) -> np.ndarray:
    """Evens out contrast: uint8 (height, width) in, the same shape out.

    `clahe` is contrast-limited adaptive histogram equalization (Zuiderveld, Graphics Gems IV, 1994).
    """
    match settings.equalize:
        case "clahe":
            grid = (settings.clahe_tile_grid, settings.clahe_tile_grid)
            return cv2.createCLAHE(settings.clahe_clip_limit, grid).apply(pixels)
        case "histogram":
            return cv2.equalizeHist(pixels)
        case "none":
            return pixels


def resize(pixels: np.ndarray, size_px: int) -> np.ndarray:
    """uint8 (height, width) to uint8 (size, size): area average along a side that shrinks, bilinear along one that
    grows. Bilinear along a shrinking side would step over thin defects.
    """
    height, width = (min(side, size_px) for side in pixels.shape)
    shrunk = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.resize(shrunk, (size_px, size_px), interpolation=cv2.INTER_LINEAR)


def pad(pixels: np.ndarray) -> np.ndarray:
    """uint8 (height, width) to a square of the longer side, centred, the mirrored picture around it.

    Mirrored, since an even border would be an edge, which networks look at before all else.
    """
    height, width = pixels.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return cv2.copyMakeBorder(pixels, top, side - height - top, left, side - width - left, cv2.BORDER_REFLECT_101)


def finish(pixels: np.ndarray, settings: PreprocessSettings) -> np.ndarray:
    """A decoded picture to the pixels of a record: uint8 (height, width) to uint8 (size, size)."""
    even = equalize(pixels, settings)
    return resize(pad(even) if settings.fit == "pad" else even, settings.image_size_px)


def prepare(data: bytes, settings: PreprocessSettings) -> np.ndarray:
    """PNG bytes to the pixels of a record: uint8 (size, size), 0..255.

    Raises:
        PictureError: see `decode`.
    """
    return finish(decode(data, settings.max_megapixels), settings)


def perceptual_hash(pixels: np.ndarray) -> int:
    """64 bits that are nearly equal for pictures that look the same; uint8 (height, width) in.

    Bits say which of the 8 x 8 lowest frequencies of the picture, at 32 x 32, lie above their median.
    Source: pHash, in Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010.
    """
    small = cv2.resize(pixels, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].ravel()
    median = np.sort(low[1:])[31]  # np.median would take longer than all else here but the resize
    return int.from_bytes(np.packbits(low > median).tobytes(), "big")
