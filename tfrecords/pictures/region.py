"""The part of a picture that is used."""

from decimal import Decimal

import numpy as np

from tfrecords.pictures.errors import PictureError

SET_ANEW = "set preprocess.crop to a part that lies within every picture, or take the picture out with its row"


def cut_out(pixels: np.ndarray, crop: str) -> np.ndarray:
    """The part that `crop` names, a valid preprocess.crop: (height, width, ...) in and out, of the same memory.

    Shares of the size are rounded to whole pixels, and a part has at least one pixel on each side.

    Raises:
        PictureError: the part lies outside of the picture.
    """
    height, width = pixels.shape[:2]
    parts = crop.split(",")
    if "." in crop:
        left, top, wide, high = map(Decimal, parts)
        begin = [min(round(share * side), side - 1) for share, side in ((left, width), (top, height))]
        end = [round(share * side) for share, side in ((left + wide, width), (top + high, height))]
        end = [max(at, first + 1) for at, first in zip(end, begin, strict=True)]
    else:
        begin = [int(part) for part in parts[:2]]
        end = [at + int(part) for at, part in zip(begin, parts[2:], strict=True)]
    if end[0] > width or end[1] > height:
        raise PictureError(f"preprocess.crop is {crop}, outside of the picture's {width} x {height} pixels", SET_ANEW)
    return pixels[begin[1] : end[1], begin[0] : end[0]]
