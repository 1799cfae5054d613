"""Hostile PNGs: of every kind, whole or spoilt, and other files that only bear the name."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from oracle import DAMAGED, EITHER, WHOLE, accepted, rejected, require

from pipeline.job.shard import measure
from tfrecords.pictures.errors import PictureError
from tfrecords.pictures.formats import decode
from tfrecords.pictures.preprocessing import prepare
from tfrecords.settings import PreprocessSettings

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MEGAPIXELS = 0.5  # small, so that bombs are cheap to hold back and to let through
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by color type
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
SIZES = ((1, 1), (10_000, 1), (1, 3_000), (512, 300))  # width, height


@dataclass(frozen=True)
class Case:
    """A file named .png. expected: WHOLE, DAMAGED or EITHER; gray: its pixels, where known without decoding."""

    name: str
    data: bytes
    expected: str
    gray: np.ndarray | None = None


# --- Building PNGs ------------------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def join(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """(kind, data) pairs as a file whose every checksum holds."""
    return SIGNATURE + b"".join(chunk(*pair) for pair in chunks)


def header(width: int, height: int, bits: int = 8, color: int = 0, interlace: int = 0) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, interlace)


def scanlines(samples: np.ndarray, bits: int, subtracted: bool = False) -> bytes:
    """Samples (height, width, channels) as PNG's rows, each after its filter byte: none, or Sub, for bytes of gray."""
    height = samples.shape[0]
    flat = samples.reshape(height, -1)
    if bits == 16:
        packed = flat.astype(">u2").view(np.uint8).reshape(height, -1)
    elif bits == 8:
        packed = flat.astype(np.uint8)
    else:
        places = np.arange(bits - 1, -1, -1)
        packed = np.packbits((flat[..., None] >> places & 1).reshape(height, -1).astype(np.uint8), axis=1)
    if subtracted:
        packed = np.diff(packed, axis=1, prepend=np.uint8(0))
    return np.pad(packed, ((0, 0), (1, 0)), constant_values=int(subtracted)).tobytes()


def pixel_data(samples: np.ndarray, bits: int, interlaced: bool) -> bytes:
    """The uncompressed stream, in one pass or in the seven of Adam7."""
    if not interlaced:
        return scanlines(samples, bits)
    passes = [samples[y::down, x::across] for y, x, down, across in ADAM7]
    return b"".join(scanlines(part, bits) for part in passes if part.size)


