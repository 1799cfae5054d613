"""Runs the shards on a Beam runner, and tells what is finished meanwhile."""

import logging
import os
import sys
import threading
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from pipeline.job.shard import ShardPlan, read_report, write_plan, write_planned_shard, write_shard
from tfrecords.errors import MISSED, AoiError, refuse
from tfrecords.progress import Progress
from tfrecords.system import shielded


def refuse_lossy(options: list[str]) -> None:
    """Raises AoiError for a way to run Beam that is known to lose records."""
    for at, option in enumerate(options):
        value = option.partition("=")[2] or (options[at + 1] if at + 1 < len(options) else "")
        if option.startswith("--direct_running_mode") and value == "multi_threading":
            seen = "direct_running_mode=multi_threading, which loses records without an error"
            raise refuse("--beam", seen, "Use in_memory, which takes every core too, or multi_processing")


def unreadable_options(why: str) -> AoiError:
    return refuse("--beam", f"options that can't be read ({why})", "Write them as in --beam='--runner=FlinkRunner'")


def open_runner(options: list[str]) -> tuple[Any, int]:
    """Beam's runner for these options, and the threads that each of its workers may use for a shard."""
    from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    try:
        parsed = PipelineOptions(options)
        named, direct = parsed.view_as(StandardOptions).runner, parsed.view_as(DirectOptions)
    except SystemExit:  # Beam has said on stderr which of them it is
        raise unreadable_options("Beam refuses them, see its message above")
    if named not in (None, "DirectRunner", "FnApiRunner"):
        return named, 1
    cores = os.cpu_count() or 1
    # Named outright: DirectRunner would first try to download another runner.
    if direct.direct_running_mode != "multi_processing":
        return FnApiRunner(), cores
    # Beam's own workers outlive a job that is killed, and tell of Ctrl-C too.
    worker = shielded([sys.executable, "-m", "pipeline.job.worker", str(os.getpid())])
    workers = FnApiRunner(SubprocessSDKEnvironment.from_command_string(worker))
    options.append("--direct_running_mode=in_memory")  # otherwise Beam starts its own
    return workers, max(1, cores // (direct.direct_num_workers or cores))


def run_shards(plans: list[ShardPlan], runner: Any, options: list[str], progress: Progress) -> None:
    """Converts the shards on a Beam runner; without one, here. Meanwhile tells of those that are finished."""
    ended: SimpleQueue[BaseException | None] = SimpleQueue()
    done: set[str] = set()
    total = sum(len(plan.rows) for plan in plans)

    def tell() -> None:
        done.update(plan.file for plan in plans if plan.file not in done and read_report(plan))
        progress(sum(len(plan.rows) for plan in plans if plan.file in done), total, "converted")

    def job() -> None:
        try:
            if runner is not None:
                _beam(plans, runner, options)
            else:
                for plan in plans:
                    write_shard(plan)
            ended.put(None)
        except Exception as error:
            ended.put(error)

    tell()  # of what an earlier try finished
    # Beam waits for ever for a worker process that died. All that tells of it is the thread that started it.
    told = threading.excepthook
    threading.excepthook = lambda args: (
        ended.put(args.exc_value) if args.thread and args.thread.name == "run_worker" else told(args)
    )
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
        remedy = "Remove the cause (a full disk, a missing right) and run again: finished shards are kept"
        raise refuse(plans[0].folder, seen, remedy, exit_code=MISSED) from error
    tell()


def _beam(plans: list[ShardPlan], runner: Any, options: list[str]) -> None:
    import apache_beam as beam  # a second
    from apache_beam.options.pipeline_options import PipelineOptions

    quiet = ["--default_sdk_harness_log_level=ERROR"]  # worker processes tell every step otherwise
    logging.getLogger("apache_beam.runners.common").setLevel(logging.CRITICAL)  # `run_shards` tells what fails, once
    paths = [write_plan(plan) for plan in plans]
    with beam.Pipeline(runner=runner, options=PipelineOptions([*quiet, *options])) as pipeline:
        _ = (
            pipeline
            | "Plans" >> beam.Create(paths).with_output_types(str)
            | "Spread" >> beam.Reshuffle()
            | "Convert" >> beam.Map(write_planned_shard).with_output_types(str)
        )
