"""Whether tonight's model may replace last night's."""

import csv
from dataclasses import dataclass
from pathlib import Path

from tfrecords.artifacts.artifact import Artifact

SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Verdict:
    """promoted: whether the challenger becomes champion; why: one sentence for people."""

    promoted: bool
    why: str


def judge(challenger: Artifact, champion: Artifact | None) -> Verdict:
    """Compares two evaluations on the pictures that neither model trained on.

    The challenger stays one if it is significantly worse: exact one-sided McNemar test (Psychometrika, 1947) on
    the pictures that only one of them names right, at 5 %. Otherwise, equal or untested, the newer one wins.
    """
    from scipy.stats import binom  # half a second, and only where there is work

    if champion is None:
        return Verdict(True, "there was no champion to compare with")
    ours, theirs = _right(challenger.path), _right(champion.path)
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        return Verdict(True, "no picture is new to both models, so they can't be compared")
    gained = sum(ours[picture] and not theirs[picture] for picture in common)
    lost = sum(theirs[picture] and not ours[picture] for picture in common)
    probability = float(binom.sf(lost - 1, gained + lost, 0.5)) if lost else 1.0
    told = f"of {len(common)} common pictures it alone names {gained} right, the champion alone {lost}"
    if probability < SIGNIFICANCE:
        return Verdict(False, f"{told}: worse (McNemar, p = {probability:.3g})")
    return Verdict(True, f"{told}: not worse (McNemar, p = {probability:.3g})")


def _right(evaluation: Path) -> dict[str, bool]:
    with open(evaluation / "predictions.csv", encoding="utf-8", newline="") as file:
        return {row["ID"]: row["label"] == row["true_label"] for row in csv.DictReader(file)}
