"""Which pictures of a validation fold choose, and which prove.

A picture that chose the epoch or the temperature of a model proves nothing about it by itself. So one half of the fold
chooses, and the other half proves. In a cross-validation all pictures prove: there the epoch that the proving half
would choose answers about the choosing half.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tfrecords.dataset import Dataset, contents

OTHER_EPOCH = ".other_epoch.csv"  # behind a network's name


def choosing(dataset: Dataset, ids: Sequence[str]) -> np.ndarray:
    """Whether each picture is of the half that chooses: bool (N,)."""
    content_of = contents(dataset)
    return chooses(content_of[name] for name in ids)


def chooses(contents: Iterable[str]) -> np.ndarray:
    """As `choosing`, from the sha256 of each picture's file, in hex.

    It alone decides: copies of a picture lie in the same half, in any dataset. Its end, since its beginning picks the
    fold.
    """
    return np.array([int(content[-1], 16) % 2 == 0 for content in contents], dtype=bool)


def write_other_epoch(
    folder: Path, network: str, ids: Sequence[str], answers: np.ndarray, classes: Sequence[str]
) -> None:
    """Puts beside a network what the epoch that the proving half would choose answers about the choosing half.

    answers: probabilities float32 (N, classes), of the pictures `ids`.
    """
    table = pd.DataFrame(answers, columns=list(classes))
    table.insert(0, "ID", list(ids))
    table.to_csv(folder / f"{network}{OTHER_EPOCH}", index=False)


def with_other_epochs(
    probabilities: np.ndarray, ids: Sequence[str], folder: Path, networks: Iterable[str]
) -> np.ndarray:
    """Probabilities (N, classes), those of `write_other_epoch` in their places. Without such a file both halves chose
    the same epoch.
    """
    fair, place = probabilities.copy(), {name: at for at, name in enumerate(ids)}
    for network in networks:
        path = folder / f"{network}{OTHER_EPOCH}"
        if path.exists():
            table = pd.read_csv(path, dtype={"ID": str}, keep_default_na=False)
            known = table[table["ID"].isin(place.keys())]
            fair[[place[name] for name in known["ID"]]] = known.drop(columns="ID").to_numpy()
    return fair
