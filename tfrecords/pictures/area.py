"""Averages by area, which make pictures smaller."""

from functools import cache
from math import gcd

import cv2
import numpy as np

PERIODS = (8, 16, 32)  # pixels; fewer are not worth it
ALONE = 1 << 18  # multiplications of a product of matrices that OpenBLAS starts no threads of its own for
AT_ONCE = 1 << 15  # pixels: as floats they stay in a core's cache, and malloc does not ask the system for them


def averaged(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """A smaller picture, each of its pixels the mean of the area that it covers: uint8, gray or RGB, in and out.

    It is cv2.resize by INTER_AREA, of many gray pictures in half of its time. A side of 512 px that becomes one of 224
    px repeats itself every 16 px, which become 7: weights are then multiples of 1/16, and sums of them in 32-bit floats
    are exact in any order, so that products of matrices, made with vectors, give what cv2's loop does.

    width, height: in pixels, at most those of the picture.
    """
    down, across = (_weights(*sides) for sides in zip(pixels.shape[:2], (height, width), strict=True))
    if pixels.ndim > 2 or down is None or across is None or down.size * pixels.shape[1] > ALONE:
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    out = np.empty((height, width), np.uint8)
    old, new = down.shape
    step = max(1, AT_ONCE // (old * pixels.shape[1]))  # periods
    for at in range(0, height // new, step):
        rows = pixels[at * old : (at + step) * old].astype(np.float32).reshape(-1, old, pixels.shape[1])
        low = np.matmul(down.T, rows)
        means = np.matmul(low.reshape(len(rows), -1, len(across)), across)
        out[at * new : (at + step) * new] = np.rint(means, out=means).reshape(-1, width)
    return out


@cache
def _weights(old: int, new: int) -> np.ndarray | None:
    """The part of each pixel of a side's period in the mean of each that it becomes: float32 (before, after).

    None where the period is not one of PERIODS, or becomes one pixel, which cv2 has ways of its own for.
    """
    before, after = old // gcd(old, new), new // gcd(old, new)
    if before not in PERIODS or after == 1:
        return None
    # In parts of 1 / `after` of a pixel, so that all of it is whole numbers.
    begins, begin = np.arange(before)[:, None] * after, np.arange(after) * before
    shared = np.minimum(begins + after, begin + before) - np.maximum(begins, begin)
    return (shared.clip(0) / before).astype(np.float32)
