"""train: a dataset to a model.

Needs a dataset with labels. A model is named after the dataset's content, the settings of [train] and the content of
the first weights.
"""

import logging
from pathlib import Path
from typing import Annotated

from flows.home import Home, Ref, name_of
from flows.stages.stage import Job, Option, Stage
from model.checks import check_fold, overlooked
from model.manifests import Model, ModelManifest
from model.network.weights import weights_digest
from model.quiet import import_tensorflow
from model.registry.databases import check_store
from model.registry.store import store_of
from model.settings import TrainSettings
from model.training.devices import with_devices
from model.training.schedule import with_budget
from pipeline.location import fetch
from tfrecords.artifacts.artifact import verify
from tfrecords.artifacts.files import hash_json
from tfrecords.artifacts.make import make
from tfrecords.dataset import Dataset, DatasetManifest, image_shape, record_count
from tfrecords.errors import refuse

log = logging.getLogger(__name__)
VERSION = 12  # raise it when the same settings and inputs would give another model
INGEST_FIRST = "Run aoi ingest --data DIR first"
DATASET = Option("a dataset's folder or name (default: the latest)")


def train(job: Job, dataset: Annotated[str | None, DATASET] = None) -> Ref:
    """A dataset to a model. dataset: its folder or part of its name; none: the latest."""
    return job.home.finished(*make_model(job, job.home.choose(DatasetManifest, dataset, INGEST_FIRST)))


def make_model(job: Job, dataset: Dataset) -> tuple[Model, bool]:
    """The model of a dataset, trained and recorded in MLflow where it is not there; and whether it was there.

    An interrupted training goes on after its last finished epoch, to the same model as an uninterrupted one.

    Raises:
        AoiError: weights that can't be had, a dataset without labels or without the fold.
    """
    if dataset.manifest.split != "train":
        raise refuse(dataset.path, "a dataset without labels", "Name one that was made from train.csv")
    if told := overlooked(job.settings.preprocess, dataset):
        log.warning("%s: %s", dataset.path.name, told)
    check_fold(dataset.manifest.settings.ingest.folds, job.settings.train)
    settings = resolved(job.settings.train, dataset)
    store = store_of(job.home.root, name_of(dataset))
    fingerprint = _fingerprint(settings, dataset)

    def build(work: Path) -> ModelManifest:
        check_store(store)
        fetch(dataset, job.progress)
        verify(dataset)
        import_tensorflow()
        from model.training.train import train_model

        return train_model(dataset, work, store, settings, fingerprint, job.progress)

    return make(job.home.folder(ModelManifest), store.name, ModelManifest, fingerprint, build, job.force)


def find_model(home: Home, settings: TrainSettings, dataset: Dataset) -> Model | None:
    """The model that `make_model` would find; None where it would train one."""
    return home.find(ModelManifest, _fingerprint(resolved(settings, dataset), dataset))


def _fingerprint(settings: TrainSettings, dataset: Dataset) -> str:
    """settings: see `resolved`."""
    chosen = {**settings.model_dump(), "weights": weights_digest(settings.weights)}
    return hash_json({"version": VERSION, "dataset": dataset.digest, "train": chosen})


def resolved(settings: TrainSettings, dataset: Dataset) -> TrainSettings:
    """The same with its budget, for a dataset of equally large folds, so that a cross-validation trains alike; and
    with the number of devices of this machine that share its steps.
    """
    folds = dataset.manifest.settings.ingest.folds
    pictures = max(1, record_count(dataset) * (folds - 1) // folds)
    return with_devices(with_budget(settings, pictures, image_shape(dataset)[0]), pictures)


STAGE = Stage(train, makes=(ModelManifest,))
