"""Samples of few or odd bits, as BMP and TIFF pack them."""

import cv2
import numpy as np

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


def looked_up(indices: np.ndarray, palette: np.ndarray, gray: bool) -> np.ndarray:
    """Pixels of a palette's colors: indices uint8 (height, width), palette uint8 (colors, 3), RGB, at most 256.

    Returns: uint8 (height, width, 3), RGB; (height, width) where `gray`.
    """
    table = np.zeros((256, 1, 3), np.uint8)
    table[: len(palette), 0] = palette
    if gray:
        return cv2.LUT(indices, cv2.cvtColor(table, cv2.COLOR_RGB2GRAY))
    return cv2.LUT(cv2.cvtColor(indices, cv2.COLOR_GRAY2RGB), table)
