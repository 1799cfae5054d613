"""MLflow: the one module that talks to it."""

import contextlib
import hashlib
import logging
import os
import re
import shutil
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import DatasetInput, LifecycleStage, LoggedModelOutput, Metric, Param, Run
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE
from mlflow.utils.validation import MAX_ENTITY_KEY_LENGTH, _validate_param_name
from PIL import Image
from sqlalchemy.exc import SQLAlchemyError

from model.card import CARD_FILE
from model.decisions.novelty import NOVELTY_FILE
from model.manifests import EvaluationManifest
from model.registry.databases import check_store
from model.registry.descriptions import data_text, escaped, metrics_text, picture_text, with_section
from model.registry.embedded import prepare
from model.registry.origin import TAGS as ORIGIN_TAGS
from model.registry.origin import origin
from model.registry.served import code_paths, requirements
from model.registry.store import (
    STORE_VARIABLE,
    Store,
    artifact_location,
    experiment_tags,
    hidden,
    runs_address,
    without_password,
)
from tfrecords.dataset import ROWS, Dataset, class_counts
from tfrecords.errors import MISSED, refuse

TRAINING_TAG = "aoi.training"  # fingerprint of the training, cross-validation or sweep that a run records
COPY_TAG = "aoi.copy_of"  # the run that a run repeats under another parent
VERSION_TAG = "aoi.model_version"
EPOCH_METRICS = {"accuracy": "train_accuracy", "loss": "train_loss"}
MISTAKES = "mistakes.png"
PREVIEWS, PREVIEW_WIDTH = "description", 800  # folder of a run's artifacts; pixels

log = logging.getLogger(__name__)


def connect(store: Store) -> MlflowClient:
    """MLflow's client for a store; sets MLflow's global address, which logging a model needs.

    An embedded store is made by the first that comes, and follows its HOME when that has moved.

    Raises: AoiError (exit code 1, for it may pass) where an embedded store can't be made or opened, and for an address
    that MLflow does not know.
    """
    for chatter in ("mlflow", "alembic"):  # errors too: MLflow raises what it logs, and it is told once, by us
        logging.getLogger(chatter).setLevel(logging.CRITICAL)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")  # 30 s; an epoch is logged with a later one
    # No connection stays open: Windows neither renames nor removes a file that somebody has open.
    os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
    given = os.environ.get(STORE_VARIABLE)
    mlflow.set_tracking_uri(store.uri)
    mlflow.set_registry_uri(store.uri)
    # MLflow writes the address into the environment too, where the next HOME would look for its store.
    os.environ.pop(STORE_VARIABLE, None)
    if given is not None:
        os.environ[STORE_VARIABLE] = given
    check_store(store)
    with _answering(store):
        if store.embedded:
            prepare(store, store.embedded, lambda address: MlflowClient(address).search_experiments(max_results=1))
        return MlflowClient()


@contextlib.contextmanager
def training_run(
    store: Store,
    fingerprint: str,
    run_name: str,
    params: Mapping[str, Any],
    datasets: Sequence[Dataset],
    known: Mapping[str, str] | None,
) -> Iterator[dict[str, str]]:
    """The run of a training, or of several as one: a new one, or the one that an interrupted try noted.

    datasets: what it is made from, its inputs in MLflow.
    known: what an earlier try was given, {experiment_id, run_id}. Gives the same.

    Raises: AoiError (exit code 1, for it may pass) where the store fails.
    """
    with _answering(store):
        client = connect(store)
        record = dict(known) if known and _has(client, known["run_id"]) else None
        if record is None:
            experiment = _experiment(client, store)
            run_id = _create_run(client, experiment, store, fingerprint, run_name, params, datasets)
            record = {"experiment_id": experiment, "run_id": run_id}
        client.update_run(record["run_id"], status="RUNNING")
        try:
            yield record
        except BaseException as error:
            with contextlib.suppress(MlflowException):  # the error that ended the training is the one to tell
                client.set_terminated(record["run_id"], "FAILED" if isinstance(error, Exception) else "KILLED")
            raise


@contextlib.contextmanager
def _answering(store: Store) -> Iterator[None]:
    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error) as error:
        seen = f"MLflow's store failed ({_said(error, store)})"
        remedy = "Check the store (free space, rights, its address) and run again: what is finished is kept"
        raise refuse(hidden(store.uri), seen, remedy, exit_code=MISSED)


def _said(error: Exception, store: Store) -> str:
    return " ".join(without_password(str(error), store.uri).split())[:200]


def _has(client: MlflowClient, run_id: str) -> bool:
    try:
        return client.get_run(run_id).info.lifecycle_stage == LifecycleStage.ACTIVE
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


