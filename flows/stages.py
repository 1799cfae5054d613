"""The stages and their chain as plain functions; Prefect and the command line only call these.

Every stage: settings and a reference to what comes before it in, a reference out. It may be given none: then
the latest finished one in HOME counts.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from flows.home import Home, Ref, data_name, name_of
from flows.settings import GridPoint, Settings
from model import stages as model
from model.decisions.drift import warning as drift_warning
from model.evaluation import sweep as swept
from model.network.weights import ensure_weights
from model.registry.champion import judge
from model.registry.store import CHALLENGER, CHAMPION, Store, store_of
from model.settings import INT8, LITERT_INT8, SUBMISSION
from pipeline.audit.findings import KIND as AUDIT
from pipeline.audit.findings import audit
from pipeline.audit.findings import summary as audit_summary
from pipeline.inputs import files
from pipeline.inputs.inputs import Split, check_inputs, read_classes, read_inputs
from pipeline.job.ingest import ingest as ingest_split
from tfrecords.artifacts.artifact import Artifact
from tfrecords.artifacts.files import write_whole
from tfrecords.dataset import KIND as DATASET
from tfrecords.errors import AoiError, refuse
from tfrecords.settings import PreprocessSettings

FORMER = "former-champions"
Progress = Callable[[int, int, str], None]


def silent(done: int, total: int, note: str) -> None:
    """No progress to anyone."""


def ingest(
    home: Home,
    settings: Settings,
    data: str | None = None,
    beam: str = "",
    force: bool = False,
    progress: Progress = silent,
) -> Ref:
    """Pictures to a dataset, the test pictures to another where there are any, and an audit of both.

    data: folder in AIdea's layout; none: the one used last. Returns the training set's reference.
    """
    data = choose_data(home, data)
    dataset, cached = _ingest(home, settings, data, "train", beam, force, progress)
    datasets = [dataset]
    if files.exists(files.join(data, "test.csv")):
        datasets.append(_ingest(home, settings, data, "test", beam, force, progress)[0])
    audited, _ = audit(datasets, home.folder(AUDIT), name_of(dataset))
    found = audit_summary(audited)
    note = f"audit: {found}; see {home.finished(audited, False).folder}/audit.csv" if found else ""
    return replace(home.finished(dataset, cached), note=note)


def _ingest(
    home: Home, settings: Settings, data: str, split: Split, beam: str, force: bool, progress: Progress
) -> tuple[Artifact, bool]:
    inputs = read_inputs(data, split, settings.ingest.folds, lambda done, total: progress(done, total, "hashed"))
    made = ingest_split(
        inputs,
        home.folder(DATASET),
        data_name(data),
        settings.ingest,
        settings.preprocess,
        beam,
        force,
        lambda done, total: progress(done, total, "converted"),
    )
    home.remember("data", {"folder": data})
    return made


def train(
    home: Home, settings: Settings, dataset: str | None = None, force: bool = False, progress: Progress = silent
) -> Ref:
    """A dataset to a model. dataset: its folder or part of its name; none: the latest."""
    chosen = home.choose(DATASET, dataset, DATASET, "Run aoi ingest --data DIR first")
    store = store_of(home.root, name_of(chosen))
    return home.finished(*model.train(chosen, home.folder("model"), store, settings.train, force, progress))


def evaluate(
    home: Home,
    settings: Settings,
    model_name: str | None = None,
    dataset: str | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Ref:
    """A model to its figures of merit. model_name: none: the latest; dataset: none: the one it was trained on.

    Raises: AoiError (exit code 1) for a model under the bound; its evaluation is kept.
    """
    chosen = home.choose(model.MODEL, model_name, model.MODEL, "Run aoi train first")
    trained_on = chosen.manifest["dataset"]["fingerprint"]
    records = home.choose(DATASET, dataset or trained_on, DATASET, "Run aoi ingest --data DIR first")
    store = store_of(home.root, name_of(chosen))
    made, cached = model.evaluate(chosen, records, home.folder("evaluation"), store, settings.evaluate, force, progress)
    ref = home.finished(made, cached, "evaluation", f"evaluation-{chosen.fingerprint}")
    model.check_passed(made)
    return replace(ref, note=_crown(home, chosen, made, store))


def _crown(home: Home, challenger: Artifact, evaluation: Artifact, store: Store) -> str:
    """Makes a model that passed champion or challenger, here and in MLflow. Returns the verdict, or '' if it was."""
    noted = home.recall(CHAMPION)
    if noted and noted["fingerprint"] == challenger.fingerprint:
        return ""
    verdict = judge(evaluation, home.evaluation_of(noted["fingerprint"]) if noted else None)
    alias = CHAMPION if verdict.promoted else CHALLENGER
    waiting = home.recall(CHALLENGER)
    if verdict.promoted or waiting is None or waiting["fingerprint"] != challenger.fingerprint:
        model.point(challenger, store, alias, verdict.why)
        if verdict.promoted and noted:
            home.remember(FORMER, {"champions": [*_former(home), noted]})
        home.finished(challenger, True, alias)
    return f"{alias}: {verdict.why}"


def _former(home: Home) -> list[dict]:
    return (home.recall(FORMER) or {"champions": []})["champions"]


def rollback(home: Home) -> Ref:
    """Makes the champion before this one champion again, here and in MLflow. Raises: AoiError if none is left."""
    former = _former(home)
    while former:
        *former, last = former
        with suppress(AoiError):  # one that was deleted since can't come back
            back = home.open(Ref(**last))
            model.point(back, store_of(home.root, name_of(back)), CHAMPION, "rolled back to")
            home.remember(FORMER, {"champions": former})
            return home.finished(back, True, CHAMPION)
    raise refuse(home.root, "no champion before the present one", "Train and evaluate another model")


def crossval(
    home: Home, settings: Settings, dataset: str | None = None, force: bool = False, progress: Progress = silent
) -> Ref:
    """A model for every fold of a dataset, their ensemble, and its evaluation on all pictures by the model that did
    not see them. dataset: none: the latest. Returns the ensemble's reference; models that are there are not made again.
    """
    chosen = home.choose(DATASET, dataset, DATASET, "Run aoi ingest --data DIR first")
    folds = chosen.manifest["settings"]["ingest"]["folds"]
    members = []
    for fold in range(folds):
        own = settings.model_copy(update={"train": settings.train.model_copy(update={"fold": fold})})

        def told(done: int, total: int, note: str, fold: int = fold) -> None:
            progress(fold * total + done, folds * total, f"fold {fold + 1} of {folds}, {note}")

        members.append(home.open(train(home, own, str(chosen.path), force, told)))
    store = store_of(home.root, name_of(chosen))
    made, cached = model.ensemble(members, chosen, home.folder(model.MODEL), store, force)
    ref = home.finished(made, cached)
    evaluated = evaluate(home, settings, ref.folder, str(chosen.path), force, progress)
    best = made.manifest["best"]
    spread = f"validation accuracy {best['val_accuracy_mean']:.4f} +- {best['val_accuracy_std']:.4f} over the folds"
    return replace(ref, note=f"{spread}; evaluation: {evaluated.folder}")


def sweep(
    home: Home,
    points: Sequence[GridPoint],
    data: str | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Ref:
    """A dataset, a model and an evaluation for every point of a grid, and a table of them all.

    data: folder in AIdea's layout; none: the one used last. Points share a dataset where they can, and what is there
    is not made again. A sweep looks and decides nothing: no point becomes champion, or the latest dataset, model or
    evaluation, and none fails on evaluate.minimum_accuracy.

    Returns: the sweep's reference. Raises: AoiError, before the first point, for what any point would trip over.
    """
    data = choose_data(home, data)
    _check_points(data, points)
    datasets: dict[tuple, Artifact] = {}
    made = []
    for place, point in enumerate(points):
        settings = point.settings
        label = swept.label(point.values)

        def told(done: int, total: int, note: str, place: int = place, label: str = label) -> None:
            progress(place, len(points), f"{label}: {note}, {100 * done // max(total, 1)} %")

        key = (settings.preprocess, settings.ingest)
        if key not in datasets:
            datasets[key] = _ingest(home, settings, data, "train", "", force, told)[0]
        dataset = datasets[key]
        store = store_of(home.root, name_of(dataset))
        network, _ = model.train(dataset, home.folder(model.MODEL), store, settings.train, force, told)
        folder = home.folder(model.EVALUATION)
        evaluation, _ = model.evaluate(network, dataset, folder, store, settings.evaluate, force, told)
        home.finished(evaluation, True, f"evaluation-{network.fingerprint}")
        made.append(swept.Point(point.values, dataset, network, evaluation))
    store = store_of(home.root, data_name(data))
    ref = home.finished(*swept.sweep(made, home.folder(swept.KIND), store, force))
    return replace(ref, note="the champion is as it was; aoi evaluate --model MODEL lets a point's model compete")


def _check_points(data: str, points: Sequence[GridPoint]) -> None:
    for folds in sorted({point.settings.ingest.folds for point in points}):
        check_inputs(data, "train", folds)
    classes = read_classes(data)
    for point in points:
        model.check_fold(point.settings.ingest.folds, point.settings.train)
        model.normal_class(classes, point.settings.evaluate)
    trainings = [point.settings.train for point in points]
    for distinct in {(train.weights, train.alpha): train for train in trainings}.values():
        ensure_weights(distinct)


def predict(
    home: Home,
    settings: Settings,
    model_name: str | None = None,
    data: str | None = None,
    beam: str = "",
    force: bool = False,
    progress: Progress = silent,
) -> Ref:
    """The test pictures of `data` to HOME/submission.csv. model_name: none: the latest that passed evaluation.

    The pictures go through the same Beam job as the training's, with the settings that the model knows.
    """
    chosen = home.choose(model.MODEL, model_name, CHAMPION, "Run aoi evaluate first, or name a model")
    known = settings.model_copy(update={"preprocess": PreprocessSettings(**chosen.manifest["settings"]["preprocess"])})
    lot, _ = _ingest(home, known, choose_data(home, data), "test", beam, False, progress)
    evaluation = home.evaluation_of(chosen.fingerprint)
    exported = None
    if settings.predict.runtime == LITERT_INT8:
        exported, _, _ = _export(home, chosen, INT8, False, progress)
    made, cached = model.predict(
        chosen, lot, evaluation, exported, home.folder("prediction"), name_of(lot), settings.predict, force, progress
    )
    decisions = ", ".join(f"{count:,} {decision}" for decision, count in made.manifest["decisions"].items())
    drifted = drift_warning(made.manifest["drift"])
    unusual = f"\nTHE LOT LOOKS DIFFERENT from the training pictures: {drifted}" if drifted else ""
    ref = replace(home.finished(made, cached), note=f"decided: {decisions}; see review.csv there{unusual}")
    write_whole(home.root / SUBMISSION, (made.path / SUBMISSION).read_bytes().decode())
    return ref


def export(
    home: Home,
    settings: Settings,
    model_name: str | None = None,
    precision: str = "float",
    force: bool = False,
    progress: Progress = silent,
) -> Ref:
    """A model for machines without Keras. model_name: none: the champion; precision: float or int8."""
    chosen = home.choose(model.MODEL, model_name, CHAMPION, "Run aoi evaluate first, or name a model")
    made, cached, records = _export(home, chosen, precision, force, progress)
    return replace(home.finished(made, cached), note=model.compare_speed(chosen, made, records))


def _export(
    home: Home, chosen: Artifact, precision: str, force: bool, progress: Progress
) -> tuple[Artifact, bool, Artifact]:
    """The export of a model, whether it was there, and the dataset whose pictures check it."""
    records = home.by_fingerprint(DATASET, chosen.manifest["dataset"]["fingerprint"])
    store = store_of(home.root, name_of(chosen))
    made, cached = model.export(chosen, records, home.folder(model.EXPORT), store, precision, force, progress)
    return made, cached, records


def choose_data(home: Home, data: str | None) -> str:
    """The folder that is named, made absolute, else the one used last. Raises: AoiError where there is none."""
    if data:
        return data if files.is_remote(data) else os.path.abspath(data)
    noted = home.recall("data")
    if noted is None:
        raise refuse(home.root, "no data was used here yet", "Name the folder: --data DIR (Prefect: -p data=DIR)")
    return noted["folder"]


def check_ahead(home: Home, settings: Settings, data: str | None) -> str:
    """What the whole chain would trip over late: both splits' inputs, settings against them, the weights.

    Returns: the data's folder.

    Raises: AoiError.
    """
    data = choose_data(home, data)
    check_inputs(data, "train", settings.ingest.folds)
    check_inputs(data, "test", settings.ingest.folds)
    classes = read_classes(data)
    model.check_fold(settings.ingest.folds, settings.train)
    model.normal_class(classes, settings.evaluate)
    model.check_unreadable_label(classes, settings.predict)
    ensure_weights(settings.train)
    return data


RunStage = Callable[..., Ref]


def chain(run: RunStage, home: Home, settings: Settings, data: str | None, beam: str = "") -> dict[str, Ref]:
    """The whole job. run: (stage's name, what it is given) -> Ref; it says how a stage is run and watched.

    Returns: the stages' references under their names. Raises: AoiError from the first stage that refuses.
    """
    data = check_ahead(home, settings, data)
    dataset = run("ingest", data=data, beam=beam)
    trained = run("train", dataset=dataset.folder)
    evaluation = run("evaluate", model_name=trained.folder)
    prediction = run("predict", model_name=trained.folder, data=data, beam=beam)
    return {"ingest": dataset, "train": trained, "evaluate": evaluation, "predict": prediction}


STAGES: dict[str, RunStage] = {
    "ingest": ingest,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "crossval": crossval,
    "export": export,
    "sweep": sweep,
}
