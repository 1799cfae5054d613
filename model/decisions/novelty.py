"""How unlike all that it learned from a picture is to a network: "I don't know this".

Three things tell of a picture that it is new: the network is not sure of any class; its features are far from those of
every class; its texture, which an earlier layer sees, is. None of them is good for every kind of novelty (the study has
figures), their sum is. Distances are Mahalanobis distances to the nearest class mean, of vectors of length 1, under one
covariance (Lee et al., A Simple Unified Framework, NeurIPS 2018).

The score of a picture says something only beside the scores of pictures that had no part in making it: the novelty of a
picture is the share of such calibrating pictures that have a lower score. On pictures like these, 1 - novelty is a
p-value (split conformal prediction; Vovk et al., Algorithmic Learning in a Random World, 2005).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol
from zipfile import BadZipFile

import numpy as np

from tfrecords.errors import refuse

NOVELTY_FILE = ".novelty.npz"  # behind a network's name
MOST_DIRECTIONS, MOST_NUMBERS = 128, 2_000_000  # of a density: main directions, and the numbers that they take
SHRINKAGE = 0.1  # of the covariance towards a multiple of the identity
PLAIN = ("kernel", "bias", "scales", "usual")  # arrays of a detector in its file
DENSITY = ("means", "directions", "gains")  # and of each of its densities
SUREST = -20.0  # doubt below which it says nothing more
DIGITS = 6  # of scores, behind the point: the same however many pictures are looked at together


class Seen(Protocol):
    """What a pass of a network gives, see `model.inference.formats.Outputs`."""

    @property
    def features(self) -> np.ndarray: ...
    @property
    def texture(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Density:
    """Where vectors of length 1 of the classes lie.

    means: of each class, float32 (C, F); directions: along which vectors differ most within a class, orthonormal,
    float32 (K, F); gains: how much less a distance along each of them counts, float32 (K,), 0..1.
    """

    means: np.ndarray
    directions: np.ndarray
    gains: np.ndarray

    def distance(self, vectors: np.ndarray) -> np.ndarray:
        """Logarithm of the squared distance to the nearest class, up to a constant: (N, F) to float64 (N,)."""
        means, directions, squares, across = self._known
        unit = _unit(vectors)
        apart = (unit**2).sum(axis=1)[:, None] + squares - 2 * _products(unit, means)
        along = _products(unit, directions)[:, None] - across
        return np.log(np.maximum(apart - (along**2 * self.gains).sum(axis=2), 1e-12).min(axis=1))

    @cached_property
    def _known(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Means and directions in float64, the means' squared lengths, and how far along the directions they lie."""
        means, directions = self.means.astype(np.float64), self.directions.astype(np.float64)
        return means, directions, (means**2).sum(axis=1), _products(means, directions)


