"""How bright a picture is, and of which color: what the audit and drift compare."""

from typing import NamedTuple

import numpy as np

from tfrecords.pictures.opencv import cv2

THIRD = 0.3333  # as red and blue of gray are told


class Light(NamedTuple):
    """mean, deviation: of its gray levels, 0..255; red, blue: shares of the light, 0..1, a third where it is gray."""

    mean: float
    deviation: float
    red: float
    blue: float


def light(pixels: np.ndarray) -> Light:
    """The light of a picture, uint8 (height, width), or (height, width, 3), RGB."""
    gray = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    mean, deviation = (round(float(value[0, 0]), 3) for value in cv2.meanStdDev(gray))
    if pixels.ndim == 2:
        return Light(mean, deviation, THIRD, THIRD)
    colors = cv2.mean(pixels)[:3]
    red, _, blue = (round(color / (sum(colors) or 1), 4) for color in colors)
    return Light(mean, deviation, red, blue)
