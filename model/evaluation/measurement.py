"""What a finished model gets right and wrong on a lot whose labels are known."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from model.decisions.operating import interval, outcome
from model.evaluation.evaluate import MISTAKES_SHOWN, write_measured
from model.evaluation.metrics import measure
from model.evaluation.predictions import Predictions
from model.inference.answers import OK
from model.manifests import MeasurementManifest, Prediction
from tfrecords.dataset import ROWS, Dataset
from tfrecords.records.arrays import read_arrays


def measure_lot(prediction: Prediction, lot: Dataset, normal: int | None, folder: Path) -> MeasurementManifest:
    """Compares the answers about a lot with its labels; unreadable pictures are left out.

    normal: label of good parts, or None. Writes into `folder` what an evaluation writes about mistakes: metrics.json,
    per_class.csv, confusion.csv, confusion.png and mistakes.png; mistakes.csv, the mistakes that the model was surest
    of first; and decided.json, what the decisions mean.
    """
    classes = lot.manifest.classes
    answers = pd.read_csv(prediction.path / "predictions.csv", dtype={"ID": str, "name": str}, keep_default_na=False)
    rows = pd.read_csv(lot.path / ROWS, dtype={"id": str}, keep_default_na=False)
    readable = (answers["status"] == OK).to_numpy()
    answers, rows = answers[readable], rows[readable]
    labels, predicted = rows["label"].to_numpy(), answers["label"].to_numpy()
    probabilities = answers[list(classes)].to_numpy(dtype=float)
    probabilities[np.arange(len(predicted)), predicted] += 1e-9  # what was said leads where six digits are equal
    ids = rows["id"].tolist()
    unread = np.zeros(0, np.uint8)
    seen = Predictions(ids, labels, rows["fold"].to_numpy(), [unread] * len(ids), probabilities, np.zeros(len(ids)))
    wrong = seen.mistakes()
    shown = {ids[place] for place in wrong[:MISTAKES_SHOWN]}
    images = {
        name: image
        for batch in read_arrays(lot)
        for name, image in zip(batch["id"].tolist(), batch["image"], strict=True)
        if name in shown
    }
    seen = replace(seen, images=[images.get(name, unread) for name in ids])
    metrics = measure(labels, predicted, len(classes), normal)
    low, high = interval(len(ids) - len(wrong), len(ids))
    metrics |= {"accuracy_low": low, "accuracy_high": high, "unreadable": prediction.manifest.unreadable}
    decided = outcome(answers["decision"].to_numpy(), labels, predicted, normal)
    write_measured(seen, predicted, metrics, classes, folder)
    (folder / "decided.json").write_text(json.dumps(decided, indent=1) + "\n")
    mistakes = answers.iloc[wrong][["ID", "label", "name", "decision"]]
    mistakes.insert(1, "true_label", labels[wrong])
    mistakes.insert(2, "true_name", [classes[label] for label in labels[wrong]])
    mistakes = mistakes.assign(confidence=probabilities.max(axis=1)[wrong])
    mistakes.to_csv(folder / "mistakes.csv", index=False, float_format="%.6f")
    return MeasurementManifest(
        model=prediction.manifest.model,
        dataset=lot.made_from,
        prediction=prediction.made_from,
        metrics=metrics,
        decided=decided,
    )
