"""The first step of a job on an engine: its workers read every picture, so that this machine need not."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time
from typing import Any, NamedTuple

from pipeline.inputs.depth import measure_here
from pipeline.inputs.look import look_here
from pipeline.inputs.rows import Reject, Rows, Seen
from pipeline.job import engines
from pipeline.job.beam import open_runner, run_shards
from pipeline.job.look import LookPlan
from tfrecords.progress import Progress
from tfrecords.settings import PreprocessSettings

RANGE = 1024  # rows of a work item; of one an engine has nothing to spread
PREFIX = ".look-"  # of a job's folder


class Front(NamedTuple):
    """Where pictures are read before the plan.

    options: Beam's; those that name no engine mean this machine. root: a folder that workers see under the same path.
    """

    options: Sequence[str]
    root: Path
    stall_seconds: int

    def look(self, rows: Rows, container: str, progress: Progress) -> Iterator[Sequence[Seen]]:
        """As `look_here`. Raises: AoiError, see `run_shards` too."""
        if self._is_here(rows):
            yield from look_here(rows, container, progress)
            return
        for part in self._spread("look", rows, container, PreprocessSettings(), progress, "hashed"):
            yield [
                Seen(bytes.fromhex(sha256), bits, Reject(**reject) if reject else None, tuple(notes))
                for sha256, bits, reject, notes in part
            ]

    def measure(
        self, rows: Rows, container: str, preprocess: PreprocessSettings, progress: Progress
    ) -> Iterator[Sequence[int]]:
        """As `measure_here`. Raises: AoiError, see `run_shards` too."""
        if self._is_here(rows):
            return measure_here(rows, container, preprocess, progress)
        return self._spread("depth", rows, container, preprocess, progress, "measured")

    def _is_here(self, rows: Rows) -> bool:
        return len(rows) <= RANGE or not engines.is_named(self.options)

    def _spread(
        self, step: str, rows: Rows, container: str, preprocess: PreprocessSettings, progress: Progress, done: str
    ) -> Iterator[list[Any]]:
        """What the workers found for the rows, by ranges in their order."""
        runner = open_runner(self.options)
        self.root.mkdir(parents=True, exist_ok=True)
        _remove_left(self.root, self.stall_seconds)
        # A name of its own, since another job's worker may still write into the folder of a job that was killed.
        with TemporaryDirectory(prefix=PREFIX, dir=self.root, ignore_cleanup_errors=True) as folder:
            plans = [
                LookPlan(
                    *(folder, f"{done}-{start:09d}", container, rows[start : start + RANGE], step, preprocess),
                    *(runner.threads, tuple(self.options)),
                )
                for start in range(0, len(rows), RANGE)
            ]
            run_shards(plans, runner, progress, self.stall_seconds, done)
            for plan in plans:
                yield plan.found()


def _remove_left(root: Path, stall_seconds: float) -> None:
    """Removes folders of jobs that were killed, once no worker has written there for so long."""
    for left in root.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if time() - left.stat().st_mtime > stall_seconds:
                shutil.rmtree(left)
