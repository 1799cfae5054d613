"""What was promised against what was measured: python docs/study/promise.py HOME...

For the evaluation of each HOME's cross-validation: its pictures, each answered by the network that did not train on it,
are divided at random 200 times. One half chooses thresholds and promises, the other half measures.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from flows.home import Home
from model.checks import normal_class
from model.decisions.operating import decide, outcome
from model.decisions.promise import choose, evidence
from model.manifests import EvaluationManifest
from model.settings import EvaluateSettings
from tfrecords.artifacts.artifact import read

SPLITS = 200
BOUNDS = (0.01, 0.02, 0.05)
COLUMNS = ("set", "rate", "bound", "met", "promised", "measured", "above the promise", "to review")


def main(homes: list[Home]) -> None:
    """Prints a row per set, bound and promise."""
    print(" | ".join(COLUMNS))
    for home in homes:
        path = max(home.committed(EvaluationManifest), key=lambda path: len(pd.read_csv(path / "predictions.csv")))
        table = pd.read_csv(path / "predictions.csv")
        first = list(table.columns).index("name") + 1
        probabilities, labels = table.iloc[:, first:].to_numpy(), table["true_label"].to_numpy()
        normal = normal_class(table.columns[first:], read(path, EvaluationManifest).manifest.settings)
        for bound in BOUNDS:
            settings = EvaluateSettings(max_escape_rate=bound, max_overkill_rate=bound)
            rows = [split(seed, probabilities, labels, normal, settings) for seed in range(SPLITS)]
            for of in rows[0]:
                met, promised, measured, review = np.transpose([row[of] for row in rows])
                shares = (met, promised, measured, measured > promised, review)
                print(path.name.rsplit("-", 1)[0], of, *(f"{100 * np.mean(share):.2f} %" for share in (bound, *shares)))


def split(
    seed: int, probabilities: np.ndarray, labels: np.ndarray, normal: int | None, settings: EvaluateSettings
) -> dict[str, tuple[float, float, float, float]]:
    """(met, promised, measured, share to review) of each promise, of one division of the pictures."""
    rng = np.random.default_rng(seed)
    promises = rng.permutation(len(labels)) % 2 == 0
    folds = rng.integers(0, 5, promises.sum())
    found = evidence(probabilities[promises], labels[promises], folds == 0, folds)
    point, promised = choose(found, normal, settings)
    others, truth = probabilities[~promises], labels[~promises]
    measured = outcome(decide(others, point), truth, others.argmax(axis=1), normal)
    return {
        promise.of: (promise.met, promise.proven, measured[f"{promise.of}_rate"], measured["review_rate"])
        for promise in promised.promises
    }


if __name__ == "__main__":
    main([Home(Path(each)) for each in sys.argv[1:]])
