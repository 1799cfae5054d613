"""The model's stages: what each is named after, what it refuses, and what it leaves behind.

TensorFlow and MLflow take seconds to import; the modules that need them are imported once there is work.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from model.network.weights import weights_digest
from model.quiet import stderr_closed
from model.registry.store import Store
from model.settings import KERAS, EvaluateSettings, PredictSettings, TrainSettings
from tfrecords.artifacts.artifact import RECORD, Artifact, verify
from tfrecords.artifacts.files import hash_json
from tfrecords.artifacts.make import make
from tfrecords.dataset import record_count
from tfrecords.errors import MISSED, refuse

MODEL, EVALUATION, PREDICTION, EXPORT = "model", "evaluation", "prediction", "export"
# Raise the number of a stage when the same settings and inputs would give another result.
VERSIONS = {MODEL: 7, EVALUATION: 4, PREDICTION: 4, EXPORT: 1}
Progress = Callable[[int, int, str], None]


def train(
    dataset: Artifact, root: Path, store: Store, settings: TrainSettings, force: bool, progress: Progress
) -> tuple[Artifact, bool]:
    """The model of a dataset: found under `root`, or trained and recorded in MLflow.

    An interrupted training goes on after its last finished epoch, to the same model as an uninterrupted one.

    Args:
        progress: called with pictures seen, pictures in all, and a note on the epoch.

    Returns:
        the model's folder (see `model.training.train.train_model`), and whether it was there before.

    Raises:
        AoiError: weights that can't be had, a dataset without labels or without the fold.
    """
    if dataset.manifest["split"] != "train":
        raise refuse(dataset.path, "a dataset without labels", "Name one that was made from train.csv")
    check_fold(dataset.manifest["settings"]["ingest"]["folds"], settings)
    settings = with_epochs(settings, dataset)
    chosen = {**settings.model_dump(), "weights": weights_digest(settings.weights)}
    fingerprint = hash_json({"version": VERSIONS[MODEL], "dataset": dataset.digest, "train": chosen})

    def build(work: Path) -> dict[str, Any]:
        verify(dataset)
        _import_tensorflow()
        from model.training.train import train_model

        return train_model(dataset, work, store, settings, fingerprint, progress)

    return make(root, store.name, MODEL, fingerprint, build, force)


def evaluate(
    model: Artifact,
    dataset: Artifact,
    root: Path,
    store: Store,
    settings: EvaluateSettings,
    force: bool,
    progress: Progress,
) -> tuple[Artifact, bool]:
    """Measures a model on the validation fold of a dataset, and adds that to the model's MLflow run.

    Returns:
        the evaluation's folder (metrics.json, confusion.csv and .png, per_class.csv, mistakes.png, operating.json,
        tradeoff.png, predictions.csv), and whether it was there before.

    Raises:
        AoiError: a dataset of other classes or preprocessing than the model's, or without that fold.
    """
    check_same(model, dataset)
    normal = normal_class(dataset.manifest["classes"], settings)
    made_from = _made_from(model, dataset)
    fingerprint = hash_json({"version": VERSIONS[EVALUATION], **made_from, "evaluate": settings.model_dump()})

    def build(work: Path) -> dict[str, Any]:
        verify(model)
        verify(dataset)
        _import_tensorflow()
        from model.evaluation.evaluate import evaluate_model
        from model.registry.tracking import log_evaluation

        measured = evaluate_model(model, dataset, normal, settings, work, progress)
        metrics = measured["metrics"]
        passed = metrics["accuracy"] >= settings.minimum_accuracy
        log_evaluation(store, model.manifest[RECORD]["run_id"], metrics, work, passed)
        return {**made_from, "settings": settings.model_dump(), **measured, "passed": passed}

    return make(root, store.name, EVALUATION, fingerprint, build, force)


def predict(
    model: Artifact,
    dataset: Artifact,
    evaluation: Artifact | None,
    exported: Artifact | None,
    root: Path,
    name: str,
    settings: PredictSettings,
    force: bool,
    progress: Progress,
) -> tuple[Artifact, bool]:
    """Names the pictures of a dataset without labels, decides each part, and tells whether the lot looks as usual.

    evaluation: of the model; its operating point decides and its pictures are what is usual. Without one every
    part is for review. exported: of the model, where predict.runtime is litert-int8.

    Returns:
        the prediction's folder (predictions.csv, review.csv and submission.csv), and
        whether it was there before.

    Raises:
        AoiError: a dataset of other classes or preprocessing than the model's; a setting outside the classes.
    """
    check_same(model, dataset)
    check_unreadable_label(dataset.manifest["classes"], settings)
    made_from = _made_from(model, dataset)
    chosen = settings.model_dump()
    known = {key: evaluation.manifest[key] for key in ("operating", "reference")} if evaluation else None
    fingerprint = hash_json({"version": VERSIONS[PREDICTION], **made_from, "predict": chosen, "known": known})

    def build(work: Path) -> dict[str, Any]:
        answering = exported or model
        for artifact in (answering, dataset):
            verify(artifact)
        if settings.runtime == KERAS:
            _import_tensorflow()
        from model.inference.predict import predict_lot

        return {**made_from, "settings": chosen, **predict_lot(answering, dataset, known, settings, work, progress)}

    return make(root, name, PREDICTION, fingerprint, build, force)


def export(
    model: Artifact, dataset: Artifact, root: Path, store: Store, precision: str, force: bool, progress: Progress
) -> tuple[Artifact, bool]:
    """A model for LiteRT, in floating point or in 8 bits, checked against Keras on the dataset's pictures.

    Returns:
        the export's folder (see `model.inference.export.export_model`), and whether it was there before.

    Raises:
        AoiError: a dataset of other classes or preprocessing than the model's; answers that differ too much.
    """
    check_same(model, dataset)
    made_from = _made_from(model, dataset)
    fingerprint = hash_json({"version": VERSIONS[EXPORT], **made_from, "precision": precision})

    def build(work: Path) -> dict[str, Any]:
        verify(model)
        verify(dataset)
        _import_tensorflow()
        from model.inference.export import export_model

        return {**made_from, **export_model(model, dataset, precision, work, store, progress)}

    return make(root, store.name, EXPORT, fingerprint, build, force)


def compare_speed(model: Artifact, exported: Artifact, dataset: Artifact) -> str:
    """See `model.inference.export.compare_speed`."""
    _import_tensorflow()
    from model.inference import export

    return export.compare_speed(model, exported, dataset)


def with_epochs(settings: TrainSettings, dataset: Artifact) -> TrainSettings:
    """The same with `epochs` set for a dataset of equally large folds, so that a cross-validation trains alike."""
    folds = dataset.manifest["settings"]["ingest"]["folds"]
    return settings.for_pictures(max(1, record_count(dataset) * (folds - 1) // folds))


def check_fold(folds: int, settings: TrainSettings) -> None:
    """Raises AoiError for a validation fold outside the dataset's."""
    if settings.fold >= folds:
        raise refuse("train.fold", f"{settings.fold}, of a dataset with {folds} folds", f"Set 0 to {folds - 1}")