def _create_run(
    client: MlflowClient,
    experiment: str,
    store: Store,
    fingerprint: str,
    run_name: str,
    params: Mapping[str, Any],
    datasets: Sequence[Dataset],
) -> str:
    texts = [data_text(store.name, dataset.fingerprint, class_counts(dataset)) for dataset in datasets]
    tags = {
        **origin(),
        TRAINING_TAG: fingerprint,
        "aoi.dataset": ", ".join(dataset.fingerprint for dataset in datasets),
        MLFLOW_RUN_NOTE: with_section("", "Data", "\n\n".join(texts)),
    }
    run_id = client.create_run(experiment, run_name=run_name, tags=tags).info.run_id
    flat = flatten(params)
    names = legal_names(flat)
    client.log_batch(run_id, params=[Param(names[key], str(value)) for key, value in flat.items()])
    for dataset in datasets:
        _log_dataset(client, run_id, store, dataset)
    return run_id


def _log_dataset(client: MlflowClient, run_id: str, store: Store, dataset: Dataset) -> None:
    """Makes a dataset an input of a run; one that is an input already stays the only one."""
    rows = pd.read_csv(dataset.path / ROWS, usecols=["id", "label", "fold"], keep_default_na=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # on whole numbers, and on two names for one kind of source
        made = from_pandas(rows, source=str(dataset.path), name=store.name, digest=dataset.fingerprint)
        client.log_inputs(run_id, [DatasetInput(made._to_mlflow_entity(), [])])


def legal_names(names: Iterable[str]) -> dict[str, str]:
    """Names of parameters or metrics, each with the one that MLflow takes for it: the same, where it takes that.

    Of the others the marks that MLflow refuses become "_", and a hash of the name keeps them apart.
    """
    names = list(names)
    legal = {name: name for name in names if _is_legal(name)}
    for name in names:
        if name not in legal:
            plain = re.sub(r"[^\w. -]", "_", name).strip(". ")[: MAX_ENTITY_KEY_LENGTH // 2]
            digest, length = hashlib.sha256(name.encode()).hexdigest(), 6
            while f"{plain}-{digest[:length]}" in legal.values():
                length += 1
            legal[name] = f"{plain}-{digest[:length]}"
    return legal


def _is_legal(name: str) -> bool:
    with contextlib.suppress(MlflowException):
        _validate_param_name(name)  # metrics follow the same rule
        return len(name) <= MAX_ENTITY_KEY_LENGTH
    return False


def log_history(store: Store, run_id: str, history: Sequence[Mapping[str, float]], seconds: Sequence[float]) -> None:
    """Logs the epochs that the run has not yet. A store that is away now gets them with a later epoch.

    history: a row per epoch, with "epoch" from 1; seconds: what each took.
    """
    client = connect(store)
    try:
        logged = {metric.step for metric in client.get_metric_history(run_id, "seconds")}
        for row, took in zip(history, seconds, strict=True):
            if row["epoch"] not in logged:
                # Told apart from the evaluation's own accuracy, which stands in the same run.
                metrics = {EPOCH_METRICS.get(key, key): value for key, value in row.items() if key != "epoch"}
                _log_metrics(client, run_id, {**metrics, "seconds": took}, int(row["epoch"]))
    except MlflowException as error:
        said = _said(error, store)
        log.warning("MLflow did not answer (%s); training goes on and the epoch is logged later", said)


def finish_training(
    store: Store,
    run_id: str,
    metrics: Mapping[str, float],
    folder: Path,
    classes: Sequence[str],
    example: bytes | None,
) -> str:
    """Logs what a training left in `folder`, registers the model, and ends the run.

    example: a picture file as the camera wrote it, kept as the model's input example where there is one.

    Returns: the version of the registered model.
    """
    client = connect(store)
    for file in sorted(folder.iterdir()):
        if file.suffix in (".png", ".csv"):
            client.log_artifact(run_id, str(file), "training")
    if VERSION_TAG not in client.get_run(run_id).data.tags:  # else a try that was killed before the commit did this
        _log_model(store, run_id, folder, classes, example)
    _log_metrics(client, run_id, metrics)
    _describe(client, run_id, "Training", metrics_text(metrics))
    client.set_terminated(run_id, "FINISHED")
    return client.get_run(run_id).data.tags[VERSION_TAG]


def _log_model(store: Store, run_id: str, folder: Path, classes: Sequence[str], example: bytes | None) -> None:
    outputs: list[ColSpec | TensorSpec] = [ColSpec("long", "label"), ColSpec("string", "name")]
    outputs += [ColSpec("float", name) for name in classes]
    if any(folder.glob(f"[!.]*{NOVELTY_FILE}")):  # an ensemble of members of earlier versions has none
        outputs.append(ColSpec("double", "novelty"))
    with tempfile.TemporaryDirectory() as place, _quiet(), mlflow.start_run(run_id=run_id):
        served = Path(place, "model")  # MLflow keeps the folder's name
        served.mkdir()
        shutil.copy(folder / CARD_FILE, served)
        for suffix in (".keras", ".tflite", NOVELTY_FILE):
            for file in folder.glob(f"[!.]*{suffix}"):  # names with a dot are checkpoints
                shutil.copy(file, served)
        info = mlflow.pyfunc.log_model(
            name="model",
            loader_module="model.inference.pyfunc",
            data_path=str(served),
            signature=ModelSignature(Schema([ColSpec("binary")]), Schema(outputs)),
            input_example=None if example is None else pd.DataFrame({"picture": [example]}),
            code_paths=code_paths(),
            pip_requirements=requirements(),
            registered_model_name=store.model,
        )
        mlflow.set_tag(VERSION_TAG, info.registered_model_version)


def adopt(store: Store, parent: str, children: Sequence[str]) -> None:
    """Nests runs under a parent run. Those that the store does not have any more are passed over.

    A run has one parent: one that a cross-validation or another sweep has already stays there, and a copy of it
    (settings, last metrics, the tag aoi.copy_of) is nested instead, so that every parent has all of its children.
    """
    client = connect(store)
    own = client.get_run(parent).data.tags[TRAINING_TAG]
    for child in dict.fromkeys(children):
        if _has(client, child):
            run = client.get_run(child)
            holder = run.data.tags.get(MLFLOW_PARENT_RUN_ID)
            # Free too: what an earlier try of the same left behind.
            if holder is None or not _has(client, holder) or client.get_run(holder).data.tags.get(TRAINING_TAG) == own:
                client.set_tag(child, MLFLOW_PARENT_RUN_ID, parent)
            else:
                _copy(client, run, parent)


def _copy(client: MlflowClient, run: Run, parent: str) -> None:
    told = {tag: value for tag, value in run.data.tags.items() if tag in (*ORIGIN_TAGS, MLFLOW_RUN_NOTE)}
    tags = {**told, MLFLOW_PARENT_RUN_ID: parent, COPY_TAG: run.info.run_id}
    copy = client.create_run(run.info.experiment_id, run_name=run.info.run_name, tags=tags).info.run_id
    client.log_batch(copy, params=[Param(key, value) for key, value in run.data.params.items()])
    client.log_inputs(copy, _datasets(run))
    client.log_outputs(copy, _models(run))
    _log_metrics(client, copy, run.data.metrics)
    client.set_terminated(copy, "FINISHED")


def finish_sweep(store: Store, run_id: str, metrics: Mapping[str, float], folder: Path) -> None:
    """Logs what a sweep left in `folder`, and ends the run."""
    client = connect(store)
    _log_metrics(client, run_id, metrics)
    client.log_artifacts(run_id, str(folder), "sweep")
    pictures = [_preview(client, run_id, file, "sweep") for file in sorted(folder.glob("[!.]*.png"))]
    _describe(client, run_id, "Result", "\n\n".join([metrics_text(metrics), *pictures]))
    client.set_terminated(run_id, "FINISHED")


def log_evaluation(
    store: Store,
    run_id: str,
    measured: EvaluationManifest,
    promised: Sequence[str],
    folder: Path,
    dataset: Dataset,
) -> None:
    """Adds an evaluation on a dataset, whose files are in `folder`, to the run of the model's training.

    measured: what it says; promised: a line per promise.

    Raises: AoiError where this store does not have the run.
    """
    client = connect(store)
    with _known(store, run_id):
        _mark(client, client.get_run(run_id).info.experiment_id)
        _log_dataset(client, run_id, store, dataset)
        _log_metrics(client, run_id, measured.metrics, dataset=(store.name, dataset.fingerprint))
        client.log_artifacts(run_id, str(folder), "evaluation")
        mistakes = _preview(client, run_id, folder / MISTAKES, "evaluation")
        promises = [f"Promise: {escaped(line)}." for line in promised]
        _describe(client, run_id, "Result", "\n\n".join([metrics_text(measured.metrics), *promises, mistakes]))
        client.set_tag(run_id, "aoi.passed", str(measured.passed).lower())


def log_export(store: Store, run_id: str, name: str, check: Mapping[str, float], folder: Path) -> None:
    """Adds an export to the run of its training, its check as metrics. Raises: AoiError, see `log_evaluation`."""
    client = connect(store)
    with _known(store, run_id):
        _log_metrics(client, run_id, {f"{name}.{key}": value for key, value in check.items()})
        client.log_artifacts(run_id, str(folder), f"export/{name}")


def move_alias(store: Store, run_id: str, alias: str, why: str) -> None:
    """Moves an alias to a run's model, and says why in the run. Raises: AoiError, see `log_evaluation`."""
    client = connect(store)
    with _known(store, run_id):
        version_number = client.get_run(run_id).data.tags[VERSION_TAG]
        client.set_registered_model_alias(store.model, alias, version_number)
        client.set_tag(run_id, "aoi.verdict", f"{alias}: {why}")


@contextlib.contextmanager
def _known(store: Store, run_id: str) -> Iterator[None]:
    try:
        yield
    except (MlflowException, KeyError) as error:
        seen = f"run {run_id} of this model can't be added to ({_said(error, store)})"
        remedy = "Name its store with MLFLOW_TRACKING_URI, or train again with --force"
        raise refuse(hidden(store.uri), seen, remedy, exit_code=MISSED)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"epochs": 5}} to {"train.epochs": 5}."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _experiment(client: MlflowClient, store: Store) -> str:
    if experiment := client.get_experiment_by_name(store.name):
        _mark(client, experiment.experiment_id)
        return experiment.experiment_id
    return client.create_experiment(store.name, artifact_location=artifact_location(store), tags=experiment_tags())


