"""ingest: pictures to a dataset, and an audit of what they are.

Needs a folder with pictures, and a CSV or folders that tell their classes. A dataset is named after its pictures,
classes and settings, see `pipeline.job.ingest.ingest`; an audit after the datasets that it compares.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, NamedTuple

from flows.home import Home, Ref, data_name, name_of
from flows.stages.stage import BEAM, DATA, Job, Stage
from pipeline import store
from pipeline.audit.findings import Audit, AuditManifest, audit
from pipeline.audit.findings import summary as audit_summary
from pipeline.inputs.inputs import read_inputs
from pipeline.inputs.layouts import Split, has_test
from pipeline.job.beam import read_options
from pipeline.job.front import Front
from pipeline.job.ingest import ingest as ingest_inputs
from tfrecords.dataset import Dataset, DatasetManifest, Lenience, darkness, saturation
from tfrecords.errors import AoiError, refuse


def ingest(job: Job, data: Annotated[str | None, DATA] = None, beam: Annotated[str, BEAM] = "") -> Ref:
    """Pictures to a dataset, the test pictures to another where there are any, and an audit of both.

    data: folder with pictures; none: the one used last. Returns: the training set's reference.
    """
    home, data = job.home, choose_data(job.home, data)
    made = ingest_split(job, data, "train", beam)
    dataset, cached = made.dataset, made.cached
    splits = [made]
    known = job.settings.model_copy(update={"preprocess": dataset.manifest.settings.preprocess})
    if has_test(data):
        splits.append(ingest_split(replace(job, settings=known), data, "test", beam, dataset.manifest.classes))
    datasets = [split.dataset for split in splits]
    audited, was_there = audit(datasets, home.folder(AuditManifest), name_of(dataset))
    found = audit_summary(audited)
    audit_ref = home.finished(audited, was_there, "audit", f"audit-{dataset.fingerprint}")
    notes = [f"audit: {found}; see {audit_ref.folder}/audit.csv"] if found else []
    notes += [line for split in splits for line in split.told()]
    return replace(home.finished(dataset, cached), note="\n".join(notes))


class Ingested(NamedTuple):
    """The dataset of one split. cached: whether it was there; leniences: how its input was read this time."""

    dataset: Dataset
    cached: bool
    leniences: Sequence[Lenience]

    def told(self) -> list[str]:
        """A line for each thing that was taken leniently, and one where pictures have values above the bit depth."""
        split = self.dataset.manifest.split
        lines = [f"{split}, taken leniently: {each.kind} ({each.count:,}: {each.example})" for each in self.leniences]
        return [*lines, *filter(None, (saturation(self.dataset), darkness(self.dataset)))]


def ingest_split(
    job: Job, data: str, split: Split, beam: str, classes: Sequence[str] | None = None, labelled: bool = False
) -> Ingested:
    """The dataset of one split of a folder. classes: of the model, for a test split; labelled: whether to read the
    labels of a test split too. Raises: AoiError.
    """
    settings = job.settings
    options = read_options(beam)
    store.use(options)
    root = job.home.folder(DatasetManifest)
    front = Front(options, root, settings.ingest.stall_seconds)
    inputs = read_inputs(data, split, settings.ingest.folds, job.progress, classes, front.look, labelled)
    dataset, cached = ingest_inputs(
        inputs,
        root,
        data_name(data),
        settings.ingest,
        settings.preprocess,
        beam,
        job.force,
        job.progress,
    )
    job.home.remember("data", {"folder": data})
    return Ingested(dataset, cached, inputs.leniences)


def choose_data(home: Home, data: str | None) -> str:
    """The folder that is named, made absolute, else the one used last. Raises: AoiError where there is none."""
    if data and store.holds_secret(data):
        remedy = "Name the place alone, such as s3://bucket/folder; credentials come from the environment"
        raise refuse("--data", "a URL that holds a user, a password or a signature", remedy)
    if data:
        return data if store.is_remote(data) else os.path.abspath(data)
    noted = home.recall("data")
    if noted is None:
        raise refuse(home.root, "no data was used here yet", "Name the folder: --data DIR (Prefect: -p data=DIR)")
    return str(noted.get("folder", ""))


def audit_of(home: Home, dataset: Ref) -> Audit | None:
    """The latest audit of a training set; None where there is none any more."""
    noted = home.noted(f"audit-{dataset.fingerprint}")
    try:
        return home.open(noted, AuditManifest) if noted else None
    except AoiError:
        return None


STAGE = Stage(ingest, makes=(DatasetManifest, AuditManifest))
