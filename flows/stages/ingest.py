"""ingest: pictures to a dataset, and an audit of what they are.

Needs a folder with pictures and a CSV. A dataset is named after its pictures, classes and settings, see
`pipeline.job.ingest.ingest`; an audit after the datasets that it compares.
"""

import os
from dataclasses import replace
from typing import Annotated

from flows.home import Home, Ref, data_name, name_of
from flows.stages.stage import BEAM, DATA, Job, Stage
from pipeline.audit.findings import Audit, AuditManifest, audit
from pipeline.audit.findings import summary as audit_summary
from pipeline.inputs import files
from pipeline.inputs.inputs import Split, read_inputs
from pipeline.job.ingest import ingest as ingest_inputs
from tfrecords.dataset import Dataset, DatasetManifest, saturation
from tfrecords.errors import AoiError, refuse


def ingest(job: Job, data: Annotated[str | None, DATA] = None, beam: Annotated[str, BEAM] = "") -> Ref:
    """Pictures to a dataset, the test pictures to another where there are any, and an audit of both.

    data: folder in AIdea's layout; none: the one used last. Returns: the training set's reference.
    """
    home, data = job.home, choose_data(job.home, data)
    dataset, cached = ingest_split(job, data, "train", beam)
    datasets = [dataset]
    known = job.settings.model_copy(update={"preprocess": dataset.manifest.settings.preprocess})
    if files.exists(files.join(data, "test.csv")):
        datasets.append(ingest_split(replace(job, settings=known), data, "test", beam)[0])
    audited, was_there = audit(datasets, home.folder(AuditManifest), name_of(dataset))
    found = audit_summary(audited)
    audit_ref = home.finished(audited, was_there, "audit", f"audit-{dataset.fingerprint}")
    audit_note = f"audit: {found}; see {audit_ref.folder}/audit.csv" if found else ""
    notes = [note for note in (*map(saturation, datasets), audit_note) if note]
    return replace(home.finished(dataset, cached), note="\n".join(notes))


def ingest_split(job: Job, data: str, split: Split, beam: str) -> tuple[Dataset, bool]:
    """The dataset of one split of a folder, and whether it was there. Raises: AoiError."""
    settings = job.settings
    inputs = read_inputs(data, split, settings.ingest.folds, job.progress)
    made = ingest_inputs(
        inputs,
        job.home.folder(DatasetManifest),
        data_name(data),
        settings.ingest,
        settings.preprocess,
        beam,
        job.force,
        job.progress,
    )
    job.home.remember("data", {"folder": data})
    return made


def choose_data(home: Home, data: str | None) -> str:
    """The folder that is named, made absolute, else the one used last. Raises: AoiError where there is none."""
    if data:
        return data if files.is_remote(data) else os.path.abspath(data)
    noted = home.recall("data")
    if noted is None:
        raise refuse(home.root, "no data was used here yet", "Name the folder: --data DIR (Prefect: -p data=DIR)")
    return str(noted["folder"])


def audit_of(home: Home, dataset: Ref) -> Audit | None:
    """The latest audit of a training set; None where there is none any more."""
    noted = home.recall(f"audit-{dataset.fingerprint}")
    try:
        return home.open(Ref(**noted), AuditManifest) if noted else None
    except AoiError:
        return None


STAGE = Stage(ingest, makes=(DatasetManifest, AuditManifest))
