"""The work of one range of rows before the plan: every picture is read, hashed and inspected, or measured."""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import store
from pipeline.inputs.depth import most
from pipeline.inputs.files import opened
from pipeline.inputs.look import see
from pipeline.inputs.rows import Row, Rows
from tfrecords.artifacts.files import appearing
from tfrecords.settings import PreprocessSettings

AT_ONCE = 4  # pictures that a thread takes


@dataclass(frozen=True)
class LookPlan:
    """A range of rows whose pictures are read. step: what for, one of STEPS."""

    folder: str
    file: str
    container: str
    rows: Rows
    step: str
    preprocess: PreprocessSettings
    threads: int
    options: tuple[str, ...] = ()

    @property
    def report_path(self) -> str:
        return os.path.join(self.folder, f".{self.file}.json")

    def is_done(self) -> bool:
        return os.path.exists(self.report_path)  # nobody else has this folder

    def do(self, check: Callable[[], None] = lambda: None) -> str:
        if self.is_done():
            return self.file
        threads = max(self.threads, store.THREADS) if store.is_remote(self.container) else self.threads
        with (
            appearing(Path(self.report_path)) as file,
            opened(self.container) as read,
            ThreadPoolExecutor(threads) as pool,
        ):

            def look(start: int) -> list[Any]:
                check()
                return [STEPS[self.step](row, read, self.preprocess) for row in self.rows[start : start + AT_ONCE]]

            found: list[Any] = []
            try:
                for part in pool.map(look, range(0, len(self.rows), AT_ONCE)):
                    found += part
                    file.write(b" ")  # so that the driver sees the work go on; JSON has no meaning for it
                    file.flush()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
            file.write(json.dumps(found).encode())
        return self.file

    def found(self) -> list[Any]:
        """What was found for each row, once it is done."""
        with open(self.report_path, "rb") as file:
            found: list[Any] = json.load(file)
        return found


def _seen(row: Row, read: Callable[[str], bytes], preprocess: PreprocessSettings) -> list[Any]:
    seen = see(row, read)
    return [seen.sha256.hex(), seen.bits, seen.reject and asdict(seen.reject), seen.notes]


STEPS: dict[str, Callable[[Row, Callable[[str], bytes], PreprocessSettings], Any]] = {"look": _seen, "depth": most}
