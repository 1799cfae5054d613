"""PNG: the integrity check and the decoder."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from isal import isal_zlib

from tfrecords.pictures.declared import Declared
from tfrecords.pictures.errors import PictureError
from tfrecords.pictures.opencv import cv2
from tfrecords.settings import Color

SIGNATURE = b"\x89PNG\r\n\x1a\n"
ANIMATION = (b"acTL", b"fcTL", b"fdAT")
BARE = {b"IHDR", b"IDAT", b"IEND"}
CRITICAL = {*BARE, b"PLTE"}
GRAY_8 = bytes([8, 0, 0, 0, 0])
SUB = 1
LONGEST_SIDE = 1_000_000  # pixels, that cv2 reads
DAMAGED_BESIDE = "damaged texts, times and the like beside whole pixels are left out"


@dataclass(frozen=True)
class Frame(Declared):
    """What a PNG declares. form: the bytes for bit depth, color type, compression, filter method and interlacing;
    kinds: of its chunks; damaged: where the chunks begin that are left out.
    """

    form: bytes = b""
    kinds: frozenset[bytes] = frozenset()
    damaged: frozenset[int] = frozenset()


def check(data: bytes, checksums: bool = True) -> Frame:
    """Checks the frame of a PNG without decoding it: chunk lengths, checksums, end mark.

    Damage in a chunk that holds no pixels and nothing that they need is no reason to refuse the picture.

    checksums: False leaves these out, for bytes that are known to have passed.

    cv2 decodes a cut or flipped file to a partly gray picture without an error, so the frame is checked first.
    Source: PNG specification, third edition, sections 5.2 to 5.6.

    Raises:
        PictureError: cut off, no chunk where one must begin, or one whose checksum does not hold.
    """
    view, at = memoryview(data), len(SIGNATURE)
    kinds: set[bytes] = set()
    damaged: set[int] = set()
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, end = data[at + 4 : at + 8], at + 12 + length
        if end > len(data):
            break
        if not kind.isalpha():
            raise PictureError(f"the PNG is damaged (no chunk begins at byte {at})")
        # A first letter in lower case says that pixels can do without it; a flipped bit may have made it so.
        beside = kind[:1].islower() and kind.upper() not in CRITICAL
        look = checksums or beside  # those beside are few, and must be left out each time
        if look and isal_zlib.crc32(view[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            if not beside:
                raise PictureError(f"the PNG is damaged (checksum of its {kind.decode()} chunk at byte {at})")
            damaged.add(at)
        if not kinds and (kind != b"IHDR" or length != 13):
            raise PictureError("the PNG does not begin with its header")
        if kinds and kind == b"IHDR":
            raise PictureError(f"the PNG has a second header at byte {at}")
        if at not in damaged:
            kinds.add(kind)
        if kind == b"IEND":
            if b"IDAT" not in kinds:
                raise PictureError("the PNG holds no pixels")
            width, height, form = struct.unpack_from(">II5s", data, 16)
            notes = (DAMAGED_BESIDE,) if damaged else ()
            return Frame(width, height, form[0], notes, form, frozenset(kinds), frozenset(damaged))
        at = end
    raise PictureError(f"the PNG is cut off after {len(data)} bytes")


def decode(data: bytes, frame: Frame, color: Color) -> np.ndarray:
    """The picture as cv2 sees it: uint8, or uint16 for 16 bits; (height, width), or (height, width, 3), RGB.

    In gray, color becomes luma (0.299 R + 0.587 G + 0.114 B). A palette is looked up, 1, 2 and 4 bits are stretched to
    0..255, alpha is dropped, of an animation the still picture counts, and an Exif orientation turns the picture.

    frame: as `check` returned it. Raises: PictureError for pixels that do not decode.
    """
    pixels = _decode_as_written_by_cv2(data, frame)
    if pixels is not None:
        return pixels
    how = cv2.IMREAD_GRAYSCALE if color == Color.GRAY else cv2.IMREAD_COLOR_RGB
    try:
        still = _still(data, frame) if frame.damaged or frame.kinds.intersection(ANIMATION) else data
        pixels = cv2.imdecode(np.frombuffer(still, np.uint8), how | (cv2.IMREAD_ANYDEPTH if frame.bits == 16 else 0))
    except cv2.error as error:
        raise PictureError(f"the pixels do not decode ({error.err})") from None
    if pixels is None:
        raise PictureError("the pixels do not decode")
    return pixels


def _decode_as_written_by_cv2(data: bytes, frame: Frame) -> np.ndarray | None:
    """What cv2 decodes, in half its time: of 8-bit gray PNGs that cv2 wrote. None for any other, damaged too.

    With its default settings cv2 filters every row by Sub: a byte is the difference to its left neighbour, modulo
    256. So pixels are running sums of rows, and these are differences of the sums over rectangles that `cv2.integral`
    makes with vectors.
    Sources: PNG specification, third edition, section 9.2; Crow, Summed-area tables, SIGGRAPH 1984.
    """
    width, height = frame.width, frame.height
    if frame.form != GRAY_8 or frame.kinds != BARE or not 0 < max(width, height) <= LONGEST_SIDE:
        return None
    size = height * (1 + width)
    # Sums have 32 bits. What is far longer than its pixels was not written by cv2, and not worth copying.
    if 255 * width * height >= 2**31 or len(data) > 2 * size + 65536:
        return None
    view = memoryview(data)
    packed = b"".join([view[at + 8 : end - 4] for kind, at, end in _chunks(data) if kind == b"IDAT"])
    # cv2 refuses what reaches back further than the window that a stream declares; isal does not look.
    if not packed or 256 << (packed[0] >> 4) < min(size, 32768):
        return None
    stream = isal_zlib.decompressobj()
    try:
        # Others choose a filter for each row. The first eight tell; isal would unpack all of a small picture for them,
        # and zlib would copy what it was given and has not used.
        some = 8 * (1 + width)
        if zlib.decompressobj().decompress(packed[:some], some)[:: 1 + width].strip(bytes([SUB])):
            return None
        filtered = stream.decompress(packed, size + 1)
    except (zlib.error, isal_zlib.IsalError):  # type: ignore[misc]  # its stub does not say that it is an error
        return None
    if len(filtered) != size or not stream.eof or stream.unused_data:
        return None
    rows = np.frombuffer(filtered, np.uint8).reshape(height, 1 + width)
    if (rows[:, 0] != SUB).any():
        return None
    sums = cv2.integral(rows[:, 1:])[:, 1:].astype(np.uint8)
    return sums[1:] - sums[:-1]


def _still(data: bytes, frame: Frame) -> bytes:
    """An inspected PNG without damaged chunks, and without those that make it an animation.

    cv2 would show a frame in place of the still picture, and a damaged animation ends the whole process.
    Source: https://github.com/opencv/opencv/issues/27744
    """
    kept = (data[at:end] for kind, at, end in _chunks(data) if kind not in ANIMATION and at not in frame.damaged)
    return SIGNATURE + b"".join(kept)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, begin and end of every chunk of an inspected PNG."""
    kind, end = b"", len(SIGNATURE)
    while kind != b"IEND":
        at, kind = end, data[end + 4 : end + 8]
        end = at + 12 + struct.unpack_from(">I", data, at)[0]
        yield kind, at, end
