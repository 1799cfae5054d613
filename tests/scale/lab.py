"""What the checks of this folder share: a scratch folder with pictures, programs that end with the block, one table.

A part is a function that gets the Lab, starts what it needs, and tells a row for each of its checks. All that a part
starts is stopped at its end, however it ends.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from tfrecords.system import start, stop

BIN = Path(sys.executable).parent
PICTURES, SHARDS = 300, 8
UP_SECONDS, RUN_SECONDS = 90, 240
SETTINGS = [f"ingest.shards={SHARDS}", "ingest.folds=2"]


class Failed(Exception):
    """A check that does not hold, with what was seen."""


@dataclass
class Lab:
    """A scratch folder, and what was found out."""

    root: Path
    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return sum(result.startswith("FAILED") for *_, result in self.rows)

    @property
    def data(self) -> Path:
        return self.root / "data"

    def home(self, name: str) -> Path:
        return self.root / name

    def told(self, part: str, what: str, seconds: float | None, result: str) -> None:
        self.rows.append((part, what, "" if seconds is None else f"{seconds:.1f} s", result))
        print(f"{part}: {what}: {result}", file=sys.stderr, flush=True)

    def tried(self, part: str, what: str, check: Callable[[], str]) -> None:
        """Does a check and tells a row of it."""
        began = time.monotonic()
        try:
            result = check()
        except Failed as error:
            result = f"FAILED: {error}"
        except Exception as error:  # the other checks are done all the same
            traceback.print_exc()
            result = f"FAILED: {error!r}"
        self.told(part, what, time.monotonic() - began, result)


class Part(NamedTuple):
    """missing: what this machine lacks for it, with what brings it; fetch: what is done before the time is taken."""

    name: str
    run: Callable[[Lab], None]
    missing: Callable[[], str | None] = lambda: None
    fetch: Callable[[], None] = lambda: None


def main(parts: Sequence[Part], doc: str) -> int:
    """Does the parts that the command line names. Returns: the exit code."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [part.name for part in parts]
    parser.add_argument("--only", metavar="PART", nargs="+", choices=names, default=names, help=", ".join(names))
    wanted = [part for part in parts if part.name in parser.parse_args().only]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all that runs is stopped
    for part in wanted:
        if not part.missing():
            part.fetch()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="aoi-scale-", ignore_cleanup_errors=True) as scratch:
        lab = Lab(Path(scratch).resolve())
        sample = [*(sys.executable, "-m", "flows", "sample", str(lab.data)), "--train", str(PICTURES), "--test", "0"]
        subprocess.run(sample, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for name in ("test.csv", "test_images"):  # or every run would be two jobs
            shutil.move(lab.data / name, lab.root / name)
        lab.tried("local", "this machine, without an engine", lambda: local(lab))
        for part in wanted:
            if lack := part.missing():
                lab.told(part.name, "", None, f"{'skipped' if os.environ.get('CI') else 'FAILED'}, missing {lack}")
                continue
            try:
                part.run(lab)
            except Exception as error:  # of what it starts
                traceback.print_exc()
                lab.told(part.name, "start", None, f"FAILED: {error!r}")
    head = ("part", "run", "time", "result")
    widths = [max(len(row[column]) for row in (head, *lab.rows)) for column in range(4)]
    print()
    for row in (head, *lab.rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"\n{PICTURES} pictures in {SHARDS} shards; {lab.failed} failed, {time.monotonic() - began:.0f} s")
    return 1 if lab.failed else 0


def check(holds: bool, seen: object) -> None:
    if not holds:
        raise Failed(str(seen)[-1500:])


def wait(what: Callable[[], Any], seconds: float, seen: Callable[[], object]) -> Any:
    """What a function gives as soon as that is something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if given := what():
                return given
        time.sleep(0.2)
    raise Failed(f"not within {seconds} s: {str(seen())[-1500:]}")


# --- Programs -------------------------------------------------------------------------------------------------


@contextmanager
def program(
    words: Sequence[object], log: Path, ready: str | int = "", variables: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs in the block, once it is ready. ready: what it says then, a regular expression, or a port."""
    log.unlink(missing_ok=True)
    process = start([str(word) for word in words], {**os.environ, **(variables or {})}, log)

    def is_ready() -> bool:
        check(process.poll() is None, f"{log.stem} did not start; {last(log)}")
        return listens(ready) if isinstance(ready, int) else bool(re.search(ready, log.read_text(errors="replace")))

    try:
        wait(is_ready, UP_SECONDS, lambda: f"{log.stem} did not start; {last(log)}")
        yield process
    finally:
        stop(process, 5)


def last(log: Path) -> str:
    """The last line that a program said."""
    lines = said(log)
    return f"last words: {lines[-1][-500:]}" if lines else "it said nothing"


def said(log: Path) -> list[str]:
    """The lines that a program said."""
    lines = log.read_text(errors="replace").replace("\r", "\n").splitlines()
    return [line.strip() for line in lines if line.strip()]


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


def listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


def below(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes that a program started, and those that they started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def lives(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


# --- A job ----------------------------------------------------------------------------------------------------


def local(lab: Lab) -> str:
    finished(ingest(lab, lab.home("local")), lab.home("local"))
    return "what all must equal"


def ingest(
    lab: Lab,
    home: Path,
    beam: str = "",
    settings: Sequence[str] = (),
    data: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Starts `aoi ingest`; its words go to HOME.log."""
    log = home.with_suffix(".log")
    log.unlink(missing_ok=True)
    options = [word for setting in (*SETTINGS, *settings) for word in ("--set", setting)]
    command = [*(sys.executable, "-m", "flows", "ingest", "--data", data or lab.data, "--home", home), *options]
    words = [*map(str, command), *([f"--beam={beam}"] if beam else [])]
    return start(words, {**os.environ, **(variables or {})}, log)


def finished(process: subprocess.Popen[bytes], home: Path, code: int = 0) -> None:
    """Waits for the end of `ingest`."""
    log = home.with_suffix(".log")
    try:
        ended = process.wait(RUN_SECONDS)
    except subprocess.TimeoutExpired:
        raise Failed(f"no end after {RUN_SECONDS} s; {last(log)}")
    finally:
        stop(process, 5)
    if ended != code:
        raise Failed(f"exit code {ended}; {last(log)}")
    lines = said(log)
    if at := next((at for at, line in enumerate(lines) if "Traceback" in line), None):
        raise Failed(" | ".join(["a traceback", *lines[at : at + 40]]))


def refused(job: subprocess.Popen[bytes], home: Path, cause: str) -> str:
    """Waits for an `ingest` that must end with code 1 and this cause, a regular expression. Returns: what it finds."""
    finished(job, home, 1)
    log = home.with_suffix(".log")
    lines = [line for line in said(log) if line.startswith("aoi: ")]
    found = re.search(cause, lines[-1]) if lines else None
    if not found:
        raise Failed(f"another cause; {last(log)}")
    return found[0]


def contents(home: Path) -> dict[str, bytes]:
    """All that ingest made, by place."""
    files = [path for kind in ("datasets", "audits") for path in (home / kind).rglob("*")]
    visible = (path for path in files if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(home)): path.read_bytes() for path in visible}


def same(lab: Lab, home: Path) -> str:
    return equal(contents(lab.home("local")), contents(home))


def equal(ours: Mapping[str, bytes], theirs: Mapping[str, bytes]) -> str:
    """Compares files by place, every byte of them. Returns: what to tell."""
    if ours != theirs:
        unlike = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
        raise Failed(f"{len(unlike)} files differ, such as {unlike[0]}")
    return f"all {len(ours)} files equal"


def unfinished(home: Path, pid: int) -> str | None:
    """The shard that a process is writing, if it is at one."""
    with contextlib.suppress(OSError):
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = os.readlink(handle)
                if target.startswith(str(home)) and ".tfrecord" in target and target.endswith(".tmp"):
                    return target
    return None


def caught(home: Path, processes: Callable[[], Iterable[int]], job: subprocess.Popen[bytes]) -> tuple[int, str]:
    """(process, unfinished shard): the first process that is seen at one is stopped where it stands."""
    deadline = time.monotonic() + RUN_SECONDS
    looked, pids = 0.0, list[int]()
    while time.monotonic() < deadline and job.poll() is None:
        if time.monotonic() - looked > 0.5:  # to find them takes longer than to look at them
            looked, pids = time.monotonic(), list(processes())
        for pid in pids:
            if unfinished(home, pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
                    if shard := unfinished(home, pid):
                        number = re.search(r"\d+-of-\d+", Path(shard).name)
                        return pid, number[0] if number else shard
                    os.kill(pid, signal.SIGCONT)  # it was done before it stopped
        time.sleep(0.002)
    stop(job, 5)
    raise Failed(f"no worker was caught at an unfinished shard; {last(home.with_suffix('.log'))}")


def lacking(**programs: str) -> str | None:
    """Those of the programs that are not there, with what brings them."""
    return "; ".join(f"{name}: {how}" for name, how in programs.items() if not shutil.which(name)) or None
