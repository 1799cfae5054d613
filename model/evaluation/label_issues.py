"""Which labels a person should look at again: confident learning on answers about unseen pictures."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores

from model import figures
from model.evaluation.predictions import Predictions
from tfrecords.lettering import CAPTION_COLUMNS, names_in_figures

SHOWN = 48


def write_label_issues(seen: Predictions, classes: Sequence[str], folder: Path) -> int:
    """Writes label_audit.csv (every picture, the most suspicious label first) and suspects.png.

    Source: Northcutt et al., Confident Learning, JAIR 2021, by cleanlab: a label is suspicious where the model is
    surer of another class than it usually is of that class; ranked by the probability of the given label.

    Returns: how many labels are suspicious.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with few pictures, for which it knows less
        issues = find_label_issues(seen.labels, seen.probabilities, n_jobs=1)
    quality = get_label_quality_scores(seen.labels, seen.probabilities)
    order = sorted(range(len(seen.ids)), key=lambda place: (not issues[place], quality[place], seen.ids[place]))
    said = seen.probabilities.argmax(axis=1)
    rows = [
        (seen.ids[place], classes[seen.labels[place]], classes[said[place]], quality[place], bool(issues[place]))
        for place in order
    ]
    columns = ["ID", "label", "suggested", "quality", "suspicious"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "label_audit.csv", index=False, float_format="%.6f")
    count = int(np.sum(issues))
    worst = order[: min(count, SHOWN)]
    names, note = names_in_figures(classes, CAPTION_COLUMNS)
    captions = [seen.caption(place, names) for place in worst]
    title = f"{count} suspicious labels in {len(order)}" + (f", the {SHOWN} worst" if count > SHOWN else "")
    images = [seen.images[place] for place in worst]
    figures.picture_sheet(images, captions, title, folder / "suspects.png", columns=8, note=note)
    return count
