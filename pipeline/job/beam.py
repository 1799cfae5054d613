"""Runs the shards on a Beam runner, and tells what is finished meanwhile."""

import logging
import os
import shlex
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, NamedTuple

from pipeline.job import engines
from pipeline.job.work import Plan, do_planned, stop_plan, write_plan
from tfrecords.cores import cores
from tfrecords.errors import MISSED, AoiError, refuse
from tfrecords.progress import Progress
from tfrecords.system import shielded

log = logging.getLogger(__name__)
CONVERTED = "converted"  # what is done with pictures that become shards
QUIET_SECONDS = 60.0  # without a picture, after which it is told
WORTH_SECONDS = 10.0  # of work that is left, below which Beam is not worth its import: a second, on one core
LOOK_SECONDS = 2.0  # between two looks at what workers have written
CANCEL_SECONDS = 8.0  # that an engine has to end a job


class Runner(NamedTuple):
    """How the shards are run. beam: Beam's runner, None: Beam's own on this machine, opened where there is much to do.
    options: Beam's; threads: of a shard.
    """

    beam: Any
    options: Sequence[str]
    threads: int
    remote: bool = False


def read_options(beam: str) -> list[str]:
    """Beam's options from one string, as on a command line. Raises: AoiError, see `refuse_lossy` too."""
    try:
        options = shlex.split(beam)
    except ValueError as error:
        raise unreadable_options(str(error))
    if options and not options[0].startswith("--"):
        raise unreadable_options(f"{options[0][:80]!r} does not begin with --")
    refuse_lossy(options)
    engines.refuse_secrets(options)
    return options


def refuse_lossy(options: list[str]) -> None:
    """Raises AoiError for a way to run Beam that is known to lose records."""
    for at, option in enumerate(options):
        value = option.partition("=")[2] or (options[at + 1] if at + 1 < len(options) else "")
        if option.startswith("--direct_running_mode") and value == "multi_threading":
            seen = "direct_running_mode=multi_threading, which loses records without an error"
            raise refuse("--beam", seen, "Use in_memory, which takes every core too, or multi_processing")


def unreadable_options(why: str) -> AoiError:
    return refuse("--beam", f"options that can't be read ({why})", "Write them as in --beam='--runner=flink'")


