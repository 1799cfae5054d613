"""The export stage: a model for machines without Keras, checked against it on real pictures."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

from model.card import Card, read_card, write_card
from model.decisions import drift
from model.decisions.novelty import NOVELTY_FILE, open_novelty, save_detector
from model.inference.classifier import Classifier, open_classifier
from model.inference.formats import FORMATS
from model.inference.usual import unseen
from model.manifests import Export, ExportCheck, ExportManifest, Feature, Model
from model.network.files import load
from model.registry import tracking
from model.registry.store import Store
from model.settings import Precision
from tfrecords.dataset import Dataset, fold_counts
from tfrecords.errors import MISSED, refuse
from tfrecords.progress import Progress
from tfrecords.records.arrays import read_first

CALIBRATION_PICTURES = 200
CHECKED_PICTURES = 500
TIMED_PICTURES = 50
CHECK = "check.json"
KERAS = "keras"
# What the exported answers may differ by from Keras': a probability in floating point, labels in 8 bits.
LARGEST_DIFFERENCE = {Precision.FLOAT: 1e-4, Precision.INT8: 1.0}
LABELS_THAT_DIFFER = {Precision.FLOAT: 0.0, Precision.INT8: 1e-3}
OTHERWISE = {
    Precision.FLOAT: "Predict with Keras instead: --runtime keras",
    Precision.INT8: "Use floating point (export: --precision float; predict: --runtime litert), or train the whole "
    "network (train.recipe=full), which loses less in 8 bits",
}


def export_model(
    model: Model,
    dataset: Dataset,
    form: str,
    precision: Precision,
    work: Path,
    store: Store,
    progress: Progress,
) -> ExportManifest:
    """Writes the networks of `model` into `work` in a format, with the card that opens them, and check.json; and what
    they are used to, where the model knows it.

    form: a name of FORMATS. precision: INT8 is calibrated on pictures that the networks trained on. check.json
    compares the answers with Keras' on up to 500 pictures of the dataset, those of the validation folds first:
    {pictures, labels_differ, largest_difference, bytes, keras_bytes}. The model's MLflow run gets all files. The
    manifest's `reference` is what the export's confidence on a lot is compared with, see `drift.describe`.

    Raises: AoiError (exit code 1) where the answers differ more than they may.
    """
    card, suffix = read_card(model.path), FORMATS[form].suffix
    networks = card.networks
    to_check = _choose(dataset, set(networks.values()), CHECKED_PICTURES)
    calibrating = CALIBRATION_PICTURES if precision == Precision.INT8 else 0
    folds = set(fold_counts(dataset))
    to_calibrate = {name: _choose(dataset, folds - {fold}, calibrating) for name, fold in networks.items()}
    pictures = _read(dataset, [to_check, *to_calibrate.values()])
    checked = _of(to_check, pictures)
    for name in networks:
        network = FORMATS[form].write(load(model.path / f"{name}.keras"), list(_of(to_calibrate[name], pictures)))
        (work / f"{name}{suffix}").write_bytes(network)
    write_card(work, Card(dataset.manifest.classes, model.manifest.settings.preprocess, networks, card.mirrors))
    _write_detectors(model, networks, dataset, precision, work)
    theirs, ours = (
        _answers(open_classifier(folder, keras=name == KERAS), checked, name, progress)
        for folder, name in ((model.path, KERAS), (work, form))
    )
    answered, expected = (each.mean(axis=0) for each in (ours, theirs))
    check = ExportCheck(
        pictures=len(checked),
        labels_differ=int((expected.argmax(axis=1) != answered.argmax(axis=1)).sum()),
        largest_difference=float(np.abs(expected - answered).max()),
        bytes=sum((work / f"{name}{suffix}").stat().st_size for name in networks),
        keras_bytes=sum((model.path / f"{name}.keras").stat().st_size for name in networks),
    )
    _refuse_difference(check, model, precision)
    facts = check.model_dump()
    (work / CHECK).write_text(json.dumps(facts, indent=1) + "\n")
    tracking.log_export(store, model.manifest.mlflow.run_id, f"{form}-{precision}", facts, work)
    fold_of = np.repeat(list(to_check), list(to_check.values()))
    own = [each[fold_of == fold] for each, fold in zip(ours, networks.values(), strict=True)]
    return ExportManifest(
        model=model.made_from,
        dataset=dataset.made_from,
        classes=dataset.manifest.classes,
        settings=model.manifest.settings,
        format=form,
        precision=precision,
        check=check,
        reference=_reference(np.concatenate(own)),
    )


def _refuse_difference(check: ExportCheck, model: Model, precision: Precision) -> None:
    """Raises: AoiError (exit code 1) where the exported answers differ more from Keras' than they may."""
    allowed = int(np.ceil(LABELS_THAT_DIFFER[precision] * check.pictures))
    if check.labels_differ > allowed or check.largest_difference > LARGEST_DIFFERENCE[precision]:
        raise refuse(
            f"{model.path}, exported in {precision}",
            f"{check.labels_differ} of {check.pictures} labels differ from Keras', at most {allowed} may; "
            f"the largest difference of a probability is {check.largest_difference:.2g}",
            OTHERWISE[precision],
            exit_code=MISSED,
        )


