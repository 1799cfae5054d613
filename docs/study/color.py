"""Gray against RGB: python docs/study/color.py HOME...

Takes the evaluations in each HOME, of a sweep over preprocess.color or of cross-validations, and prints for each color
how its models did on the pictures that they did not train on, with uncertainty.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from flows.home import Home
from model.manifests import EvaluationManifest, ModelManifest
from tfrecords.artifacts.artifact import read

RESAMPLES = 2000


def main(homes: list[Home]) -> None:
    answers: dict[str, list[pd.DataFrame]] = {}
    for home in homes:
        for path in home.committed(EvaluationManifest):
            model = home.named(ModelManifest, read(path, EvaluationManifest).manifest.model.fingerprint)
            rows = pd.read_csv(path / "predictions.csv", dtype={"ID": str})
            answers.setdefault(model.manifest.settings.preprocess.color, []).append(rows)
    tables = {color: pd.concat(parts).drop_duplicates("ID").set_index("ID") for color, parts in sorted(answers.items())}
    for color, table in tables.items():
        tell(color, table)
    if len(tables) == 2:
        one, other = tables
        right = [table["label"] == table["true_label"] for table in tables.values()]
        both = pd.concat(right, axis=1, join="inner").to_numpy()
        alone = [int((both[:, 0] & ~both[:, 1]).sum()), int((both[:, 1] & ~both[:, 0]).sum())]
        chance = binomtest(alone[0], sum(alone)).pvalue if sum(alone) else 1.0
        print(f"{one} alone names {alone[0]} right, {other} alone {alone[1]}, of {len(both)}: p = {chance:.3g}")


def tell(color: str, table: pd.DataFrame) -> None:
    """Accuracy with its Wilson interval, macro F1 with one from resampled pictures (percentiles of a bootstrap)."""
    truth, said = table["true_label"].to_numpy(), table["label"].to_numpy()
    right = int((truth == said).sum())
    low, high = binomtest(right, len(truth)).proportion_ci(method="wilson")
    rng = np.random.default_rng(0)
    places = rng.integers(0, len(truth), (RESAMPLES, len(truth)))
    scores = [f1_score(truth[at], said[at], average="macro") for at in places]
    below, above = np.quantile(scores, [0.025, 0.975])
    print(
        f"{color}: {len(truth) - right} mistakes of {len(truth)}, "
        f"accuracy {right / len(truth):.2%} ({low:.2%} to {high:.2%}), "
        f"macro F1 {f1_score(truth, said, average='macro'):.2%} ({below:.2%} to {above:.2%})"
    )


if __name__ == "__main__":
    main([Home(Path(home)) for home in sys.argv[1:]])
