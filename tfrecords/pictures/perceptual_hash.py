"""A hash that is nearly equal for pictures that look the same."""

import numpy as np

from tfrecords.pictures.opencv import cv2


def perceptual_hash(pixels: np.ndarray) -> int:
    """64 bits that are nearly equal for pictures that look the same; uint8 (height, width) in.

    Bits say which of the 8 x 8 lowest frequencies of the picture, at 32 x 32, lie above their median.
    Source: pHash, in Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010.
    """
    small = cv2.resize(pixels, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].ravel()
    median = np.sort(low[1:])[31]  # np.median would take longer than all else here but the resize
    return int.from_bytes(np.packbits(low > median).tobytes(), "big")
