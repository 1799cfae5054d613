"""BMP: the integrity check and the decoder."""

import struct
from dataclasses import dataclass, field

import numpy as np

from tfrecords.pictures.declared import Declared
from tfrecords.pictures.errors import PictureError
from tfrecords.pictures.opencv import cv2
from tfrecords.pictures.samples import looked_up, unpack
from tfrecords.settings import Color

SIGNATURE = rb"BM"
PLAIN, RLE_8, RLE_4, MASKS, MASKS_AND_ALPHA = 0, 1, 2, 3, 6
# Compression to the bits per pixel that it goes with.
BITS = {PLAIN: (1, 4, 8, 16, 24, 32), RLE_8: (8,), RLE_4: (4,), MASKS: (16, 32), MASKS_AND_ALPHA: (16, 32)}
CORE = 12  # bytes of the header of OS/2, which has short numbers
LONG = (40, 52, 56, 64, 108, 124)  # bytes of the others
MASKS_OF = {16: (0x7C00, 0x3E0, 0x1F), 32: (0xFF0000, 0xFF00, 0xFF)}  # red, green, blue, where the file has none
LONGEST_RUNS = 16 << 20  # bytes of run-length codes, which Python reads one by one
SAVE_PLAIN = "save the picture without compression, or as PNG, or take it out with its row"


@dataclass(frozen=True)
class Frame(Declared):
    """What a BMP declares. depth: bits per pixel; offset: of the pixels; top_down: whether the first row is the top
    one; masks: of red, green and blue in a pixel of 16 or 32 bits; palette: uint8 (colors, 3), RGB.
    """

    depth: int = 24
    compression: int = PLAIN
    offset: int = 0
    top_down: bool = False
    masks: tuple[int, ...] = ()
    palette: np.ndarray | None = field(default=None, compare=False)

    @property
    def row_bytes(self) -> int:
        return (self.width * self.depth + 31) // 32 * 4


def check(data: bytes, checksums: bool = True) -> Frame:
    """Checks the header of a BMP against its bytes, without decoding it; there are no checksums.

    Source: Microsoft, Bitmap Storage; https://learn.microsoft.com/windows/win32/gdi/bitmap-storage

    Raises:
        PictureError: cut off, a header that does not fit the file, or a kind that is not read.
    """
    try:
        frame = _header(data)
    except struct.error:
        raise PictureError(f"the BMP is cut off after {len(data)} bytes") from None
    needed = 2 if frame.compression in (RLE_8, RLE_4) else frame.row_bytes * frame.height
    if frame.offset + needed > len(data):
        raise PictureError(f"the BMP is cut off after {len(data)} bytes, of {frame.offset + needed}")
    return frame


def _header(data: bytes) -> Frame:
    offset, size = struct.unpack_from("<II", data, 10)
    compression = used = 0
    if size == CORE:
        width, height, planes, depth = struct.unpack_from("<HHHH", data, 18)
    elif size in LONG:
        width, height, planes, depth, compression = struct.unpack_from("<iiHHI", data, 18)
        (used,) = struct.unpack_from("<I", data, 46)
    else:
        raise PictureError(f"the BMP is damaged (a header of {size} bytes)")
    if width < 1 or not height or planes != 1:
        raise PictureError(f"the BMP is damaged (it declares {width} x {abs(height)} pixels in {planes} plane(s))")
    if depth not in BITS.get(compression, ()):
        seen = f"the BMP has {depth} bits per pixel in compression {compression}, which is not read"
        raise PictureError(seen, SAVE_PLAIN)
    if compression in (RLE_8, RLE_4) and height < 0:
        raise PictureError("the BMP is damaged (compressed, and its first row the top one)")
    end, masks = 14 + size, MASKS_OF.get(depth, ())
    if compression in (MASKS, MASKS_AND_ALPHA):
        masks = struct.unpack_from("<III", data, 54)  # in the header, or behind one of 40 bytes
        end = max(end, 66 if compression == MASKS else 70)
    if used > 2**depth and depth <= 8:
        raise PictureError(f"the BMP is damaged (a palette of {used} colors for {depth} bits)")
    if masks and not _apart(masks, depth):
        raise PictureError(f"the BMP is damaged (masks of {', '.join(f'{mask:#x}' for mask in masks)})")
    palette = _palette(data, end, offset, size == CORE, used or 2**depth) if depth <= 8 else None
    if offset < end:
        raise PictureError(f"the BMP is damaged (its pixels begin at byte {offset}, within its header)")
    return Frame(width, abs(height), 8, (), depth, compression, offset, height < 0, masks, palette)