def density_of(vectors: np.ndarray, labels: np.ndarray) -> Density:
    """The density of vectors (N, F) of the classes int (N,)."""
    unit = _unit(vectors)
    known, places = np.unique(labels, return_inverse=True)
    means = np.stack([unit[places == place].mean(axis=0) for place in range(len(known))])
    left = unit - means[places]
    # The main directions from the matrix of inner products: there are fewer pictures than features.
    squares, mixtures = np.linalg.eigh(left @ left.T)
    most = max(1, min(MOST_DIRECTIONS, MOST_NUMBERS // unit.shape[1], len(unit) - len(known)))
    squares, mixtures = squares[::-1][:most], mixtures[:, ::-1][:, :most]
    real = squares > 1e-9 * max(float((left**2).sum()), 1e-12)
    squares, directions = squares[real], (mixtures[:, real] / np.sqrt(squares[real])).T @ left
    floor = SHRINKAGE * (left**2).sum() / len(unit) / unit.shape[1]
    gains = 1 - floor / ((1 - SHRINKAGE) * squares / len(unit) + floor)
    return Density(*(each.astype(np.float32) for each in (means, directions, gains)))


@dataclass(frozen=True)
class Detector:
    """Tells what is new to one network from what it is used to.

    kernel, bias: of its last layer, float32 (F, C) and (C,). scales: what each of the three scores is divided by, float
    (3,). usual: scores of the calibrating pictures, float (n,), sorted.
    """

    kernel: np.ndarray
    bias: np.ndarray
    features: Density
    texture: Density
    scales: np.ndarray
    usual: np.ndarray

    def parts(self, seen: Seen) -> np.ndarray:
        """The three scores of N pictures, float (N, 3): doubt, distance of the features, of the texture.

        Doubt is the logarithm of the odds against the class that is named; of softmax outputs most would be 0.
        """
        logits = np.sort(_products(seen.features.astype(np.float64), self._columns) + self.bias)
        top = logits[:, -1]
        doubt = np.log(np.exp(np.maximum(logits[:, :-1] - top[:, None], 2 * SUREST)).sum(axis=1))
        doubt = np.maximum(doubt, SUREST)
        return np.stack([doubt, self.features.distance(seen.features), self.texture.distance(seen.texture)], axis=1)

    @cached_property
    def _columns(self) -> np.ndarray:
        """The kernel's columns below each other, float64 (C, F)."""
        return np.ascontiguousarray(self.kernel.T, np.float64)

    def score(self, seen: Seen) -> np.ndarray:
        """How unlike the known ones N pictures are: float (N,), on a scale of this network's own."""
        return np.round((self.parts(seen) / self.scales).sum(axis=1), DIGITS)

    def below(self, seen: Seen) -> np.ndarray:
        """How many of the calibrating pictures have a lower score than each of N pictures: int (N,)."""
        return np.searchsorted(self.usual, self.score(seen), side="left")

    def calibrated(self, seen: Seen) -> "Detector":
        """The same with these pictures as the calibrating ones."""
        return replace(self, usual=np.sort(self.score(seen)))


def learn(
    kernel: np.ndarray, bias: np.ndarray, learned: Seen, labels: np.ndarray, guiding: Seen, calibrating: Seen
) -> Detector:
    """The detector of a network.

    kernel, bias: of its last layer. learned: pictures that it trained on, and their labels int (N,); guiding: others,
    which say on what scale each score varies; calibrating: pictures that chose nothing, neither the network nor the
    scales.
    """
    densities = density_of(learned.features, labels), density_of(learned.texture, labels)
    plain = Detector(kernel, bias, *densities, scales=np.ones(3), usual=np.zeros(0))
    parts = plain.parts(guiding)
    deviations = parts.std(axis=0) if len(parts) else np.ones(3)
    return replace(plain, scales=np.where(deviations > 1e-6, deviations, 1.0)).calibrated(calibrating)


@dataclass(frozen=True)
class Novelty:
    """The detectors of a model's networks, in their order."""

    detectors: tuple[Detector, ...]

    @property
    def calibrating(self) -> int:
        """How many pictures calibrate."""
        return sum(len(detector.usual) for detector in self.detectors)

    def of(self, looks: Sequence[Seen]) -> np.ndarray:
        """Novelty of N pictures, float (N,), 0 to below 1. looks: what each network gives of them.

        1 - novelty is a p-value; of several networks, each of which compares with the pictures that it did not train
        on, the mean of theirs, weighted by these pictures.
        """
        below = sum(each.below(seen) for each, seen in zip(self.detectors, looks, strict=True))
        return np.asarray(below) / (self.calibrating + len(self.detectors))

    def unknown(self, novelty: np.ndarray, max_false_unknown: float) -> np.ndarray:
        """Which pictures are unlike all that is known, by their novelty (N,): bool (N,); see `threshold`."""
        return novelty > self.threshold(max_false_unknown)

    def threshold(self, max_false_unknown: float) -> float:
        """The novelty above which a picture is unknown, so that at most this share of known ones is; 0: none is.

        So few pictures may calibrate that no threshold proves this share. Then it is the one above all of them, which
        proves the lowest share that so many can.

        It lies between two values that a novelty can have, so that rounding does not matter.
        """
        pictures, most = self.calibrating, self.calibrating + len(self.detectors)
        if not max_false_unknown or not pictures:
            return 1.0
        enough = int(np.ceil((1 - max_false_unknown) * most - 1e-9))
        return (min(enough, pictures) - 0.5) / most


def save_detector(detector: Detector, path: Path) -> None:
    """Writes a detector. The same bytes every time."""
    arrays = {key: getattr(detector, key) for key in PLAIN}
    for name, density in (("features", detector.features), ("texture", detector.texture)):
        arrays |= {f"{name}.{key}": getattr(density, key) for key in DENSITY}
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def open_novelty(folder: Path, networks: Iterable[str]) -> Novelty | None:
    """The detectors of a model's or an export's networks; None where they have none, as those of earlier versions."""
    paths = [folder / f"{name}{NOVELTY_FILE}" for name in networks]
    if not all(path.exists() for path in paths):
        return None
    return Novelty(tuple(_load_detector(path) for path in paths))


def _load_detector(path: Path) -> Detector:
    try:
        with np.load(path) as file:
            arrays = dict(file)
        features, texture = (
            Density(**{key: arrays[f"{name}.{key}"] for key in DENSITY}) for name in ("features", "texture")
        )
        return Detector(features=features, texture=texture, **{key: arrays[key] for key in PLAIN})
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        raise refuse(path, f"the file is damaged ({error})", "Copy the model here again, or train it again")


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (N, F) scaled to a length of 1, float64."""
    vectors = vectors.astype(np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _products(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Inner products of rows, (N, F) and (K, F) to (N, K): without BLAS, whose threads take longer than this does."""
    found: np.ndarray = np.einsum("nf,kf->nk", one, other)
    return found
