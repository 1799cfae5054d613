"""The ingest stage: a Beam job whose work item is a shard, and the commit of what it wrote."""

import csv
import io
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import astuple, fields
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from time import time
from typing import Any

import numpy as np

from pipeline.inputs.depth import resolve_depth
from pipeline.inputs.files import READ_ERRORS, opened, reason
from pipeline.inputs.inputs import Inputs
from pipeline.inputs.rows import Reject, duplicates
from pipeline.inputs.telling import is_whole, some
from pipeline.job.beam import Runner, open_runner, read_options, run_shards
from pipeline.job.front import Front
from pipeline.job.plan import shard_rows
from pipeline.job.shard import ShardPlan, ShardReport, read_report
from pipeline.location import folder_at, sizes
from pipeline.settings import IngestSettings
from pipeline.store import is_remote
from tfrecords.artifacts.files import appearing, hash_json, write_whole
from tfrecords.artifacts.make import make
from tfrecords.cores import cores
from tfrecords.dataset import (
    COLOR_MEASURES,
    EXAMPLE,
    MEASURES,
    ROW_COLUMNS,
    ROWS,
    Dataset,
    DatasetManifest,
    DatasetSettings,
    ShardEntry,
    count_folds,
)
from tfrecords.errors import MISSED, AoiError, Problem, refuse, sentence
from tfrecords.pictures import preprocessing
from tfrecords.pictures.formats import format_of
from tfrecords.progress import Progress, silent
from tfrecords.records import schema
from tfrecords.settings import Color, PreprocessSettings

VERSION = 4  # of the plan: raise it when the same inputs would give other shards or another manifest
MEASURED = (*MEASURES, *COLOR_MEASURES)
BLANK, UNREAD = ("",) * len(MEASURED), (0, 0, 0.0, 0.0, "", 0.0, 0.0)
FOUND = np.dtype([("fold", int), *zip(MEASURED, (int, int, float, float, "S16", float, float), strict=True)])
REJECTS = "rejects.csv"
REJECT_COLUMNS = tuple(field.name for field in fields(Reject))
LOST_REMEDY = "Run again; where --beam names a runner, run without it"


def ingest(
    inputs: Inputs,
    root: Path,
    name: str,
    settings: IngestSettings,
    preprocess: PreprocessSettings,
    beam: str = "",
    force: bool = False,
    progress: Progress = silent,
) -> tuple[Dataset, bool]:
    """The dataset of one split: found under `root`, or made.

    Args:
        root: folder of the datasets; the result is root/NAME-SPLIT-FINGERPRINT.
        preprocess: of a training split, where its bit depth is auto, it is found here and stands in the manifest.
        beam: Beam's own pipeline options, as on a command line. They never change the bytes.
        progress: counts the pictures in finished shards.

    Returns:
        the dataset, and whether it was there before.

    Raises:
        AoiError: more unusable training pictures than are tolerated; Beam options that are refused. Unusable
            pictures of the test split never stop it: they stand in rejects.csv.
    """
    options = read_options(beam)
    preprocess = resolve_depth(inputs, preprocess, progress, Front(options, root, settings.stall_seconds).measure)
    fingerprint = hash_json(
        {
            "versions": [VERSION, schema.VERSION, preprocessing.VERSION],
            "input": inputs.digest,
            "preprocess": preprocess.model_dump(),
            "layout": settings.layout.model_dump(),
        }
    )

    def build(work: Path) -> DatasetManifest:
        _refuse_rejects(inputs, list(inputs.rows.rejects.values()), settings)
        location = settings.location and folder_at(settings.location, f"{name}-{inputs.split}-{fingerprint}")
        return _build(inputs, work, location, settings, preprocess, options, progress)

    dataset, cached = make(root, f"{name}-{inputs.split}", DatasetManifest, fingerprint, build, force)
    # It may have been made when more was tolerated.
    _refuse_rejects(inputs, _read_rejects(dataset), settings)
    return dataset, cached


