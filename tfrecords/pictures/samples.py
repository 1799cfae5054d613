"""Samples of few or odd bits, as BMP and TIFF pack them."""

import numpy as np

from tfrecords.pictures.opencv import cv2

AT_ONCE = 1 << 20  # samples: what stands between takes a multiple of their memory


def unpack(rows: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Rows of packed samples, the first one in the highest bits, to one number for each.

    rows: uint8 (height, bytes); bits: per sample, 1 to 16; count: samples per row. Returns: (height, count), uint8, or
    uint16 for more than 8 bits.
    """
    first = np.arange(count) * bits
    places = first // 8
    shifts = (24 - bits - first % 8).astype(np.uint32)
    out = np.empty((len(rows), count), np.uint16 if bits > 8 else np.uint8)
    step = max(1, AT_ONCE // max(1, count))
    for at in range(0, len(rows), step):
        some = np.pad(rows[at : at + step], ((0, 0), (0, 2))).astype(np.uint32)
        three = some[:, places] << 16 | some[:, places + 1] << 8 | some[:, places + 2]
        out[at : at + step] = three >> shifts & (1 << bits) - 1
    return out


def stretched(samples: np.ndarray, bits: int) -> np.ndarray:
    """Samples of up to 8 bits, uint8, to the whole range of 0 to 255."""
    if bits == 8:
        return samples
    return cv2.LUT(samples, (np.arange(256) % 2**bits * 255 // (2**bits - 1)).astype(np.uint8))


def running_sums(samples: np.ndarray) -> np.ndarray:
    """Differences to the left neighbour back to samples, modulo their range: (height, width, channels) in and out.

    Of bytes, they are differences of the sums over rectangles that `cv2.integral` makes with vectors, in an eighth of
    the time. Source: Crow, Summed-area tables, SIGGRAPH 1984.
    """
    height, width = samples.shape[:2]
    if samples.dtype != np.uint8 or 255 * width >= 2**31:
        return np.cumsum(samples, axis=1, dtype=samples.dtype)
    out = np.empty_like(samples)
    step = max(1, min(AT_ONCE, 2**31 // 255 - 1) // width)  # sums have 32 bits
    for at in range(0, height, step):
        sums = cv2.integral(samples[at : at + step])[:, 1:].astype(np.uint8)
        np.subtract(sums[1:], sums[:-1], out=out[at : at + step].reshape(sums[1:].shape))
    return out


def looked_up(indices: np.ndarray, palette: np.ndarray, gray: bool) -> np.ndarray:
    """Pixels of a palette's colors: indices uint8 (height, width), palette uint8 (colors, 3), RGB, at most 256.

    Returns: uint8 (height, width, 3), RGB; (height, width) where `gray`.
    """
    table = np.zeros((256, 1, 3), np.uint8)
    table[: len(palette), 0] = palette
    if gray:
        return cv2.LUT(indices, cv2.cvtColor(table, cv2.COLOR_RGB2GRAY))
    return cv2.LUT(cv2.cvtColor(indices, cv2.COLOR_GRAY2RGB), table)
