"""`aoi evaluate --data`: a finished model, measured on a labelled lot. No champion or evaluation changes."""

import csv
from dataclasses import replace
from pathlib import Path

from flows.home import Home, Ref, name_of
from flows.products import choose_model, describe_model
from flows.stages.ingest import choose_data, ingest_split
from flows.stages.predict import exported_of, make_prediction
from flows.stages.stage import Job
from model.checks import normal_class
from model.manifests import MeasurementManifest, Model
from pipeline.location import fetch
from tfrecords.artifacts.artifact import verify
from tfrecords.artifacts.files import hash_json
from tfrecords.artifacts.make import make
from tfrecords.dataset import Dataset, DatasetManifest, contents
from tfrecords.errors import refuse

VERSION = 1  # raise it when the same answers and labels would give another measurement
CLASSES_SHOWN = 20  # of the confusion matrix as text
MISTAKES_TOLD = 3


def measure(job: Job, model: str | None, product: str | None, data: str, beam: str) -> Ref:
    """A model, or the champion of a product, measured on the labels of a lot, by the answers that predict gives.

    A measurement is named after the lot and the answers. Raises: AoiError for a lot without labels, or with others
    than the model's classes.
    """
    home, data = job.home, choose_data(job.home, data)
    chosen = choose_model(home, model, product, data)
    classes = chosen.manifest.classes
    normal = normal_class(classes, job.settings.evaluate)
    known = job.settings.model_copy(update={"preprocess": chosen.manifest.settings.preprocess})
    again = replace(job, force=False)
    ingested = ingest_split(replace(again, settings=known), data, "test", beam, classes, labelled=True)
    lot = ingested.dataset
    if not lot.manifest.records:
        raise refuse(data, "none of its pictures can be read", "See rejects.csv of the lot's dataset in HOME")
    evaluation = home.evaluation_of(chosen.fingerprint)
    prediction, _ = make_prediction(again, chosen, lot, evaluation, exported_of(again, chosen))
    fingerprint = hash_json({"version": VERSION, "prediction": prediction.made_from.model_dump(), "normal": normal})

    def build(work: Path) -> MeasurementManifest:
        verify(prediction)
        fetch(lot, job.progress)
        verify(lot)
        from model.evaluation.measurement import measure_lot

        return measure_lot(prediction, lot, normal, work)

    root = home.folder(MeasurementManifest)
    made, cached = make(root, name_of(lot), MeasurementManifest, fingerprint, build, job.force)
    notes = [f"model: {describe_model(home, chosen)}", *ingested.told()]
    if count := _trained_on(home, chosen, lot):
        pictures = f"{count:,} of the {lot.manifest.records:,} pictures are of the set that the model was trained on"
        notes.append(f"{pictures}: the figures are too good")
    return replace(home.finished(made, cached), note="\n".join(notes))


def _trained_on(home: Home, model: Model, lot: Dataset) -> int:
    """How many pictures of a lot are, byte for byte, in the dataset that a model was trained on, where it is there."""
    dataset = home.find(DatasetManifest, model.manifest.dataset.fingerprint)
    if dataset is None:
        return 0
    seen, asked = (set(contents(each).values()) - {""} for each in (dataset, lot))
    return len(seen & asked)


def measured(home: Home, ref: Ref) -> str:
    """A screen of text: the figures, the confusion matrix, the surest mistakes."""
    from flows.summary import RATES, confusion_rows, table_of

    manifest = home.open(ref, MeasurementManifest).manifest
    found, decided = manifest.metrics, manifest.decided
    rates = {name: f"{found[key]:.4f}" for name, key in RATES if key in found}
    rates["accuracy"] += f"  ({found['accuracy_low']:.4f} to {found['accuracy_high']:.4f} with 95 % confidence)"
    for name in ("escape", "overkill", "misnamed"):
        if f"{name}_rate" in decided:
            span = f"({decided[f'{name}_low']:.4f} to {decided[f'{name}_high']:.4f})"
            rates[f"{name}, decided"] = f"{decided[f'{name}_rate']:.4f}  {span}"
    rates["to review"] = f"{decided['review_rate']:.4f}"
    unreadable = f", {found['unreadable']:,.0f} unreadable ones left out" if found["unreadable"] else ""
    lines = ["", f"  on {found['pictures']:,.0f} labelled pictures{unreadable}:"]
    lines += [f"    {name:<18} {value}" for name, value in rates.items()]
    confusion = confusion_rows(home, ref)
    if len(confusion) <= CLASSES_SHOWN:
        lines += ["", "  rows true, columns predicted:", *(f"    {line}" for line in table_of(confusion))]
    with open(home.root / ref.folder / "mistakes.csv", newline="", encoding="utf-8") as file:
        wrong = list(csv.DictReader(file))
    lines += ["", f"  {len(wrong):,} mistakes" + (", the surest first, in mistakes.csv:" if wrong else "")]
    lines += [f"    {each['ID']}: {each['true_name']}, said {each['name']}" for each in wrong[:MISTAKES_TOLD]]
    return "\n".join([*lines, ""])
