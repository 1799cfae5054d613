"""What a run made and where, for people."""

import csv
import os
from collections.abc import Mapping, Sequence
from itertools import islice

from flows.home import Home, Ref, name_of
from flows.stages.ingest import audit_of
from flows.stages.predict import lot_promises
from model.decisions.wording import promise_lines
from model.evaluation.sweep import BEST, FIGURE, SECONDS, WORSE, read_table
from model.manifests import (
    EvaluationManifest,
    ExportManifest,
    MeasurementManifest,
    Model,
    ModelManifest,
    PredictionManifest,
    SweepManifest,
)
from model.network.backbones import BACKBONES
from model.registry.store import run_address, runs_address, store_of
from model.settings import NO_WEIGHTS, SUBMISSION, Decision, Recipe
from tfrecords.artifacts.manifest import RunRecord

CLASSES_IN_TABLE = 20  # of the report's confusion matrix; of more only its picture is readable
RATES = (
    ("accuracy", "accuracy"),
    ("balanced accuracy", "balanced_accuracy"),
    ("macro F1", "macro_f1"),
    ("escape rate", "escape_rate"),
    ("overkill rate", "overkill_rate"),
)


def summary(home: Home, refs: dict[str, Ref]) -> str:
    """A screen of text: the figures, the places, the next commands."""
    model = home.open(refs["train"], ModelManifest)
    evaluated = home.open(refs["evaluate"], EvaluationManifest)
    evaluation = evaluated.manifest
    prediction = home.open(refs["predict"], PredictionManifest)
    store = store_of(home.root, name_of(model))
    train = model.manifest.settings.train
    start = "from random weights" if train.weights == NO_WEIGHTS else "from pretrained weights"
    trained = trained_epochs(model) if train.recipe == Recipe.FULL else "last layer alone"
    size = model.manifest.settings.preprocess.image_size_px
    mirrored = " and ".join(model.manifest.flips or ()) or "not"
    figures = home.root / refs["evaluate"].folder
    lines = [
        "",
        f"  {BACKBONES[train.backbone].constructor}, alpha {train.alpha:g}, {size} px, {trained}, trained {start}",
        f"  training pictures mirrored: {mirrored}",
        *_answered(model.manifest.mirrors),
        f"  on {evaluation.metrics['pictures']:,} validation pictures that it did not train on:",
        f"    {'normal class':<18} {normal_of(model, evaluation)}",
        *(f"    {name:<18} {value}" for name, value in rates_of(evaluation.metrics)),
        *(f"  promise: {line}" for line in lot_promises(prediction, evaluated)),
        "",
        f"  submission  {home.root / SUBMISSION}  ({prediction.manifest.pictures:,} pictures)",
        f"  review      {prediction.path}/review.csv  ({to_people(prediction.manifest):,} to look at)",
        f"  model       {model.path}",
        f"              in MLflow: {store.model_uri}",
        f"  figures     {figures}/confusion.png, mistakes.png, gradcam.png",
        f"              {model.path}/curves.png",
        "",
        f"  next        aoi serve --home {home.root}   # Prefect and MLflow in the browser",
    ]
    return "\n".join(lines)


def _answered(mirrors: Sequence[str]) -> list[str]:
    """How answers come about, where that is not from a picture alone."""
    return [f"  answers: the mean over a picture and its mirror images, {' and '.join(mirrors)}"] if mirrors else []


def to_people(prediction: PredictionManifest) -> int:
    """How many parts of a lot a person looks at."""
    return sum(prediction.decisions.get(decision, 0) for decision in (Decision.REVIEW, Decision.UNKNOWN))


def trained_epochs(model: Model) -> str:
    """'5 epochs', or '37 of 40 epochs' where training was to have more and ended earlier."""
    wanted = model.manifest.settings.train.epochs
    made = len((model.path / "history.csv").read_text(encoding="utf-8").splitlines()) - 1
    return f"{made} epoch{'s' * (made != 1)}" if wanted in (None, made) else f"{made} of {wanted} epochs"


def normal_of(model: Model, evaluation: EvaluationManifest) -> str:
    """'0 (normal)': which class counts as good parts, or that none does."""
    normal = evaluation.operating.point.normal
    return "none (evaluate.normal_class)" if normal is None else f"{normal} ({model.manifest.classes[normal]})"