def _mark(client: MlflowClient, experiment: str) -> None:
    """Gives an experiment of an earlier version the tags that its pages need. What people chose there stays."""
    tags = client.get_experiment(experiment).tags
    for tag, value in experiment_tags().items():
        if tag not in tags:
            client.set_experiment_tag(experiment, tag, value)


def runs_addresses(store: Store, ui: str) -> dict[str, str]:
    """Every experiment of this project in a store, by name, with the address of its table of runs.

    ui: address of MLflow's server. Raises: AoiError, see `connect`.
    """
    with _answering(store):
        client = connect(store)
        found = {}
        for experiment in client.search_experiments(order_by=["name ASC"]):
            # A shared store has other people's too, and those of an earlier version there stay out until a new run.
            if (store.embedded and experiment.name != "Default") or experiment_tags().keys() <= experiment.tags.keys():
                _mark(client, experiment.experiment_id)
                found[experiment.name] = runs_address(ui, experiment.experiment_id)
        return found


def _log_metrics(
    client: MlflowClient,
    run_id: str,
    metrics: Mapping[str, float],
    step: int = 0,
    dataset: tuple[str, str] | None = None,
) -> None:
    """Logs metrics, linked to the run's model where it has one, and to a dataset.

    dataset: its name and digest; none: that of the run, where it has one alone.
    """
    run, now = client.get_run(run_id), int(time.time() * 1000)
    links: dict[str, str] = {}
    if len(models := _models(run)) == 1:
        links["model_id"] = models[0].model_id
    if dataset is None and len(given := _datasets(run)) == 1:
        dataset = given[0].dataset.name, given[0].dataset.digest
    if dataset:
        links["dataset_name"], links["dataset_digest"] = dataset
    names = legal_names(metrics)
    logged = [Metric(names[key], float(value), now, step, **links) for key, value in metrics.items()]
    client.log_batch(run_id, metrics=logged)


