"""WebP: the integrity check and the decoder."""

import struct
from dataclasses import dataclass

import cv2
import numpy as np

from tfrecords.pictures.declared import Declared
from tfrecords.pictures.directory import exif_orientation, turned
from tfrecords.pictures.errors import PictureError
from tfrecords.settings import Color

SIGNATURE = rb"RIFF....WEBP"
ANIMATED = 0x02


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
    at, canvas, size, orientation = 12, None, None, 1
    while at + 8 <= end:
        kind, length = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        held = data[at + 8 : at + 8 + min(length, 16)]
        if at + 8 + length > end:
            raise PictureError(f"the WebP is damaged (its chunk at byte {at} ends outside of it)")
        if kind in (b"ANIM", b"ANMF") or (kind == b"VP8X" and held[:1] and held[0] & ANIMATED):
            raise PictureError("the WebP is an animation", "save one of its pictures, or take it out with its row")
        try:
            if kind == b"VP8X" and at == 12:
                low, high, low_h, high_h = struct.unpack_from("<HBHB", held, 4)
                canvas = (1 + (low | high << 16), 1 + (low_h | high_h << 16))
            elif kind == b"VP8 " and not size:
                if held[3:6] != b"\x9d\x01\x2a":
                    raise PictureError(f"the WebP is damaged (its picture at byte {at})")
                width, height = struct.unpack_from("<HH", held, 6)
                size = (width & 0x3FFF, height & 0x3FFF)
            elif kind == b"VP8L" and not size:
                mark, bits = struct.unpack_from("<BI", held)
                if mark != 0x2F:
                    raise PictureError(f"the WebP is damaged (its picture at byte {at})")
                size = (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
            elif kind == b"EXIF":
                orientation = exif_orientation(data[at + 8 : at + 8 + length])
        except struct.error:
            raise PictureError(f"the WebP is damaged (its chunk at byte {at} is too short)") from None
        at += 8 + length + length % 2
    if not size:
        raise PictureError("the WebP holds no pixels")
    if canvas not in (None, size) or 0 in size:
        raise PictureError("the WebP is damaged (it declares two sizes, or none)")
    return Frame(*size, orientation=orientation)


def decode(data: bytes, frame: Frame, color: Color) -> np.ndarray:
    """The picture, turned as its Exif data asks: uint8 (height, width) in gray, (height, width, 3) in RGB.

    Color becomes luma (0.299 R + 0.587 G + 0.114 B), alpha is dropped.

    frame: as `check` returned it. Raises: PictureError for pixels that do not decode.
    """
    how = cv2.IMREAD_GRAYSCALE if color == Color.GRAY else cv2.IMREAD_COLOR_RGB
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), how | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise PictureError(f"the pixels do not decode ({error.err})") from None
    if pixels is None or pixels.shape[:2] != (frame.height, frame.width):
        raise PictureError("the pixels do not decode")
    return turned(pixels, frame.orientation)
