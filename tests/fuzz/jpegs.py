"""Hostile JPEGs. The oracle is Pillow, whose libjpeg is another build."""

import io
import struct
import warnings

import numpy as np
from photos import DAMAGED, EITHER, WHOLE, Photo, Photos, some_pixels, some_sides
from PIL import Image, ImageOps


def whole(rng: np.random.Generator) -> Photo:
    mode = str(rng.choice(["L", "RGB"]))
    height, width = some_sides(rng)
    pixels = some_pixels(rng, height, width, 1 if mode == "L" else 3)
    options = {"quality": int(rng.integers(1, 101)), "progressive": bool(rng.random() < 0.4)}
    options |= {"optimize": bool(rng.random() < 0.3)}
    if mode == "RGB":
        options["subsampling"] = int(rng.integers(3))
    if rng.random() < 0.2:
        options["restart_marker_blocks"] = int(rng.integers(1, 5))
    if rng.random() < 0.3:
        exif = Image.Exif()
        exif[274] = int(rng.integers(0, 10))
        options["exif"] = exif
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", **options)
    return Photo(f"{mode} {width}x{height} {options}", data.getvalue(), WHOLE)


def oracle(data: bytes, color: str) -> np.ndarray:
    """In gray the brightness that the file holds, without a way through RGB, which would cut it off."""
    with Image.open(io.BytesIO(data)) as image:
        if image.mode not in ("L", "RGB"):
            raise ValueError(image.mode)
        if color == "gray":
            image.draft("L", image.size)
        image.load()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                return np.asarray(ImageOps.exif_transpose(image))
            except (UserWarning, SyntaxError):  # Exif that is damaged
                return np.asarray(image)


def place_of(data: bytes, *kinds: int) -> int:
    """Where the first segment of one of these kinds begins."""
    at = 2
    while data[at + 1] not in kinds:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at


def forged(rng: np.random.Generator) -> Photo:
    """Markers changed, doubled, dropped or made up; sizes that lie."""
    photo = whole(rng)
    data = photo.data
    at = place_of(data, 0xC0, 0xC1, 0xC2)
    match rng.integers(6):
        case 0:
            width, height = (int(2 ** rng.uniform(0, 16)) for _ in range(2))
            size = struct.pack(">HH", height, width)
            expected = DAMAGED if width * height > 500_000 else EITHER
            return Photo(f"declares {width}x{height}", data[: at + 5] + size + data[at + 9 :], expected)
        case 1:
            (length,) = struct.unpack_from(">H", data, at + 2)
            frame = data[at : at + 2 + length]
            return Photo("a second frame", data[:at] + frame + data[at:], DAMAGED)
        case 2:
            kind, length = int(rng.integers(0xC0, 0xFF)), int(rng.integers(0, 70))
            more = bytes([0xFF, kind]) + struct.pack(">H", length) + rng.bytes(int(rng.integers(0, 70)))
            return Photo(f"a segment of {kind:#x}", data[:2] + more + data[2:], EITHER)
        case 3:
            scan = place_of(data, 0xDA)
            return Photo("many scans", data[:-2] + data[scan:-2] * int(rng.integers(1, 300)) + data[-2:], EITHER)
        case 4:
            bits, channels = int(rng.choice([8, 12, 16])), int(rng.integers(0, 6))
            changed = data[: at + 4] + bytes([bits]) + data[at + 5 : at + 9] + bytes([channels]) + data[at + 10 :]
            return Photo(f"{bits} bits, {channels} channels", changed, EITHER)
        case _:
            cmyk = io.BytesIO()
            Image.fromarray(some_pixels(rng, 9, 9, 4), "CMYK").save(cmyk, "JPEG")
            return Photo("CMYK", cmyk.getvalue(), DAMAGED)


class Kind(Photos):
    whole, forged, oracle = staticmethod(whole), staticmethod(forged), staticmethod(oracle)
    tolerance = 2
