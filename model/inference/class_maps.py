"""What spoke for an answer, drawn: class activation maps (Zhou et al., CAM, CVPR 2016)."""

import numpy as np

from tfrecords.pictures.opencv import cv2


def heat_of(evidence: np.ndarray, size_px: int) -> np.ndarray:
    """Evidence for a class, float (down, across), to heat over a picture: float32 (size, size), 0..1, 0 where nothing
    spoke for it.
    """
    heat = cv2.resize(np.maximum(evidence, 0).astype(np.float32), (size_px, size_px), interpolation=cv2.INTER_CUBIC)
    return np.clip(heat / max(float(heat.max()), 1e-6), 0, 1)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A picture, uint8 (S, S, 1) or (S, S, 3), with heat (S, S), 0..1, in color over it: uint8 (S, S, 3), RGB."""
    color = cv2.cvtColor(cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    below = image if image.shape[-1] == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    share = (0.65 * heat).astype(np.float32)
    return cv2.blendLinear(color, below, share, 1 - share)


def heat_map(image: np.ndarray, evidence: np.ndarray) -> bytes:
    """A picture, uint8 (S, S, 1) or (S, S, 3), under the heat of the evidence for a class, float (down, across): a PNG
    file.
    """
    drawn = overlay(image, heat_of(evidence, len(image)))
    return cv2.imencode(".png", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))[1].tobytes()
