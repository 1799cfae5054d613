"""evaluate: a model to its metrics, and the question whether it becomes champion.

Needs a model and a dataset with labels. An evaluation is named after both and the settings of [evaluate]. Given a
labelled lot, it measures a finished model on that instead, and asks no such question: see `flows.measure`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from flows.home import Home, Ref, name_of
from flows.products import Champions, crown
from flows.stages.stage import BEAM, PRODUCT, Job, Option, Stage
from flows.stages.train import INGEST_FIRST
from model.checks import check_passed, check_same, normal_class
from model.decisions.wording import promise_lines
from model.manifests import Evaluation, EvaluationManifest, MeasurementManifest, Model, ModelManifest
from model.quiet import import_tensorflow
from model.registry.champion import Judged, judge
from model.registry.databases import check_store
from model.registry.store import CHALLENGER, CHAMPION, store_of
from pipeline.location import fetch
from tfrecords.artifacts.artifact import read, verify
from tfrecords.artifacts.files import hash_json
from tfrecords.artifacts.make import make
from tfrecords.dataset import Dataset, DatasetManifest
from tfrecords.errors import refuse

VERSION = 8  # raise it when the same model and dataset would give another evaluation
MODEL = Option("a model's folder or name (default: the latest; with --data the champion of the product)")
DATASET = Option("a dataset's folder or name (default: the one that the model was trained on)")
DATA = Option(
    "a labelled lot to measure a finished model on: test.csv or a folder per class", metavar="DIR", given=False
)


def evaluate(
    job: Job,
    model: Annotated[str | None, MODEL] = None,
    dataset: Annotated[str | None, DATASET] = None,
    data: Annotated[str | None, DATA] = None,
    product: Annotated[str | None, PRODUCT] = None,
    beam: Annotated[str, BEAM] = "",
) -> Ref:
    """A model to its metrics. model: none: the latest; dataset: none: the one that it was trained on.

    data: a labelled lot; then a finished model is measured on it, and nothing else changes (see `flows.measure`).

    Raises: AoiError (exit code 1) for a model under the bound; its evaluation is kept.
    """
    home = job.home
    if data is not None:
        if dataset is not None:
            raise refuse("--dataset", "given beside --data", "Name one of the two")
        from flows.measure import measure  # which predicts, and so needs this module

        return measure(job, model, product, data, beam)
    if product is not None or beam:
        raise refuse("--product" if product else "--beam", "given without --data", "Name a labelled lot with --data")
    chosen = home.choose(ModelManifest, model, "Run aoi train first")
    records = home.named(DatasetManifest, dataset) if dataset else trained_on(job, chosen)
    made, cached = make_evaluation(job, chosen, records)
    ref = home.finished(made, cached, "evaluation", f"evaluation-{chosen.fingerprint}")
    check_passed(made)
    promised = [f"promise: {line}" for line in promise_lines(made.manifest.operating)]
    return replace(ref, note="\n".join(filter(None, [_crown(job, chosen, made, records), *promised])))


def trained_on(job: Job, model: Model) -> Dataset:
    """The dataset that a model was trained on. Raises: AoiError where it is gone or damaged."""
    fingerprint = model.manifest.dataset.fingerprint
    if dataset := job.home.find(DatasetManifest, fingerprint):
        return dataset
    for path in job.home.committed(DatasetManifest):
        if fingerprint in path.name:
            return read(path, DatasetManifest)  # which tells what is wrong with it
    seen = f"the dataset that {model.path.name} was trained on is not there"
    raise refuse(job.home.folder(DatasetManifest), seen, INGEST_FIRST)


def make_evaluation(job: Job, model: Model, dataset: Dataset) -> tuple[Evaluation, bool]:
    """Measures a model on the validation fold of a dataset, and adds that to the model's MLflow run.

    Returns:
        the evaluation (see `model.evaluation.evaluate.evaluate_model`), and whether it was there before.

    Raises:
        AoiError: a dataset of other classes or preprocessing than the model's, or without that fold.
    """
    check_same(model, dataset)
    settings = job.settings.evaluate
    normal = normal_class(dataset.manifest.classes, settings)
    store = store_of(job.home.root, name_of(model))
    made_from = {"model": model.made_from.model_dump(), "dataset": dataset.made_from.model_dump()}
    fingerprint = hash_json({"version": VERSION, **made_from, "evaluate": settings.model_dump()})

    def build(work: Path) -> EvaluationManifest:
        check_store(store)
        verify(model)
        fetch(dataset, job.progress)
        verify(dataset)
        import_tensorflow()
        from model.evaluation.evaluate import evaluate_model
        from model.registry.tracking import log_evaluation

        measured = evaluate_model(model, dataset, normal, settings, work, job.progress)
        promised = promise_lines(measured.operating)
        run_id = model.manifest.mlflow.run_id
        log_evaluation(store, run_id, measured, promised, work, dataset)
        return measured

    return make(job.home.folder(EvaluationManifest), store.name, EvaluationManifest, fingerprint, build, job.force)


def _crown(job: Job, challenger: Model, evaluation: Evaluation, dataset: Dataset) -> str:
    """Makes a model that passed champion or challenger of its product, here and in MLflow.

    Returns: the verdict, or '' where it is champion already.
    """
    home, champions = job.home, Champions(job.home, name_of(challenger))
    champion = champions.noted(CHAMPION)
    if champion and champion.fingerprint == challenger.fingerprint:
        return ""
    theirs = home.evaluation_of(champion.fingerprint) if champion else None
    known = Judged(theirs, home.find(DatasetManifest, theirs.manifest.dataset.fingerprint)) if theirs else None
    verdict = judge(Judged(evaluation, dataset), known)
    alias = CHAMPION if verdict.promoted else CHALLENGER
    waiting = champions.noted(CHALLENGER)
    if verdict.promoted or waiting is None or waiting.fingerprint != challenger.fingerprint:
        from model.registry import tracking

        store = store_of(home.root, champions.product)
        tracking.move_alias(store, challenger.manifest.mlflow.run_id, alias, verdict.why)
        crown(champions, challenger, alias)
    return f"{alias} of {champions.product}: {verdict.why}"


def _show(home: Home, ref: Ref) -> str:
    if ref.kind != MeasurementManifest.KIND:
        return ""
    from flows.measure import measured

    return measured(home, ref)


STAGE = Stage(evaluate, makes=(EvaluationManifest, MeasurementManifest), show=_show)