def as_gray(samples: np.ndarray, bits: int) -> np.ndarray:
    """Gray samples (height, width, 1) as uint8 (height, width): stretched to 0..255, or the high byte of 16 bits."""
    plane = samples[..., 0]
    return (plane >> 8 if bits == 16 else plane * (255 // (2**bits - 1))).astype(np.uint8)


def make_png(rng: np.random.Generator, color: int, bits: int, interlaced: bool, width: int, height: int):
    """(chunks, gray pixels or None) of a whole PNG with random samples."""
    top = 2**bits
    chunks = [header(width, height, bits, color, int(interlaced))]
    if color == 3:
        top = int(rng.integers(1, top + 1))
        chunks.append((b"PLTE", rng.bytes(3 * top)))
        if rng.random() < 0.3:
            chunks.append((b"tRNS", rng.bytes(top)))
    if rng.random() < 0.2:
        chunks.append((b"tEXt", b"Comment\0" + rng.bytes(9).hex().encode()))
    samples = rng.integers(0, top, (height, width, CHANNELS[color]))
    as_cv2_writes = color == 0 and bits == 8 and not interlaced and rng.random() < 0.8
    rows = scanlines(samples, bits, subtracted=True) if as_cv2_writes else pixel_data(samples, bits, interlaced)
    stream = zlib.compress(rows, int(rng.integers(0, 10)))
    cuts = sorted(rng.integers(0, len(stream), rng.integers(0, 3)).tolist())
    parts = zip([0, *cuts], [*cuts, len(stream)], strict=True)
    chunks += [(b"IDAT", stream[start:end]) for start, end in parts]
    return [*chunks, (b"IEND", b"")], as_gray(samples, bits) if color == 0 else None


def any_png(rng: np.random.Generator):
    """(name, chunks, gray pixels or None): any color type, depth, interlacing and size."""
    color = int(rng.choice(list(DEPTHS)))
    bits, interlaced = int(rng.choice(DEPTHS[color])), bool(rng.random() < 0.3)
    odd = rng.random() < 0.05
    width, height = SIZES[rng.integers(len(SIZES))] if odd else rng.integers(1, 48, 2).tolist()
    name = f"color type {color}, {bits} bit, {'interlaced, ' if interlaced else ''}{width}x{height}"
    return name, *make_png(rng, color, bits, interlaced, width, height)


def animated(rng: np.random.Generator):
    """(name, chunks, gray pixels): an APNG, whose still picture is its first frame or stands beside the frames."""
    chunks, gray = make_png(rng, 0, 8, False, 20, 12)
    still = [pair for pair in chunks if pair[0] == b"IDAT"]
    frames, order, moving = int(rng.integers(1, 4)), 0, []
    shown_first = bool(rng.random() < 0.5)
    for frame in range(frames):
        moving.append((b"fcTL", struct.pack(">IIIIIHHBB", order, 20, 12, 0, 0, 1, 10, 0, 0)))
        order += 1
        if frame == 0 and shown_first:
            moving += still
            continue
        pixels = scanlines(rng.integers(0, 256, (12, 20, 1)), 8)
        moving.append((b"fdAT", struct.pack(">I", order) + zlib.compress(pixels)))
        order += 1
    before = [(b"acTL", struct.pack(">II", frames, 0)), *([] if shown_first else still)]
    return f"APNG of {frames} frames", [chunks[0], *before, *moving, chunks[-1]], gray


# --- Spoiling them ------------------------------------------------------------------------------------------


def whole(rng: np.random.Generator) -> Case:
    name, chunks, gray = animated(rng) if rng.random() < 0.15 else any_png(rng)
    return Case(name, join(chunks), WHOLE, gray)


def by_cv2(rng: np.random.Generator) -> Case:
    shape = (*rng.integers(1, 64, 2).tolist(), *([], [3], [4])[rng.integers(3)])
    kind = (np.uint8, np.uint16)[rng.integers(2)]
    pixels = rng.integers(0, np.iinfo(kind).max, shape, kind, endpoint=True)
    return Case(f"cv2's {shape} {kind.__name__}", cv2.imencode(".png", pixels)[1].tobytes(), WHOLE)


def cut(rng: np.random.Generator) -> Case:
    case = whole(rng)
    at = int(rng.integers(0, len(case.data)))
    return Case(f"cut at byte {at}", case.data[:at], DAMAGED)


def flipped(rng: np.random.Generator) -> Case:
    case = whole(rng)
    data, bit = bytearray(case.data), int(rng.integers(0, 8 * len(case.data)))
    data[bit // 8] ^= 1 << bit % 8
    return Case(f"bit {bit} flipped", bytes(data), EITHER if beside(case.data) else DAMAGED)


def zeroed(rng: np.random.Generator) -> Case:
    case = whole(rng)
    start, end = sorted(rng.integers(0, len(case.data) + 1, 2).tolist())
    data = case.data[:start] + bytes(end - start) + case.data[end:]
    spoilt = EITHER if beside(case.data) else DAMAGED
    return Case(f"bytes {start} to {end} zero", data, spoilt if data != case.data else WHOLE)


def beside(data: bytes) -> bool:
    """Whether a file has chunks without which its pixels are whole."""
    return any(kind in data for kind in (b"tEXt", b"tRNS", b"acTL"))


def followed(rng: np.random.Generator) -> Case:
    case = whole(rng)
    return Case("bytes after the end mark", case.data + rng.bytes(int(rng.integers(1, 99))), WHOLE, case.gray)


def other_file(rng: np.random.Generator) -> Case:
    pixels = rng.integers(0, 256, (16, 16), np.uint8)
    texts = (b"", b"\0" * 64, b"ID,Label\r\na.png,0\r\n", b"<html>404</html>", b"version https://git-lfs.github.com\n")
    files = [
        *texts,
        rng.bytes(int(rng.integers(1, 200))),
        SIGNATURE,
        SIGNATURE + rng.bytes(60),
        b"PK\x03\x04" + b"x" * 40,
    ]
    files += [b"P5 16 16 255\n" + pixels.tobytes()]
    return Case("another file", files[rng.integers(len(files))], DAMAGED)


def bomb(rng: np.random.Generator) -> Case:
    width, height = (int(2 ** rng.uniform(0, 32)) for _ in range(2))
    name, chunks, _ = any_png(rng)
    chunks[0] = (b"IHDR", struct.pack(">II", width, height) + chunks[0][1][8:])
    too_large = width * height > MEGAPIXELS * 1e6
    return Case(f"declares {width}x{height}: {name}", join(chunks), DAMAGED if too_large else EITHER)


def forged(rng: np.random.Generator) -> Case:
    """Chunks changed, moved, doubled, dropped or made up, with checksums that hold."""
    name, chunks, _ = animated(rng) if rng.random() < 0.5 else any_png(rng)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(chunks)))
        kind, data = chunks[at]
        match rng.integers(7):
            case 0 if data:
                spoilt = bytearray(data)
                spoilt[rng.integers(len(data))] ^= 1 << rng.integers(8)
                chunks[at] = (kind, bytes(spoilt))
            case 1:
                chunks[at] = (kind, data[: rng.integers(len(data) + 1)])
            case 2:
                chunks.insert(int(rng.integers(len(chunks) + 1)), chunks[at])
            case 3 if len(chunks) > 1:
                del chunks[at]
            case 4:
                chunks.insert(at, chunks.pop(int(rng.integers(len(chunks)))))
            case 5:
                known = (
                    b"acTL",
                    b"fcTL",
                    b"fdAT",
                    b"PLTE",
                    b"tRNS",
                    b"bKGD",
                    b"eXIf",
                    b"iCCP",
                    b"zTXt",
                    b"pHYs",
                    b"IHDR",
                )
                made_up = rng.bytes(4) if rng.random() < 0.3 else known[rng.integers(len(known))]
                chunks.insert(at, (made_up, rng.bytes(int(rng.integers(0, 40)))))
            case _:
                chunks[at] = (kind, data + rng.bytes(int(rng.integers(1, 9))))
    return Case(f"forged {name}", join(chunks), EITHER)


MAKERS: tuple[Callable[[np.random.Generator], Case], ...] = (
    *(whole, by_cv2, cut, cut, flipped, flipped, zeroed, followed, other_file, bomb, forged, forged),
)


def make(rng: np.random.Generator) -> Case:
    """Any case; all its chances come from `rng`."""
    return MAKERS[rng.integers(len(MAKERS))](rng)


# --- What must come of them ---------------------------------------------------------------------------------


def still(data: bytes) -> bytes:
    """A PNG without an animation's chunks, which cv2 had better not see: they can end the process. Damaged ones that
    hold no pixels are left out too.
    """
    kept, at = [data[:8]], 8
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind, checksum = data[at + 4 : at + 8], zlib.crc32(data[at + 4 : end - 4]).to_bytes(4, "big")
        spoilt = kind[:1].islower() and checksum != data[end - 4 : end]
        kept += [] if kind in (b"acTL", b"fcTL", b"fdAT") or spoilt else [data[at:end]]
        at = end
    return b"".join(kept)


def reference(data: bytes, settings: PreprocessSettings) -> np.ndarray | None:
    """The record's pixels by cv2 alone, without our own code; None where cv2 decodes nothing.

    Of an animation the still picture counts; any other file goes to cv2 as it is.
    """
    pixels = cv2.imdecode(np.frombuffer(still(data), np.uint8), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        return None
    if settings.equalize == "clahe":
        tiles = (settings.clahe_tile_grid,) * 2
        pixels = cv2.createCLAHE(clipLimit=settings.clahe_clip_limit, tileGridSize=tiles).apply(pixels)
    if settings.equalize == "histogram":
        pixels = cv2.equalizeHist(pixels)
    size = settings.image_size_px
    height, width = pixels.shape
    if height > size:  # one side after the other: those that shrink first, by area
        pixels = cv2.resize(pixels, (min(width, size), size), interpolation=cv2.INTER_AREA)
    elif width > size:
        pixels = cv2.resize(pixels, (size, height), interpolation=cv2.INTER_AREA)
    return pixels if pixels.shape == (size, size) else cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)


def check(case: Case, settings: PreprocessSettings) -> str:
    """EQUAL or REJECTED. Raises Wrong, or whatever the code under test lets through."""
    try:
        record = prepare(case.data, settings)
    except PictureError as error:
        return rejected(case.expected, str(error))
    expected = reference(case.data, settings)
    require(expected is not None and np.array_equal(record, expected), f"not what cv2 decodes: {case.name}")
    pixels = decode(case.data, settings)
    require(pixels.size <= settings.max_megapixels * 1e6, f"decoded {pixels.shape}, above the limit: {case.name}")
    require(case.gray is None or np.array_equal(pixels, case.gray), f"not the samples that it holds: {case.name}")
    measure(pixels)
    return accepted(case.expected, case.name)


class Kind:
    """Pictures, one at a time, as a worker of ingest treats them."""

    def __init__(self, root: Path):
        pass

    def run(self, rng: np.random.Generator) -> str:
        case = make(rng)
        settings = PreprocessSettings(
            image_size_px=int(rng.choice([32, 57])),
            equalize=str(rng.choice(["clahe", "histogram", "none"])),
            clahe_tile_grid=int(rng.choice([1, 8, 64])),
            max_megapixels=MEGAPIXELS,
        )
        return check(case, settings)
