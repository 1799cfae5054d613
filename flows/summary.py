"""What a run made and where, for people."""

import csv
import os
from itertools import islice
from typing import Any

from flows.home import Home, Ref
from model.evaluation.sweep import BEST, FIGURE, KIND, SECONDS, WORSE, read_table
from model.registry.store import store_of
from model.settings import NO_WEIGHTS, SUBMISSION
from tfrecords.artifacts.artifact import RECORD, Artifact

RATES = (
    ("accuracy", "accuracy"),
    ("balanced accuracy", "balanced_accuracy"),
    ("macro F1", "macro_f1"),
    ("escape rate", "escape_rate"),
    ("overkill rate", "overkill_rate"),
)


def summary(home: Home, refs: dict[str, Ref]) -> str:
    """A screen of text: the figures, the places, the next commands."""
    model, evaluation, prediction = (home.open(refs[stage]) for stage in ("train", "evaluate", "predict"))
    store = store_of(home.root, model.path.name.rpartition("-")[0])
    rates = rates_of(evaluation.manifest["metrics"])
    train = model.manifest["settings"]["train"]
    start = "from random weights" if train["weights"] == NO_WEIGHTS else "from pretrained weights"
    trained = trained_epochs(model, train["epochs"]) if train["recipe"] == "full" else "last layer alone"
    size = model.manifest["settings"]["preprocess"]["image_size_px"]
    lines = [
        "",
        f"  MobileNet, alpha {train['alpha']:g}, {size} px, {trained}, trained {start}",
        f"  on {evaluation.manifest['metrics']['pictures']:,} validation pictures that it did not train on:",
        *(f"    {name:<18} {value}" for name, value in rates),
        "",
        f"  submission  {home.root / SUBMISSION}  ({prediction.manifest['pictures']:,} pictures)",
        f"  review      {prediction.path}/review.csv  ({prediction.manifest['decisions']['review']:,} to look at)",
        f"  model       {model.path}",
        f"              in MLflow: {store.model_uri}",
        f"  figures     {evaluation.path}/confusion.png, mistakes.png, gradcam.png",
        f"              {model.path}/curves.png",
        "",
        f"  next        aoi serve --home {home.root}   # Prefect and MLflow in the browser",
    ]
    return "\n".join(lines)


def trained_epochs(model: Artifact, wanted: int) -> str:
    """'5 epochs', or '37 of 40 epochs' where none got better for so long that training ended."""
    made = len((model.path / "history.csv").read_text(encoding="utf-8").splitlines()) - 1
    return f"{wanted} epochs" if made == wanted else f"{made} of {wanted} epochs"


def rates_of(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, text) of the figures that there are."""
    return [(name, f"{metrics[key]:.4f}") for name, key in RATES if key in metrics]


def confusion_rows(home: Home, evaluation: Ref) -> list[dict[str, str]]:
    """The confusion matrix as rows: {"true": name, predicted name: count, ...}."""
    with open(home.root / evaluation.folder / "confusion.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def audit_rows(home: Home, most: int = 100) -> list[dict[str, str]]:
    """The gravest findings of the latest audit, as in audit.csv; one row that says so where there are none."""
    latest = home.recall("audit")
    if latest is None:
        return []
    with open(home.root / latest["folder"] / "audit.csv", encoding="utf-8", newline="") as file:
        rows = list(islice(csv.DictReader(file), most))
    return rows or [{"finding": "none"}]


def sweep_rows(home: Home, ref: Ref) -> list[dict[str, str]]:
    """A sweep's rows for people: numbers rounded, a model by the beginning of its fingerprint, the best marked."""
    marks = {BEST: "* best", WORSE: "worse", "": ""}
    rows = read_table(home.open(ref))
    for row in rows:
        row |= {key: f"{float(row[key]):.4f}" for _, key in RATES if key in row}
        row |= {SECONDS: f"{float(row[SECONDS]):.0f}", "model": row["model"][:8], "standing": marks[row["standing"]]}
    return rows


def sweep_table(home: Home, ref: Ref) -> str:
    """A sweep as lines of aligned columns, headed by the settings' and figures' names."""
    rows = sweep_rows(home, ref)
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    told = '"worse": told from the best by their mistakes (McNemar, 5 %); between the others chance may decide'
    return "\n".join(["", *table, "", told, ""])


def report(home: Home, refs: dict[str, Ref]) -> str:
    """Markdown for Prefect: whichever of train, evaluate, predict and sweep are there, with links into the MLflow UI.

    The figures are shown by MLflow's server; its address is $AOI_MLFLOW_UI, which `aoi serve` sets.
    """
    made = {stage: home.open(ref) for stage, ref in refs.items()}
    parts, figure = [], ""
    if model := _model(home, made):
        ui, record = os.environ.get("AOI_MLFLOW_UI", ""), model.manifest[RECORD]
        runs = f"{ui}/#/experiments/{record['experiment_id']}"
        figure = f"{ui}/get-artifact?run_uuid={record['run_id']}&path="
        parts.append(f"[MLflow run]({runs}/runs/{record['run_id']}), [all runs]({runs})")
    if evaluation := made.get("evaluate"):
        rates = rates_of(evaluation.manifest["metrics"])
        parts.append("| figure | value |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rates))
        parts.append(
            "Confusion matrix (rows true, columns predicted)\n\n" + _table(confusion_rows(home, refs["evaluate"]))
        )
        parts += [f"![{name}]({figure}evaluation/{name}.png)" for name in ("confusion", "mistakes")]
    if "train" in made:
        parts.append(f"![curves]({figure}training/curves.png)")
    if sweep := refs.get("sweep"):
        parts += [_table(sweep_rows(home, sweep)), f"![parallel coordinates]({figure}sweep/{FIGURE})"]
    if prediction := made.get("predict"):
        parts.append(f"Submission: `{home.root / SUBMISSION}`, {prediction.manifest['pictures']:,} pictures")
    parts += [f"{stage}: `{artifact.path}`" for stage, artifact in made.items()]
    return "\n\n".join(parts)


def _model(home: Home, made: dict[str, Artifact]) -> Artifact | None:
    """The model that was trained, evaluated or used to predict, or the sweep; None where there was none."""
    for artifact in made.values():
        if artifact.manifest["kind"] in ("model", KIND):
            return artifact
    used = [artifact.manifest["model"]["fingerprint"] for artifact in made.values() if "model" in artifact.manifest]
    return home.by_fingerprint("model", used[0]) if used else None


def _table(rows: list[dict[str, str]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
