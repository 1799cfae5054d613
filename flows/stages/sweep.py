"""sweep: a model for every combination of settings, and a table of them.

Needs a grid of settings and a folder with pictures. A sweep is named after what was measured at its points.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from flows.home import Ref, data_name
from flows.settings import GridPoint, Settings, parse_grid, read_grid
from flows.stages.evaluate import make_evaluation
from flows.stages.ingest import choose_data, ingest_split
from flows.stages.stage import DATA, Job, Option, Stage, Training
from flows.stages.train import make_model
from flows.summary import sweep_table
from model.checks import check_fold, normal_class
from model.evaluation.sweep import Point, label, rows, write_sweep
from model.manifests import Sweep, SweepManifest
from model.network.weights import check_weights, ensure_weights
from model.registry.store import store_of
from pipeline.inputs.inputs import check_inputs
from tfrecords.artifacts.files import hash_json
from tfrecords.artifacts.make import make
from tfrecords.dataset import Dataset

VERSION = 2  # raise it when the same points would give another table
GRID = Option(
    "settings in sections, such as [train]; those whose value is a list are combined",
    metavar="GRID.toml",
    read=read_grid,
)


def sweep(job: Job, grid: Annotated[dict[str, dict[str, Any]], GRID], data: Annotated[str | None, DATA] = None) -> Ref:
    """A dataset, a model and an evaluation for every point of a grid, and a table of them all.

    grid: sections as in settings, over them, in which a list stands for several values, such as
    {"train": {"alpha": [0.25, 0.5], "epochs": 12}}. data: none: the folder used last. Points share a dataset where they
    can, and what is there is not made again. A sweep looks and decides nothing: no point becomes champion, or the
    latest dataset, model or evaluation, and none fails on evaluate.minimum_accuracy.

    Raises: AoiError, before the first point, for what any point would trip over.
    """
    points = parse_grid(grid, job.settings, "grid")
    home, data = job.home, choose_data(job.home, data)
    _check_points(data, points)
    datasets: dict[Any, Dataset] = {}

    def at(name: str, settings: Settings, done: int = 0) -> Job:
        """The job of one point. done: how many others are."""

        def progress(part: int, total: int, note: str) -> None:
            job.progress(done, len(points), f"{name}: {note}, {100 * part // max(total, 1)} %")

        return replace(job, settings=settings, progress=progress)

    trainings = []
    for point in points:
        name, key = label(point.values), (point.settings.preprocess, point.settings.ingest)
        if key not in datasets:
            datasets[key] = ingest_split(at(name, point.settings), data, "train", "").dataset
        trainings.append(Training(name, point.settings, datasets[key]))
    made: dict[int, Point] = {}
    with closing(job.order(trainings)) as order:
        for place in order:
            name, settings, dataset = trainings[place]
            own = at(name, settings, len(made))
            network, _ = make_model(own, dataset)
            evaluation, _ = make_evaluation(own, network, dataset)
            home.finished(evaluation, True, f"evaluation-{network.fingerprint}")
            made[place] = Point(points[place].values, dataset, network, evaluation)
    ref = home.finished(*make_sweep(job, [made[place] for place in range(len(points))], data_name(data)))
    compete = "the champion is as it was; aoi evaluate --model MODEL lets a point's model compete"
    return replace(
        ref, note=f"{compete}\nall pictures of the fold chose it: train it with another train.fold for a promise"
    )


def make_sweep(job: Job, points: Sequence[Point], name: str) -> tuple[Sweep, bool]:
    """The table of a grid (see `model.evaluation.sweep.write_sweep`), and whether it was there before."""
    facts = rows(points)
    measured = [(row, point.evaluation.digest) for row, point in zip(facts, points, strict=True)]
    fingerprint = hash_json({"version": VERSION, "points": measured})
    store = store_of(job.home.root, name)

    def build(work: Path) -> SweepManifest:
        return write_sweep(points, facts, work, store, fingerprint)

    return make(job.home.folder(SweepManifest), name, SweepManifest, fingerprint, build, job.force)


def _check_points(data: str, points: Sequence[GridPoint]) -> None:
    classes: tuple[str, ...] = ()
    for folds in sorted({point.settings.ingest.folds for point in points}):
        classes = check_inputs(data, "train", folds)
    for point in points:
        check_fold(point.settings.ingest.folds, point.settings.train)
        normal_class(classes, point.settings.evaluate)
    trainings = [point.settings.train for point in points]
    distinct = {(train.backbone, train.alpha, train.weights): train for train in trainings}.values()
    for look in (check_weights, ensure_weights):  # all of them, before the first is downloaded
        for train in distinct:
            look(train)


STAGE = Stage(
    sweep,
    makes=(SweepManifest,),
    overridden="grid",
    show=sweep_table,
)