def check_unreadable_label(classes: Sequence[str], settings: PredictSettings) -> None:
    """Raises AoiError for a label outside the classes."""
    _check_label("predict.unreadable_label", settings.unreadable_label, classes)


def check_same(model: Artifact, dataset: Artifact) -> None:
    """Raises AoiError where model and dataset differ in classes or preprocessing, saying in what."""
    ours, theirs = model.manifest["classes"], dataset.manifest["classes"]
    if ours != theirs:
        seen = f"its classes are {', '.join(theirs)}; the model's are {', '.join(ours)}"
        raise refuse(dataset.path, seen, "Name a model that was trained on these classes, or train one")
    ours, theirs = (artifact.manifest["settings"]["preprocess"] for artifact in (model, dataset))
    differs = [f"preprocess.{key} is {theirs[key]}, not {ours[key]}" for key in ours if ours[key] != theirs.get(key)]
    if differs:
        raise refuse(dataset.path, "; ".join(differs), "Ingest with the model's settings, or train on this dataset")


def normal_class(classes: Sequence[str], settings: EvaluateSettings) -> int | None:
    """Label of good parts; None where the data has no such class. Raises: AoiError for one outside the classes."""
    if settings.normal_class is None:
        return 0 if classes[0].lower() == "normal" else None
    _check_label("evaluate.normal_class", settings.normal_class, classes)
    return settings.normal_class


def ensemble(
    members: Sequence[Artifact], dataset: Artifact, root: Path, store: Store, force: bool
) -> tuple[Artifact, bool]:
    """The models of a cross-validation, one a fold, as one model: found under `root`, or put together.

    Returns:
        the model's folder (see `model.training.ensemble.build_ensemble`), and whether it was there before.
    """
    fingerprint = hash_json({"version": VERSIONS[MODEL], "members": [member.digest for member in members]})

    def build(work: Path) -> dict[str, Any]:
        for member in members:
            verify(member)
        _import_tensorflow()
        from model.training.ensemble import build_ensemble

        return build_ensemble(members, dataset, work, store, fingerprint)

    return make(root, store.name, MODEL, fingerprint, build, force)


def point(model: Artifact, store: Store, alias: str, why: str) -> None:
    """Gives a model an alias in MLflow, and its run the reason. Raises: AoiError."""
    from model.registry import tracking

    tracking.point(store, model.manifest[RECORD]["run_id"], alias, why)


def check_passed(evaluation: Artifact) -> None:
    """Raises AoiError (exit code 1) for a model under the bound."""
    accuracy = evaluation.manifest["metrics"]["accuracy"]
    minimum = evaluation.manifest["settings"]["minimum_accuracy"]
    if not evaluation.manifest["passed"]:
        raise refuse(
            evaluation.path,
            f"accuracy {accuracy:.4f} is under evaluate.minimum_accuracy {minimum:g}",
            "Look at mistakes.png there, train a better model, or lower the bound",
            exit_code=MISSED,
        )


def _import_tensorflow() -> None:
    with stderr_closed():
        import tensorflow

        tensorflow.config.list_physical_devices("GPU")


def _made_from(model: Artifact, dataset: Artifact) -> dict[str, Any]:
    return {
        kind: {"fingerprint": artifact.fingerprint, "digest": artifact.digest}
        for kind, artifact in ((MODEL, model), ("dataset", dataset))
    }


def _check_label(name: str, label: int, classes: Sequence[str]) -> None:
    if label >= len(classes):
        raise refuse(name, f"{label}, of {len(classes)} classes", f"Set 0 to {len(classes) - 1}")
