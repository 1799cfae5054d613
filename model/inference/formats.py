"""The table of export formats: how a Keras network becomes a file, and how the file answers."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Outputs(NamedTuple):
    """What one pass of a network gives of N pictures.

    probabilities: float32 (N, classes). features: what the last layer sees, float32 (N, F). texture: moments of an
    earlier layer's maps, four times as fine as the last, float32 (N, T), see `moments`. evidence: for each class at
    each place, float32 (N, places down, places across, classes): its mean over the places, with the last layer's bias,
    is what softmax sees (Zhou et al., CAM, CVPR 2016); None where it was not asked for, or where the network has none,
    as behind flatten.
    """

    probabilities: np.ndarray
    features: np.ndarray
    texture: np.ndarray
    evidence: np.ndarray | None = None

    def at(self, chosen: np.ndarray) -> "Outputs":
        """Those of some pictures alone, without evidence. chosen: their places, or bool (N,)."""
        return Outputs(self.probabilities[chosen], self.features[chosen], self.texture[chosen])


def joined(parts: Sequence[Outputs]) -> Outputs:
    """Those of several passes as of one, without evidence."""
    names = ("probabilities", "features", "texture")
    return Outputs(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def moments(maps: np.ndarray) -> np.ndarray:
    """Mean and deviation of each map over its places: float32 (h, w, C) to (2 C,)."""
    places = maps.reshape(-1, maps.shape[-1])
    mean = places.mean(axis=0)
    squares = np.einsum("pc,pc->c", places, places) / len(places)
    return np.concatenate([mean, np.sqrt(np.maximum(squares - mean**2, 0))])


def level(sizes: Collection[int], last: int) -> int:
    """The size of maps that tells of texture, of those that a network has; last: the size of its last maps."""
    fine = sorted({size for size in sizes if size >= last})
    return fine[min(2, len(fine) - 1)]  # each is half of the next


@dataclass(frozen=True)
class Network:
    """A trained network in use. run: one pass, of (pictures as `look` takes them, whether evidence is asked for)."""

    run: Callable[[np.ndarray, bool], Outputs]

    def look(self, images: np.ndarray, *, evidence: bool = False) -> Outputs:
        """Pictures uint8 (N, S, S, C), C 1 or 3, to what one pass gives of them; evidence: whether class maps too."""
        return self.run(images, evidence)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Pictures uint8 (N, S, S, C) to probabilities float32 (N, classes)."""
        return self.look(images).probabilities


@dataclass(frozen=True)
class Format:
    """A format that trained networks are exported to.

    suffix: of its files. write: (keras.Model, pictures uint8 (S, S, C) to calibrate 8 bits on, none for floating point)
    to the file's bytes, the same every time. open: the network in a file, raises AoiError where it is none.
    """

    suffix: str
    write: Callable[[Any, Sequence[np.ndarray]], bytes]
    open: Callable[[Path], Network]


def _write_litert(network: Any, calibration: Sequence[np.ndarray]) -> bytes:
    from model.inference.litert import to_litert  # TensorFlow

    return to_litert(network, calibration)


def _open_litert(path: Path) -> Network:
    from model.inference.runtime import open_network

    return open_network(path)


FORMATS = {"litert": Format(".tflite", _write_litert, _open_litert)}


def open_exported(folder: Path, name: str) -> Network:
    """The network with a name in a folder, in whichever format it is there. Raises: AoiError, see `Format`."""
    formats = list(FORMATS.values())
    known = next((each for each in formats if (folder / f"{name}{each.suffix}").exists()), formats[0])
    return known.open(folder / f"{name}{known.suffix}")
