"""The ingest stage: a Beam job whose work item is a shard (one shard needs none), and the commit of what it wrote."""

import csv
import io
import logging
import os
import shlex
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from pipeline.convert import ShardPlan, convert_planned, convert_shard, read_report, write_plan
from pipeline.inputs import Inputs, Row, duplicates
from pipeline.settings import IngestSettings
from tfrecords import picture, schema
from tfrecords.artifact import Artifact, hash_json, make, write_whole
from tfrecords.dataset import (
    KIND,
    MEASURES,
    NO_FOLD,
    ROW_COLUMNS,
    ROWS,
    assign_folds,
    count_folds,
    shard_index,
    shard_key,
    shard_name,
)
from tfrecords.errors import MISSED, AoiError, Problem, refuse
from tfrecords.settings import PreprocessSettings

VERSION = 3  # of the plan: raise it when the same inputs would give other shards or another manifest
BLANK, UNREAD = ("",) * len(MEASURES), (0, 0, 0.0, 0.0, "")
FOUND = np.dtype([("fold", int), *zip(MEASURES, (int, int, float, float, "S16"), strict=True)])
REJECTS = "rejects.csv"
REJECT_COLUMNS = ("id", "row", "reason", "remedy")
REJECT_REMEDY = "copy the picture again, or take it out with its row"
Progress = Callable[[int, int], None]


def ingest(
    inputs: Inputs,
    root: Path,
    name: str,
    settings: IngestSettings,
    preprocess: PreprocessSettings,
    beam: str = "",
    force: bool = False,
    progress: Progress = lambda done, total: None,
) -> tuple[Artifact, bool]:
    """The dataset of one split: found under `root`, or made.

    Args:
        root: folder of the datasets; the result is root/NAME-SPLIT-FINGERPRINT.
        beam: Beam's own pipeline options, as on a command line. They never change the bytes.
        progress: called with the pictures in finished shards and their number.

    Returns:
        the dataset, and whether it was there before.

    Raises:
        AoiError: more unusable training pictures than are tolerated; Beam options that are refused. Unusable
            pictures of the test split never stop it: they stand in rejects.csv.
    """
    try:
        options = shlex.split(beam)
    except ValueError as error:
        raise _unreadable_options(str(error))
    refuse_lossy(options)
    fingerprint = hash_json(
        {
            "versions": [VERSION, schema.VERSION, picture.VERSION],
            "input": inputs.digest,
            "preprocess": preprocess.model_dump(),
            "layout": settings.model_dump(exclude={"max_rejects"}),
        }
    )

    def build(work: Path) -> dict[str, Any]:
        _refuse_rejects(inputs, [(row.id, row.row, row.reject) for row in inputs.rows if row.reject], settings)
        return _build(inputs, work, settings, preprocess, options, progress)

    dataset, cached = make(root, f"{name}-{inputs.split}", KIND, fingerprint, build, force)
    # It may have been made when more was tolerated.
    _refuse_rejects(inputs, _read_rejects(dataset), settings)
    return dataset, cached


def refuse_lossy(options: list[str]) -> None:
    """Raises AoiError for a way to run Beam that is known to lose records."""
    for at, option in enumerate(options):
        value = option.partition("=")[2] or (options[at + 1] if at + 1 < len(options) else "")
        if option.startswith("--direct_running_mode") and value == "multi_threading":
            seen = "direct_running_mode=multi_threading, which loses records without an error"
            raise refuse("--beam", seen, "Use in_memory (its shards use every core) or multi_processing")


def _unreadable_options(why: str) -> AoiError:
    return refuse("--beam", f"options that can't be read ({why})", "Write them as in --beam='--runner=FlinkRunner'")


