"""The same dataset from every engine: Dask with a worker that is killed, Flink and Spark; compared byte for byte.

    make scale

Needs what a site needs for each engine: Dask (pip install '.[dask]'), and Java and Maven for Flink and Spark, whose
jars are fetched once. Where something is missing it fails; where the variable CI is set, it tells the reason and goes
on without. Under 3 minutes once the jars are there; ends with a table, and exit code 1 if a check failed.
"""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from lab import (
    Failed,
    Lab,
    Part,
    caught,
    finished,
    free_port,
    ingest,
    lacking,
    main,
    program,
    same,
    unfinished,
    wait,
)

JAR_SECONDS = 900
CANCEL_SECONDS = 10  # in which Ctrl-C must have ended the job


# --- Dask -----------------------------------------------------------------------------------------------------


@dataclass
class Dask:
    """beam: Beam's options that name it."""

    beam: str
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]


@contextmanager
def dask(lab: Lab, workers: int, port: int | None = None, variables: Mapping[str, str] | None = None) -> Iterator[Dask]:
    """A scheduler and its workers, each a process of its own."""
    address = f"tcp://127.0.0.1:{port or free_port()}"
    host, _, at = address.removeprefix("tcp://").partition(":")
    scheduler = [*(sys.executable, "-m", "distributed.cli.dask_scheduler"), "--host", host, "--port", at]
    worker = [*(sys.executable, "-m", "distributed.cli.dask_worker"), address, "--nthreads", "1", "--no-nanny"]
    with contextlib.ExitStack() as stack:
        log = lab.root / "scheduler.log"
        head = stack.enter_context(program([*scheduler, "--no-dashboard"], log, "Scheduler at"))
        started = []
        for number in range(workers):
            words = [*worker, "--no-dashboard", "--name", str(number), "--local-directory", str(lab.root)]
            log = lab.root / f"worker-{number}.log"
            started.append(stack.enter_context(program(words, log, "Registered to", variables)))
        yield Dask(f"--runner=dask --dask_client_address={address}", head, started)


def dask_killed(lab: Lab) -> str:
    home = lab.home("dask")
    with dask(lab, 2) as engine:
        job = ingest(lab, home, engine.beam)
        pid, shard = caught(home, lambda: [worker.pid for worker in engine.workers], job)
        # The other one is at work too: it ends a shard while this one stands still at its first.
        wait(lambda: list(home.glob("datasets/.work-*/*.tfrecord*")), 60, lambda: "only one of the workers has work")
        os.kill(pid, signal.SIGKILL)
        finished(job, home)
    return f"{same(lab, home)}; killed at shard {shard}"


def dask_stopped(lab: Lab) -> str:
    """Ctrl-C, then the same command again."""
    home = lab.home("stopped")
    with dask(lab, 2) as engine:
        pids = [worker.pid for worker in engine.workers]
        job = ingest(lab, home, engine.beam)
        pid, _ = caught(home, lambda: pids, job)
        began = time.monotonic()
        job.send_signal(signal.SIGINT)
        os.kill(pid, signal.SIGCONT)
        finished(job, home, 130)
        while any(unfinished(home, worker) for worker in pids):
            if time.monotonic() - began > CANCEL_SECONDS:
                raise Failed(f"a worker still writes {CANCEL_SECONDS} s after Ctrl-C")
            time.sleep(0.05)
        took = time.monotonic() - began
        if took > CANCEL_SECONDS:
            raise Failed(f"it took {took:.1f} s to end")
        finished(ingest(lab, home, engine.beam), home)
    return f"{same(lab, home)}; the job ended {took:.1f} s after Ctrl-C"


def dask_part(lab: Lab) -> None:
    lab.tried("Dask", "2 workers, one killed", lambda: dask_killed(lab))
    lab.tried("Dask", "2 workers, Ctrl-C, once more", lambda: dask_stopped(lab))


# --- Flink and Spark ------------------------------------------------------------------------------------------


def jars(engine: str) -> None:
    """Fetches the jars where they are not there yet."""
    command = [sys.executable, "-m", "pipeline.jobserver", engine, "--fetch"]
    subprocess.run(command, check=True, timeout=JAR_SECONDS, stdout=subprocess.DEVNULL)


def embedded(engine: str, what: str, lab: Lab) -> None:
    """The engine inside its job server."""

    def check() -> str:
        home, port = lab.home(engine), free_port()
        server = [sys.executable, "-m", "pipeline.jobserver", engine, "--port", str(port)]
        with program(server, lab.root / f"{engine}-server.log", port):
            finished(ingest(lab, home, f"--runner={engine} --job_endpoint=localhost:{port}"), home)
        return same(lab, home)

    lab.tried(engine.capitalize(), what, check)


# --- All of it ------------------------------------------------------------------------------------------------


def no_dask() -> str | None:
    return None if importlib.util.find_spec("distributed") else "Dask: pip install '.[dask]'"


def no_java() -> str | None:
    return lacking(java="apt install openjdk-17-jre-headless", mvn="apt install maven")


PARTS = [
    Part("dask", dask_part, no_dask),
    Part("flink", partial(embedded, "flink", "embedded"), no_java, partial(jars, "flink")),
    Part("spark", partial(embedded, "spark", "local[2]"), no_java, partial(jars, "spark")),
]

if __name__ == "__main__":
    sys.exit(main(PARTS, __doc__))
