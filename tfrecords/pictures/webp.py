"""WebP: the integrity check and the decoder."""

import io
import struct
from dataclasses import dataclass

import numpy as np

from tfrecords.pictures.declared import Declared
from tfrecords.pictures.directory import exif_orientation, turned
from tfrecords.pictures.errors import PictureError
from tfrecords.pictures.opencv import cv2
from tfrecords.settings import Color

SIGNATURE = rb"RIFF....WEBP"
ANIMATED, HAS_EXIF = 0x02, 0x08  # flags of the header
SIDE = 0x3FFF  # the bits of a side
KINDS = {b"VP8X", b"VP8 ", b"VP8L", b"ALPH"}  # of which a file has one each at most


@dataclass(frozen=True)
class Frame(Declared):
    """What a WebP declares. orientation: 1 to 8, as Exif numbers them."""

    orientation: int = 1


def check(data: bytes, checksums: bool = True) -> Frame:
    """Checks the chunks of a WebP against its bytes, without decoding it; there are no checksums.

    Source: RFC 9649, sections 2 and 3.

    Raises:
        PictureError: cut off, chunks that do not fit the file, or an animation.
    """
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    if end > len(data):
        raise PictureError(f"the WebP is cut off after {len(data)} bytes, of {end}")
    held: dict[bytes, bytes] = {}
    at = 12
    while at + 8 <= end:
        kind, length = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        if at + 8 + length > end:
            raise PictureError(f"the WebP is damaged (its chunk at byte {at} ends outside of it)")
        if (kind in KINDS and kind in held) or (kind == b"VP8X" and at > 12):
            raise PictureError(f"the WebP is damaged (its {kind.decode().strip()} chunk at byte {at})")
        held.setdefault(kind, data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    extended = held.get(b"VP8X")
    if extended is not None and len(extended) < 10:
        raise PictureError("the WebP is damaged (its header is too short)")
    flags = extended[0] if extended else 0
    if flags & ANIMATED or b"ANIM" in held or b"ANMF" in held:
        raise PictureError("the WebP is an animation", "save one of its pictures, or take it out with its row")
    if not extended and len(held) > 1:
        raise PictureError(f"the WebP is damaged (it holds {len(held)} kinds of chunks, and no header for it)")
    size = _size(held)
    if extended and size != tuple(1 + int.from_bytes(extended[place : place + 3], "little") for place in (4, 7)):
        raise PictureError("the WebP is damaged (it declares two sizes)")
    orientation = exif_orientation(held[b"EXIF"]) if flags & HAS_EXIF and b"EXIF" in held else 1
    return Frame(*size, orientation=orientation)


def _size(held: dict[bytes, bytes]) -> tuple[int, int]:
    """(width, height) of the one picture. Raises: PictureError where there is none, or more than one."""
    lossy, lossless = held.get(b"VP8 "), held.get(b"VP8L")
    if lossy is None and lossless is None:
        raise PictureError("the WebP holds no pixels")
    if lossy is not None and lossless is None and lossy[3:6] == b"\x9d\x01\x2a" and len(lossy) >= 10:
        width, height = struct.unpack_from("<HH", lossy, 6)
        if width & SIDE and height & SIDE:
            return width & SIDE, height & SIDE
    if lossless is not None and lossy is None and lossless[:1] == b"\x2f" and len(lossless) >= 5:
        (bits,) = struct.unpack_from("<I", lossless, 1)
        return 1 + (bits & SIDE), 1 + (bits >> 14 & SIDE)
    raise PictureError("the WebP is damaged (the header of its pixels)")


def decode(data: bytes, frame: Frame, color: Color) -> np.ndarray:
    """The picture, turned as its Exif data asks: uint8 (height, width) in gray, (height, width, 3) in RGB.

    Color becomes luma (0.299 R + 0.587 G + 0.114 B), alpha is dropped. cv2 decodes the same pixels, and damaged ones
    without a word.

    frame: as `check` returned it. Raises: PictureError for pixels that do not decode.
    """
    from PIL.WebPImagePlugin import WebPImageFile  # only these files need it

    try:
        with WebPImageFile(io.BytesIO(data)) as image:
            pixels = np.asarray(image)[..., :3]
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
        raise PictureError(f"the pixels do not decode ({error})") from None
    if pixels.shape[:2] != (frame.height, frame.width):
        raise PictureError("the pixels do not decode")
    pixels = np.ascontiguousarray(pixels)
    return turned(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if color == Color.GRAY else pixels, frame.orientation)
