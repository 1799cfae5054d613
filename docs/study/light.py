"""What a change of light costs: the models in a HOME on their validation pictures, relit before preprocessing.

usage: python docs/study/light.py HOME DATA
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from flows.home import Home
from model.inference.classifier import open_classifier
from model.manifests import ModelManifest
from pipeline.inputs import files
from pipeline.inputs.inputs import read_inputs
from tfrecords.artifacts.artifact import read as read_artifact
from tfrecords.dataset import DatasetManifest
from tfrecords.pictures.formats import decode
from tfrecords.pictures.preprocessing import finish

Relit = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def exposure(factor: float) -> Relit:
    return lambda gray, _: gray * factor


def contrast(factor: float) -> Relit:
    return lambda gray, _: gray.mean() + (gray - gray.mean()) * factor


def gamma(power: float) -> Relit:
    return lambda gray, _: 255 * (gray / 255) ** power


def noise(deviation: float) -> Relit:
    return lambda gray, rng: gray + rng.normal(0, deviation, gray.shape)


def anything(gray: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """All four at once, each by up to 30 % either way, with noise of up to 6 gray levels."""
    factors = rng.uniform(0.7, 1.3, 3)
    for change, factor in zip((gamma, contrast, exposure), factors, strict=True):
        gray = np.clip(change(factor)(gray, rng), 0, 255)
    return noise(rng.uniform(0, 6))(gray, rng)


LIGHTS: dict[str, Relit] = {
    "as it is": exposure(1.0),
    "exposure -30 %": exposure(0.7),
    "exposure +30 %": exposure(1.3),
    "contrast -30 %": contrast(0.7),
    "contrast +30 %": contrast(1.3),
    "gamma 0.7": gamma(0.7),
    "gamma 1.3": gamma(1.3),
    "noise of 6 levels": noise(6),
    "all at random": anything,
}


def main(home: Home, data: str) -> None:
    """Prints a row a light, a column a model: accuracy in percent, and mistakes."""
    table = {}
    inputs = read_inputs(data, "train", folds=2)
    places = {row.id: row.name for row in inputs.rows}
    for path in home.committed(ModelManifest):
        model = read_artifact(path, ModelManifest).manifest
        if len(model.folds) > 1:  # of a cross-validation: its members stand for themselves
            continue
        dataset = home.named(DatasetManifest, model.dataset.fingerprint)
        rows = pd.read_csv(dataset.path / "rows.csv", dtype={"id": str})
        rows = rows[rows["fold"].isin(model.folds)]
        settings, train = model.settings.preprocess, model.settings.train
        classifier = open_classifier(path)
        with files.opened(inputs.container) as read:
            pictures = [decode(read(places[name]), settings).astype(np.float64) for name in rows["id"]]
        name = f"{train.recipe}, {settings.equalize}, light {train.light_fraction:g}, fold {train.fold}"
        table[name] = {}
        for light, relight in LIGHTS.items():
            rng = np.random.default_rng(0)
            relit = [np.clip(np.rint(relight(gray, rng)), 0, 255).astype(np.uint8) for gray in pictures]
            ready = np.stack([np.atleast_3d(finish(gray, settings)) for gray in relit])
            right = classifier.probabilities(ready).argmax(axis=1) == rows["label"].to_numpy()
            table[name][light] = f"{100 * right.mean():.2f} ({(~right).sum()} of {len(right)})"
    print(pd.DataFrame(table).to_string())


if __name__ == "__main__":
    main(Home(Path(sys.argv[1])), sys.argv[2])
