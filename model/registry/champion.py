"""Whether tonight's model may replace last night's."""

import csv
from dataclasses import dataclass
from typing import NamedTuple

from model.manifests import Evaluation
from tfrecords.dataset import Dataset, contents

SIGNIFICANCE = 0.05


class Judged(NamedTuple):
    """An evaluation, and the dataset whose pictures it is about; None where that is gone."""

    evaluation: Evaluation
    dataset: Dataset | None


@dataclass(frozen=True)
class Verdict:
    """promoted: whether the challenger becomes champion; why: one sentence for people."""

    promoted: bool
    why: str


def judge(challenger: Judged, champion: Judged | None) -> Verdict:
    """Compares two evaluations on the pictures that neither model trained on.

    Pictures are the same where their files have the same content, whatever their names. The challenger stays one if it
    is significantly worse: exact one-sided McNemar test (Psychometrika, 1947) on the pictures that only one of them
    names right, at 5 %. Otherwise, equal or untested, the newer one wins.
    """
    from scipy.stats import binom  # half a second, and only where there is work

    if champion is None:
        return Verdict(True, "there was no champion to compare with")
    ours, theirs = _right(challenger), _right(champion)
    if theirs is None:
        return Verdict(True, "the champion's dataset is gone, so they can't be compared")
    if ours is None:
        return Verdict(True, "this model's dataset is gone, so they can't be compared")
    common = ours.keys() & theirs.keys()
    if not common:
        return Verdict(True, "no picture is new to both models, so they can't be compared")
    gained = sum(ours[content] and not theirs[content] for content in common)
    lost = sum(theirs[content] and not ours[content] for content in common)
    probability = float(binom.sf(lost - 1, gained + lost, 0.5)) if lost else 1.0
    counted = f"of {len(common)} common pictures it alone names {gained} right, the champion alone {lost}"
    if probability < SIGNIFICANCE:
        return Verdict(False, f"{counted}: worse (McNemar, p = {probability:.3g})")
    return Verdict(True, f"{counted}: not worse (McNemar, p = {probability:.3g})")


def _right(judged: Judged) -> dict[str, bool] | None:
    """Content (sha256 of the file, in hex) to whether the model named it right, all of its copies; None: unknown."""
    if judged.dataset is None:
        return None
    content_of = contents(judged.dataset)
    right: dict[str, bool] = {}
    with open(judged.evaluation.path / "predictions.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            content = content_of[row["ID"]]
            right[content] = right.get(content, True) and row["label"] == row["true_label"]
    return right
