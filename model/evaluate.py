"""The evaluate stage: what a model gets right and wrong on the fold that it did not train on."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support, recall_score

from model import figures
from model.classify import answers, open_classifier
from model.operating import calibrate, choose, curve, decide, expected_calibration_error, outcome
from model.settings import EvaluateSettings
from tfrecords.artifact import Artifact
from tfrecords.errors import refuse
from tfrecords.reader import read_arrays

MISTAKES_SHOWN = 24
Progress = Callable[[int, int, str], None]


def measure(labels: np.ndarray, predicted: np.ndarray, classes: int, normal: int | None) -> dict[str, float]:
    """Figures of merit, each 0..1, from int labels (N,) and predictions (N,).

    escape_rate: share of defects called normal; overkill_rate: share of normal parts called defective; both
    only where there is a normal class and parts to count. Macro F1 is the mean over all classes, balanced accuracy
    the mean recall of those that there are pictures of.
    """
    present = np.unique(labels)
    metrics = {
        "accuracy": float(np.mean(labels == predicted)),
        "balanced_accuracy": float(recall_score(labels, predicted, labels=present, average="macro")),
        "macro_f1": float(f1_score(labels, predicted, labels=range(classes), average="macro", zero_division=0)),
        "pictures": len(labels),
    }
    if normal is not None:
        good = labels == normal
        if (~good).any():
            metrics["escape_rate"] = float(np.mean(predicted[~good] == normal))
        if good.any():
            metrics["overkill_rate"] = float(np.mean(predicted[good] != normal))
    return metrics


def evaluate_model(
    model: Artifact,
    dataset: Artifact,
    normal: int | None,
    settings: EvaluateSettings,
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Measures the model on its validation fold and writes the evaluation's files into `folder`.

    normal: label of good parts, or None. Returns: {metrics: see `measure`, operating: see `_operate`}.
    """
    fold, classes = model.manifest["fold"], dataset.manifest["classes"]
    total = sum(counts.get(str(fold), 0) for counts in dataset.manifest["counts"].values())
    if not total:
        raise refuse(dataset.path, f"no record in fold {fold}, which validates this model", "Name its own dataset")
    classifier = open_classifier(model.path)
    ids, labels, images, parts = [], [], [], []
    for batch in read_arrays(dataset, fold):
        ids += [value.decode() for value in batch["id"]]
        labels += batch["label"].tolist()
        images += list(batch["image"][..., 0])
        parts.append(classifier.probabilities(batch["image"]))
        progress(len(ids), total, "pictures")
    labels, probabilities = np.array(labels), np.concatenate(parts)
    predicted = probabilities.argmax(axis=1)
    metrics = measure(labels, predicted, len(classes), normal)
    operating = _operate(probabilities, labels, normal, settings, folder)
    metrics |= {key: operating[key] for key in ("ece_before", "ece_after", "review_rate")}

    table = answers(probabilities, classes)
    table.insert(0, "ID", ids)
    table.insert(1, "true_label", labels)
    table.insert(2, "true_name", [classes[label] for label in labels])
    table.to_csv(folder / "predictions.csv", index=False, float_format="%.6f")
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    _write_per_class(labels, predicted, classes, folder / "per_class.csv")
    matrix = confusion_matrix(labels, predicted, labels=range(len(classes)))
    pd.DataFrame(matrix, index=classes, columns=classes).to_csv(folder / "confusion.csv", index_label="true")
    title = f"accuracy {metrics['accuracy']:.4f} of {total} pictures"
    figures.confusion_matrix(matrix, classes, title, folder / "confusion.png")
    _draw_mistakes(ids, labels, images, probabilities, classes, folder / "mistakes.png")
    return {"metrics": metrics, "operating": operating}


def _operate(
    probabilities: np.ndarray, labels: np.ndarray, normal: int | None, settings: EvaluateSettings, folder: Path
) -> dict[str, Any]:
    """Chooses the operating point, writes operating.json and tradeoff.png.

    Returns: the point under "point", the bounds, the calibration error before and after, and what the decisions
    mean on this fold (see `model.operating.outcome`); thresholds and outcome come from the same pictures.
    """
    point = choose(probabilities, labels, normal, settings.max_escape_rate, settings.max_overkill_rate)
    scaled = calibrate(probabilities, point.temperature)
    made = outcome(decide(probabilities, point), labels, probabilities.argmax(axis=1), normal)
    operating = {
        "point": point.to_json(),
        "max_escape_rate": settings.max_escape_rate,
        "max_overkill_rate": settings.max_overkill_rate,
        "ece_before": expected_calibration_error(probabilities, labels),
        "ece_after": expected_calibration_error(scaled, labels),
        **made,
    }
    (folder / "operating.json").write_text(json.dumps(operating, indent=1) + "\n")
    figures.tradeoff(*curve(scaled, labels, normal), point.accept_at, normal is not None, folder / "tradeoff.png")
    return operating


def _write_per_class(labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str], path: Path) -> None:
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=range(len(classes)), zero_division=0
    )
    columns = {"name": classes, "precision": precision, "recall": recall, "f1": f1, "pictures": support}
    pd.DataFrame(columns).to_csv(path, index_label="label", float_format="%.6f")


def _draw_mistakes(
    ids: Sequence[str],
    labels: np.ndarray,
    images: Sequence[np.ndarray],
    probabilities: np.ndarray,
    classes: Sequence[str],
    path: Path,
) -> None:
    """The mistakes that the model was surest of come first."""
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    worst = sorted(wrong, key=lambda place: (-probabilities[place].max(), ids[place]))[:MISTAKES_SHOWN]
    captions = [
        f"{ids[place]}\ntrue: {classes[labels[place]]}\n"
        f"said: {classes[predicted[place]]} ({probabilities[place].max():.2f})"
        for place in worst
    ]
    shown = f", the {len(worst)} worst" if len(worst) < len(wrong) else ""
    title = f"{len(wrong)} mistakes in {len(labels)} pictures{shown}"
    figures.picture_sheet([images[place] for place in worst], captions, title, path)
