"""MLflow: the one module that talks to it."""

import contextlib
import logging
import os
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import DatasetInput, LifecycleStage, Metric, Param, Run
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from sqlalchemy.exc import SQLAlchemyError

from model.registry.store import STORE_VARIABLE, Store
from model.settings import CARD_FILE
from tfrecords.dataset import ROWS, Dataset
from tfrecords.errors import MISSED, refuse
from tfrecords.system import locked

TRAINING_TAG = "aoi.training"  # fingerprint of the training, cross-validation or sweep that a run records
COPY_TAG = "aoi.copy_of"  # the run that a run repeats under another parent
SQLITE = "sqlite:///"
VERSION_TAG = "aoi.model_version"
# Where MLflow 3 keeps absolute places of files.
PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
EPOCH_METRICS = {"accuracy": "train_accuracy", "loss": "train_loss"}
SERVING_PACKAGES = ("ai-edge-litert", "numpy", "pandas", "opencv-python-headless", "pydantic", "mlflow")


log = logging.getLogger(__name__)


def connect(store: Store) -> MlflowClient:
    """MLflow's client for a store; sets MLflow's global address, which logging a model needs.

    An embedded store is made by the first that comes, and follows its HOME when that has moved.

    Raises: AoiError (exit code 1, for it may pass) where an embedded store can't be made or opened.
    """
    for chatter in ("mlflow", "alembic"):  # errors too: MLflow raises what it logs, and it is told once, by us
        logging.getLogger(chatter).setLevel(logging.CRITICAL)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")  # 30 s; an epoch is logged with a later one
    given = os.environ.get(STORE_VARIABLE)
    mlflow.set_tracking_uri(store.uri)
    mlflow.set_registry_uri(store.uri)
    # MLflow writes the address into the environment too, where the next HOME would look for its store.
    os.environ.pop(STORE_VARIABLE, None)
    if given is not None:
        os.environ[STORE_VARIABLE] = given
    if store.artifacts:
        Path(store.artifacts).parent.mkdir(parents=True, exist_ok=True)
        with _answering(store), locked(Path(store.artifacts).with_name(".mlflow.lock")):
            _make(Path(store.uri.removeprefix(SQLITE)))
            _follow(store)
    return MlflowClient()


def _make(database: Path) -> None:
    """The tables of an embedded store, aside first: MLflow can't go on with a file that it made in part."""
    if not database.exists():
        aside = database.with_name(f".{database.name}.tmp")
        for part in (aside, Path(f"{aside}-journal")):
            part.unlink(missing_ok=True)
        MlflowClient(f"{SQLITE}{aside}").search_experiments(max_results=1)
        os.replace(aside, database)


