"""Hostile TIFFs. The oracles are pixels that are known, and tifffile."""

import io
import struct

import numpy as np
import tifffile
from photos import DAMAGED, EITHER, WHOLE, Photo, Photos, some_pixels, some_sides, turned
from PIL import Image

LIES = (0, 1, 2, 3, 5, 7, 8, 12, 16, 32, 64, 255, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 32773, 30000)


def build(rng: np.random.Generator) -> tuple[str, list[tuple[int, int, list[int]]], bytes, str, np.ndarray]:
    """(name, tags, body, order, pixels) of a TIFF of any kind, uncompressed, deflated, or by PackBits; see `join`."""
    height, width = some_sides(rng)
    channels = int(rng.choice([1, 1, 3, 4]))
    bits = int(rng.choice([1, 2, 4, 8, 8, 10, 12, 14, 16])) if channels == 1 else int(rng.choice([8, 16]))
    order = str(rng.choice(["<", ">"]))
    samples = some_pixels(rng, height, width, channels, 2**bits - 1).reshape(height, width, channels)
    white = channels == 1 and bool(rng.random() < 0.2)
    compression = int(rng.choice([1, 8, 32946, 32773]))
    planar = channels > 1 and bool(rng.random() < 0.3)
    predicted = compression in (8, 32946) and bits in (8, 16) and bool(rng.random() < 0.4)
    tile = (int(rng.choice([16, 32])), int(rng.choice([16, 48]))) if rng.random() < 0.3 else None
    high = int(rng.integers(1, height + 1)) if rng.random() < 0.7 else height
    parts = []
    for plane in np.moveaxis(samples, -1, 0)[..., None] if planar else [samples]:
        if tile:
            full = np.pad(plane, ((0, -height % tile[1]), (0, -width % tile[0]), (0, 0)))
            parts += [
                full[y : y + tile[1], x : x + tile[0]]
                for y in range(0, full.shape[0], tile[1])
                for x in range(0, full.shape[1], tile[0])
            ]
        else:
            parts += [plane[y : y + high] for y in range(0, height, high)]
    stored = [pack(part, bits, order, predicted, compression) for part in parts]
    body, offsets, at = b"", [], 8
    for one in stored:
        offsets.append(at)
        body += one
        at += len(one)
    photometric = 2 if channels > 1 else (0 if white else 1)
    tags = [(256, 4, [width]), (257, 4, [height]), (258, 3, [bits] * channels), (259, 3, [compression])]
    tags += [(262, 3, [photometric]), (277, 3, [channels]), (284, 3, [2 if planar else 1])]
    tags += [(317, 3, [2])] if predicted else []
    tags += [(338, 3, [2])] if channels == 4 else []
    sizes = [len(one) for one in stored]
    if tile:
        tags += [(322, 4, [tile[0]]), (323, 4, [tile[1]]), (324, 4, offsets), (325, 4, sizes)]
    else:
        tags += [(273, 4, offsets), (278, 4, [high]), (279, 4, sizes)]
    truth = samples[..., :3] if channels > 1 else samples[..., 0]
    if bits < 8:
        truth = (truth.astype(int) * 255 // (2**bits - 1)).astype(np.uint8)
    if white:
        truth = (2 ** max(bits, 8) - 1 - truth.astype(int)).astype(truth.dtype)
    name = f"{bits} bits, {channels} channels, compression {compression}, {width}x{height}, tile {tile}"
    return name, sorted(tags), body, order, truth


def pack(part: np.ndarray, bits: int, order: str, predicted: bool, compression: int) -> bytes:
    """Samples (height, width, channels) as a strip or tile holds them."""
    import zlib

    height = len(part)
    if predicted:
        part = np.diff(part, axis=1, prepend=part.dtype.type(0))
    if bits == 16:
        rows = part.astype(f"{order}u2").view(np.uint8).reshape(height, -1)
    elif bits == 8:
        rows = part.reshape(height, -1)
    else:
        places = part.reshape(height, -1, 1) >> np.arange(bits - 1, -1, -1) & 1
        rows = np.packbits(places.reshape(height, -1).astype(np.uint8), axis=1)
    if compression == 32773:
        return runs(rows)
    return zlib.compress(rows.tobytes()) if compression != 1 else rows.tobytes()


def runs(rows: np.ndarray) -> bytes:
    """PackBits, row by row."""
    out = bytearray()
    for row in rows.tolist():
        at = 0
        while at < len(row):
            same = 1
            while at + same < len(row) and same < 128 and row[at + same] == row[at]:
                same += 1
            if same > 1:
                out += bytes([257 - same, row[at]])
                at += same
            else:
                end = at + 1
                while end < len(row) and end - at < 128 and row[end] != row[end - 1]:
                    end += 1
                out += bytes([end - at - 1, *row[at:end]])
                at = end
    return bytes(out)


def join(
    tags: list[tuple[int, int, list[int]]], body: bytes, order: str, following: int = 0, big: bool = False
) -> bytes:
    """A TIFF or BigTIFF of one directory, which stands behind the body. Strips lie from byte 8 (16) on."""
    long, size = ("Q", 20) if big else ("I", 12)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}H", 43 if big else 42)
    head += struct.pack(f"{order}HHQ", 8, 0, 16 + len(body)) if big else struct.pack(f"{order}I", 8 + len(body))
    after = len(head) + len(body) + (8 if big else 2) + size * len(tags) + struct.calcsize(long)
    entries, values = b"", b""
    for tag, kind, numbers in tags:
        shift = 8 if big and tag in (273, 324) else 0
        code = {1: "B", 3: "H", 4: "I"}[kind]
        held = struct.pack(
            f"{order}{len(numbers)}{code}", *((number + shift) % 2 ** (8 * struct.calcsize(code)) for number in numbers)
        )
        room = struct.calcsize(long)
        place = held.ljust(room, b"\0") if len(held) <= room else struct.pack(order + long, after + len(values))
        values += held if len(held) > room else b""
        entries += struct.pack(f"{order}HH{long}", tag, kind, len(numbers)) + place
    counter = struct.pack(f"{order}{'Q' if big else 'H'}", len(tags))
    return head + body + counter + entries + struct.pack(order + long, following) + values