def _apart(masks: tuple[int, ...], depth: int) -> bool:
    """Whether each mask is one run of bits of its own, within a pixel."""
    runs = all(mask and not mask // (mask & -mask) & mask // (mask & -mask) + 1 for mask in masks)
    red, green, blue = masks
    return runs and not (red & green or red & blue or green & blue) and max(masks) < 2**depth


def _palette(data: bytes, begin: int, end: int, short: bool, colors: int) -> np.ndarray:
    """uint8 (colors, 3), RGB. short: without a fourth byte for each color."""
    size = 3 if short else 4
    held = data[begin : min(end, begin + colors * size)]
    return np.frombuffer(held, np.uint8, len(held) // size * size).reshape(-1, size)[:, 2::-1]


def decode(data: bytes, frame: Frame, color: Color) -> np.ndarray:
    """The picture: uint8 (height, width) in gray, (height, width, 3) in RGB. Alpha is dropped.

    frame: as `check` returned it. Raises: PictureError for a color outside the palette, or codes that do not decode.
    """
    gray = color == Color.GRAY
    if frame.compression in (RLE_8, RLE_4):
        indices = _runs(data[frame.offset :], frame)[::-1]
    else:
        size = frame.row_bytes * frame.height
        rows = np.frombuffer(data, np.uint8, size, frame.offset).reshape(frame.height, -1)
        rows = rows if frame.top_down else rows[::-1]
        if frame.depth > 8:
            return _mixed(rows, frame, gray)
        indices = rows[:, : frame.width] if frame.depth == 8 else unpack(rows, frame.depth, frame.width)
    indices = np.ascontiguousarray(indices)
    palette = frame.palette
    assert palette is not None
    if len(palette) < 2**frame.depth and (most := int(indices.max())) >= len(palette):
        raise PictureError(f"the BMP is damaged (color {most} of a palette of {len(palette)})")
    if gray and len(palette) == 256 and (palette == np.arange(256)[:, None]).all():
        return indices
    return looked_up(indices, palette, gray)


def _mixed(rows: np.ndarray, frame: Frame, gray: bool) -> np.ndarray:
    """Pixels that hold red, green and blue themselves."""
    channels = frame.depth // 8
    if frame.depth == 24 or (frame.depth == 32 and frame.masks == MASKS_OF[32]):
        pixels = np.ascontiguousarray(rows[:, : frame.width * channels]).reshape(frame.height, frame.width, channels)
        ways = {3: (cv2.COLOR_BGR2RGB, cv2.COLOR_BGR2GRAY), 4: (cv2.COLOR_BGRA2RGB, cv2.COLOR_BGRA2GRAY)}
        return cv2.cvtColor(pixels, ways[channels][gray])
    values = np.ascontiguousarray(rows[:, : frame.width * channels]).view(f"<u{channels}")
    pixels = np.zeros((frame.height, frame.width, 3), np.uint8)
    for channel, mask in enumerate(frame.masks):
        shift = (mask & -mask).bit_length() - 1
        top = mask >> shift
        for at in range(frame.height):  # row by row, since the numbers between take eight times the memory
            pixels[at, :, channel] = (values[at].astype(np.uint64) >> shift & top) * 255 // top
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if gray else pixels


def _runs(codes: bytes, frame: Frame) -> np.ndarray:
    """Run-length codes to indices, uint8 (height, width), the bottom row first. What they skip is color 0."""
    if len(codes) > LONGEST_RUNS:
        raise PictureError(f"the BMP has {len(codes):,} bytes of run-length codes, which is not read", SAVE_PLAIN)
    width, height, short = frame.width, frame.height, frame.compression == RLE_4
    pixels = np.zeros((height, width), np.uint8)
    flat = memoryview(pixels.reshape(-1))  # type: ignore[arg-type]
    at = x = y = 0
    while at + 1 < len(codes):
        count, value = codes[at], codes[at + 1]
        at += 2
        if count == 0 and value < 3:
            if value == 1 and y >= height - 1:
                return pixels
            if value == 1:
                break
            if value == 0:
                x, y = 0, y + 1
            elif at + 1 < len(codes):
                x, y, at = x + codes[at], y + codes[at + 1], at + 2
            continue
        if count:  # a run of one value, or of two by turns
            run = (bytes((value >> 4, value & 15)) * (count + 1 >> 1))[:count] if short else bytes((value,)) * count
        else:  # values one by one, filled up to whole pairs of bytes
            count, size = value, (value + 1 >> 1) if short else value
            run = codes[at : at + size]
            if short:
                run = bytes(half for byte in run for half in (byte >> 4, byte & 15))[:count]
            at += size + size % 2
        if y >= height or x + count > width or len(run) < count:
            raise PictureError("the BMP is damaged (its run-length codes leave the picture)")
        flat[y * width + x : y * width + x + count] = run
        x += count
    raise PictureError(f"the BMP is cut off (its run-length codes end in row {y + 1} of {height})")
