"""The predict stage: a submission for pictures without labels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from model.classify import answers, open_classifier
from model.evaluate import check_same
from model.settings import PredictSettings
from tfrecords.artifact import Artifact, hash_json, make
from tfrecords.dataset import ROWS
from tfrecords.errors import refuse
from tfrecords.reader import read_arrays

KIND = "prediction"
VERSION = 1
SUBMISSION = "submission.csv"


def predict(
    model: Artifact,
    dataset: Artifact,
    root: Path,
    name: str,
    settings: PredictSettings,
    force: bool = False,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> tuple[Artifact, bool]:
    """Names every row of the CSV that the dataset was made from, in its order.

    Returns:
        the prediction's folder, and whether it was there before. predictions.csv has ID, label, name, one
        probability a class, and status (ok, or unreadable: then without probabilities); submission.csv has
        ID,Label.

    Raises:
        AoiError: a dataset of other classes or preprocessing than the model's; settings outside the classes.
    """
    check_same(model, dataset)
    classes = dataset.manifest["classes"]
    if settings.unreadable_label >= len(classes):
        seen = f"{settings.unreadable_label}, of {len(classes)} classes"
        raise refuse("predict.unreadable_label", seen, f"Set 0 to {len(classes) - 1}")
    fingerprint = hash_json(
        {
            "version": VERSION,
            "model": model.digest,
            "dataset": dataset.digest,
            "predict": settings.model_dump(exclude={"batch_size"}),
        }
    )

    def work(folder: Path) -> dict[str, Any]:
        table = _predict(model, dataset, settings, progress)
        table.to_csv(folder / "predictions.csv", index=False, float_format="%.6f")
        submission = table[["ID", "label"]].rename(columns={"label": "Label"})
        submission.to_csv(folder / SUBMISSION, index=False, lineterminator="\r\n")
        return {
            "model": {"fingerprint": model.fingerprint, "digest": model.digest},
            "dataset": {"fingerprint": dataset.fingerprint, "digest": dataset.digest},
            "settings": settings.model_dump(),
            "pictures": len(table),
            "unreadable": int((table["status"] != "ok").sum()),
            "counts": {name: int((table["label"] == label).sum()) for label, name in enumerate(classes)},
        }

    return make(root, name, KIND, fingerprint, work, force)


def _predict(
    model: Artifact, dataset: Artifact, settings: PredictSettings, progress: Callable[[int, int, str], None]
) -> pd.DataFrame:
    classifier, classes = open_classifier(model.path), dataset.manifest["classes"]
    rows = pd.read_csv(dataset.path / ROWS, dtype={"id": str}, keep_default_na=False)
    ids, parts = [], [np.zeros((0, len(classes)), np.float32)]
    for batch in read_arrays(dataset):
        ids += [value.decode() for value in batch["id"]]
        parts.append(classifier.probabilities(batch["image"], settings.batch_size))
        progress(len(ids), dataset.manifest["records"], "pictures")
    table = answers(np.concatenate(parts), classes)
    table.insert(0, "ID", ids)
    table["status"] = "ok"
    ordered = rows[["id"]].rename(columns={"id": "ID"}).merge(table, on="ID", how="left")
    lost = ordered["status"].isna()
    ordered.loc[lost, ["label", "name", "status"]] = [
        settings.unreadable_label,
        classes[settings.unreadable_label],
        "unreadable",
    ]
    return ordered.astype({"label": int})
