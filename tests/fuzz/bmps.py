"""Hostile BMPs. The oracle is Pillow, and pixels that are known."""

import io
import struct

import cv2
import numpy as np
from photos import DAMAGED, EITHER, WHOLE, Photo, Photos, some_pixels, some_sides
from PIL import Image

HEADERS = (12, 40, 52, 56, 64, 108, 124)


def build(rng: np.random.Generator) -> tuple[str, bytes, np.ndarray]:
    """(name, file, pixels) of a BMP of any kind."""
    height, width = some_sides(rng)
    depth = int(rng.choice([1, 4, 8, 16, 24, 32]))
    size = int(rng.choice(HEADERS))
    top_down = size > 12 and bool(rng.random() < 0.3)
    masks, palette, compression = b"", b"", 0
    if depth <= 8:
        run_length = depth > 1 and size in (40, 108) and not top_down and rng.random() < 0.4
        colors = 2**depth if size == 12 or rng.random() < 0.7 else int(rng.integers(1, 2**depth + 1))
        table = rng.integers(0, 256, (colors, 3), np.uint8)
        if rng.random() < 0.5:
            table = np.repeat(np.linspace(0, 255, colors).astype(np.uint8)[:, None], 3, 1)
        palette = (table if size == 12 else np.pad(table, ((0, 0), (0, 1)))).tobytes()
        indices = some_pixels(rng, height, width, 1, colors - 1)
        truth = table[indices][..., ::-1]
        if run_length:
            compression = {8: 1, 4: 2}[depth]
            body = runs(rng, indices, depth)
        else:
            body = packed(indices, depth)
    else:
        truth = some_pixels(rng, height, width, 3)
        if depth == 24:
            rows = truth[..., ::-1].reshape(height, -1)
        elif depth == 32:
            rows = np.dstack([truth[..., ::-1], rng.integers(0, 256, (height, width), np.uint8)]).reshape(height, -1)
        else:
            six = size >= 40 and rng.random() < 0.5
            kept = (5, 6, 5) if six else (5, 5, 5)
            parts = [truth[..., at].astype(int) * (2**bits - 1) // 255 for at, bits in enumerate(kept)]
            truth = np.dstack([part * 255 // (2**bits - 1) for part, bits in zip(parts, kept, strict=True)])
            truth = truth.astype(np.uint8)
            values = parts[0] << kept[1] + 5 | parts[1] << 5 | parts[2]
            rows = values.astype("<u2").view(np.uint8).reshape(height, -1)
            if six:
                compression, masks = 3, struct.pack("<III", 0xF800, 0x7E0, 0x1F)
        body = lines(rows)
    if compression in (1, 2):
        pass
    elif not top_down:
        body = b"".join(body[::-1])
    else:
        body = b"".join(body)
    return (
        f"{depth} bits, header {size}, compression {compression}, {width}x{height}",
        join(width, -height if top_down else height, depth, size, compression, masks, palette, body),
        truth,
    )


def lines(rows: np.ndarray) -> list[bytes]:
    """Rows of bytes, each filled up to whole fours."""
    return [row.tobytes() for row in np.pad(np.ascontiguousarray(rows), ((0, 0), (0, -rows.shape[1] % 4)))]


def packed(indices: np.ndarray, depth: int) -> list[bytes]:
    bits = indices[..., None] >> np.arange(depth - 1, -1, -1) & 1
    return lines(np.packbits(bits.reshape(len(indices), -1).astype(np.uint8), axis=1))


def runs(rng: np.random.Generator, indices: np.ndarray, depth: int) -> bytes:
    """Run-length codes of any kind for the pixels."""
    out = bytearray()
    for row in indices[::-1]:
        at = 0
        while at < len(row):
            same = 1
            while at + same < len(row) and same < 255 and row[at + same] == row[at]:
                same += 1
            if same < 3 and len(row) - at >= 3 and rng.random() < 0.7:
                some = row[at : at + int(rng.integers(3, min(255, len(row) - at) + 1))].tolist()
                held = (
                    bytes(some)
                    if depth == 8
                    else bytes(a << 4 | b for a, b in zip(some[::2], [*some[1::2], 0], strict=False))
                )
                out += bytes([0, len(some)]) + held + bytes(len(held) % 2)
                at += len(some)
            else:
                out += bytes([same, int(row[at]) * (1 if depth == 8 else 17)])
                at += same
        out += b"\0\0"
    return bytes(out[:-2]) + b"\0\1"


def join(width, height, depth, size, compression, masks, palette, body) -> bytes:
    if size == 12:
        header = struct.pack("<IHHHH", 12, width, height, 1, depth)
    else:
        used = len(palette) // 4 if palette else 0
        header = struct.pack("<IiiHHIIiiII", size, width, height, 1, depth, compression, len(body), 0, 0, used, 0)
        header += masks.ljust(max(0, size - 40), b"\0") if size > 40 else b""
    between = masks if masks and size == 40 else b""
    offset = 14 + len(header) + len(between) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + header + between + palette + body


def whole(rng: np.random.Generator) -> Photo:
    if rng.random() < 0.2:
        pixels = some_pixels(rng, *some_sides(rng), int(rng.choice([1, 3])))
        data = cv2.imencode(".bmp", pixels)[1].tobytes()
        return Photo("cv2's", data, WHOLE, pixels if pixels.ndim == 2 else pixels[..., ::-1])
    name, data, truth = build(rng)
    return Photo(name, data, WHOLE, truth)


def forged(rng: np.random.Generator) -> Photo:
    """Numbers of the header that lie."""
    name, data, _ = build(rng)
    at, size = [
        (2, 4),
        (10, 4),
        (14, 4),
        (18, 4),
        (22, 4),
        (26, 2),
        (28, 2),
        (30, 4),
        (34, 4),
        (46, 4),
        (54, 4),
        (58, 4),
    ][rng.integers(12)]
    value = int(rng.choice([0, 1, 2, 3, 4, 8, 16, 31, 64, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**20]))
    changed = data[:at] + (value % 2 ** (8 * size)).to_bytes(size, "little") + data[at + size :]
    return Photo(f"{name}, {value} at {at}", changed, EITHER)


def oracle(data: bytes, color: str) -> np.ndarray:
    """Pillow; cv2 for palettes and run-length codes, which Pillow reads in ways of its own; bit by bit for masks, of
    which Pillow does not know all.
    """
    size, depth = (
        int.from_bytes(data[14:18], "little"),
        int.from_bytes(data[24:26] if data[14] == 12 else data[28:30], "little"),
    )
    compression = int.from_bytes(data[30:34], "little") if size > 12 else 0
    if depth <= 8:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        if pixels is None:
            raise ValueError("cv2 decodes nothing")
        return pixels
    if compression == 3:
        return by_masks(data, depth)
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return np.asarray(image if image.mode == "L" else image.convert("RGB"))


def by_masks(data: bytes, depth: int) -> np.ndarray:
    """Pixel after pixel."""
    (offset,) = struct.unpack_from("<I", data, 10)
    width, height = struct.unpack_from("<ii", data, 18)
    masks, stride = struct.unpack_from("<III", data, 54), (width * depth + 31) // 32 * 4
    rows = []
    for row in range(abs(height)):
        values = struct.unpack_from(f"<{width}{'H' if depth == 16 else 'I'}", data, offset + row * stride)
        rows.append([[(value & mask) * 255 // mask for mask in masks] for value in values])
    return np.array(rows if height < 0 else rows[::-1], np.uint8)


class Kind(Photos):
    whole, forged, oracle = staticmethod(whole), staticmethod(forged), staticmethod(oracle)


__all__ = ["DAMAGED", "Kind"]