def shard_rows(
    inputs: Inputs, settings: IngestSettings, image_size_px: int
) -> Iterator[tuple[str, tuple[Row, ...], tuple[int, ...]]]:
    """Every shard's file name with its rows in their order, and their folds. Empty shards are there too."""
    count = settings.shards or max(1, round(len(inputs.rows) * image_size_px**2 / (settings.shard_size_mb << 20)))
    usable = ((row.label, row.sha256) for row in inputs.rows if not row.reject)
    fold_of = assign_folds(usable if inputs.split == "train" else (), settings.folds)
    shards: dict[int, list[Row]] = defaultdict(list)
    for row in sorted(inputs.rows, key=lambda row: (shard_key(row.id), row.id)):
        shards[shard_index(row.id, count)].append(row)
    for index in range(count):
        rows = tuple(shards.pop(index, ()))
        folds = tuple(fold_of.get(row.sha256, NO_FOLD) for row in rows)
        yield shard_name(inputs.split, index, count), rows, folds


def _build(
    inputs: Inputs,
    work: Path,
    settings: IngestSettings,
    preprocess: PreprocessSettings,
    options: list[str],
    progress: Progress,
) -> dict[str, Any]:
    shards = list(shard_rows(inputs, settings, preprocess.image_size_px))
    # Of one shard Beam has nothing to spread, and it takes longer to start than most of them to convert.
    runner, threads = _runner(options) if options or len(shards) > 1 else (None, os.cpu_count() or 1)
    plans = [
        ShardPlan(str(work), file, inputs.container, rows, folds, preprocess, threads) for file, rows, folds in shards
    ]
    for left in work.glob(".*.tmp"):  # by a try that was killed
        left.unlink()
    _run(plans, runner, options, progress)
    written, rejects = [], []
    found = np.zeros(1 + max(row.row for row in inputs.rows), FOUND)
    for plan in plans:  # one report at a time, and as an array: its objects would take more memory than all else here
        report = read_report(plan)
        _reconcile(inputs, plan, report)
        written.append({key: report[key] for key in ("file", "records", "bytes", "sha256")})
        rejects += [tuple(reject) for reject in report["rejects"]]
        for row, fold in plan.placed():
            found[row.row] = (fold, *report["written"].get(row.id, UNREAD))
    rejects.sort()
    _refuse_rejects(inputs, rejects, settings)
    write_whole(work / REJECTS, _csv(REJECT_COLUMNS, ((*reject, REJECT_REMEDY) for reject in rejects)))
    rows = (
        (row.row, row.id, row.label, fold, row.sha256.hex(), *((*measures, phash.decode()) if phash else BLANK))
        for row in inputs.rows
        for fold, *measures, phash in [found[row.row].item()]
    )
    write_whole(work / ROWS, _csv(ROW_COLUMNS, rows))
    rejected = {picture_id for picture_id, *_ in rejects}
    placed = ((row.label, fold) for plan in plans for row, fold in plan.placed() if row.id not in rejected)
    return {
        "split": inputs.split,
        "classes": list(inputs.classes),
        "settings": {"preprocess": preprocess.model_dump(), "ingest": settings.model_dump(exclude={"max_rejects"})},
        "input_digest": inputs.digest,
        "records": sum(shard["records"] for shard in written),
        "counts": count_folds(placed, inputs.classes),
        "rejects": len(rejects),
        "duplicates": duplicates(inputs.rows),
        "versions": {"schema": schema.VERSION, "opencv": version("opencv-python-headless")},
        "shards": written,
    }


