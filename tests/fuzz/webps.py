"""Hostile WebPs. The oracle is cv2, whose libwebp is another build than Pillow's."""

import io
import struct
import warnings

import cv2
import numpy as np
from photos import DAMAGED, EITHER, WHOLE, Photo, Photos, some_pixels, some_sides, turned
from PIL import Image


def whole(rng: np.random.Generator) -> Photo:
    height, width = some_sides(rng)
    channels = int(rng.choice([3, 4]))
    pixels = some_pixels(rng, height, width, channels)
    lossless = bool(rng.random() < 0.5)
    options = {"lossless": lossless, "quality": int(rng.integers(0, 101)), "method": int(rng.integers(0, 3))}
    options["exact"] = True
    orientation = 1
    if rng.random() < 0.3:
        exif = Image.Exif()
        exif[274] = orientation = int(rng.integers(0, 10))
        options["exif"] = exif
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "WEBP", **options)
    known = pixels[..., :3] if lossless and not 1 < orientation < 9 else None
    return Photo(f"{channels} channels {width}x{height} {options}", data.getvalue(), WHOLE, known)


def oracle(data: bytes, color: str) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ValueError("cv2 decodes nothing")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            with Image.open(io.BytesIO(data)) as image:
                return turned(pixels, image.getexif().get(274, 1))
        except (UserWarning, SyntaxError):  # Exif that is damaged
            return pixels


def forged(rng: np.random.Generator) -> Photo:
    """Chunks changed, doubled, dropped or made up; sizes that lie; animations."""
    photo = whole(rng)
    data = photo.data
    match rng.integers(5):
        case 0:
            moving = io.BytesIO()
            frames = [Image.fromarray(some_pixels(rng, 9, 12, 3)) for _ in range(3)]
            frames[0].save(moving, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
            return Photo("an animation", moving.getvalue(), DAMAGED)
        case 1:
            size = int(rng.integers(0, 2 * len(data)))
            return Photo(f"declares {size} bytes", data[:4] + struct.pack("<I", size) + data[8:], EITHER)
        case 2:
            kind = [b"VP8X", b"ALPH", b"EXIF", b"XMP ", b"ICCP", b"ANIM", b"ANMF", b"VP8 ", b"VP8L", b"????"][
                rng.integers(10)
            ]
            held = rng.bytes(int(rng.integers(0, 30)))
            more = kind + struct.pack("<I", len(held)) + held + bytes(len(held) % 2)
            at = 12 if rng.random() < 0.5 else len(data)
            changed = data[:at] + more + data[at:]
            return Photo(f"a chunk {kind!r}", changed[:4] + struct.pack("<I", len(changed) - 8) + changed[8:], EITHER)
        case 3:
            size = (
                rng.integers(0, 2**32).tobytes()[:4] if rng.random() < 0.5 else struct.pack("<I", int(rng.integers(99)))
            )
            return Photo("a chunk of another size", data[:16] + size + data[20:], EITHER)
        case _:
            at = int(rng.integers(20, min(40, len(data))))
            return Photo(f"byte {at} another", data[:at] + rng.bytes(1) + data[at + 1 :], EITHER)


class Kind(Photos):
    whole, forged, oracle = staticmethod(whole), staticmethod(forged), staticmethod(oracle)
    tolerance = 2