def by_pillow(rng: np.random.Generator) -> Photo:
    mode = str(rng.choice(["1", "L", "P", "RGB", "RGBA", "I;16"]))
    height, width = some_sides(rng)
    if mode == "I;16":
        pixels = some_pixels(rng, height, width, 1, 65535)
        image = Image.fromarray(pixels)
    else:
        image = Image.fromarray(some_pixels(rng, height, width, 4 if mode == "RGBA" else 3)).convert(mode)
        pixels = np.asarray(image.convert("L") if mode in ("1", "L") else image.convert("RGB"))
    compression = str(rng.choice(["tiff_lzw", "tiff_lzw", "packbits", "raw", "tiff_adobe_deflate"]))
    data = io.BytesIO()
    options = {"strip_size": int(rng.integers(1, 5000))} if rng.random() < 0.5 else {}
    image.save(data, "TIFF", compression=compression, **options)
    return Photo(f"Pillow's {mode} {compression} {width}x{height}", data.getvalue(), WHOLE, pixels)


def whole(rng: np.random.Generator) -> Photo:
    if rng.random() < 0.4:
        return by_pillow(rng)
    name, tags, body, order, truth = build(rng)
    return Photo(name, join(tags, body, order, big=bool(rng.random() < 0.2)), WHOLE, truth)


def forged(rng: np.random.Generator) -> Photo:
    """Tags that lie, are missing, or stand there twice; loops of directories; bombs; kinds that are refused."""
    name, tags, body, order, _ = build(rng)
    following = int(rng.choice([0, 8, 8 + len(body), 2**31]))  # of the second directory: a loop, or outside
    for _ in range(int(rng.integers(1, 3))):
        at = int(rng.integers(len(tags)))
        tag, kind, numbers = tags[at]
        match rng.integers(5):
            case 0 | 1:
                tags[at] = (tag, 4, [int(rng.choice(LIES))] * len(numbers))
            case 2:
                del tags[at]
            case 3:
                tags[at] = (tag, kind, numbers[: len(numbers) // 2 + 1] * int(rng.integers(1, 3)))
            case _:
                tags.append(
                    (int(rng.choice([266, 274, 317, 320, 339, 338, 347, 322, 323])), 3, [int(rng.choice(LIES)) % 65536])
                )
        if not tags:
            break
    return Photo(f"forged {name}", join(tags, body, order, following, bool(rng.random() < 0.2)), EITHER)


def oracle(data: bytes, color: str) -> np.ndarray:
    """The first page, by other code than ours. tifffile stumbles over tags that are of no matter, and in LZW over what
    follows the last pixel.
    """
    try:
        return by_tifffile(data)
    except RuntimeError as error:
        if "lzw" not in str(error):
            raise
        return by_pillow_alone(data)
    except TypeError:
        return by_tifffile(bare(data))


def bare(data: bytes) -> bytes:
    """A TIFF whose tags that say nothing of its pixels are emptied."""
    order, out = "<" if data[:2] == b"II" else ">", bytearray(data)
    (at,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, at)
    for place in range(at + 2, at + 2 + 12 * count, 12):
        (tag,) = struct.unpack_from(f"{order}H", data, place)
        if tag not in (*range(256, 263), 266, *range(273, 285), 317, *range(320, 326), 338, 339):
            struct.pack_into(f"{order}HHII", out, place, 65000 + (place - at) // 12, 3, 1, 0)
    return bytes(out)


def by_tifffile(data: bytes) -> np.ndarray:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        tags = {tag.code: tag.value for tag in page.tags}
        bits, photometric = page.bitspersample, int(page.photometric)
        pixels = page.asarray()
        pixels = pixels.astype(np.uint8) if pixels.dtype == bool else pixels
        if int(page.planarconfig) == 2 and page.samplesperpixel > 1:
            pixels = np.moveaxis(pixels, 0, -1)
        if photometric == 3:
            table = np.array(page.colormap)
            pixels = (table >> 8 if table.max() > 255 else table).astype(np.uint8).T[pixels]
        elif photometric in (2, 6):
            pixels = pixels[..., :3]
        else:
            pixels = pixels.reshape(page.imagelength, page.imagewidth, -1)[..., 0]
        if photometric != 3:
            if bits < 8:
                pixels = (pixels.astype(int) * 255 // (2**bits - 1)).astype(np.uint8)
            if photometric == 0:
                pixels = (2 ** max(bits, 8) - 1 - pixels.astype(int)).astype(pixels.dtype)
        return turned(pixels, tags.get(274, 1))


def by_pillow_alone(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        if image.mode.startswith("I;16"):
            return np.asarray(image).astype(np.uint16)
        return np.asarray(image.convert("L") if image.mode in ("1", "L", "LA") else image.convert("RGB"))


class Kind(Photos):
    whole, forged, oracle = staticmethod(whole), staticmethod(forged), staticmethod(oracle)


__all__ = ["DAMAGED", "Kind"]