def _write_detectors(
    model: Model, networks: Mapping[str, int], dataset: Dataset, precision: Precision, work: Path
) -> None:
    """Puts the novelty detectors of the networks in `work` beside them, if the model has them. networks: folds by name.

    In 8 bits the scores are others, so the networks' own calibrate it.
    """
    novelty = open_novelty(model.path, networks)
    if novelty is None:
        return
    detectors = dict(zip(networks, novelty.detectors, strict=True))
    if precision == Precision.INT8:
        opened = open_classifier(work)
        held_out = unseen(dict(zip(opened.folds, opened.networks, strict=True)), dataset)
        for name, fold in networks.items():
            seen, chose = held_out[fold]
            detectors[name] = detectors[name].calibrated(seen.at(~chose))
    for name, detector in detectors.items():
        save_detector(detector, work / f"{name}{NOVELTY_FILE}")


def _answers(classifier: Classifier, pictures: np.ndarray, name: str, progress: Progress) -> np.ndarray:
    """What each network says of pictures uint8 (N, S, S, C): float32 (networks, N, classes). name: for the progress."""
    parts = []
    progress(0, len(pictures), f"checked, {name}")
    for at in range(0, len(pictures), 32):
        parts.append(classifier.each(pictures[at : at + 32]))
        progress(min(at + 32, len(pictures)), len(pictures), f"checked, {name}")
    return np.concatenate(parts, axis=1)


def _reference(probabilities: np.ndarray) -> dict[str, Feature]:
    """What the export's answers about a lot are compared with: those about unseen pictures, float32 (N, classes)."""
    values = {"confidence": probabilities.max(axis=1)}
    return drift.describe(values, probabilities.argmax(axis=1), probabilities.shape[1])


def compare_speed(model: Model, exported: Export, dataset: Dataset) -> str:
    """A table: what Keras and the export take on this machine to load and for one picture, and how they differ."""
    checked = exported.manifest.check
    chosen = _choose(dataset, set(read_card(model.path).networks.values()), TIMED_PICTURES)
    pictures = _of(chosen, _read(dataset, [chosen]))
    lines = [f"{'':<12} {'load':>9} {'median':>9} {'99 %':>9} {'size':>9}  on this machine, one picture at a time"]
    for name, folder, runtime, size in (
        (KERAS, model.path, KERAS, checked.keras_bytes),
        (f"{exported.manifest.format}-{exported.manifest.precision}", exported.path, "", checked.bytes),
    ):
        began = perf_counter()
        classifier = open_classifier(folder, keras=runtime == KERAS)
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


def _choose(dataset: Dataset, first: Collection[int], most: int) -> dict[int, int]:
    """How many pictures of each fold make `most`: those of the folds `first`, then, if too few, of the others."""
    chosen, left = {}, most
    for fold, count in sorted(fold_counts(dataset).items(), key=lambda each: (each[0] not in first, each[0])):
        chosen[fold] = min(count, left)
        left -= chosen[fold]
    return chosen


def _read(dataset: Dataset, choices: Sequence[Mapping[int, int]]) -> dict[int, np.ndarray]:
    """The pictures of all choices, in one pass over the shards: uint8 (N, S, S, C) of each fold."""
    return read_first(dataset, {fold: max(choice[fold] for choice in choices) for fold in fold_counts(dataset)})


def _of(choice: Mapping[int, int], pictures: Mapping[int, np.ndarray]) -> np.ndarray:
    """A choice's own of the pictures: uint8 (N, S, S, C), in the order of its folds, then in shard order."""
    return np.concatenate([pictures[fold][:count] for fold, count in choice.items()])