def _follow(store: Store) -> None:
    """Corrects the absolute places that MLflow keeps of files, where HOME has moved since."""
    place = Path(store.artifacts).absolute().as_uri()
    with contextlib.closing(sqlite3.connect(store.uri.removeprefix(SQLITE))) as database, database:
        for (location,) in database.execute("SELECT artifact_location FROM experiments WHERE name != 'Default'"):
            old, found, _ = location.rpartition(f"/{Path(store.artifacts).name}/")
            old += found.rstrip("/")
            if found and old != place:
                for table, column in PLACES:
                    database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (old, place))


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
        seen = f"MLflow's store failed ({' '.join(str(error).split())[:200]})"
        raise refuse(store.uri, seen, "Mend it and run again: what is finished is kept", exit_code=MISSED)


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
    tags = {TRAINING_TAG: fingerprint, "aoi.dataset": ", ".join(dataset.fingerprint for dataset in datasets)}
    run_id = client.create_run(experiment, run_name=run_name, tags=tags).info.run_id
    client.log_batch(run_id, params=[Param(key, str(value)) for key, value in flatten(params).items()])
    for dataset in datasets:
        rows = pd.read_csv(dataset.path / ROWS, usecols=["id", "label", "fold"], keep_default_na=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on whole numbers, and on two names for one kind of source
            made = mlflow.data.from_pandas(rows, source=str(dataset.path), name=store.name, digest=dataset.fingerprint)
            client.log_inputs(run_id, [DatasetInput(made._to_mlflow_entity(), [])])
    return run_id


def log_history(store: Store, run_id: str, history: Sequence[Mapping[str, float]], seconds: Sequence[float]) -> None:
    """Logs the epochs that the run has not yet. A store that is away now gets them with a later epoch.

    history: a row an epoch, with "epoch" from 1; seconds: what each took.
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
        log.warning("MLflow did not answer (%s); training goes on and the epoch is logged later", error)


def finish_training(
    store: Store, run_id: str, metrics: Mapping[str, float], folder: Path, classes: Sequence[str], example: bytes
) -> None:
    """Logs what a training left in `folder`, registers the model, and ends the run.

    example: the PNG bytes of one picture, kept as the model's input example.
    """
    client = connect(store)
    _log_metrics(client, run_id, metrics)
    for file in sorted(folder.iterdir()):
        if file.suffix in (".png", ".csv"):
            client.log_artifact(run_id, str(file), "training")
    if VERSION_TAG in client.get_run(run_id).data.tags:  # a try that was killed before the commit got this far
        client.set_terminated(run_id, "FINISHED")
        return
    outputs = [ColSpec("long", "label"), ColSpec("string", "name"), *(ColSpec("float", name) for name in classes)]
    with tempfile.TemporaryDirectory() as served, _quiet(), mlflow.start_run(run_id=run_id):
        for file in [folder / CARD_FILE, *folder.glob("*.keras"), *folder.glob("*.tflite")]:
            shutil.copy(file, served)
        info = mlflow.pyfunc.log_model(
            name="model",
            loader_module="model.inference.pyfunc",
            data_path=served,
            signature=ModelSignature(Schema([ColSpec("binary")]), Schema(outputs)),
            input_example=pd.DataFrame({"picture": [example]}),
            pip_requirements=[f"{package}=={version(package)}" for package in SERVING_PACKAGES],
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
    tags = {MLFLOW_PARENT_RUN_ID: parent, COPY_TAG: run.info.run_id}
    copy = client.create_run(run.info.experiment_id, run_name=run.info.run_name, tags=tags).info.run_id
    client.log_batch(copy, params=[Param(key, value) for key, value in run.data.params.items()])
    _log_metrics(client, copy, run.data.metrics)
    client.set_terminated(copy, "FINISHED")


def finish_sweep(store: Store, run_id: str, metrics: Mapping[str, float], folder: Path) -> None:
    """Logs what a sweep left in `folder`, and ends the run."""
    client = connect(store)
    _log_metrics(client, run_id, metrics)
    client.log_artifacts(run_id, str(folder), "sweep")
    client.set_terminated(run_id, "FINISHED")


def log_evaluation(store: Store, run_id: str, metrics: Mapping[str, float], folder: Path, passed: bool) -> None:
    """Adds an evaluation to the run of its training. Raises: AoiError where this store does not have the run."""
    client = connect(store)
    with _known(store, run_id):
        _log_metrics(client, run_id, metrics)
        client.log_artifacts(run_id, str(folder), "evaluation")
        client.set_tag(run_id, "aoi.passed", str(passed).lower())


def log_export(store: Store, run_id: str, name: str, check: Mapping[str, float], folder: Path) -> None:
    """Adds an export to the run of its training, its check as metrics. Raises: AoiError, see `log_evaluation`."""
    client = connect(store)
    with _known(store, run_id):
        _log_metrics(client, run_id, {f"{name}.{key}": value for key, value in check.items()})
        client.log_artifacts(run_id, str(folder), f"export/{name}")


def point(store: Store, run_id: str, alias: str, why: str) -> None:
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
        seen = f"run {run_id} of this model can't be added to ({' '.join(str(error).split())[:200]})"
        remedy = "Name its store with MLFLOW_TRACKING_URI, or train again with --force"
        raise refuse(store.uri, seen, remedy, exit_code=MISSED)


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
        return experiment.experiment_id
    location = Path(store.artifacts, store.name).absolute().as_uri() if store.artifacts else None
    return client.create_experiment(store.name, artifact_location=location)


def _log_metrics(client: MlflowClient, run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
    now = int(pd.Timestamp.now("UTC").timestamp() * 1000)
    client.log_batch(run_id, metrics=[Metric(key, float(value), now, step) for key, value in metrics.items()])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """MLflow prints registry news and run links on stdout, which belongs to our own summary."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield
