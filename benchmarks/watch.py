"""`aoi watch`: a full folder against the same answers in process, and how long a picture that comes waits."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.api import ALONE, STOP_SECONDS, UP_SECONDS, in_process, model_to_serve
from benchmarks.core import Contestant, by_turns, goal, median, run_alone
from benchmarks.pictures import draw
from benchmarks.train import told_data
from model.settings import Runtime
from tfrecords.errors import MISSED, refuse
from tfrecords.system import start, stop

OURS = "ours"
PER_SECOND = 20  # pictures that come
POLL_SECONDS = 0.002


def measure(work: Path, size: Mapping[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """size: data (what the model is trained on, or None: sample pictures), drawn, backlog (pictures that lie there),
    arriving (pictures that come), seconds (in process), rounds, settings.
    """
    tell("a model to answer")
    home, model = model_to_serve(work, size)
    pictures = sorted((draw(work, size["drawn"]) / "train_images").iterdir())
    alone = in_process(ALONE, home, model, Runtime.LITERT, pictures, size["seconds"])
    contestants = [alone, Contestant(OURS, "", {})]

    def run(contestant: Contestant) -> dict[str, float]:
        if contestant.name == ALONE:
            return {"pictures_per_s": run_alone(contestant)["pictures_per_s"]}
        with TemporaryDirectory(dir=work) as folder:
            full = _backlog(Path(folder), home, pictures, size["backlog"])
        with TemporaryDirectory(dir=work) as folder:
            return full | _arrivals(Path(folder), home, pictures, size["arriving"])

    rows = by_turns(contestants, size["rounds"], tell, run)
    share = median(rows, OURS, "pictures_per_s") / median(rows, ALONE, "pictures_per_s")
    wait = median(rows, OURS, "p99_ms")
    goals = [
        goal(f"rate of a folder of {size['backlog']:,} over in process", share, 0.9, unit="x"),
        goal(f"p99 from the whole file to its row, {PER_SECOND} pictures/s", wait, 150, more=False, unit="ms"),
    ]
    return {"size": {**size, "data": told_data(size)}, "tables": {"folder": rows}, "goals": goals}


@contextmanager
def _watching(folder: Path, home: str) -> Iterator[tuple[Path, Path, float]]:
    """An `aoi watch --sort` from its start to its end: (INBOX, decisions.csv, seconds until it was up)."""
    inbox, out, log = folder / "in", folder / "out", folder / "log"
    inbox.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "flows", "watch", str(inbox), "--out", str(out), "--sort", "--home", home]
    began = time.perf_counter()
    process = start(command, {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, log)
    try:
        while "watches" not in (said := log.read_text(errors="replace")):
            if process.poll() is not None or time.perf_counter() > began + UP_SECONDS:
                raise refuse(OURS, f"it does not come up ({said[-300:]})", "Mend it", exit_code=MISSED)
            time.sleep(POLL_SECONDS)
        yield inbox, out / "decisions.csv", time.perf_counter() - began
    finally:
        stop(process, STOP_SECONDS)


def _backlog(folder: Path, home: str, pictures: Sequence[Path], count: int) -> dict[str, float]:
    """Pictures that lie there when it starts: hard links, so that they cost names alone."""
    (folder / "in").mkdir()
    for number, picture in enumerate(islice(cycle(pictures), count)):
        os.link(picture, folder / "in" / f"{number:05d}.png")
    with _watching(folder, home) as (_, decisions, ready):
        began = time.perf_counter()
        rows = _Rows(decisions)
        while rows.count < count:
            time.sleep(POLL_SECONDS * 10)
            rows.read()
        return {"ready_s": ready, "pictures_per_s": count / (time.perf_counter() - began)}


def _arrivals(folder: Path, home: str, pictures: Sequence[Path], count: int) -> dict[str, float]:
    """Pictures that are renamed in, one every 1 / PER_SECOND seconds, until each row is there to be read."""
    sent: list[float] = []
    with _watching(folder, home) as (inbox, decisions, _):

        def send() -> None:
            began = time.perf_counter()
            for number, picture in enumerate(islice(cycle(pictures), count)):
                aside = folder / "aside.png"
                aside.write_bytes(picture.read_bytes())
                time.sleep(max(0, began + number / PER_SECOND - time.perf_counter()))
                sent.append(time.perf_counter())
                os.rename(aside, inbox / f"{number:05d}.png")

        sending = threading.Thread(target=send)
        sending.start()
        rows = _Rows(decisions)
        while rows.count < count:
            time.sleep(POLL_SECONDS)
            rows.read()
        sending.join()
    waits = quantiles((1e3 * (at - sent[int(name[:5])]) for name, at in rows.seen.items()), n=100)
    return {"p50_ms": waits[49], "p99_ms": waits[98]}


class _Rows:
    """The rows of a decisions.csv as they appear. seen: by name, when the row was there to be read."""

    def __init__(self, path: Path):
        self._path, self._at = path, 0
        self.seen: dict[str, float] = {}

    @property
    def count(self) -> int:
        return len(self.seen)

    def read(self) -> None:
        if not self._path.exists() or self._path.stat().st_size == self._at:
            return
        with open(self._path, "rb") as file:
            file.seek(self._at)
            text = file.read()
        now, whole = time.perf_counter(), text[: text.rfind(b"\n") + 1]
        self._at += len(whole)
        self.seen |= {line.partition(",")[0]: now for line in whole.decode().splitlines() if not line.startswith("ID,")}
