"""TIFF and BigTIFF: the integrity check and the decoder of their first page."""

import io
import struct
import zlib
from dataclasses import dataclass, field, replace

import numpy as np
from isal import isal_zlib

from tfrecords.pictures import jpeg
from tfrecords.pictures.declared import Declared
from tfrecords.pictures.directory import ORIENTATION, Directory, first_directory, turned, valid_orientation
from tfrecords.pictures.errors import PictureError
from tfrecords.pictures.opencv import cv2
from tfrecords.pictures.samples import looked_up, running_sums, stretched, unpack
from tfrecords.settings import Color

SIGNATURE = rb"II[*+]\0|MM\0[*+]"
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIPS, CHANNELS, ROWS_PER_STRIP, STRIP_BYTES = 273, 277, 278, 279
PLANAR, PREDICTOR, COLOR_MAP, FORMAT, JPEG_TABLES = 284, 317, 320, 339, 347
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES = 322, 323, 324, 325
# Photometric interpretations.
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
KINDS = {5: "the colors of print (CMYK)", 8: "Lab colors", 32803: "a color filter's raw pixels"}
NONE, LZW, JPEG, DEFLATE, PACKBITS, OLD_DEFLATE = 1, 5, 7, 8, 32773, 32946
PREDICTED = (LZW, DEFLATE, OLD_DEFLATE)
COMPRESSIONS = {
    **{2: "CCITT", 3: "CCITT fax", 4: "CCITT fax", 6: "old JPEG", 34712: "JPEG 2000", 34925: "LZMA"},
    **{50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL"},
}
FORMATS = {2: "signed numbers", 3: "floating-point numbers", 5: "complex numbers", 6: "complex numbers"}
SAVE_AS = "save it with 8 or 16 bits of whole numbers per sample, in gray or RGB, with LZW, deflate or no compression"
MOST_CHANNELS = 4  # color and alpha
MOST_PACKED = 64 << 20  # bytes of PackBits, whose codes Python reads one by one
MARGIN = 1 << 22  # samples that tiles may stick out of a small picture
HEADER = 8  # bytes
AT_ONCE = 1 << 24  # bytes that libtiff unpacks at a time, so that a second copy of the picture never stands in memory
SEVERAL_PAGES = "the first of several pages is taken"


@dataclass(frozen=True)
class Page(Declared):
    """What a TIFF declares of its first page.

    channels: samples per pixel, alpha too; segments: (offset, bytes) of each strip or tile, a plane after the other
    where `planar`; part: (width, height) of a segment, in pixels; tables: of JPEG compression; orientation: 1 to 8.
    """

    directory: Directory = field(compare=False, kw_only=True)
    photometric: int = BLACK_IS_ZERO
    compression: int = NONE
    channels: int = 1
    planar: bool = False
    predicted: bool = False
    part: tuple[int, int] = (0, 0)
    segments: tuple[tuple[int, int], ...] = ()
    orientation: int = 1

    @property
    def grid(self) -> tuple[int, int]:
        """Segments of a plane: along the width, along the height."""
        return -(-self.width // self.part[0]), -(-self.height // self.part[1])

    @property
    def together(self) -> int:
        """Samples of a pixel that lie side by side."""
        return 1 if self.planar else self.channels

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of a segment, unpacked."""
        return (self.part[0] * self.together * self.bits + 7) // 8


def check(data: bytes, checksums: bool = True) -> Page:
    """Checks the directory of a TIFF and where its strips or tiles lie, without decoding them.

    Sources: TIFF 6.0; Adobe Photoshop TIFF Technical Notes (deflate); TIFF Technical Note 2 (JPEG).

    Raises:
        PictureError: cut off, a directory that does not fit the file, or a kind that is not read.
    """
    directory = first_directory(data)
    number, numbers = directory.number, directory.numbers
    width, height, channels = number(WIDTH), number(HEIGHT), number(CHANNELS, 1)
    bits, compression, photometric = set(numbers(BITS, 1)), number(COMPRESSION, NONE), number(PHOTOMETRIC)
    if not width or not height or not channels or len(numbers(BITS, 1)) not in (1, channels):
        raise PictureError(f"the TIFF is damaged (it declares {width} x {height} pixels of {channels} channel(s))")
    _refuse_kind(directory, bits, channels, compression, photometric)
    tiled = not {TILE_WIDTH, TILE_HEIGHT, TILES}.isdisjoint(directory.entries)
    part = (number(TILE_WIDTH), number(TILE_HEIGHT)) if tiled else (width, min(number(ROWS_PER_STRIP, height), height))
    if min(part) < 1 or (tiled and (part[0] % 16 or part[1] % 16)):
        raise PictureError(f"the TIFF is damaged (its parts are {part[0]} x {part[1]} pixels)")
    page = Page(
        width,
        height,
        bits.pop(),
        (SEVERAL_PAGES,) if directory.following else (),
        directory=directory,
        photometric=photometric,
        compression=compression,
        channels=channels,
        planar=number(PLANAR, 1) == 2 and channels > 1,
        predicted=number(PREDICTOR, 1) == 2,
        part=part,
        orientation=valid_orientation(number(ORIENTATION, 1)),
    )
    across, down = page.grid
    if across * part[0] * down * part[1] > 4 * width * height + MARGIN:
        raise PictureError(f"the TIFF is damaged (its tiles of {part[0]} x {part[1]} pixels are larger than it)")
    return _with_segments(page, tiled)


def _refuse_kind(directory: Directory, bits: set[int], channels: int, compression: int, photometric: int) -> None:
    """Raises PictureError for what is not read, by its name."""
    seen = ""
    if compression not in (NONE, LZW, JPEG, DEFLATE, PACKBITS, OLD_DEFLATE):
        seen = f"{COMPRESSIONS.get(compression, f'an unknown kind ({compression})')} compression"
    elif forms := set(directory.numbers(FORMAT, 1)) - {1, 4}:
        seen = FORMATS.get(min(forms), f"samples of an unknown format ({min(forms)})")
    elif len(bits) > 1 or not 1 <= max(bits) <= 16:
        seen = f"{' and '.join(map(str, sorted(bits)))} bits per sample"
    elif channels > MOST_CHANNELS:
        seen = f"{channels} channels"
    elif photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR):
        seen = KINDS.get(photometric, f"pixels of an unknown kind ({photometric})")
    elif directory.number(PLANAR, 1) not in (1, 2):
        seen = f"channels in an unknown order ({directory.number(PLANAR, 1)})"
    elif directory.number(FILL_ORDER, 1) != 1:
        seen = "bits in the reverse order"
    elif compression == JPEG and (max(bits) != 8 or channels not in (1, 3)):
        seen = f"JPEG compression of {channels} channels with {max(bits)} bits"
    elif photometric == YCBCR and compression != JPEG:
        seen = "YCbCr colors without JPEG compression"
    elif photometric == PALETTE and (channels > 1 or max(bits) > 8 or compression == JPEG):
        seen = f"a palette of {channels} channels with {max(bits)} bits"
    elif directory.number(PREDICTOR, 1) not in (1, 2):
        seen = "a predictor for floating-point numbers"
    elif directory.number(PREDICTOR, 1) == 2 and (max(bits) not in (8, 16) or compression not in PREDICTED):
        seen = f"a predictor for {max(bits)} bits in compression {compression}"  # which readers take in different ways
    if seen:
        raise PictureError(f"the TIFF has {seen}, which is not read", f"{SAVE_AS}, or take it out with its row")
    if photometric in (RGB, YCBCR) and channels < 3:
        raise PictureError(f"the TIFF is damaged (RGB in {channels} channel(s))")


def _with_segments(page: Page, tiled: bool) -> Page:
    """The page with its strips or tiles. Raises: PictureError where there are too few, or one lies outside the file."""
    directory, size = page.directory, len(page.directory.data)
    offsets = directory.numbers(TILES if tiled else STRIPS)
    counts = directory.numbers(TILE_BYTES if tiled else STRIP_BYTES)
    across, down = page.grid
    count = across * down * (page.channels if page.planar else 1)
    whole = page.row_bytes * page.part[1]
    last = whole if tiled else page.row_bytes * (page.height - (down - 1) * page.part[1])
    if page.compression == NONE and len(offsets) == count and not any(counts):  # some programs leave the sizes out
        counts = tuple(last if at % down == down - 1 else whole for at in range(count))
    if {len(offsets), len(counts)} != {count}:
        raise PictureError(f"the TIFF is damaged ({len(offsets)} strips or tiles, {len(counts)} sizes, of {count})")
    for at in range(count):
        if offsets[at] < HEADER:
            raise PictureError(f"the TIFF is damaged (its strip or tile {at} begins within the header)")
        if offsets[at] + counts[at] > size:
            raise PictureError(f"the TIFF is cut off after {size} bytes (its strip or tile {at} goes on)")
        needed = last if at % down == down - 1 else whole
        if counts[at] < (needed if page.compression == NONE else 1):
            raise PictureError(f"the TIFF is damaged (its strip or tile {at} has {counts[at]} bytes)")
    if page.compression == PACKBITS and sum(counts) > MOST_PACKED:
        raise PictureError(f"the TIFF has {sum(counts):,} bytes of PackBits, which is not read", SAVE_AS)
    return replace(page, segments=tuple(zip(offsets, counts, strict=True)))


def decode(data: bytes, page: Page, color: Color) -> np.ndarray:
    """The first page, turned as its tag asks: (height, width) in gray, (height, width, 3) in RGB where it has color
    and `color` asks for it.

    uint8, or uint16 where there are more than 8 bits per sample: then as they are, while fewer than 8 are stretched to
    0..255. Alpha is dropped.

    page: as `check` returned it. Raises: PictureError for strips or tiles that do not decode.
    """
    gray = color == Color.GRAY
    if page.compression == JPEG:
        pixels = _from_jpeg(data, page)
    else:
        planes = [_plane(data, page, at) for at in range(page.channels if page.planar else 1)]
        pixels = np.dstack(planes) if len(planes) > 1 else planes[0]
    if page.photometric == PALETTE:
        return turned(looked_up(np.ascontiguousarray(pixels[..., 0]), _palette(page), gray), page.orientation)
    if page.photometric in (RGB, YCBCR):
        pixels = np.ascontiguousarray(pixels[..., :3])
        pixels = stretched(pixels, page.bits) if page.bits < 8 else pixels
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if gray else pixels
    else:
        pixels = np.ascontiguousarray(pixels[..., 0])
        pixels = stretched(pixels, page.bits) if page.bits < 8 else pixels
        if page.photometric == WHITE_IS_ZERO:
            pixels = (255 if page.bits <= 8 else 2**page.bits - 1) - pixels
    return turned(pixels, page.orientation)


def _palette(page: Page) -> np.ndarray:
    """uint8 (colors, 3), RGB."""
    values = page.directory.numbers(COLOR_MAP)
    if len(values) != 3 * 2**page.bits:
        raise PictureError(f"the TIFF is damaged ({len(values)} numbers of a palette)")
    palette = np.array(values, np.uint16).reshape(3, -1).T
    # Some write bytes where 16 bits belong; libtiff looks for it in the same way.
    return (palette >> 8 if palette.max() > 255 else palette).astype(np.uint8)


def _plane(data: bytes, page: Page, plane: int) -> np.ndarray:
    """Samples of a plane, or of all channels that lie together: (height, width, channels)."""
    across, down = page.grid
    wide, high = page.part
    segments = page.segments[plane * across * down :][: across * down]
    dtype = np.uint16 if page.bits > 8 else np.uint8
    if across == 1 and wide == page.width:  # strips: unpacked into one block, which are the samples already, mostly
        return _samples(_unpacked(data, page, segments, page.height), page)
    out = np.empty((page.height, page.width, page.together), dtype)
    for row in range(down):
        rows = _unpacked(data, page, segments[row * across :][:across], across * high)
        for column in range(across):
            tile = _samples(rows[column * high : (column + 1) * high], page)
            place = out[row * high : (row + 1) * high, column * wide : (column + 1) * wide]
            place[:] = tile[: place.shape[0], : place.shape[1]]
    return out


def _samples(rows: np.ndarray, page: Page) -> np.ndarray:
    """Unpacked bytes, uint8 (rows, bytes), to samples (rows, width, channels), uint8 or uint16."""
    wide, channels = page.part[0], page.together
    if page.bits == 16:
        rows = rows.view(f"{page.directory.order}u2").astype(np.uint16, copy=False)
    elif page.bits != 8:
        rows = unpack(rows, page.bits, wide * channels)
    samples = rows.reshape(len(rows), wide, channels)
    return running_sums(samples) if page.predicted else samples


def _unpacked(data: bytes, page: Page, segments: tuple[tuple[int, int], ...], height: int) -> np.ndarray:
    """Segments below each other: uint8 (height, bytes of a row), the caller's to write to. The last one may be short.

    Raises: PictureError where one does not decode.
    """
    out = np.empty((height, page.row_bytes), np.uint8)
    high = page.part[1]
    if page.compression == LZW:
        step = max(1, AT_ONCE // max(1, high * page.row_bytes))
        for at in range(0, len(segments), step):
            rows = out[at * high : (at + step) * high]
            _by_libtiff(data, page, segments[at : at + step], rows)
        return out
    for at, (offset, size) in enumerate(segments):
        rows = out[at * high : (at + 1) * high].reshape(-1)
        if page.compression == NONE:
            rows[:] = np.frombuffer(data, np.uint8, len(rows), offset)
        else:
            unpacked = _inflated if page.compression != PACKBITS else _unpacked_bits
            rows[:] = unpacked(data[offset : offset + size], len(rows), high * page.row_bytes)
    return out


def _inflated(packed: bytes, needed: int, most: int) -> np.ndarray:
    """`needed` bytes; a last strip may hold as many as the others, `most`."""
    stream = isal_zlib.decompressobj()
    try:
        plain = stream.decompress(packed, most + 1)
    except (zlib.error, isal_zlib.IsalError) as error:  # type: ignore[misc]  # its stub does not say that it is an error
        raise PictureError(f"the pixels do not decode ({error})") from None
    if len(plain) not in (needed, most) or not stream.eof:
        raise PictureError("the pixels do not decode (a strip or tile of another size)")
    return np.frombuffer(plain, np.uint8, needed)


def _unpacked_bits(packed: bytes, needed: int, most: int) -> np.ndarray:
    """As `_inflated`, of PackBits. libtiff passes over codes that lead out of a strip.

    Source: TIFF 6.0, section 9.
    """
    out, at = bytearray(), 0
    while at < len(packed) and len(out) < most:
        code = packed[at]
        if code < 128:
            out += packed[at + 1 : at + 2 + code]
            at += 2 + code
        elif code > 128:
            out += packed[at + 1 : at + 2] * (257 - code)
            at += 2
        else:
            at += 1
    if at > len(packed) or at < len(packed) - 1 or len(out) not in (needed, most):  # one byte may fill it up
        raise PictureError("the pixels do not decode (a strip or tile of another size)")
    return np.frombuffer(out, np.uint8, needed)


def _by_libtiff(data: bytes, page: Page, segments: tuple[tuple[int, int], ...], out: np.ndarray) -> None:
    """Unpacks segments into `out`, uint8 (rows, bytes of a row).

    They go to libtiff as the strips of a gray picture of 8 bits, so that it sees nothing but packed bytes: what the
    samples are is for us to tell, who test it. OpenCV's own reader goes on behind an error, with gray.
    """
    from PIL import Image  # only these files need it
    from PIL.TiffImagePlugin import TiffImageFile

    Image.MAX_IMAGE_PIXELS = None  # a size was held against preprocess.max_megapixels already
    height, width = out.shape
    packed = [data[offset : offset + size] for offset, size in segments]
    begin = 8
    places = []
    for part in packed:
        places.append(begin)
        begin += len(part)
    begin += begin % 2
    count = len(segments)
    lists = begin + 2 + 10 * 12 + 4
    one = count == 1
    tags = [
        *((WIDTH, 4, 1, width), (HEIGHT, 4, 1, height), (BITS, 3, 1, 8), (COMPRESSION, 3, 1, page.compression)),
        *((PHOTOMETRIC, 3, 1, BLACK_IS_ZERO), (STRIPS, 4, count, places[0] if one else lists), (CHANNELS, 3, 1, 1)),
        *((ROWS_PER_STRIP, 4, 1, page.part[1]), (PREDICTOR, 3, 1, 1)),
        (STRIP_BYTES, 4, count, len(packed[0]) if one else lists + 4 * count),
    ]
    numbers = [] if one else [*places, *map(len, packed)]
    body = b"".join(packed)
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags)) + bytes(4)
    file = b"".join((b"II*\0", struct.pack("<I", begin), body.ljust(begin - 8, b"\0"), directory)) + struct.pack(
        f"<{len(numbers)}I", *numbers
    )
    try:
        image = TiffImageFile(io.BytesIO(file))
        image.load()
        step = max(1, AT_ONCE // width)
        for at in range(0, height, step):
            end = min(at + step, height)
            out[at:end] = np.asarray(image.crop((0, at, width, end)))
    except (OSError, ValueError, SyntaxError) as error:
        raise PictureError(f"the pixels do not decode (libtiff: {error})") from None


def _from_jpeg(data: bytes, page: Page) -> np.ndarray:
    """JPEG strips or tiles: uint8 (height, width, channels)."""
    tables = b""
    if JPEG_TABLES in page.directory.entries:
        _, size, at = page.directory.entries[JPEG_TABLES]
        tables = data[at : at + size].removeprefix(b"\xff\xd8").removesuffix(b"\xff\xd9")
    # Says whether the three channels are YCbCr or RGB; libjpeg would guess.
    adobe = struct.pack(">HH5sHHHB", 0xFFEE, 14, b"Adobe", 100, 0, 0, int(page.photometric == YCBCR))
    across, down = page.grid
    wide, high = page.part
    color = Color.GRAY if page.together == 1 else Color.RGB
    planes = page.channels if page.planar else 1
    out = np.empty((page.height, page.width, page.channels), np.uint8)
    for at, (offset, size) in enumerate(page.segments):
        plane, place = divmod(at, across * down)
        row, column = divmod(place, across)
        stream = b"\xff\xd8" + adobe + tables + data[offset : offset + size].removeprefix(b"\xff\xd8")
        frame = jpeg.check(stream)
        pixels = out[row * high : (row + 1) * high, column * wide : (column + 1) * wide]
        if frame.width not in (wide, pixels.shape[1]) or frame.height not in (high, pixels.shape[0]):
            raise PictureError(f"the TIFF is damaged (its strip or tile {at} has another size)")
        part = jpeg.decode_stream(stream, color).reshape(frame.height, frame.width, -1)
        pixels[..., plane if planes > 1 else slice(None)] = part[: pixels.shape[0], : pixels.shape[1]].reshape(
            *pixels.shape[:2], -1
        )[..., 0 if planes > 1 else slice(None)]
    return out
