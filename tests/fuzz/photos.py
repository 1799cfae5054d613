"""What the hostile files of all formats but PNG share: sizes, how they are spoilt, and what must come of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from oracle import DAMAGED, EITHER, WHOLE, accepted, peak_bytes, rejected, require, require_little_memory

from pipeline.job.shard import measure
from tfrecords.pictures.errors import PictureError
from tfrecords.pictures.formats import decode, samples
from tfrecords.pictures.preprocessing import finish
from tfrecords.settings import PreprocessSettings

MEGAPIXELS = 0.5  # small, so that bombs are cheap to hold back and to let through
Oracle = Callable[[bytes, str], np.ndarray]


@dataclass(frozen=True)
class Photo:
    """A picture file. expected: WHOLE, DAMAGED or EITHER; truth: its pixels, gray or RGB, where they are known."""

    name: str
    data: bytes
    expected: str
    truth: np.ndarray | None = None


def some_sides(rng: np.random.Generator) -> tuple[int, int]:
    """(height, width): mostly small, at times a line."""
    odd = rng.random()
    if odd < 0.03:
        return 1, int(rng.integers(1, 3000))
    if odd < 0.06:
        return int(rng.integers(1, 3000)), 1
    return int(rng.integers(1, 60)), int(rng.integers(1, 60))


def some_pixels(rng: np.random.Generator, height: int, width: int, channels: int, top: int = 255) -> np.ndarray:
    """Smooth, flat or noisy: (height, width), or (height, width, channels), uint8 or uint16."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    noise = rng.integers(0, top + 1, shape, np.uint16 if top > 255 else np.uint8)
    match rng.integers(3):
        case 0:
            return noise
        case 1:
            noise[: height // 2] = noise[0, 0]
            return noise
        case _:
            return cv2.blur(noise, (9, 9)).reshape(shape)


def spoil(rng: np.random.Generator, photo: Photo) -> Photo:
    """The same file cut, with flipped bits, zeros, other numbers in its header, parts moved; or as it was."""
    data, at = bytearray(photo.data), int(rng.integers(len(photo.data)))
    match rng.integers(10):
        case 0 | 1:
            return Photo(f"{photo.name}, cut at {at}", bytes(data[:at]), EITHER)
        case 2 | 3:
            for _ in range(int(rng.integers(1, 4))):
                at = int(rng.integers(len(data)))
                data[at] ^= 1 << rng.integers(8)
            return Photo(f"{photo.name}, bits flipped", bytes(data), EITHER)
        case 4 | 5:  # most numbers that decide anything stand at the begin or the end
            at = (
                min(int(rng.integers(200)), len(data) - 1) if rng.random() < 0.7 else max(0, len(data) - 200 + at % 200)
            )
            size = int(rng.choice([1, 2, 4]))
            value = int(rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 65535, 65536, 30000, int(rng.integers(2**32))]))
            data[at : at + size] = value.to_bytes(4, "little" if rng.random() < 0.7 else "big")[:size]
            return Photo(f"{photo.name}, {value} at {at}", bytes(data), EITHER)
        case 6:
            end = min(len(data), at + int(rng.integers(1, 64)))
            data[at:end] = bytes(end - at) if rng.random() < 0.5 else rng.bytes(end - at)
            return Photo(f"{photo.name}, bytes {at} to {end} others", bytes(data), EITHER)
        case 7:
            begin, end = sorted(rng.integers(0, len(data) + 1, 2).tolist())
            del data[begin:end]
            return Photo(f"{photo.name}, without {begin} to {end}", bytes(data), EITHER)
        case 8:
            begin, end = sorted(rng.integers(0, len(data) + 1, 2).tolist())
            data[at:at] = data[begin:end]
            return Photo(f"{photo.name}, {begin} to {end} twice", bytes(data), EITHER)
        case _:
            return photo


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """As the orientation tag asks, by slices alone."""
    if orientation in (5, 6, 7, 8):
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def in_gray(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)


def in_rgb(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 3 else np.dstack([pixels] * 3)


def check(photo: Photo, settings: PreprocessSettings, oracle: Oracle, tolerance: int) -> str:
    """EQUAL or REJECTED. Raises Wrong, or whatever the code under test lets through.

    oracle: (file, "gray" or "rgb") decodes by other code than ours, to gray or RGB; whatever it raises says that the
    file is damaged.
    """
    before = peak_bytes()
    try:
        found = samples(photo.data, settings)
    except PictureError as error:
        return rejected(photo.expected, str(error))
    finally:
        require_little_memory(before, photo.name)
    expected = photo.truth
    if expected is None:
        try:
            expected = oracle(photo.data, settings.color)
        except Exception as error:
            require(False, f"accepted, though the oracle says {error!r}: {photo.name}")
    wanted = in_gray(expected) if settings.color == "gray" else in_rgb(expected)
    same = found.shape == wanted.shape and found.dtype == wanted.dtype
    require(same, f"{found.dtype} {found.shape}, not {wanted.dtype} {wanted.shape}: {photo.name}")
    away = int(np.abs(found.astype(int) - wanted).max())
    require(away <= tolerance, f"{away} levels away: {photo.name}")
    require(found.size <= settings.max_megapixels * 1e6 * settings.channels, f"above the limit: {photo.name}")
    pixels = decode(photo.data, settings, checksums=False)
    require(pixels.dtype == np.uint8, f"{pixels.dtype}: {photo.name}")
    if settings.color == "gray":
        finish(pixels, settings)
        measure(pixels)
    return accepted(photo.expected, photo.name)


class Photos:
    """A kind of `fuzz.py`: whole(rng) makes a file, forged(rng) one whose header lies, oracle decodes it."""

    whole: Callable[[np.random.Generator], Photo]
    forged: Callable[[np.random.Generator], Photo]
    oracle: Oracle
    tolerance = 0

    def __init__(self, root: Path):
        pass

    @classmethod
    def make(cls, rng: np.random.Generator) -> Photo:
        """Any case; all its chances come from `rng`."""
        part = rng.random()
        if part < 0.25:
            return cls.whole(rng)
        return spoil(rng, cls.whole(rng)) if part < 0.8 else cls.forged(rng)

    def run(self, rng: np.random.Generator) -> str:
        photo = self.make(rng)
        settings = PreprocessSettings(
            image_size_px=32,
            color=str(rng.choice(["gray", "rgb"])),
            equalize=str(rng.choice(["clahe", "none"])),
            max_megapixels=MEGAPIXELS,
        )
        return check(photo, settings, type(self).oracle, self.tolerance)


__all__ = ["DAMAGED", "EITHER", "WHOLE", "Photo", "Photos", "in_gray", "some_pixels", "some_sides", "turned"]
