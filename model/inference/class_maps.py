"""What spoke for an answer, drawn: class activation maps (Zhou et al., CAM, CVPR 2016)."""

import cv2
import numpy as np


def heat_of(evidence: np.ndarray, size_px: int) -> np.ndarray:
    """Evidence for a class, float (down, across), to heat over a picture: float32 (size, size), 0..1, 0 where nothing
    spoke for it.
    """
    heat = cv2.resize(np.maximum(evidence, 0).astype(np.float32), (size_px, size_px), interpolation=cv2.INTER_CUBIC)
    return np.clip(heat / max(float(heat.max()), 1e-6), 0, 1)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A picture, uint8 (S, S, 1) or (S, S, 3), with heat (S, S), 0..1, in color over it: uint8 (S, S, 3), RGB."""
    color = cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    share = 0.65 * heat[..., None]
    return (image * (1 - share) + color * share).astype(np.uint8)
