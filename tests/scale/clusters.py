"""Clusters of several processes on this machine, each role of which is killed once: Flink, Spark, Dask's scheduler.

    python tests/scale/clusters.py [--only PART ...]

A cluster's programs come from the jars that its job server needs anyway. Whoever is killed is killed while a worker
holds an unfinished shard; after each, the dataset is compared byte for byte with that of one machine.
"""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
from lab import (
    RUN_SECONDS,
    Lab,
    Part,
    below,
    caught,
    check,
    finished,
    free_port,
    ingest,
    lives,
    main,
    program,
    refused,
    said,
    same,
    wait,
)
from scale import dask, jars, no_dask, no_java

from pipeline import jobserver

# Least of what a TaskManager must be told that is started without Flink's scripts, which would compute it.
FLINK = """
jobmanager.rpc.address: 127.0.0.1
jobmanager.rpc.port: {rpc}
rest.address: 127.0.0.1
rest.port: {rest}
restart-strategy.type: failure-rate
restart-strategy.failure-rate.delay: 10 s
restart-strategy.failure-rate.failure-rate-interval: 10 min
restart-strategy.failure-rate.max-failures-per-interval: 5
cluster.evenly-spread-out-slots: true
taskmanager.host: 127.0.0.1
taskmanager.numberOfTaskSlots: 2
taskmanager.cpu.cores: 2
taskmanager.memory.framework.heap.size: 64m
taskmanager.memory.framework.off-heap.size: 64m
taskmanager.memory.task.heap.size: 128m
taskmanager.memory.task.off-heap.size: 64m
taskmanager.memory.network.min: 64m
taskmanager.memory.network.max: 64m
taskmanager.memory.managed.size: 64m
taskmanager.memory.jvm-metaspace.size: 160m
taskmanager.memory.jvm-overhead.min: 64m
taskmanager.memory.jvm-overhead.max: 64m
io.tmp.dirs: {tmp}
"""
SLOTS = 4  # of two TaskManagers
CANCEL_SECONDS, IDLE_SECONDS = 10, 120
STALL_SECONDS = 70  # more than the 60 s after which it is told


@dataclass
class Cluster:
    """Programs of an engine on this machine. port: of its job server; roles: what starts each, in this order."""

    lab: Lab
    engine: str
    stack: ExitStack
    jars: Path
    port: int
    variables: dict[str, str]
    roles: dict[str, Callable[[], subprocess.Popen[bytes]]] = field(default_factory=dict)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    is_ready: Callable[[], bool] = lambda: True

    def java(self, name: str, *words: object, ready: str | int = "") -> subprocess.Popen[bytes]:
        """Starts one of the engine's programs. name: of its log; words: its class and options."""
        opened = [f"--add-opens={package}=ALL-UNNAMED" for package in jobserver.OPEN]
        line = ["java", *opened, "-cp", f"{self.jars}{os.sep}*", *words]
        return self.stack.enter_context(program(line, self.lab.root / f"{name}.log", ready, self.variables))

    def job_server(self, master: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "pipeline.jobserver", self.engine, "--port", self.port, "--master", master]
        log = self.lab.root / f"{self.engine}-jobserver.log"
        return self.stack.enter_context(program(words, log, self.port, self.variables))

    def complete(self) -> None:
        """Starts what does not run."""
        for name, start in self.roles.items():
            if name not in self.running or self.running[name].poll() is not None:
                self.running[name] = start()
        wait(self.is_ready, IDLE_SECONDS, lambda: f"{self.engine} is not ready")

    def tried(self, what: str, check: Callable[[], str]) -> None:
        """Does a check on all of the cluster and tells a row of it."""
        self.complete()
        self.lab.tried(f"{self.engine.capitalize()} cluster", what, check)

    def workers(self) -> list[int]:
        """The Python workers that the engine started."""
        return pids(process for name, process in self.running.items() if name.startswith(f"{self.engine}-worker"))

    @property
    def beam(self) -> str:
        return f"--runner={self.engine} --job_endpoint=localhost:{self.port}"

    @property
    def by_process(self) -> str:
        """Beam's options by which the engine starts the workers."""
        return f"--environment_type=PROCESS --environment_option=process_command={worker_command(self.lab)}"


def worker_command(lab: Lab) -> Path:
    """`aoi-worker`, of this very checkout."""
    path = lab.root / "aoi-worker"
    path.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-m", "pipeline.job.worker"])} "$@"\n')
    path.chmod(0o755)
    return path


