"""Whether a lot looks like what the model was trained and measured on."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from model.manifests import Drift, Feature
from tfrecords.dataset import COLOR_MEASURES

if TYPE_CHECKING:
    import pandas as pd

BINS = 10
PSI_LIMIT = 0.2  # the usual mark of a change that matters (Siddiqi, Credit Risk Scorecards, 2006)
FLOOR = 1e-3  # an empty bin's share, so that the logarithm is finite
SURENESS = 0.99


def measures(rows: "pd.DataFrame") -> dict[str, np.ndarray]:
    """Of the readable pictures of a rows table brightness and contrast, in gray levels, and of a color set the shares
    of red and blue: float (N,) each.
    """
    readable = np.asarray(rows["phash"], dtype=str) != ""
    columns = {"brightness": "mean", "contrast": "deviation"}
    columns |= {color: color for color in COLOR_MEASURES if color in rows}
    return {name: np.asarray(rows[column])[readable].astype(float) for name, column in columns.items()}


def describe(values: Mapping[str, np.ndarray], labels: np.ndarray, classes: int) -> dict[str, Feature]:
    """The reference to compare lots with: each feature's ten quantile bins, and the shares of the classes.

    values: feature name to float (N,); labels: predicted, int (M,).
    """
    features = {}
    for name, numbers in values.items():
        edges = np.unique(np.quantile(numbers, np.linspace(0, 1, BINS + 1)[1:-1]))
        shares = _shares(np.digitize(numbers, edges), len(edges) + 1)
        features[name] = Feature(edges=tuple(edges.tolist()), shares=tuple(shares), count=len(numbers))
    shares = _shares(labels, classes)
    return {**features, "predicted class": Feature(shares=tuple(shares), count=len(labels))}


def in_turn(answers: np.ndarray, first: int) -> np.ndarray:
    """One network's answer for each picture, the networks by turns: float32 (networks, N, C) to (N, C).

    first: place of the first of these pictures in the lot. So a lot is asked as the pictures of the reference were,
    each of which one network answered.
    """
    networks, pictures, _ = answers.shape
    places = np.arange(pictures)
    turned: np.ndarray = answers[(first + places) % networks, places]
    return turned


def compare(reference: Mapping[str, Feature], values: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, Drift]:
    """Population stability index of every feature of a lot.

    A small lot differs by chance: the limit is 0.2 or, if larger, what chance exceeds once in a hundred times.
    Source: Yurdakul, Statistical Properties of Population Stability Index, 2018.
    """
    from scipy.special import chdtri  # a tenth of a second, and only where there is work; scipy.stats takes one

    found = {}
    for name, known in reference.items():
        lot = labels if known.edges is None else np.digitize(values[name], known.edges)
        if not len(lot):
            continue
        expected = np.maximum(known.shares, FLOOR)
        actual = np.maximum(_shares(lot, len(expected)), FLOOR)
        psi = float(np.sum((actual - expected) * np.log(actual / expected)))
        chance = float(chdtri(len(expected) - 1, 1 - SURENESS)) * (1 / len(lot) + 1 / known.count)
        limit = max(PSI_LIMIT, chance)
        found[name] = Drift(psi=round(psi, 4), limit=round(limit, 4), drifted=psi > limit)
    return found


def warning(found: Mapping[str, Drift]) -> str:
    """'brightness (PSI 0.91)' for each that drifted; '' where the lot looks as usual."""
    return ", ".join(f"{name} (PSI {feature.psi:.2f})" for name, feature in found.items() if feature.drifted)


def _shares(places: Sequence[int] | np.ndarray, count: int) -> list[float]:
    return (np.bincount(places, minlength=count) / max(1, len(places))).tolist()
