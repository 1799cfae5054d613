"""Whether training pictures may be mirrored: found from the training pictures themselves."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import binom
from sklearn.kernel_ridge import KernelRidge
from sklearn.preprocessing import StandardScaler

from model.settings import Flips, Mirror
from tfrecords.dataset import Dataset, training_counts
from tfrecords.pictures.opencv import cv2
from tfrecords.records.arrays import first_of_each

FEWEST, MOST = 10, 40  # pictures of a class that tell: of two classes of 10, mirrored, some 9 are lost and none won
ALL = 1200  # pictures of all classes together, which take seconds
PARTS = 5
CHANCE = 0.01
SIDE, DIRECTIONS = 64, 8
CELLS = (1, 2, 4)  # few, since a defect may lie anywhere


def harmless_flips(dataset: Dataset, fold: int, wanted: Flips) -> tuple[Mirror, ...]:
    """The mirrorings that training may use: found from the first pictures of each class; none where a class has too few
    to tell. wanted: `auto`, or what the settings say. fold: validates, is not read.
    """
    if wanted != Flips.AUTO:
        return wanted.mirrors
    counts = training_counts(dataset, fold)
    each = min(MOST, ALL // len(counts))
    if min(each, *counts) < FEWEST:
        return ()
    pictures, labels = zip(*first_of_each(dataset, fold, each), strict=True)
    return without_harm(pictures, np.array(labels))


def without_harm(pictures: Sequence[np.ndarray], labels: np.ndarray) -> tuple[Mirror, ...]:
    """The mirrorings that cost nothing: pictures that a small classifier names right when it learned from the pictures
    alone are named right as well when it learned from their mirror images too.

    Where a class is the mirror image of another, it loses one of them, and a sign test says so: over all pictures, or
    for one class (Bonferroni). The classifier is kernel ridge regression on directions of edges and on brightness, in
    cells of three sizes, cross-validated. It needs no weights and takes seconds.

    pictures: uint8 (S, S, channels); labels: int (N,), at least FEWEST of each class. Deterministic.
    """
    part = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        part[labels == label] = np.arange(np.sum(labels == label)) % PARTS
    plain = np.stack([describe(picture) for picture in pictures])
    right = _named(plain, None, labels, part) == labels
    harmless = []
    for mirror in Mirror:
        mirrored = np.stack([describe(np.flip(picture, mirror.axis)) for picture in pictures])
        still = _named(plain, mirrored, labels, part) == labels
        lost, won = right & ~still, still & ~right
        kinds = [np.ones(len(labels), bool), *(labels == label for label in np.unique(labels))]
        chances = [_chance(int(lost[kind].sum()), int(won[kind].sum())) for kind in kinds]
        if chances[0] >= CHANCE and min(chances[1:]) * (len(kinds) - 1) >= CHANCE:
            harmless.append(mirror)
    return tuple(harmless)


def _chance(lost: int, won: int) -> float:
    """Probability of so many lost or more among lost and won, if each were as likely. McNemar, one-sided and exact."""
    return float(binom.sf(lost - 1, lost + won, 0.5)) if lost else 1.0


def _named(plain: np.ndarray, mirrored: np.ndarray | None, labels: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Label of each picture, int (N,), by a classifier that learned from the other parts, mirrored ones too."""
    classes, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    target = np.eye(len(classes))[index]
    weight = 1 / counts[index]
    named = np.zeros(len(labels), labels.dtype)
    for held_out in range(PARTS):
        seen = part != held_out
        scaler = StandardScaler().fit(plain[seen])
        views = [plain] if mirrored is None else [plain, mirrored]
        features = np.concatenate([scaler.transform(view[seen]) for view in views])
        ridge = KernelRidge(alpha=1e-4, kernel="rbf", gamma=1 / plain.shape[1])
        ridge.fit(features, np.tile(target[seen], (len(views), 1)), np.tile(weight[seen], len(views)))
        named[~seen] = classes[ridge.predict(scaler.transform(plain[~seen])).argmax(axis=1)]
    return named


def describe(picture: np.ndarray) -> np.ndarray:
    """Where edges of which direction lie, and where it is bright: float32, of uint8 (S, S, channels).

    Source of the edges: histograms of oriented gradients, Dalal and Triggs, CVPR 2005, here with their sign.
    """
    gray = picture.mean(axis=2) if picture.shape[2] > 1 else picture[..., 0]
    small = cv2.resize(gray.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    down, right = (cv2.Sobel(small, cv2.CV_32F, *order, ksize=3) for order in ((0, 1), (1, 0)))
    strength, angle = cv2.cartToPolar(right, down)
    strength += 1e-6
    direction = np.round(angle * DIRECTIONS / (2 * np.pi)).astype(int) % DIRECTIONS
    edges = np.stack([np.where(direction == each, strength, 0) for each in range(DIRECTIONS)], axis=2) / strength.mean()
    return np.concatenate([_cells(values, cells) for values in (edges, small / SIDE) for cells in CELLS])


def _cells(pixels: np.ndarray, cells: int) -> np.ndarray:
    """Means in cells x cells parts, flat; their roots, which a few strong edges rule less."""
    return np.sqrt(cv2.resize(pixels, (cells, cells), interpolation=cv2.INTER_AREA)).ravel()
