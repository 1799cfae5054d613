"""The directory of tags that TIFF has, and Exif with it."""

import struct
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tfrecords.pictures.errors import PictureError
from tfrecords.pictures.opencv import cv2

ORIENTATION = 274
UNDEFINED = 7
# Of the types whose values are looked at: BYTE, SHORT, LONG, UNDEFINED (bytes), IFD, LONG8, IFD8.
KINDS = {1: "u1", 3: "u2", 4: "u4", UNDEFINED: "u1", 13: "u4", 16: "u8", 18: "u8"}
TURNED = (
    *(None, None, lambda pixels: cv2.flip(pixels, 1), lambda pixels: cv2.rotate(pixels, cv2.ROTATE_180)),
    *(lambda pixels: cv2.flip(pixels, 0), lambda pixels: cv2.transpose(pixels)),
    lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    lambda pixels: cv2.rotate(cv2.transpose(pixels), cv2.ROTATE_180),
    lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
)


class Directory(NamedTuple):
    """order: "<" or ">", of the bytes of a number; entries: (type, count, place of its values) of each tag; following:
    place of the next directory, 0 where there is none.
    """

    data: bytes
    order: str
    entries: Mapping[int, tuple[int, int, int]]
    following: int

    def numbers(self, tag: int, *default: int) -> tuple[int, ...]:
        """The whole numbers of a tag. Raises: PictureError for values of another type, or outside the file."""
        if tag not in self.entries:
            return default
        kind, count, at = self.entries[tag]
        if kind not in KINDS or kind == UNDEFINED:
            raise PictureError(f"the TIFF is damaged (tag {tag} is of type {kind})")
        dtype = np.dtype(self.order + KINDS[kind])
        if not 0 < count <= (len(self.data) - at) // dtype.itemsize:
            raise PictureError(f"the TIFF is cut off or damaged (values of tag {tag} lie outside of its bytes)")
        return tuple(np.frombuffer(self.data, dtype, count, at).tolist())

    def number(self, tag: int, default: int = -1) -> int:
        """The one number of a tag. Raises: PictureError, see `numbers`; and where there is none, or several."""
        found = self.numbers(tag, default)
        if len(found) > 1 or found[0] < 0:
            seen = f"no tag {tag}" if found[0] < 0 else f"{len(found)} numbers in tag {tag}"
            raise PictureError(f"the TIFF is damaged (it has {seen})")
        return found[0]


def first_directory(data: bytes) -> Directory:
    """The directory that the header names, of a TIFF or BigTIFF, or of Exif data.

    Sources: TIFF 6.0, section 2; the BigTIFF file format, https://www.awaresystems.be/imaging/tiff/bigtiff.html

    Raises:
        PictureError: no such header, or a directory outside the file.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2], "")
    try:
        if not order:
            raise PictureError("the TIFF does not begin with its header")
        (version,) = struct.unpack_from(f"{order}H", data, 2)
        if version not in (42, 43) or (version == 43 and struct.unpack_from(f"{order}HH", data, 4) != (8, 0)):
            raise PictureError("the TIFF does not begin with its header")
        # In a BigTIFF numbers of entries, counts and places have 64 bits.
        long, counter, before = ("Q", "Q", 8) if version == 43 else ("I", "H", 4)
        (at,) = struct.unpack_from(order + long, data, before)
        (count,) = struct.unpack_from(order + counter, data, at)
        begin = at + struct.calcsize(f"<{counter}")
        size = struct.calcsize(f"<HH{long}{long}")
        if count > (len(data) - begin) // size:
            raise struct.error
        entries = {}
        for place in range(begin, begin + count * size, size):
            tag, kind, values = struct.unpack_from(f"{order}HH{long}", data, place)
            if tag in entries:
                raise PictureError(f"the TIFF is damaged (its tag {tag} stands there twice)")
            held = place + size - struct.calcsize(f"<{long}")  # in the entry itself, where they fit
            if kind in KINDS and values * np.dtype(KINDS[kind]).itemsize > size - (held - place):
                (held,) = struct.unpack_from(order + long, data, held)
            entries[tag] = (kind, values, held)
        end = begin + count * size
        following = struct.unpack_from(order + long, data, end)[0] if end + size <= len(data) else 0
    except (struct.error, OverflowError):
        raise PictureError("the TIFF is cut off or damaged (its directory lies outside of its bytes)") from None
    return Directory(data, order, entries, following)


def exif_orientation(exif: bytes) -> int:
    """Orientation that Exif data asks for, 1 to 8; 1 where it asks for none or is damaged: a picture's pixels are fine
    without it.
    """
    try:
        return valid_orientation(first_directory(exif.removeprefix(b"Exif\0\0")).number(ORIENTATION, 1))
    except PictureError:
        return 1


def valid_orientation(number: int) -> int:
    """1 for a number that is no orientation."""
    return number if 1 <= number <= 8 else 1


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The picture as it is meant to be seen: (height, width) or (height, width, channels), uint8 or uint16.

    Source: Exif 3.0, section 4.6.5.1.6 (Orientation).
    """
    turn = TURNED[orientation]
    return pixels if turn is None else turn(pixels)