def _datasets(run: Run) -> list[DatasetInput]:
    return list(run.inputs.dataset_inputs) if run.inputs else []


def _models(run: Run) -> list[LoggedModelOutput]:
    return list(run.outputs.model_outputs) if run.outputs else []


def _preview(client: MlflowClient, run_id: str, file: Path, artifacts: str) -> str:
    """Logs a figure once more in the size that fits a description, where MLflow neither scales nor scrolls pictures.

    artifacts: folder where the run has the figure itself. Returns: Markdown that shows one and links to the other.
    """
    with tempfile.TemporaryDirectory() as place, Image.open(file) as picture:
        picture.thumbnail((PREVIEW_WIDTH, picture.height))
        small = Path(place, file.name)
        picture.save(small)
        client.log_artifact(run_id, str(small), PREVIEWS)
    return picture_text(run_id, f"{PREVIEWS}/{file.name}", f"{artifacts}/{file.name}")


def _describe(client: MlflowClient, run_id: str, heading: str, text: str) -> None:
    """Writes a section of a run's description."""
    before = client.get_run(run_id).data.tags.get(MLFLOW_RUN_NOTE, "")
    client.set_tag(run_id, MLFLOW_RUN_NOTE, with_section(before, heading, text))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """MLflow prints registry news and run links on stdout, which belongs to our own summary, and warns of itself."""
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield
