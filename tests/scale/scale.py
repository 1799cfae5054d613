"""The same dataset from every engine: Dask with a worker that is killed, Flink and Spark; compared byte for byte.

    make scale

Needs what a site needs for each engine: Dask (pip install 'aoi[dask]'), and Java and Maven for Flink and Spark, whose
jars are fetched once. Where something is missing it fails; where the variable CI is set, it tells the reason and goes
on without. Under 3 minutes once the jars are there; ends with a table, and exit code 1 if a check failed.
"""

import argparse
import contextlib
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tfrecords.system import start, stop

PICTURES, SHARDS = 300, 8
UP_SECONDS, RUN_SECONDS, JAR_SECONDS = 60, 150, 900
CANCEL_SECONDS = 10  # in which Ctrl-C must have ended the job
SETTINGS = [f"ingest.shards={SHARDS}", "ingest.folds=2"]


@dataclass
class Lab:
    """Where it is done. log: of all that was started last."""

    root: Path
    rows: list[tuple[str, str, str, str]] = field(default_factory=list)
    failed: int = 0

    @property
    def data(self) -> Path:
        return self.root / "data"

    def home(self, name: str) -> Path:
        return self.root / name

    def told(self, engine: str, what: str, seconds: float | None, result: str) -> None:
        self.rows.append((engine, what, "" if seconds is None else f"{seconds:.1f} s", result))
        self.failed += result.startswith("FAILED")
        print(f"{engine}: {what}: {result}", file=sys.stderr, flush=True)


class Failed(Exception):
    """A check that does not hold, with what was seen."""


def ingest(lab: Lab, home: Path, beam: str = "") -> subprocess.Popen[bytes]:
    """Starts `aoi ingest`; its words go to HOME.log."""
    options = [word for setting in SETTINGS for word in ("--set", setting)]
    command = [*(sys.executable, "-m", "flows", "ingest", "--data", lab.data, "--home", home), *options]
    return start([*map(str, command), *([f"--beam={beam}"] if beam else [])], os.environ, home.with_suffix(".log"))


def finished(process: subprocess.Popen[bytes], home: Path, code: int = 0) -> None:
    try:
        ended = process.wait(RUN_SECONDS)
    except subprocess.TimeoutExpired:
        stop(process, 5)
        raise Failed(f"no end after {RUN_SECONDS} s; {last(home.with_suffix('.log'))}")
    if ended != code:
        raise Failed(f"exit code {ended}; {last(home.with_suffix('.log'))}")


def last(log: Path) -> str:
    """The last line that a program said."""
    lines = [line.strip() for line in log.read_text(errors="replace").replace("\r", "\n").splitlines() if line.strip()]
    return f"last words: {lines[-1][-300:]}" if lines else "it said nothing"


def contents(home: Path) -> dict[str, bytes]:
    """All that ingest made, by place."""
    files = [path for kind in ("datasets", "audits") for path in (home / kind).rglob("*")]
    visible = (path for path in files if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(home)): path.read_bytes() for path in visible}


def same(lab: Lab, home: Path) -> str:
    ours, theirs = contents(lab.home("local")), contents(home)
    if ours != theirs:
        unlike = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
        raise Failed(f"{len(unlike)} files differ, such as {unlike[0]}")
    return f"all {len(ours)} files equal"


@contextmanager
def program(words: list[str], log: Path, ready: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs in the block, once it has said `ready`, a regular expression."""
    process = start(words, os.environ, log)
    try:
        deadline = time.monotonic() + UP_SECONDS
        while not re.search(ready, log.read_text(errors="replace")):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"{words[-3:]} did not start; {last(log)}")
            time.sleep(0.1)
        yield process
    finally:
        stop(process, 5)


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


# --- Dask -----------------------------------------------------------------------------------------------------


@contextmanager
def dask(lab: Lab, workers: int) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and its workers, each a process of its own: (Beam's options, workers)."""
    address = f"tcp://127.0.0.1:{free_port()}"
    host, _, port = address.removeprefix("tcp://").partition(":")
    scheduler = [*(sys.executable, "-m", "distributed.cli.dask_scheduler"), "--host", host, "--port", port]
    worker = [*(sys.executable, "-m", "distributed.cli.dask_worker"), address, "--nthreads", "1", "--no-nanny"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(program([*scheduler, "--no-dashboard"], lab.root / "scheduler.log", "Scheduler at"))
        started = []
        for number in range(workers):
            log = lab.root / f"worker-{number}.log"
            log.write_bytes(b"")
            words = [*worker, "--no-dashboard", "--name", str(number), "--local-directory", str(lab.root)]
            started.append(stack.enter_context(program(words, log, "Registered to")))
        yield f"--runner=dask --dask_client_address={address}", started


def unfinished(home: Path, pid: int) -> str | None:
    """The shard that a process is writing, if it is at one."""
    with contextlib.suppress(OSError):
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = os.readlink(handle)
                if target.startswith(str(home)) and ".tfrecord" in target and target.endswith(".tmp"):
                    return target
    return None


def caught(home: Path, processes: list[subprocess.Popen[bytes]], job: subprocess.Popen[bytes]) -> tuple[int, str]:
    """(process, unfinished shard): the first process that is seen at one is stopped where it stands."""
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline and job.poll() is None:
        for process in processes:
            if unfinished(home, process.pid):
                os.kill(process.pid, signal.SIGSTOP)
                if shard := unfinished(home, process.pid):
                    return process.pid, Path(shard).name
                os.kill(process.pid, signal.SIGCONT)  # it was done before it stopped
        time.sleep(0.002)
    raise Failed(f"no worker was caught at an unfinished shard; {last(home.with_suffix('.log'))}")


def dask_killed(lab: Lab) -> str:
    home = lab.home("dask")
    with dask(lab, 2) as (beam, workers):
        job = ingest(lab, home, beam)
        try:
            pid, shard = caught(home, workers, job)
            os.kill(pid, signal.SIGKILL)
            finished(job, home)
        finally:
            stop(job, 5)
    number = re.search(r"\d+-of-\d+", shard)
    return f"{same(lab, home)}; killed at shard {number[0] if number else shard}"


def dask_stopped(lab: Lab) -> str:
    """Ctrl-C, then the same command again."""
    home = lab.home("stopped")
    with dask(lab, 2) as (beam, workers):
        job = ingest(lab, home, beam)
        try:
            pid, _ = caught(home, workers, job)
            began = time.monotonic()
            job.send_signal(signal.SIGINT)
            os.kill(pid, signal.SIGCONT)
            finished(job, home, 130)
            while any(unfinished(home, worker.pid) for worker in workers):
                if time.monotonic() - began > CANCEL_SECONDS:
                    raise Failed(f"a worker still writes {CANCEL_SECONDS} s after Ctrl-C")
                time.sleep(0.05)
            took = time.monotonic() - began
            if took > CANCEL_SECONDS:
                raise Failed(f"it took {took:.1f} s to end")
            finished(ingest(lab, home, beam), home)
        finally:
            stop(job, 5)
    return f"{same(lab, home)}; the job ended {took:.1f} s after Ctrl-C"


# --- Flink and Spark ------------------------------------------------------------------------------------------


def jars(engine: str) -> None:
    """Fetches the jars where they are not there yet."""
    command = [sys.executable, "-m", "pipeline.jobserver", engine, "--fetch"]
    subprocess.run(command, check=True, timeout=JAR_SECONDS, stdout=subprocess.DEVNULL)


def by_job_server(engine: str) -> Callable[[Lab], str]:
    def check(lab: Lab) -> str:
        home, port = lab.home(engine), free_port()
        server = [sys.executable, "-m", "pipeline.jobserver", engine, "--port", str(port)]
        with program(server, lab.root / f"{engine}-server.log", ready=""):
            wait_for_port(port)
            job = ingest(lab, home, f"--runner={engine} --job_endpoint=localhost:{port}")
            try:
                finished(job, home)
            finally:
                stop(job, 5)
        return same(lab, home)

    return check


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + UP_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.2)
    raise Failed(f"nothing listens at port {port}")


# --- All of it ------------------------------------------------------------------------------------------------


def missing(engine: str) -> str | None:
    """What this machine lacks for an engine."""
    if engine == "Dask":
        return None if importlib.util.find_spec("distributed") else "Dask: pip install 'aoi[dask]'"
    lacking = [name for name in ("java", "mvn") if not shutil.which(name)]
    return f"{' and '.join(lacking)}: apt install openjdk-17-jre-headless maven" if lacking else None


CHECKS: list[tuple[str, str, Callable[[Lab], str]]] = [
    ("Dask", "2 workers, one killed", dask_killed),
    ("Dask", "2 workers, Ctrl-C, once more", dask_stopped),
    ("Flink", "embedded", by_job_server("flink")),
    ("Spark", "local[2]", by_job_server("spark")),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="ENGINE", nargs="+", default=[engine for engine, *_ in CHECKS])
    wanted = {engine.capitalize() for engine in parser.parse_args().only}
    lacks = {engine: missing(engine) for engine in sorted(wanted)}
    for engine in ("Flink", "Spark"):
        if engine in wanted and not lacks[engine]:
            jars(engine.lower())
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="aoi-scale-", ignore_cleanup_errors=True) as scratch:
        lab = Lab(Path(scratch).resolve())
        sample = [*(sys.executable, "-m", "flows", "sample", str(lab.data)), "--train", str(PICTURES - 30)]
        subprocess.run([*sample, "--test", "30"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        start_of_run = time.monotonic()
        finished(ingest(lab, lab.home("local")), lab.home("local"))
        lab.told("local", "this machine, without an engine", time.monotonic() - start_of_run, "what all must equal")
        for engine, what, check in CHECKS:
            if engine not in wanted:
                continue
            if lack := lacks[engine]:
                lab.told(engine, what, None, f"{'skipped' if os.environ.get('CI') else 'FAILED'}, missing {lack}")
                continue
            start_of_run = time.monotonic()
            try:
                result = check(lab)
            except Failed as error:
                result = f"FAILED: {error}"
            lab.told(engine, what, time.monotonic() - start_of_run, result)
    head = ("engine", "run", "time", "result")
    widths = [max(len(row[column]) for row in (head, *lab.rows)) for column in range(4)]
    print()
    for row in (head, *lab.rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"\n{PICTURES} pictures in {SHARDS} shards; {lab.failed} failed, {time.monotonic() - began:.0f} s")
    return 1 if lab.failed else 0


if __name__ == "__main__":
    sys.exit(main())