@contextmanager
def cluster(lab: Lab, engine: str, java: str = "", **variables: str) -> Iterator[Cluster]:
    """java: options of its programs, beside those that keep them small; variables: of their environment."""
    folder = jobserver.fetch(engine, Path.home() / ".cache" / "aoi" / "jars")
    small = f"-Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.io.tmpdir={lab.root}"
    with ExitStack() as stack:
        yield Cluster(lab, engine, stack, folder, free_port(), {"JDK_JAVA_OPTIONS": f"{small} {java}", **variables})


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def go_on(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def pids(processes: Iterable[subprocess.Popen[bytes]]) -> list[int]:
    """Of the Python programs that these started."""
    found = []
    for each in (each for process in processes for each in below(process)):
        with contextlib.suppress(psutil.Error):
            if each.name().startswith("python"):
                found.append(each.pid)
    return found


def parent(pid: int) -> int:
    return psutil.Process(pid).ppid()


def itself(pid: int) -> int:
    return pid


def java_of(job_server: subprocess.Popen[bytes]) -> int:
    """The Java program that `python -m pipeline.jobserver` started."""
    return below(job_server)[0].pid


@dataclass
class Kill:
    """What is killed in a job, and what the job does then. workers: processes of which one is caught."""

    lab: Lab
    name: str
    beam: str
    workers: Callable[[], list[int]]
    victim: Callable[[int], int]

    @property
    def home(self) -> Path:
        return self.lab.home(self.name)

    @property
    def log(self) -> Path:
        return self.home.with_suffix(".log")

    def start(self) -> tuple[subprocess.Popen[bytes], int, str]:
        """(job, worker, shard): kills once a worker has an unfinished shard; the worker goes on, if it is another."""
        job = ingest(self.lab, self.home, self.beam, [f"ingest.stall_seconds={STALL_SECONDS}"])
        pid, shard = caught(self.home, self.workers, job)
        kill(self.victim(pid))
        go_on(pid)
        return job, pid, shard

    def is_survived(self) -> str:
        """The job is done all the same, and the worker is not left behind by what was killed."""
        job, pid, shard = self.start()
        finished(job, self.home)
        wait(lambda: not lives(pid), IDLE_SECONDS, lambda: "a worker outlives its engine")
        return f"{same(self.lab, self.home)}; killed at shard {shard}"

    def ends(self, cause: str, mend: Callable[[], object], surely: bool = True) -> str:
        """The job ends with a cause, a regular expression; the same command goes on once all is mended.

        surely: if not, a job that was nearly done may survive.
        """
        job, _, _ = self.start()
        began = time.monotonic()
        if not surely and job.wait(RUN_SECONDS) == 0:
            return same(self.lab, self.home)
        seen = refused(job, self.home, cause)
        took = time.monotonic() - began
        mend()
        finished(ingest(self.lab, self.home, self.beam), self.home)
        return f"ended {took:.0f} s later: {seen}; once more: {same(self.lab, self.home)}"


def stopped(lab: Lab, home: Path, beam: str, workers: Callable[[], list[int]], is_idle: Callable[[], bool]) -> str:
    """Ctrl-C at an unfinished shard, after which the engine must be idle soon; then the same command again."""
    job = ingest(lab, home, beam)
    pid, _ = caught(home, workers, job)
    began = time.monotonic()
    job.send_signal(signal.SIGINT)
    go_on(pid)
    finished(job, home, 130)
    took = time.monotonic() - began
    check(took < CANCEL_SECONDS, f"it took {took:.1f} s to end")
    wait(is_idle, IDLE_SECONDS, lambda: "the engine still has the job")
    idle = time.monotonic() - began
    finished(ingest(lab, home, beam), home)
    return f"ended after {took:.1f} s, the engine idle after {idle:.0f} s; then {same(lab, home)}"


# --- Flink ----------------------------------------------------------------------------------------------------


def flink(lab: Lab) -> None:
    rest, conf = free_port(), lab.root / "flink-conf"
    conf.mkdir()
    (conf / "config.yaml").write_text(FLINK.format(rpc=free_port(), rest=rest, tmp=lab.root))
    runtime, given = "org.apache.flink.runtime", ["--configDir", conf]

    def overview(what: str) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{rest}/overview", timeout=10) as answer:
            return int(json.loads(answer.read())[what])

    def is_idle() -> bool:
        return overview("jobs-running") == 0 and overview("slots-available") == SLOTS

    with cluster(lab, "flink", FLINK_CONF_DIR=str(conf)) as its:
        manager = f"{runtime}.entrypoint.StandaloneSessionClusterEntrypoint"
        task = f"{runtime}.taskexecutor.TaskManagerRunner"
        its.roles = {
            "flink-manager": lambda: its.java("flink-manager", manager, *given),
            **{name: partial(its.java, name, task, *given) for name in ("flink-worker-1", "flink-worker-2")},
            "server": lambda: its.job_server(f"127.0.0.1:{rest}"),
        }
        its.is_ready = is_idle
        # The cluster has the jars already: of all that would go to it with each job one is sent, the smallest.
        staged = min(its.jars.iterdir(), key=lambda jar: jar.stat().st_size)
        process = f"{its.beam} {its.by_process} --files_to_stage={staged}"
        two, all_slots = f"{process} --parallelism=2", f"{process} --parallelism={SLOTS}"

        def worker_killed() -> str:
            port = free_port()
            external = f"{its.beam} --environment_type=EXTERNAL --environment_config=localhost:{port} --parallelism=2"
            with program([worker_command(lab), "--port", port], lab.root / "pool.log", "waiting at") as pool:
                return Kill(lab, "flink-python", external, lambda: pids([pool]), itself).is_survived()

        def no_slot() -> str:
            kills = Kill(lab, "flink-slots", all_slots, its.workers, parent)

            def mend() -> None:
                quiet = [line for line in said(kills.log) if "no picture was converted for 6" in line]
                check(len(quiet) == 1, f"it was told {len(quiet)} times")
                its.complete()

            return kills.ends(r"no picture was converted for 7\d s: the job server says RUNNING", mend)

        def server_killed() -> str:
            kills = Kill(lab, "flink-server", two, its.workers, lambda _: java_of(its.running["server"]))
            return kills.ends("the job server went away", its.complete)

        def manager_killed() -> str:
            kills = Kill(lab, "flink-job", two, its.workers, lambda _: its.running["flink-manager"].pid)
            return kills.ends("the engine can't be reached", its.complete)

        its.tried("Python worker killed (EXTERNAL)", worker_killed)
        its.tried("TaskManager killed, slots to spare", Kill(lab, "flink-task", two, its.workers, parent).is_survived)
        its.tried("TaskManager killed, no slot to spare", no_slot)
        its.tried("job server killed", server_killed)
        its.tried("JobManager killed", manager_killed)
        its.tried("Ctrl-C", lambda: stopped(lab, lab.home("flink-stopped"), two, its.workers, is_idle))


# --- Spark ----------------------------------------------------------------------------------------------------


def spark(lab: Lab) -> None:
    port, folder = free_port(), lab.root / "spark-cluster"
    folder.mkdir()
    variables = {"SPARK_HOME": str(folder), "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_LOCAL_DIRS": str(folder)}
    variables["SPARK_SCALA_VERSION"] = "2.12"  # or it looks for Spark's own source
    java = "-Dspark.executor.memory=512m -Dspark.ui.enabled=false -Dspark.master.rest.enabled=false"
    with cluster(lab, "spark", java, **variables) as its:
        (folder / "jars").symlink_to(its.jars)  # where an executor looks for its classes
        (folder / "RELEASE").touch()
        at, deploy = ["--host", "127.0.0.1", "--webui-port"], "org.apache.spark.deploy"
        master = [f"{deploy}.master.Master", "--port", port, *at]
        worker = [f"{deploy}.worker.Worker", f"spark://127.0.0.1:{port}", "--cores", "1", "--memory", "1g"]
        worker += ["--work-dir", folder, *at]

        def start_worker(name: str) -> subprocess.Popen[bytes]:
            return its.java(name, *worker, free_port(), ready="Successfully registered")

        its.roles = {
            "spark-master": lambda: its.java("spark-master", *master, free_port(), ready=port),
            **{name: partial(start_worker, name) for name in ("spark-worker-1", "spark-worker-2")},
            "server": lambda: its.job_server(f"spark://127.0.0.1:{port}"),
        }
        beam = f"{its.beam} {its.by_process}"

        def survived(name: str, victim: Callable[[int], int]) -> Callable[[], str]:
            return Kill(lab, name, beam, its.workers, victim).is_survived

        def master_killed() -> str:
            kills = Kill(lab, "spark-head", beam, its.workers, lambda _: its.running["spark-master"].pid)
            return kills.ends("SparkContext was shut down", its.complete, surely=False)

        def server_killed() -> str:
            kills = Kill(lab, "spark-server", beam, its.workers, lambda _: java_of(its.running["server"]))
            return kills.ends("the job server went away", its.complete)

        its.tried("Python worker killed", survived("spark-python", itself))
        its.tried("executor killed", survived("spark-executor", parent))
        its.tried("worker killed", survived("spark-machine", lambda pid: parent(parent(pid))))
        its.tried("master killed", master_killed)
        its.tried("job server killed", server_killed)


# --- Dask -----------------------------------------------------------------------------------------------------


def scheduler_killed(lab: Lab) -> None:
    port = free_port()

    def check_it() -> str:
        with dask(lab, 2, port) as engine:
            workers = [worker.pid for worker in engine.workers]
            job = Kill(lab, "dask-scheduler", engine.beam, lambda: workers, lambda _: engine.scheduler.pid)

            def mend() -> None:
                again.enter_context(dask(lab, 2, port))

            with ExitStack() as again:
                return job.ends("the scheduler went away", mend)

    lab.tried("Dask", "scheduler killed", check_it)


# --- All of it ------------------------------------------------------------------------------------------------


PARTS = [
    Part("flink-cluster", flink, no_java, partial(jars, "flink")),
    Part("spark-cluster", spark, no_java, partial(jars, "spark")),
    Part("dask-scheduler", scheduler_killed, no_dask),
]

if __name__ == "__main__":
    sys.exit(main(PARTS, __doc__))
