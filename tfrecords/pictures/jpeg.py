"""JPEG: the integrity check and the decoder."""

import re
import struct
from dataclasses import dataclass

import numpy as np
import simplejpeg

from tfrecords.pictures.declared import Declared
from tfrecords.pictures.directory import exif_orientation, turned
from tfrecords.pictures.errors import PictureError
from tfrecords.settings import Color

SIGNATURE = rb"\xff\xd8\xff"
END, SCAN, EXIF = 0xD9, 0xDA, 0xE1
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # the markers between are no frame headers
ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a length
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in the pixels 0 follows each 0xff, or a restart mark
MOST_SCANS = 40  # encoders write up to about 20; each costs a walk over all pixels
SAVE_AGAIN = "save the picture in gray or RGB with 8 bits, or as PNG or TIFF, or take it out with its row"


@dataclass(frozen=True)
class Frame(Declared):
    """What a JPEG declares. orientation: 1 to 8, as Exif numbers them."""

    orientation: int = 1


def check(data: bytes, checksums: bool = True) -> Frame:
    """Walks the markers of a JPEG to its end mark, without decoding it; there are no checksums.

    Source: ITU-T T.81, annex B.

    Raises:
        PictureError: cut off, no marker where one must stand, or of a kind that is not read.
    """
    found: tuple[int, int, int, int] | None = None
    orientation, scans, at = 0, 0, 2
    while at + 2 <= len(data):
        if data[at] != 0xFF:
            raise PictureError(f"the JPEG is damaged (no marker at byte {at})")
        kind = data[at + 1]
        if kind == 0xFF:  # may fill any space before a marker
            at += 1
            continue
        if kind == END:
            if not found or not scans:
                raise PictureError("the JPEG holds no pixels")
            bits, height, width, _ = found
            return Frame(width, height, bits, orientation=orientation or 1)
        if kind in ALONE:
            at += 2
            continue
        if at + 4 > len(data):
            break
        (length,) = struct.unpack_from(">H", data, at + 2)
        end = at + 2 + length
        if end > len(data):
            break
        if kind in FRAMES:
            if found or length < 8:
                raise PictureError(f"the JPEG is damaged (frame header at byte {at})")
            found = struct.unpack_from(">BHHB", data, at + 4)
            _refuse_kind(*found)
        if kind == EXIF and not orientation and data[at + 4 : at + 10] == b"Exif\0\0":
            orientation = exif_orientation(data[at + 10 : end])
        if kind == SCAN:
            scans += 1
            if not found or scans > MOST_SCANS:
                raise PictureError(f"the JPEG is damaged (scan at byte {at})")
            mark = MARKER.search(data, end)
            if not mark:
                break
            end = mark.start()
        at = end
    raise PictureError(f"the JPEG is cut off after {len(data)} bytes")


def _refuse_kind(bits: int, height: int, width: int, channels: int) -> None:
    if bits != 8:
        raise PictureError(f"the JPEG has {bits} bits per sample, which is not read", SAVE_AGAIN)
    if channels == 4:
        raise PictureError("the JPEG has the colors of print (CMYK), which are not read", SAVE_AGAIN)
    if channels not in (1, 3):
        raise PictureError(f"the JPEG has {channels} channels, which are not read", SAVE_AGAIN)
    if not width or not height:
        raise PictureError(f"the JPEG declares {width} x {height} pixels")


def decode(data: bytes, frame: Frame, color: Color) -> np.ndarray:
    """The picture, turned as its Exif data asks: uint8 (height, width) in gray, (height, width, 3) in RGB.

    In gray it is the brightness that the file holds (0.299 R + 0.587 G + 0.114 B). cv2 decodes the same pixels, and
    damaged ones without a word: here libjpeg's warnings are errors.

    frame: as `check` returned it. Raises: PictureError for pixels that do not decode.
    """
    return turned(decode_stream(data, color), frame.orientation)


def decode_stream(data: bytes, color: Color) -> np.ndarray:
    """As `decode`, of a JPEG that is not turned. Raises: PictureError."""
    try:
        pixels = simplejpeg.decode_jpeg(data, "GRAY" if color == Color.GRAY else "RGB")
    except (ValueError, MemoryError) as error:
        raise PictureError(f"the pixels do not decode ({error or type(error).__name__})") from None
    return pixels[..., 0] if color == Color.GRAY else pixels
