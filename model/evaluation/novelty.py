"""What a model would make of a class of defects that it was never told of.

Each class in turn is withheld: the last layer and all that novelty rests on are fitted anew without it, and its
pictures are asked about. The features have seen the class when the whole network was trained; the study measures how
much that tells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from model import figures
from model.decisions.novelty import Novelty, learn
from model.decisions.operating import decide
from model.decisions.promise import choose, evidence
from model.inference.formats import Outputs
from model.settings import Decision, EvaluateSettings
from model.training.linear_probe import fit_last_layer

MOST_WITHHELD = 20  # classes, those of most pictures
COLUMNS = ("label", "name", "pictures", "auroc", *(str(decision) for decision in Decision))


@dataclass(frozen=True)
class Labelled:
    """What a network gives of pictures, and their labels int (N,)."""

    seen: Outputs
    labels: np.ndarray

    def at(self, chosen: np.ndarray) -> "Labelled":
        """Some of the pictures: bool (N,)."""
        return Labelled(self.seen.at(chosen), self.labels[chosen])


def withhold_each(
    learned: Labelled,
    held_out: Labelled,
    chose: np.ndarray,
    classes: Sequence[str],
    normal: int | None,
    settings: EvaluateSettings,
) -> pd.DataFrame:
    """A row per class of defects: how its pictures would have fared had nobody labelled any.

    learned: pictures that the network trained on; held_out: those of its fold, and whether each is of the half that
    chooses, bool (N,). normal: label of good parts, which is not withheld, or None.

    Returns: label, name, pictures of the class in the fold, auroc of their novelty against that of the other pictures
    that do not calibrate, and the share of them that gets each decision. Classes without pictures have no row, nor has
    any where fewer than two classes would be left.
    """
    counts = np.bincount(held_out.labels, minlength=len(classes))
    defects = [label for label in np.flatnonzero(counts).tolist() if label != normal]
    withheld = sorted(sorted(defects, key=lambda label: -counts[label])[:MOST_WITHHELD])
    rows = []
    for label in withheld:
        rest = learned.at(learned.labels != label)
        if len(np.unique(rest.labels)) > 1 and np.any(~chose & (held_out.labels != label)):
            auroc, decisions = _without(label, rest, held_out, chose, normal, settings)
            shares = [float(np.mean(decisions == decision)) for decision in Decision]
            rows.append([label, classes[label], int(counts[label]), auroc, *shares])
    return pd.DataFrame(rows, columns=list(COLUMNS))


def summarize(table: pd.DataFrame) -> dict[str, float]:
    """The means over the classes, for MLflow: of auroc, and of the share that a person would have seen."""
    if not len(table):
        return {}
    people = table[[Decision.UNKNOWN, Decision.REVIEW]].sum(axis=1)
    return {"novelty_auroc": float(table["auroc"].mean()), "novelty_to_people": float(people.mean())}


def write_withheld(table: pd.DataFrame, folder: Path) -> None:
    """novelty.csv, and as a figure novelty.png."""
    table.to_csv(folder / "novelty.csv", index=False, float_format="%.6f")
    names = [f"{row['name']}\n{row['pictures']} pictures, AUROC {row['auroc']:.3f}" for _, row in table.iterrows()]
    shares = {str(decision): table[decision].tolist() for decision in Decision}
    title = "had nobody labelled this class: what would have become of its parts"
    figures.shares(names, shares, title, folder / "novelty.png")


def _without(
    label: int, rest: Labelled, held_out: Labelled, chose: np.ndarray, normal: int | None, settings: EvaluateSettings
) -> tuple[float, np.ndarray]:
    """(AUROC, decisions about the pictures of the withheld class) of a network that knows the other classes alone."""
    known, places = np.unique(rest.labels, return_inverse=True)
    kernel, bias = fit_last_layer(rest.seen.features, places, [1.0] * len(known))
    own = held_out.labels == label
    others = np.isin(held_out.labels, known)
    guiding, calibrating = (held_out.seen.at(others & half) for half in (chose, ~chose))
    usual = Novelty((learn(kernel, bias, rest.seen, places, guiding, calibrating),))
    novelty = usual.of([held_out.seen])
    # Where all pictures calibrate, they have to do.
    compared = novelty[others & chose] if np.any(others & chose) else novelty[others]
    truth = np.repeat([0, 1], [len(compared), own.sum()])
    auroc = float(roc_auc_score(truth, np.concatenate([compared, novelty[own]])))
    probabilities = softmax(held_out.seen.features @ kernel + bias, axis=1)
    here = np.searchsorted(known, held_out.labels[others])
    found = evidence(probabilities[others], here, chose[others])
    point, _ = choose(found, None if normal is None else int(np.searchsorted(known, normal)), settings)
    unknown = usual.unknown(novelty[own], point.max_false_unknown)
    return auroc, decide(probabilities[own], point, unknown)
