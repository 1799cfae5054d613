"""The tiny set of pictures that the tests share."""

from pathlib import Path

import cv2
import numpy as np

CLASSES = ("plain", "rows", "columns")
SHARED = Path(__file__).resolve().parents[2] / "shared"  # real data and weights, beside the project on some machines


def picture(label: int, seed: int, size: int = 48) -> np.ndarray:
    """Speckle, with rows or columns in it for labels 1 and 2: uint8 (size, size)."""
    rng = np.random.default_rng([label, seed])
    gray = rng.normal(128, 12, (size, size))
    if label:
        wave = 60 * np.sign(np.sin(np.arange(size) * 0.8 + rng.uniform(0, 6)))
        gray += wave[:, None] if label == 1 else wave
    return np.clip(gray, 0, 255).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def write_data(folder: Path, train: int = 30, test: int = 6, classes: tuple[str, ...] = CLASSES, seed: int = 0) -> Path:
    """A folder in AIdea's layout with `train` labelled pictures of three classes in turn, and `test` others.

    seed: another one gives files of the same names and other contents.
    """
    for split, count in (("train", train), ("test", test)):
        (folder / f"{split}_images").mkdir(parents=True)
        lines = ["ID,Label"]
        for index in range(count):
            label = index % len(classes)
            name = f"{split}_{index:03d}.png"
            pixels = picture(label, seed + 1000 * (split == "test") + index)
            (folder / f"{split}_images" / name).write_bytes(png(pixels))
            lines.append(f"{name},{label if split == 'train' else ''}")
        (folder / f"{split}.csv").write_text("\r\n".join(lines) + "\r\n", newline="")
    (folder / "classes.txt").write_text("\n".join(classes) + "\n")
    return folder