def _runner(options: list[str]) -> tuple[Any, int]:
    """Beam's runner for these options, and the threads that each of its workers may use for a shard."""
    from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    try:
        parsed = PipelineOptions(options)
        named, direct = parsed.view_as(StandardOptions).runner, parsed.view_as(DirectOptions)
    except SystemExit:  # Beam has said on stderr which of them it is
        raise _unreadable_options("Beam does not take them")
    if named not in (None, "DirectRunner", "FnApiRunner"):
        return named, 1
    cores = os.cpu_count() or 1
    # Named outright: DirectRunner would first try to download another runner.
    if direct.direct_running_mode != "multi_processing":
        return FnApiRunner(), cores
    # Beam's own workers outlive a job that is killed, and tell of Ctrl-C too.
    command = "trap '' INT; exec " + shlex.join([sys.executable, "-m", "pipeline.worker", str(os.getpid())])
    workers = FnApiRunner(SubprocessSDKEnvironment.from_command_string(command))
    options.append("--direct_running_mode=in_memory")  # otherwise Beam starts its own
    return workers, max(1, cores // (direct.direct_num_workers or cores))


def _run(plans: list[ShardPlan], runner: Any, options: list[str], progress: Progress) -> None:
    """Converts the shards on a Beam runner; without one, here. Meanwhile tells of those that are finished."""
    ended: SimpleQueue[BaseException | None] = SimpleQueue()
    done: set[str] = set()
    total = sum(len(plan.rows) for plan in plans)

    def tell() -> None:
        done.update(plan.file for plan in plans if plan.file not in done and read_report(plan))
        progress(sum(len(plan.rows) for plan in plans if plan.file in done), total)

    def job() -> None:
        try:
            if runner is not None:
                _beam(plans, runner, options)
            else:
                for plan in plans:
                    convert_shard(plan)
            ended.put(None)
        except Exception as error:
            ended.put(error)

    # Beam waits for ever for a worker process that died. All that tells of it is the thread that started it.
    told = threading.excepthook
    threading.excepthook = lambda args: ended.put(args.exc_value) if args.thread.name == "run_worker" else told(args)
    try:
        threading.Thread(target=job, daemon=True).start()
        while True:
            with suppress(Empty):
                error = ended.get(timeout=0.5)
                break
            tell()  # by their reports, which every runner leaves behind
    finally:
        threading.excepthook = told
    if error:  # a runner hands on what a worker raised as text, under a type of its own
        last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        seen = f"the pictures could not be converted ({last[0][:300]})"
        remedy = "Mend it and run again: finished shards are kept"
        raise refuse(plans[0].folder, seen, remedy, exit_code=MISSED) from error
    tell()


def _beam(plans: list[ShardPlan], runner: Any, options: list[str]) -> None:
    import apache_beam as beam  # a second
    from apache_beam.options.pipeline_options import PipelineOptions

    quiet = ["--default_sdk_harness_log_level=ERROR"]  # worker processes tell every step otherwise
    logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)  # `_run` tells what fails, once
    paths = [write_plan(plan) for plan in plans]
    with beam.Pipeline(runner=runner, options=PipelineOptions([*quiet, *options])) as pipeline:
        _ = (
            pipeline
            | "Plans" >> beam.Create(paths).with_output_types(str)
            | "Spread" >> beam.Reshuffle()
            | "Convert" >> beam.Map(convert_planned).with_output_types(str)
        )


def _reconcile(inputs: Inputs, plan: ShardPlan, report: dict | None) -> None:
    """Ids written and rejected must be the planned ones, each once: no runner is trusted."""
    if report is None:
        raise refuse(plan.file, "the job finished without writing it", "Run it again, or on another Beam runner")
    told = [*report["written"], *(reject[0] for reject in report["rejects"])]
    planned = [row.id for row in plan.rows]
    if sorted(told) != sorted(planned):
        lost = sorted(set(planned) ^ set(told))
        seen = f"{len(lost)} pictures differ between plan and {plan.file}, first {lost[:1]}"
        raise refuse(inputs.csv, seen, "Run it again with --force, or on another Beam runner")


def _refuse_rejects(inputs: Inputs, rejects: list[tuple[str, int, str]], settings: IngestSettings) -> None:
    if inputs.split == "train" and len(rejects) > settings.max_rejects:
        remedy = f"Mend or remove it with its row {{}} of {os.path.basename(inputs.csv)}, or raise ingest.max_rejects"
        raise AoiError(
            Problem(f"{inputs.container}/{picture_id}", reason, remedy.format(row))
            for picture_id, row, reason in rejects
        )


def _read_rejects(dataset: Artifact) -> list[tuple[str, int, str]]:
    with open(dataset.path / REJECTS, newline="", encoding="utf-8") as file:
        return [(reject["id"], int(reject["row"]), reject["reason"]) for reject in csv.DictReader(file)]


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """The lines of a CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    for row in chain([columns], rows):
        writer.writerow(row)
        yield text.getvalue()
        text.seek(0)
        text.truncate()
