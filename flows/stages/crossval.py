"""crossval: a model for every fold of a dataset, and all of them as one.

Needs a dataset with labels. The ensemble is a model, named after its members.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from flows.home import Ref, name_of
from flows.settings import Settings
from flows.stages.evaluate import evaluate
from flows.stages.stage import Job, Stage, Training
from flows.stages.train import DATASET, INGEST_FIRST, VERSION, make_model
from model.manifests import Model, ModelManifest
from model.quiet import import_tensorflow
from model.registry.databases import check_store
from model.registry.store import store_of
from tfrecords.artifacts.artifact import verify
from tfrecords.artifacts.files import hash_json
from tfrecords.artifacts.make import make
from tfrecords.dataset import Dataset, DatasetManifest


def crossval(job: Job, dataset: Annotated[str | None, DATASET] = None) -> Ref:
    """A model for every fold of a dataset, their ensemble, and its evaluation on all pictures by the model that did
    not see them. dataset: none: the latest. Returns: the ensemble's reference; what is there is not made again.
    """
    home = job.home
    chosen = home.choose(DatasetManifest, dataset, INGEST_FIRST)
    folds = chosen.manifest.settings.ingest.folds
    trainings = [Training(f"fold {fold + 1} of {folds}", _of_fold(job.settings, fold), chosen) for fold in range(folds)]
    members: dict[int, Model] = {}
    found = 0  # folds whose model was there: they take no time, so they are left out of the count

    def job_of(training: Training, before: int, all_of_them: int) -> Job:
        """The job of one fold. before: how many were trained before it; all_of_them: that are trained."""

        def progress(done: int, total: int, note: str) -> None:
            job.progress(before * total + done, all_of_them * total, f"{training.name}, {note}")

        return replace(job, settings=training.settings, progress=progress)

    with closing(job.order(trainings)) as order:
        for fold in order:
            member, cached = make_model(job_of(trainings[fold], len(members) - found, folds - found), chosen)
            home.finished(member, cached)
            members[fold] = member
            found += cached
    made, cached = make_ensemble(job, [members[fold] for fold in range(folds)], chosen)
    ref = home.finished(made, cached)
    evaluated = evaluate(job, ref.folder, str(chosen.path))
    best = made.manifest.best
    spread = f"validation accuracy {best['val_accuracy_mean']:.4f} +- {best['val_accuracy_std']:.4f} over the folds"
    return replace(ref, note=f"{spread}; evaluation: {evaluated.folder}")


def _of_fold(settings: Settings, fold: int) -> Settings:
    return settings.model_copy(update={"train": settings.train.model_copy(update={"fold": fold})})


def make_ensemble(job: Job, members: Sequence[Model], dataset: Dataset) -> tuple[Model, bool]:
    """The models of a cross-validation, one per fold, as one model; and whether it was there before."""
    store = store_of(job.home.root, name_of(dataset))
    fingerprint = hash_json({"version": VERSION, "members": [member.digest for member in members]})

    def build(work: Path) -> ModelManifest:
        check_store(store)
        for member in members:
            verify(member)
        import_tensorflow()
        from model.training.ensemble import build_ensemble

        return build_ensemble(members, dataset, work, store, fingerprint)

    return make(job.home.folder(ModelManifest), store.name, ModelManifest, fingerprint, build, job.force)


STAGE = Stage(crossval, makes=(ModelManifest,))