def rates_of(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """(name, text) of the figures that there are."""
    return [(name, f"{metrics[key]:.4f}") for name, key in RATES if key in metrics]


def confusion_rows(home: Home, evaluation: Ref) -> list[dict[str, str]]:
    """The confusion matrix as rows: {"true": name, predicted name: count, ...}."""
    with open(home.root / evaluation.folder / "confusion.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def audit_rows(home: Home, dataset: Ref, most: int = 100) -> list[dict[str, str]]:
    """The gravest findings about a training set, as in audit.csv; one row that says so where there are none."""
    audit = audit_of(home, dataset)
    if audit is None:
        return []
    with open(audit.path / "audit.csv", encoding="utf-8", newline="") as file:
        rows = list(islice(csv.DictReader(file), most))
    return rows or [{"finding": "none"}]


def sweep_rows(home: Home, ref: Ref) -> list[dict[str, str]]:
    """A sweep's rows for people: numbers rounded, a model by the beginning of its fingerprint, the best marked."""
    marks = {BEST: "* best", WORSE: "worse", "": ""}
    rows = read_table(home.open(ref, SweepManifest))
    for row in rows:
        row |= {key: f"{float(row[key]):.4f}" for _, key in RATES if key in row}
        row |= {SECONDS: f"{float(row[SECONDS]):.0f}", "model": row["model"][:8], "standing": marks[row["standing"]]}
    return rows


def sweep_table(home: Home, ref: Ref) -> str:
    """A sweep as lines of aligned columns, headed by the settings' and figures' names."""
    rows = sweep_rows(home, ref)
    told = '"worse": told from the best by their mistakes (McNemar, 5 %); between the others chance may decide'
    return "\n".join(["", *table_of(rows), "", told, ""])


def table_of(rows: list[dict[str, str]]) -> list[str]:
    """Rows as lines of aligned columns, headed by their keys."""
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def report(home: Home, refs: dict[str, Ref]) -> str:
    """Markdown for Prefect: whichever of train, evaluate, predict and sweep are there, with links into the MLflow UI.

    The figures are shown by MLflow's server; its address is $AOI_MLFLOW_UI, which `aoi serve` sets.
    """
    parts, figure = [], ""
    if record := _record(home, refs):
        ui = os.environ.get("AOI_MLFLOW_UI", "")
        experiment, run = record.experiment_id, record.run_id
        figure = f"{ui}/get-artifact?run_uuid={run}&path="
        links = {"MLflow run": run_address(ui, experiment, run), "all runs": runs_address(ui, experiment)}
        parts.append(", ".join(f"[{text}]({address})" for text, address in links.items()))
    parts += [f"Promise: {line}." for line in _promises(home, refs)]
    if evaluated := refs.get("evaluate"):
        parts += _figures(home, evaluated, home.open(evaluated, EvaluationManifest).manifest.metrics)
        parts += [f"![{name}]({figure}evaluation/{name}.png)" for name in ("confusion", "mistakes")]
    if measured := refs.get(MeasurementManifest.KIND):
        parts += _figures(home, measured, home.open(measured, MeasurementManifest).manifest.metrics)
    if "train" in refs:
        parts.append(f"![curves]({figure}training/curves.png)")
    if sweep := refs.get("sweep"):
        parts += [_table(sweep_rows(home, sweep)), f"![parallel coordinates]({figure}sweep/{FIGURE})"]
    if predicted := refs.get("predict"):
        lot = home.open(predicted, PredictionManifest).manifest
        parts.append(f"Submission: `{home.root / SUBMISSION}`, {lot.pictures:,} pictures")
        decided = "\n".join(f"| {decision} | {count:,} |" for decision, count in lot.decisions.items())
        parts.append(f"| decision | parts |\n|---|---|\n{decided}")
    parts += [f"{stage}: `{home.root / ref.folder}`" for stage, ref in refs.items()]
    return "\n\n".join(parts)


def _figures(home: Home, ref: Ref, metrics: Mapping[str, float]) -> list[str]:
    """What was measured, and which classes were taken for which where these are few enough to be read."""
    parts = [_table([{"figure": name, "value": value} for name, value in rates_of(metrics)])]
    if len(confusion := confusion_rows(home, ref)) <= CLASSES_IN_TABLE:
        parts.append("Confusion matrix (rows true, columns predicted)\n\n" + _table(confusion))
    return parts


def _promises(home: Home, refs: dict[str, Ref]) -> list[str]:
    """What the evaluation promises, about the lot where there is one."""
    if predicted := refs.get("predict"):
        prediction = home.open(predicted, PredictionManifest)
        return lot_promises(prediction, home.evaluation_of(prediction.manifest.model.fingerprint))
    evaluated = refs.get("evaluate")
    return promise_lines(home.open(evaluated, EvaluationManifest).manifest.operating) if evaluated else []


def _record(home: Home, refs: dict[str, Ref]) -> RunRecord | None:
    """The MLflow run of the model that was trained, evaluated, exported or used to predict, or of the sweep."""
    kinds: dict[str, type[EvaluationManifest | PredictionManifest | ExportManifest | MeasurementManifest]] = {
        kind.KIND: kind for kind in (EvaluationManifest, PredictionManifest, ExportManifest, MeasurementManifest)
    }
    for ref in refs.values():
        if ref.kind == SweepManifest.KIND:
            return home.open(ref, SweepManifest).manifest.mlflow
        if ref.kind == ModelManifest.KIND:
            return home.open(ref, ModelManifest).manifest.mlflow
        if kind := kinds.get(ref.kind):
            model = home.find(ModelManifest, home.open(ref, kind).manifest.model.fingerprint)
            return model.manifest.mlflow if model else None
    return None


def _table(rows: list[dict[str, str]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