def open_runner(given: Sequence[str]) -> Runner:
    """Beam's runner for these options. Raises: AoiError where there is none, or where its engine is not there."""
    from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
    from apache_beam.runners.runner import create_runner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    options, _ = engines.expand(given)
    try:
        parsed = PipelineOptions(options)
        named, direct = parsed.view_as(StandardOptions).runner, parsed.view_as(DirectOptions)
    except SystemExit:  # Beam has said on stderr which of them it is
        raise unreadable_options("Beam refuses them, see its message above")
    if named not in (None, *engines.HERE):
        try:
            runner = create_runner(named)
        except (ValueError, ImportError, AttributeError, TypeError) as error:
            raise unreadable_options(f"there is no runner {named}: {error}")
        return Runner(runner, options, 1, engines.returns_at_once(runner))
    # An engine may know options that Beam does not; here nothing would, and say nothing.
    if unknown := sorted(set(parsed.get_all_options(retain_unknown_options=True)) - set(parsed.get_all_options())):
        raise unreadable_options(f"Beam knows no --{unknown[0]}")
    threads = len(cores())
    # Named outright: DirectRunner would first try to download another runner.
    if direct.direct_running_mode != "multi_processing":
        return Runner(FnApiRunner(), options, threads)
    # Beam's own workers outlive a job that is killed, and tell of Ctrl-C too.
    worker = shielded([sys.executable, "-m", "pipeline.job.worker", str(os.getpid())])
    workers = FnApiRunner(SubprocessSDKEnvironment.from_command_string(worker))
    options.append("--direct_running_mode=in_memory")  # otherwise Beam starts its own
    return Runner(workers, options, max(1, threads // (direct.direct_num_workers or threads)))


def run_shards(
    plans: Sequence[Plan], runner: Runner, progress: Progress, stall_seconds: float, done_word: str = CONVERTED
) -> None:
    """Does the parts of a job on a runner. Meanwhile tells of those that are done, and of an engine that does nothing.

    Raises:
        AoiError: the engine failed, or wrote nothing for stall_seconds. However this ends, a job that is still at work
            is cancelled before.
    """
    ended: SimpleQueue[BaseException | None] = SimpleQueue()
    done: set[str] = set()
    total = sum(len(plan.rows) for plan in plans)

    def tell() -> None:
        there = set(os.listdir(plans[0].folder))  # one look: one for each of many plans would take all of the time
        new = (plan for plan in plans if plan.file not in done and os.path.basename(plan.report_path) in there)
        done.update(plan.file for plan in new if plan.is_done())
        progress(sum(len(plan.rows) for plan in plans if plan.file in done), total, done_word)

    def run(work: Callable[[], object]) -> None:
        try:
            work()
            ended.put(None)
        except BaseException as error:  # Dask's CancelledError is no Exception
            ended.put(error)

    tell()  # of what an earlier try finished
    told = threading.excepthook

    def heard(failed: threading.ExceptHookArgs) -> None:
        name = failed.thread.name if failed.thread else ""
        if name == "run_worker":  # Beam waits for ever for a worker that died: all that tells of it is this thread
            ended.put(failed.exc_value)
        elif name not in engines.READERS:
            told(failed)

    threading.excepthook = heard
    result, error = None, None
    try:
        try:
            if runner.remote:
                result = _submit(plans, runner)
        except Exception as failed:
            ended.put(failed)
        else:
            work = partial(_wait, result) if runner.remote else partial(_work, plans, runner)
            threading.Thread(target=run, args=(work,), daemon=True).start()
        silence = _Silence(Path(plans[0].folder), stall_seconds, done_word)
        while True:
            with suppress(Empty):
                error = ended.get(timeout=0.5)
                break
            tell()  # by their reports, which every runner leaves behind
            silence.check(len(done), result)
    except BaseException:
        _cancel(plans, result)
        raise
    else:
        if error and runner.remote:
            _cancel(plans, result)
        elif runner.remote:
            engines.close(result)
    finally:
        engines.end_reader()
        threading.excepthook = told
    if isinstance(error, AoiError):
        raise error
    if error:  # a runner hands on what a worker raised as text, under a type of its own
        seen = f"the pictures could not be {done_word} ({engines.cause(error)})"
        cause = "an engine or worker that is not there, " if runner.remote else ""
        remedy = f"Remove the cause ({cause}a full disk, a missing right) and run again{_kept(done_word)}"
        raise refuse(plans[0].folder, seen, remedy, exit_code=MISSED) from error
    tell()


def _work(plans: Sequence[Plan], runner: Runner) -> None:
    if runner.beam is not None:
        _wait(_submit(plans, runner))
        return
    left, began, opened = deque(plans), monotonic(), None
    with ThreadPoolExecutor(1) as aside:
        while left and not (opened and opened.done()):
            do_planned(write_plan(left.popleft()))
            seconds_left = (monotonic() - began) / (len(plans) - len(left)) * len(left)
            if seconds_left > WORTH_SECONDS and not opened:
                opened = aside.submit(open_runner, ())  # meanwhile parts are done without it
    if opened and left:
        _wait(_submit(left, opened.result()))


def _wait(result: Any) -> None:
    result.wait_until_finish()
    engines.check_done(result)


def _submit(plans: Sequence[Plan], runner: Runner) -> Any:
    """Hands the job to Beam. Returns: its PipelineResult."""
    import apache_beam as beam  # a second
    from apache_beam.options.pipeline_options import PipelineOptions

    quiet = ["--default_sdk_harness_log_level=ERROR"]  # worker processes tell every step otherwise
    for name in ("apache_beam.runners.common", "apache_beam.runners.worker.data_plane", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # `run_shards` tells what fails, once
    paths = [write_plan(plan) for plan in plans]
    pipeline = beam.Pipeline(runner=runner.beam, options=PipelineOptions([*quiet, *runner.options]))
    _ = (
        pipeline
        # Create spreads them itself. After a second Reshuffle Spark could not go on where a worker was lost.
        | "Plans" >> beam.Create(paths).with_output_types(str)
        | "Work" >> beam.Map(do_planned).with_output_types(str)
    )
    return pipeline.run()


def _cancel(plans: Sequence[Plan], result: Any) -> None:
    """Ends a job that was handed over: on its engine, and at workers, which look whether their plan is stopped."""
    for plan in plans:
        stop_plan(plan)
    if result is not None:
        _within(CANCEL_SECONDS, partial(engines.cancel, result))


def _within(seconds: float, ask: Callable[[], Any]) -> Any:
    """What a call returns; None where it fails or takes longer."""
    answers: SimpleQueue[Any] = SimpleQueue()

    def call() -> None:
        with suppress(Exception):
            answers.put(ask())

    threading.Thread(target=call, daemon=True).start()
    with suppress(Empty):
        return answers.get(timeout=seconds)


def _kept(done_word: str) -> str:
    return ": finished shards are kept" if done_word == CONVERTED else ""


class _Silence:
    """Watches whether anything is written, and tells where nothing is."""

    def __init__(self, folder: Path, stall_seconds: float, done_word: str = CONVERTED):
        self._folder, self._stall_seconds, self._done_word = folder, stall_seconds, done_word
        self._seen: Any = None
        self._since = self._told = self._looked = monotonic()

    def check(self, finished: int, result: Any) -> None:
        """finished: shards. Raises: AoiError after stall_seconds without anything new."""
        now = monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        if (written := (finished, self._written())) != self._seen:
            self._seen, self._since, self._told = written, now, now
        quiet = now - self._since
        if quiet >= self._stall_seconds:
            seen = f"no picture was {self._done_word} for {quiet:.0f} s: {self._cause(result)}"
            kept = _kept(self._done_word)
            remedy = f"Mend the engine and run again{kept}. ingest.stall_seconds sets the patience"
            raise refuse("--beam" if result else self._folder, seen, remedy, exit_code=MISSED)
        if now - self._told >= QUIET_SECONDS:
            self._told = now
            left = self._stall_seconds - quiet
            cause = self._cause(result)
            word = self._done_word
            log.warning("no picture was %s for %.0f s: %s; waiting for %.0f s more", word, quiet, cause, left)

    def _written(self) -> int:
        """Bytes of unfinished shards: a large one takes longer than a minute."""
        sizes = 0
        for file in self._folder.glob(".*.tmp"):
            with suppress(OSError):
                sizes += file.stat().st_size
        return sizes

    def _cause(self, result: Any) -> str:
        if result is None:
            return "the workers on this machine wrote nothing"
        asked = _within(engines.ANSWER_SECONDS, partial(engines.cause_of_silence, result))
        return asked or "the engine does not answer"
