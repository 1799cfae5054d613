"""The export stage: a model for machines without Keras, checked against it on real pictures."""

import json
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np

from model.inference.classifier import open_classifier, read_networks, write_card
from model.inference.litert import to_litert
from model.manifests import Export, ExportCheck, ExportManifest, Model
from model.network.files import load
from model.registry import tracking
from model.registry.store import Store
from model.settings import INT8, KERAS, LITERT
from tfrecords.dataset import Dataset
from tfrecords.errors import MISSED, refuse
from tfrecords.records.arrays import read_arrays

CALIBRATION_PICTURES = 200
CHECKED_PICTURES = 500
TIMED_PICTURES = 50
CHECK = "check.json"
# What the exported answers may differ by from Keras': a probability in floating point, labels in 8 bits.
LARGEST_DIFFERENCE = {"float": 1e-4, INT8: 1.0}
LABELS_THAT_DIFFER = {"float": 0.0, INT8: 1e-3}


def export_model(
    model: Model,
    dataset: Dataset,
    precision: str,
    work: Path,
    store: Store,
    progress: Callable[[int, int, str], None],
) -> ExportManifest:
    """Writes the networks of `model` into `work` as NAME.tflite, with the card that opens them, and check.json.

    precision: "float", or INT8, calibrated on pictures that the networks trained on. check.json compares the answers
    with Keras' on up to 500 pictures of the dataset, those of the validation folds first:
    {pictures, labels_differ, largest_difference, bytes, keras_bytes}. The model's MLflow run gets all files.

    Raises: AoiError (exit code 1) where the answers differ more than they may.
    """
    networks = read_networks(model.path)
    checked = _pictures(dataset, set(networks.values()), CHECKED_PICTURES)
    total = 2 * len(checked)
    for name, fold in networks.items():
        learned = set(range(dataset.manifest.settings.ingest.folds)) - {fold}
        calibration = _pictures(dataset, learned, CALIBRATION_PICTURES) if precision == INT8 else ()
        (work / f"{name}.tflite").write_bytes(to_litert(load(model.path / f"{name}.keras"), calibration))
    write_card(work, dataset.manifest.classes, model.manifest.settings.preprocess, networks)
    answers = []
    for folder, runtime in ((model.path, KERAS), (work, LITERT)):
        classifier, parts = open_classifier(folder, runtime), []
        for at in range(0, len(checked), 32):
            parts.append(classifier.probabilities(checked[at : at + 32]))
            progress(len(answers) * len(checked) + at, total, f"checked, {runtime}")
        answers.append(np.concatenate(parts))
    theirs, ours = answers
    check = {
        "pictures": len(checked),
        "labels_differ": int((theirs.argmax(axis=1) != ours.argmax(axis=1)).sum()),
        "largest_difference": float(np.abs(theirs - ours).max()),
        "bytes": sum((work / f"{name}.tflite").stat().st_size for name in networks),
        "keras_bytes": sum((model.path / f"{name}.keras").stat().st_size for name in networks),
    }
    allowed = int(np.ceil(LABELS_THAT_DIFFER[precision] * len(checked)))
    if check["labels_differ"] > allowed or check["largest_difference"] > LARGEST_DIFFERENCE[precision]:
        raise refuse(
            f"{model.path}, exported in {precision}",
            f"{check['labels_differ']} of {len(checked)} labels are not Keras', {allowed} may be; "
            f"the largest difference of a probability is {check['largest_difference']:.2g}",
            "Export in float; a network that was trained whole (train.recipe=full) bears 8 bits better",
            exit_code=MISSED,
        )
    (work / CHECK).write_text(json.dumps(check, indent=1) + "\n")
    tracking.log_export(store, model.manifest.mlflow.run_id, f"{LITERT}-{precision}", check, work)
    return ExportManifest(
        model=model.made_from,
        dataset=dataset.made_from,
        classes=dataset.manifest.classes,
        settings=model.manifest.settings,
        precision=precision,
        check=ExportCheck(**check),
    )


def compare_speed(model: Model, exported: Export, dataset: Dataset) -> str:
    """A table: what Keras and the export take on this machine to load and for one picture, and how they differ."""
    checked = exported.manifest.check
    pictures = _pictures(dataset, set(read_networks(model.path).values()), TIMED_PICTURES)
    lines = [f"{'':<12} {'load':>9} {'median':>9} {'99 %':>9} {'size':>9}  on this machine, a picture at a time"]
    for name, folder, runtime, size in (
        (KERAS, model.path, KERAS, checked.keras_bytes),
        (f"{LITERT}-{exported.manifest.precision}", exported.path, LITERT, checked.bytes),
    ):
        began = perf_counter()
        classifier = open_classifier(folder, runtime)
        loaded = perf_counter() - began
        classifier.probabilities(pictures[:1])  # the first call is set-up
        seconds = []
        for place in range(len(pictures)):
            began = perf_counter()
            classifier.probabilities(pictures[place : place + 1])
            seconds.append(perf_counter() - began)
        median, slow = np.quantile(seconds, [0.5, 0.99])
        figures = f"{1e3 * loaded:6.0f} ms {1e3 * median:6.1f} ms {1e3 * slow:6.1f} ms {size / 1e6:6.1f} MB"
        lines.append(f"{name:<12} {figures}")
    lines.append(
        f"on {checked.pictures:,} pictures {checked.labels_differ} labels differ from Keras'; "
        f"largest difference of a probability: {checked.largest_difference:.2g}"
    )
    return "\n".join(lines)


def _pictures(dataset: Dataset, first: set[int], most: int) -> np.ndarray:
    """Up to `most` pictures, uint8 (N, S, S, 1): of the folds `first`, then, where those are too few, of the others."""
    folds = range(dataset.manifest.settings.ingest.folds)
    found, count = [], 0
    for fold in sorted(folds, key=lambda fold: (fold not in first, fold)):
        for batch in read_arrays(dataset, fold):
            found.append(batch["image"][: most - count])
            count += len(found[-1])
            if count >= most:
                return np.concatenate(found)
    return np.concatenate(found)
