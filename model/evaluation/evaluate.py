"""The evaluate stage: what a model gets right and wrong on the fold that it did not train on."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from model import figures
from model.card import read_card
from model.decisions import drift
from model.decisions.halves import choosing, with_other_epochs
from model.decisions.operating import calibrate, curve, decide, expected_calibration_error, outcome, rate
from model.decisions.promise import Evidence, choose, evidence, promise_unknown, unproven, upper
from model.evaluation.gradcam import draw_gradcam
from model.evaluation.label_issues import write_label_issues
from model.evaluation.metrics import measure
from model.evaluation.novelty import Labelled, summarize, withhold_each, write_withheld
from model.evaluation.predictions import Predictions
from model.inference.classifier import Classifier, open_classifier, prediction_table
from model.inference.formats import Outputs, joined
from model.inference.usual import learned
from model.manifests import EvaluationManifest, Feature, Model, Operating, OperatingPoint, Promise, Promised
from model.settings import EvaluateSettings
from tfrecords.dataset import ROWS, Dataset, fold_counts
from tfrecords.errors import refuse
from tfrecords.lettering import CAPTION_COLUMNS, names_in_figures
from tfrecords.progress import Progress
from tfrecords.records.arrays import read_arrays

MISTAKES_SHOWN = 24


def evaluate_model(
    model: Model,
    dataset: Dataset,
    normal: int | None,
    settings: EvaluateSettings,
    folder: Path,
    progress: Progress,
) -> EvaluationManifest:
    """Measures the model on its validation fold and writes the evaluation's files into `folder`.

    normal: label of good parts, or None.
    """
    classes = dataset.manifest.classes
    classifier = open_classifier(model.path)
    seen, outputs = _answer(classifier, dataset, progress)
    predicted = seen.probabilities.argmax(axis=1)
    metrics = measure(seen.labels, predicted, len(classes), normal)
    chose = choosing(dataset, seen.ids)
    found = _evidence(seen, model, chose)
    point, promised = choose(found, normal, settings)
    if not model.manifest.half_chose:
        promised = unproven(promised)
    operating = _operating(seen, classifier, point, promised, chose, normal, settings)
    (folder / "operating.json").write_text(json.dumps(operating, indent=1) + "\n")
    _draw_tradeoff(found, point, promised.promises[0], normal, settings.confidence, folder / "tradeoff.png")
    metrics |= {key: operating[key] for key in ("ece_before", "ece_after", "review_rate")}
    if classifier.novelty:
        metrics |= _withhold(classifier, seen, outputs, dataset, normal, settings, folder)
    metrics["suspicious_labels"] = write_label_issues(seen, classes, folder)

    table = prediction_table(seen.probabilities, classes)
    table.insert(0, "ID", seen.ids)
    table.insert(1, "true_label", seen.labels)
    table.insert(2, "true_name", [classes[label] for label in seen.labels])
    table = table.assign(novelty=seen.novelty)
    table.to_csv(folder / "predictions.csv", index=False, float_format="%.6f")
    write_measured(seen, predicted, metrics, classes, folder)
    draw_gradcam(model.path, seen, classes, folder / "gradcam.png")
    return EvaluationManifest(
        model=model.made_from,
        dataset=dataset.made_from,
        settings=settings,
        metrics=metrics,
        operating=Operating(**operating),
        reference=_reference(dataset, seen),
        passed=metrics["accuracy"] >= settings.minimum_accuracy,
    )


def write_measured(
    seen: Predictions, predicted: np.ndarray, metrics: dict[str, float], classes: Sequence[str], folder: Path
) -> None:
    """Writes metrics.json, per_class.csv, confusion.csv, confusion.png, mistakes.png. predicted: labels, int (N,)."""
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    _write_per_class(seen.labels, predicted, classes, folder / "per_class.csv")
    matrix = confusion_matrix(seen.labels, predicted, labels=range(len(classes)))
    _write_confusion(matrix, classes, folder / "confusion.csv")
    title = f"accuracy {metrics['accuracy']:.4f} of {len(seen.ids)} pictures"
    figures.confusion_matrix(matrix, classes, title, folder / "confusion.png")
    _draw_mistakes(seen, classes, folder / "mistakes.png")


def _reference(dataset: Dataset, seen: Predictions) -> dict[str, Feature]:
    """What lots are compared with: brightness and contrast of all training pictures, answers about unseen ones."""
    values = drift.measures(pd.read_csv(dataset.path / ROWS, keep_default_na=False))
    values["confidence"] = seen.probabilities.max(axis=1)
    return drift.describe(values, seen.probabilities.argmax(axis=1), len(dataset.manifest.classes))


def _withhold(
    classifier: Classifier,
    seen: Predictions,
    outputs: Outputs,
    dataset: Dataset,
    normal: int | None,
    settings: EvaluateSettings,
    folder: Path,
) -> dict[str, float]:
    """Withholds each class of defects in turn, of an ensemble from its first network; see `withhold_each`."""
    network, fold = classifier.networks[0], classifier.folds[0]
    own = seen.folds == fold
    held_out = Labelled(outputs.at(own), seen.labels[own])
    ids = [name for name, is_own in zip(seen.ids, own, strict=True) if is_own]
    known = Labelled(*learned(network, dataset, fold))
    table = withhold_each(known, held_out, choosing(dataset, ids), dataset.manifest.classes, normal, settings)
    write_withheld(table, folder)
    return summarize(table)


def _answer(classifier: Classifier, dataset: Dataset, progress: Progress) -> tuple[Predictions, Outputs]:
    """Every record of the folds that a network of the classifier did not train on, named by those networks; and what
    these give of them.

    The rows are in the order of the classifier's folds; within a fold they are in shard order.
    """
    counts = fold_counts(dataset)
    total = sum(counts[fold] for fold in classifier.folds)
    if not total:
        seen = f"no record in fold {classifier.folds[0]}, which validates this model"
        raise refuse(dataset.path, seen, "Name the dataset that the model was trained on, or train on this one")
    done = 0
    progress(done, total, "pictures")
    parts: dict[int, list[dict[str, np.ndarray]]] = defaultdict(list)
    looked: dict[int, list[Outputs]] = defaultdict(list)
    for batch in read_arrays(dataset, classifier.folds):
        for fold in np.unique(batch["fold"]).tolist():
            own = {key: values[batch["fold"] == fold] for key, values in batch.items()}
            given = classifier.unseen(own["image"], fold)
            looked[fold].append(given)
            parts[fold].append({**own, "novelty": classifier.novelty_unseen(given, fold)})
            done += len(own["id"])
            progress(done, total, "pictures")
    ordered = [part for fold in classifier.folds for part in parts[fold]]
    whole = {key: np.concatenate([part[key] for part in ordered]) for key in ordered[0] if key != "image"}
    images = [image for part in ordered for image in part["image"]]
    outputs = joined([given for fold in classifier.folds for given in looked[fold]])
    ids, probabilities, novelty = whole["id"].tolist(), outputs.probabilities, whole["novelty"]
    return Predictions(ids, whole["label"], whole["fold"], images, probabilities, novelty), outputs


def _evidence(seen: Predictions, model: Model, chose: np.ndarray) -> Evidence:
    """What thresholds are chosen and promises are proven with. chose: which pictures chose the epoch, bool (N,)."""
    if len(model.manifest.folds) == 1:
        return evidence(seen.probabilities, seen.labels, chose, None)
    fair = with_other_epochs(seen.probabilities, seen.ids, model.path, read_card(model.path).networks)
    return evidence(fair, seen.labels, chose, seen.folds)


def _operating(
    seen: Predictions,
    classifier: Classifier,
    point: OperatingPoint,
    promised: Promised,
    chose: np.ndarray,
    normal: int | None,
    settings: EvaluateSettings,
) -> dict[str, Any]:
    """What operating.json holds: the point under "point", the bounds, the promises, the calibration error before and
    after, and what the decisions mean on all pictures (see `model.decisions.operating.outcome`).
    """
    unknown, counted_unknown = None, {}
    if classifier.novelty:
        known = promise_unknown(classifier.novelty, point.max_false_unknown)
        promised = promised.model_copy(update={"promise_unknown": known})
        unknown = classifier.unknown_unseen(seen.novelty, seen.folds, point.max_false_unknown)
        # Counted on the half that did not calibrate.
        counted_unknown = rate("false_unknown", int(unknown[chose].sum()), int(chose.sum()))
    decisions = decide(seen.probabilities, point, unknown)
    scaled = calibrate(seen.probabilities, point.temperature)
    return {
        "point": point.model_dump(),
        "max_escape_rate": settings.max_escape_rate,
        "max_overkill_rate": settings.max_overkill_rate,
        **{name: each for name, each in promised.model_dump().items() if each},
        "ece_before": expected_calibration_error(seen.probabilities, seen.labels),
        "ece_after": expected_calibration_error(scaled, seen.labels),
        **outcome(decisions, seen.labels, seen.probabilities.argmax(axis=1), normal),
        **counted_unknown,
    }


def _draw_tradeoff(
    found: Evidence, point: OperatingPoint, promise: Promise, normal: int | None, confidence: float, path: Path
) -> None:
    thresholds, cost, escapes, trials = curve(found.scaled, found.labels, normal)
    counted, proven = escapes / np.maximum(1, trials), upper(escapes, trials, confidence)
    figures.tradeoff(thresholds, cost, counted, proven, point.accept_at, promise, path)


def _write_per_class(labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str], path: Path) -> None:
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=range(len(classes)), zero_division=0
    )
    columns = {"name": classes, "precision": precision, "recall": recall, "f1": f1, "pictures": support}
    pd.DataFrame(columns).to_csv(path, index_label="label", float_format="%.6f")


def _write_confusion(matrix: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Counts (C, C): a row per true class, a column per predicted one, before them the true class's name."""
    first = "true" if "true" not in classes else "true_name"  # which no class is called
    pd.DataFrame(matrix, index=list(classes), columns=list(classes)).to_csv(path, index_label=first)


def _draw_mistakes(seen: Predictions, classes: Sequence[str], path: Path) -> None:
    """The mistakes that the model was surest of come first."""
    wrong = seen.mistakes()
    worst = wrong[:MISTAKES_SHOWN]
    names, note = names_in_figures(classes, CAPTION_COLUMNS)
    captions = [seen.caption(place, names) for place in worst]
    shown = f", the {len(worst)} worst" if len(worst) < len(wrong) else ""
    title = f"{len(wrong)} mistake{'s' * (len(wrong) != 1)} in {len(seen.ids)} pictures{shown}"
    figures.picture_sheet([seen.images[place] for place in worst], captions, title, path, note=note)
