"""The predict stage: a submission for pictures without labels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from model.decisions import drift
from model.decisions.operating import ACCEPT, REJECT, REVIEW, decide
from model.inference.classifier import open_classifier, prediction_table
from model.manifests import Evaluation, Model, PredictionManifest
from model.settings import REVIEW_FILE, SUBMISSION, PredictSettings
from tfrecords.dataset import ROWS, Dataset
from tfrecords.records.arrays import read_arrays

Progress = Callable[[int, int, str], None]


def predict_lot(
    model: Model,
    answering: Path,
    dataset: Dataset,
    evaluation: Evaluation | None,
    settings: PredictSettings,
    folder: Path,
    progress: Progress,
) -> PredictionManifest:
    """Names and decides every row of the CSV that the dataset was made from, in its order.

    answering: folder of the networks that answer: the model's, or an export's; evaluation: of the model, whose
    operating point decides; or None: then every part is for review.

    Writes into `folder` predictions.csv (ID, label, name, one probability a class, decision, and status: ok, or
    unreadable and then without probabilities), review.csv (the parts that a person should look at, the least sure
    first) and submission.csv (ID,Label).
    """
    classes = dataset.manifest.classes
    table = _predict(answering, dataset, settings, progress)
    readable = (table["status"] == "ok").to_numpy()
    table.insert(len(table.columns) - 1, "decision", REVIEW)
    probabilities = table.loc[readable, list(classes)].to_numpy(dtype=float)
    found = {}
    if evaluation:
        known = evaluation.manifest
        table.loc[readable, "decision"] = decide(probabilities, known.operating.point)
        values = drift.measures(_read_rows(dataset)) | {"confidence": probabilities.max(axis=1, initial=0)}
        found = drift.compare(known.reference, values, probabilities.argmax(axis=1))
    table.to_csv(folder / "predictions.csv", index=False, float_format="%.6f")
    review = table[table["decision"] == REVIEW].assign(confidence=table[list(classes)].max(axis=1))
    review = review.sort_values(["confidence", "ID"], na_position="first")
    columns = ["ID", "label", "name", "confidence", "status"]
    review[columns].to_csv(folder / REVIEW_FILE, index=False, float_format="%.6f")
    submission = table[["ID", "label"]].rename(columns={"label": "Label"})
    submission.to_csv(folder / SUBMISSION, index=False, lineterminator="\r\n")
    return PredictionManifest(
        model=model.made_from,
        dataset=dataset.made_from,
        settings=settings,
        pictures=len(table),
        unreadable=int((~readable).sum()),
        counts={name: int((table["label"] == label).sum()) for label, name in enumerate(classes)},
        drift=found,
        decisions={decision: int((table["decision"] == decision).sum()) for decision in (ACCEPT, REJECT, REVIEW)},
    )


def _predict(answering: Path, dataset: Dataset, settings: PredictSettings, progress: Progress) -> pd.DataFrame:
    classifier, classes = open_classifier(answering, settings.runtime), dataset.manifest.classes
    rows = _read_rows(dataset)
    ids, parts = [], [np.zeros((0, len(classes)), np.float32)]
    for batch in read_arrays(dataset):
        ids += batch["id"].tolist()
        parts.append(classifier.shifted(batch["image"], settings.shift_copies))
        progress(len(ids), dataset.manifest.records, "pictures")
    table = prediction_table(np.concatenate(parts), classes)
    table.insert(0, "ID", ids)
    # By name, since a table without rows has no types of its own.
    table = table.assign(status="ok").astype({"ID": str, "name": str, "status": str})
    ordered = rows[["id"]].rename(columns={"id": "ID"}).merge(table, on="ID", how="left")
    lost = ordered["status"].isna()
    ordered.loc[lost, ["label", "name", "status"]] = [
        settings.unreadable_label,
        classes[settings.unreadable_label],
        "unreadable",
    ]
    return ordered.astype({"label": int})


def _read_rows(dataset: Dataset) -> pd.DataFrame:
    return pd.read_csv(dataset.path / ROWS, dtype={"id": str, "phash": str}, keep_default_na=False)