def _build(
    inputs: Inputs,
    work: Path,
    location: str | None,
    settings: IngestSettings,
    preprocess: PreprocessSettings,
    options: list[str],
    progress: Progress,
) -> DatasetManifest:
    shards = list(shard_rows(inputs, settings, math.prod(preprocess.shape)))
    runner = open_runner(options) if options else Runner(None, (), len(cores()))
    plans = [
        ShardPlan(str(work), file, inputs.container, rows, folds, preprocess, runner.threads, tuple(options), location)
        for file, rows, folds in shards
    ]
    _remove_left(work, settings.stall_seconds)
    if location and not is_remote(location):
        _remove_left(Path(location), settings.stall_seconds)
    for plan in _lost(plans, location):
        Path(plan.report_path).unlink()
    run_shards(plans, runner, progress, settings.stall_seconds)
    if lost := _lost(plans, location):
        seen = f"{len(lost):,} shards are not there as they were written, such as that of {lost[0].file}"
        raise refuse(location, seen, "Run again; let no other program remove files there", exit_code=MISSED)
    written: list[ShardEntry] = []
    rejects: list[Reject] = []
    saturated = 0
    found = np.zeros(1 + inputs.rows.lines.max(), FOUND)
    for plan in plans:  # one report at a time, and as an array: its objects would take more memory than all else here
        report = _checked(inputs, plan)
        written.append(report.entry)
        rejects += report.rejects
        saturated += report.saturated
        for picture_id, line, fold in zip(plan.rows.ids, plan.rows.lines.tolist(), plan.folds, strict=True):
            found[line] = (fold, *report.written.get(picture_id, UNREAD))
    rejects.sort(key=lambda reject: reject.id)
    _refuse_rejects(inputs, rejects, settings)
    write_whole(work / REJECTS, _csv(REJECT_COLUMNS, map(astuple, rejects)))
    columns = (*ROW_COLUMNS, *COLOR_MEASURES) if preprocess.color == Color.RGB else ROW_COLUMNS
    rows = (
        (row.row, row.id, row.label, fold, row.sha256.hex(), *shown)[: len(columns)]
        for row in inputs.rows
        for fold, *measures, phash, red, blue in [found[row.row].item()]
        for shown in [(*measures, phash.decode(), red, blue) if phash else BLANK]
    )
    write_whole(work / ROWS, _csv(columns, rows))
    rejected = {reject.id for reject in rejects}
    _write_example(inputs, rejected, work)
    placed = (
        (label, fold)
        for plan in plans
        for picture_id, label, fold in zip(plan.rows.ids, plan.rows.labels.tolist(), plan.folds, strict=True)
        if picture_id not in rejected
    )
    return DatasetManifest(
        split=inputs.split,
        classes=inputs.classes,
        settings=DatasetSettings(preprocess=preprocess, ingest=settings.layout),
        input_digest=inputs.digest,
        records=sum(shard.records for shard in written),
        counts=count_folds(placed, inputs.classes),
        rejects=len(rejects),
        saturated=saturated,
        duplicates=duplicates(inputs.rows),
        leniences=inputs.leniences,
        location=location,
        versions={"schema": schema.VERSION, "opencv": version("opencv-python-headless")},
        shards=tuple(written),
    )


def _lost(plans: Sequence[ShardPlan], location: str | None) -> list[ShardPlan]:
    """Plans whose shard is reported and does not lie whole in its store."""
    if not location or not is_remote(location):
        return []
    there = sizes(location)
    reports = ((plan, read_report(plan)) for plan in plans)
    return [plan for plan, report in reports if report and there.get(report.entry.stored_name) != report.bytes]


def _remove_left(work: Path, stall_seconds: float) -> None:
    """Removes unfinished files of a try that was killed, and none that a worker of its job may still be writing: an
    engine may keep a job whose driver is gone. What is left goes with the commit."""
    for left in work.glob(".*.tmp"):
        with suppress(FileNotFoundError):
            if time() - left.stat().st_mtime > stall_seconds:
                left.unlink()


def _write_example(inputs: Inputs, rejected: set[str], work: Path) -> None:
    """Keeps the file of the first usable training picture, in the order of the CSV, as it came."""
    first = next((row for row in inputs.rows if row.id not in rejected), None)
    if inputs.split == "train" and first:
        try:
            with opened(inputs.container) as read:
                data = read(first.name)
        except READ_ERRORS as error:
            seen = f"the file can't be read any more ({reason(error)})"
            raise refuse(f"{inputs.container}/{first.id}", seen, "Put it back and run again", exit_code=MISSED)
        with appearing(work / f"{EXAMPLE}{format_of(data).suffixes[0]}") as file:
            file.write(data)


def _checked(inputs: Inputs, plan: ShardPlan) -> ShardReport:
    """The shard's report. Its ids must be the planned ones, each once: no runner is trusted."""
    report = read_report(plan)
    if report is None:
        raise refuse(plan.file, "the Beam job ended without writing it", LOST_REMEDY)
    reported = Counter([*report.written, *(reject.id for reject in report.rejects)])
    planned = Counter(plan.rows.ids)
    if reported != planned:
        first = min([*(planned - reported), *(reported - planned)])
        seen = f"{plan.file} has {reported[first]} of the {planned[first]} records or rejects of {first}"
        raise refuse(inputs.csv, seen, LOST_REMEDY)
    return report


def _refuse_rejects(inputs: Inputs, rejects: Sequence[Reject], settings: IngestSettings) -> None:
    if inputs.split != "train" or len(rejects) <= settings.max_rejects:
        return
    counts = Counter(reject.reason for reject in rejects)
    most, count = counts.most_common(1)[0]
    common = [reject for reject in rejects if reject.reason == most]
    told = [reject for reject in rejects if reject.reason != most]
    problems = []
    if is_whole(count, len(inputs.rows)):
        seen = f"{count:,} of {len(inputs.rows):,} pictures, such as {some([reject.id for reject in common])}: {most}"
        problems.append(Problem(inputs.container, seen, sentence(common[0].remedy)))
    else:
        told = list(rejects)
    problems += [
        Problem(
            f"{inputs.container}/{reject.id}",
            reject.reason,
            f"{sentence(reject.remedy)}. {_place(inputs, reject)}raise ingest.max_rejects to go on without it",
        )
        for reject in told
    ]
    raise AoiError(problems)


def _place(inputs: Inputs, reject: Reject) -> str:
    """Where the CSV names the picture; '' where there is no CSV."""
    return f"It is row {reject.row} of {os.path.basename(inputs.csv)}; " if inputs.csv != inputs.container else "Or "


def _read_rejects(dataset: Dataset) -> list[Reject]:
    with open(dataset.path / REJECTS, newline="", encoding="utf-8") as file:
        return [Reject(row["id"], int(row["row"]), row["reason"], row["remedy"]) for row in csv.DictReader(file)]


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """The lines of a CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    for row in chain([columns], rows):
        writer.writerow(row)
        yield text.getvalue()
        text.seek(0)
        text.truncate()
