"""The points of a grid side by side."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from model.manifests import Evaluation, Model, Sweep, SweepManifest
from model.registry.champion import Judged, judge
from model.registry.store import TABLE_METRICS, Store
from tfrecords.artifacts.artifact import entry_of
from tfrecords.artifacts.files import write_whole
from tfrecords.artifacts.manifest import RunRecord
from tfrecords.dataset import Dataset

TABLE, FIGURE = "table.csv", "parallel.png"
SECONDS = "training_seconds"
BEST, WORSE = "best", "worse"


class Point(NamedTuple):
    """What was made at one point of a grid. values: of the axes alone, {"train.alpha": 0.5}."""

    values: Mapping[str, Any]
    dataset: Dataset
    model: Model
    evaluation: Evaluation


def label(values: Mapping[str, Any]) -> str:
    """'train.alpha=0.5 train.seed=1'"""
    return " ".join(f"{name}={value}" for name, value in values.items())


def write_sweep(
    points: Sequence[Point], facts: Sequence[dict[str, Any]], work: Path, store: Store, fingerprint: str
) -> SweepManifest:
    """Writes table.csv and parallel.png into `work`, and records the sweep in MLflow as parent of its points' runs.

    facts: `rows` of the points. The seconds that the trainings took are a clock: they come from the models' records,
    and the two files, which show them, are listed in the sweep's own record.
    """
    from model import figures
    from model.registry import tracking

    best = next(row for row in facts if row["standing"] == BEST)
    axes = list(points[0].values)
    shared = points[0].model.manifest.settings.model_dump()
    shared |= {"evaluate": points[0].evaluation.manifest.settings.model_dump()}
    params = tracking.flatten(shared) | {
        name: ", ".join(dict.fromkeys(str(point.values[name]) for point in points)) for name in axes
    }
    datasets = list({point.dataset.fingerprint: point.dataset for point in points}.values())
    name = f"sweep-{len(points)} {' '.join(axes)} {fingerprint[:6]}"
    with tracking.training_run(store, fingerprint, name, params, datasets, None) as record:
        tracking.adopt(store, record["run_id"], [point.model.manifest.mlflow.run_id for point in points])
        timed = [_timed(row, point) for row, point in zip(facts, points, strict=True)]
        write_whole(work / TABLE, _csv(timed))
        figures.parallel(
            {name: [row[name] for row in timed] for name in axes},
            {name: [row[name] for row in timed] for name in ("accuracy", SECONDS)},
            f"{len(points)} points; best: {label({name: best[name] for name in axes})}",
            work / FIGURE,
        )
        # The best point's rates too: in the table of runs the sweep stands for its points, which are folded up.
        rates = points[facts.index(best)].evaluation.manifest.metrics
        summary = {"points": len(points), "best_accuracy": best["accuracy"]}
        summary |= {metric: rates[metric] for metric in TABLE_METRICS if metric in rates}
        tracking.finish_sweep(store, record["run_id"], summary, work)
    seconds = sum(point.model.manifest.mlflow.seconds for point in points)
    files = tuple(entry_of(work, file) for file in (TABLE, FIGURE))
    return SweepManifest(mlflow=RunRecord(**record, seconds=seconds, files=files), points=tuple(facts))


def rows(points: Sequence[Point]) -> list[dict[str, Any]]:
    """A row per point, in their order: the axes' values, metrics, parameters, standing, the model's fingerprint.

    standing: "best" (by accuracy, then macro F1, then fewer parameters); "worse" where an exact McNemar test at 5 %
    tells the point from the best one on the pictures that neither trained on; else "".
    """
    made = []
    for point in points:
        metrics = point.evaluation.manifest.metrics
        pictures = metrics["pictures"]
        made.append(
            {
                **point.values,
                **{key: round(metrics[key], 6) for key in ("accuracy", "balanced_accuracy", "macro_f1")},
                "mistakes": round((1 - metrics["accuracy"]) * pictures),
                "pictures": pictures,
                "parameters": point.model.manifest.parameters,
            }
        )
    best = max(range(len(made)), key=lambda at: (made[at]["accuracy"], made[at]["macro_f1"], -made[at]["parameters"]))
    for at, point in enumerate(points):
        told_apart = at != best and not judge(_judged(point), _judged(points[best])).promoted
        made[at] |= {"standing": BEST if at == best else WORSE if told_apart else "", "model": point.model.fingerprint}
    return made


def _judged(point: Point) -> Judged:
    return Judged(point.evaluation, point.dataset)


def read_table(sweep: Sweep) -> list[dict[str, str]]:
    """The rows of table.csv: `rows`, and the seconds that the trainings took."""
    with open(sweep.path / TABLE, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _timed(row: Mapping[str, Any], point: Point) -> dict[str, Any]:
    """A row with the seconds before its standing."""
    seconds = round(point.model.manifest.mlflow.seconds, 1)
    last = {key: row[key] for key in ("standing", "model")}
    return {key: value for key, value in row.items() if key not in last} | {SECONDS: seconds} | last


def _csv(table: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(table[0]))
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()
