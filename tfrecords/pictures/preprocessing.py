"""From decoded pixels to the pixels of a record: equalize, pad, resize. Ingest and the served model share it.

Pixels are uint8: (height, width) of gray, (height, width, 3) of RGB.
"""

from collections.abc import Callable

import numpy as np

from tfrecords.pictures.formats import decode
from tfrecords.pictures.opencv import cv2
from tfrecords.settings import Equalization, Fit, PreprocessSettings

VERSION = 2  # of the pixels that `prepare` makes; raise it when they change, so that datasets are made anew


def equalize(pixels: np.ndarray, settings: PreprocessSettings) -> np.ndarray:
    """Evens out contrast, of RGB that of the lightness alone: pixels in, the same shape out.

    `clahe` is contrast-limited adaptive histogram equalization (Zuiderveld, Graphics Gems IV, 1994).
    """
    match settings.equalize:
        case Equalization.CLAHE:
            grid = (settings.clahe_tile_grid, settings.clahe_tile_grid)
            return _in_lightness(pixels, cv2.createCLAHE(settings.clahe_clip_limit, grid).apply)
        case Equalization.HISTOGRAM:
            return _in_lightness(pixels, cv2.equalizeHist)
        case Equalization.NONE:
            return pixels


def _in_lightness(pixels: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Gray pixels changed; of RGB the lightness L* of CIELAB, so that hue stays.

    In 8 bits, which cv2 computes in whole numbers, the same on every processor. Into LAB and back moves usual colors by
    half a level on average.
    """
    if pixels.ndim == 2:
        return change(pixels)
    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)
    lab[..., 0] = change(lab[..., 0])
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def resize(pixels: np.ndarray, size_px: int) -> np.ndarray:
    """Pixels to a square of that size: area average along a side that shrinks, bilinear along one that grows.

    Bilinear along a shrinking side would step over thin defects.
    """
    height, width = (min(side, size_px) for side in pixels.shape[:2])
    shrunk = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.resize(shrunk, (size_px, size_px), interpolation=cv2.INTER_LINEAR)


def pad(pixels: np.ndarray) -> np.ndarray:
    """Pixels to a square of the longer side, centred, the mirrored picture around it.

    Mirrored, since an even border would be an edge, which networks look at before all else.
    """
    height, width = pixels.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return cv2.copyMakeBorder(pixels, top, side - height - top, left, side - width - left, cv2.BORDER_REFLECT_101)


def finish(pixels: np.ndarray, settings: PreprocessSettings) -> np.ndarray:
    """A decoded picture to the pixels of a record: (size, size), or (size, size, 3)."""
    even = equalize(pixels, settings)
    return resize(pad(even) if settings.fit == Fit.PAD else even, settings.image_size_px)


def prepare(data: bytes, settings: PreprocessSettings) -> np.ndarray:
    """A picture file's bytes to the pixels of a record: uint8 (size, size), or (size, size, 3), 0..255.

    Raises:
        PictureError: see `decode`.
    """
    return finish(decode(data, settings), settings)
