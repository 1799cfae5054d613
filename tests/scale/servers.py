"""Prefect and MLflow beside real servers: PostgreSQL, and a work pool with two workers, one of which is killed.

    python tests/scale/servers.py [--only postgresql pool]

Needs PostgreSQL's programs (apt install postgresql) and psycopg2 (pip install '.[postgresql]'). It makes a cluster of
its own on the loopback address. What is missing fails the check; with CI=true it is skipped and said so.
"""

import importlib.util
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from lab import BIN, Lab, Part, check, free_port, lives, main, program, wait

PASSWORD = "s3cret-Wort"  # in the address as it is, and in no other place
UP_SECONDS, RUN_SECONDS = 180, 600
TOLD_SECONDS, CRASHED_SECONDS = 15, 120
QUICK = {"preprocess": {"image_size_px": 32}, "train": {"alpha": 0.25, "weights": "none", "epochs": 2}}
SLOW = {**QUICK, "train": {**QUICK["train"], "epochs": 4}}


def run(words: list[object], variables: Mapping[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command to its end; both of its outputs as one."""
    return subprocess.run(
        [str(word) for word in words],
        env={**os.environ, **variables},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextmanager
def apart(lab: Lab) -> Iterator[Lab]:
    """A folder of its own with few, small pictures and their dataset, from whose cwd/ all is started."""
    own, here = Lab(lab.root / "servers", lab.rows), Path.cwd()
    if not own.root.exists():
        (own.root / "cwd").mkdir(parents=True)
        sample = [sys.executable, "-m", "flows", "sample", own.data, "--train", 120, "--test", 6]
        check(run(sample, {}, here).returncode == 0, "no sample")
        ingest = [sys.executable, "-m", "flows", "ingest", "--data", own.data, "--home", own.home("home")]
        check(run([*ingest, "--set", "preprocess.image_size_px=32"], {}, here).returncode == 0, "no ingest")
    os.chdir(own.root / "cwd")
    try:
        yield own
    finally:
        os.chdir(here)


# --- PostgreSQL -----------------------------------------------------------------------------------------------


def postgres_bin() -> Path | None:
    """The folder of PostgreSQL's programs."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


def no_postgresql() -> str | None:
    """What this machine lacks."""
    if postgres_bin() is None:
        return "PostgreSQL: apt install postgresql"
    return None if importlib.util.find_spec("psycopg2") else "psycopg2: pip install '.[postgresql]'"


@contextmanager
def cluster(lab: Lab) -> Iterator[int]:
    """The port of a PostgreSQL of our own, with the user aoi and the databases mlflow and prefect."""
    bin_, port = postgres_bin(), free_port()
    assert bin_
    folder = lab.root / "cluster"
    folder.mkdir()
    (folder / "password").write_text(PASSWORD)
    user = {}
    if os.geteuid() == 0:  # initdb refuses root
        own = pwd.getpwnam("postgres")
        for path in (folder, folder / "password"):
            os.chown(path, own.pw_uid, own.pw_gid)
        user = {"user": own.pw_uid, "group": own.pw_gid}
        for path in (lab.root, lab.root.parent):
            path.chmod(0o755)
    made = ["-U", "aoi", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--no-sync", folder / "data"]
    subprocess.run([bin_ / "initdb", *made], check=True, stdout=subprocess.DEVNULL, cwd=folder, **user)
    server = [bin_ / "postgres", "-D", folder / "data", "-h", "127.0.0.1", "-p", str(port), "-k", folder, "-F"]
    with (lab.root / "cluster.log").open("wb") as log:
        process = subprocess.Popen(server, stdout=log, stderr=log, cwd=folder, start_new_session=True, **user)
    try:
        for name in ("mlflow", "prefect"):
            ask = ["psql", "-h", "127.0.0.1", "-p", port, "-U", "aoi", "-c", f"CREATE DATABASE {name}", "postgres"]
            log = lab.root / "cluster.log"
            wait(lambda ask=ask: run(ask, {"PGPASSWORD": PASSWORD}, lab.root).returncode == 0, 60, log.read_text)
        yield port
    finally:
        process.send_signal(signal.SIGINT)  # "fast": without waiting for its clients
        process.wait(60)


def addresses(port: int, password: str = PASSWORD, host: str = "127.0.0.1") -> dict[str, str]:
    place = f"aoi:{password}@{host}:{port}"
    return {
        "MLFLOW_TRACKING_URI": f"postgresql://{place}/mlflow",
        "PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{place}/prefect",
    }


def told_at_once(lab: Lab, port: int) -> str:
    """Wrong passwords and hosts: told in seconds, with what helps, without the password."""
    worst = 0.0
    right = addresses(port)
    wrong = [addresses(port, "wr0ng-Wort"), addresses(port, host="nowhere.invalid"), addresses(port, host="192.0.2.1")]
    for given in wrong:
        for name, commands in (
            ("MLFLOW_TRACKING_URI", ("serve", "train")),
            ("PREFECT_API_DATABASE_CONNECTION_URL", ("serve",)),
        ):
            for command in commands:
                began = time.monotonic()
                words = [BIN / "aoi", command, "--home", lab.root / "home"]
                if command == "train":
                    words += [word for setting in settings(QUICK) for word in ("--set", setting)]
                done = run(words, {**right, name: given[name]}, lab.root / "cwd")
                took = time.monotonic() - began
                worst = max(worst, took)
                check(done.returncode in (1, 2), f"{command}: exit code {done.returncode}: {done.stdout}")
                check(f"aoi: {name}: " in done.stdout and "Check host" in done.stdout, f"{command}: {done.stdout}")
                check("-Wort" not in done.stdout, f"{command} says the password: {done.stdout}")
                check(took < TOLD_SECONDS, f"{command}: told after {took:.1f} s: {done.stdout}")
    return f"each told, the latest after {worst:.1f} s"


def settings(sections: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [f"{section}.{key}={value}" for section, inside in sections.items() for key, value in inside.items()]


def served(lab: Lab, port: int) -> str:
    """`aoi serve` with both databases: a run, where its files lie, and where the password is seen."""
    cwd, home, log = lab.root / "cwd", lab.root / "home", lab.root / "serve.log"
    ports = [free_port(), free_port()]
    words = [BIN / "aoi", "serve", "--home", home, "--data", lab.root / "data"]
    words += ["--prefect-port", ports[0], "--mlflow-port", ports[1]]
    with program(words, log, variables=addresses(port)):
        wait(lambda: "deployment run" in log.read_text(), UP_SECONDS, log.read_text)
        variables = {"PREFECT_API_URL": f"http://127.0.0.1:{ports[0]}/api", "PREFECT_HOME": str(lab.root / "client")}
        asked = ["prefect", "deployment", "run", "aoi/full", "--watch", "-p", f"settings={json.dumps(QUICK)}"]
        done = run([BIN / asked[0], *asked[1:]], variables, cwd)
        check("finished successfully" in done.stdout, done.stdout)
        shown = [" ".join(words) for words in command_lines()]
        check(not any("-Wort" in line for line in shown), "a list of processes shows the password")
        check(any("mlflow" in line for line in shown), shown)
        found = json.loads(
            urllib.request.urlopen(
                f"http://127.0.0.1:{ports[1]}/api/2.0/mlflow/experiments/get-by-name?experiment_name=data"
            ).read()
        )
    check(found["experiment"]["artifact_location"] == (home / "mlartifacts" / "data").as_uri(), found)
    check(any((home / "mlartifacts").rglob("MLmodel")), "no model under HOME")
    check(not (home / "mlflow.db").exists(), "mlflow.db in HOME too")
    left = [path.name for path in cwd.iterdir()]
    check(not left, f"in the current folder: {left}")
    logs = "".join(path.read_text(errors="replace") for path in [log, *(home / "logs").iterdir()])
    check("-Wort" not in logs, "a log says the password")
    return "a full run; files under HOME, none in the current folder; no password in logs and lists of processes"


def command_lines() -> Iterator[list[str]]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            yield process.cmdline()


# --- A work pool ----------------------------------------------------------------------------------------------


@dataclass
class Pool:
    """A Prefect server with a work pool, and what its API says."""

    lab: Lab
    api: str
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def variables(self) -> dict[str, str]:
        own = {"PREFECT_API_URL": self.api, "PREFECT_HOME": str(self.lab.root / "client"), "AOI_WEIGHTS": "none"}
        return {**own, "PREFECT_WORKER_QUERY_SECONDS": "2", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.api + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def prefect(self, *words: str) -> str:
        done = run([BIN / "prefect", *words], self.variables, self.lab.root / "cwd")
        check(done.returncode == 0, done.stdout)
        return done.stdout

    def start(self, name: str, given: Mapping[str, Any]) -> str:
        """A run of a deployment; gives its number."""
        deployment = self.ask(f"/deployments/name/aoi/{name}")["id"]
        return str(self.ask(f"/deployments/{deployment}/create_flow_run", {"parameters": given})["id"])

    def run(self, number: str) -> dict[str, Any]:
        return dict(self.ask(f"/flow_runs/{number}"))

    def ended(self, number: str, state: str, seconds: float) -> dict[str, Any]:
        final = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        wait(lambda: self.run(number)["state"]["type"] in final, seconds, lambda: self.run(number)["state"])
        found = self.run(number)
        check(found["state"]["type"] == state, found["state"])
        return found

    def trained(self) -> bool:
        """Whether a training has finished an epoch, and not yet all of them."""
        states = (self.lab.root / "home" / "models").glob(".work-*/.state.json")
        return any(json.loads(state.read_text())["history"] for state in states)

    def worker_of(self, pid: int) -> str:
        """The worker that started a process."""
        parent = psutil.Process(pid).ppid()
        return next(name for name, worker in self.workers.items() if worker.pid == parent)


@contextmanager
def pool(lab: Lab, *options: object, limit: int | None = None) -> Iterator[Pool]:
    """A server, the deployments of HOME and two workers. options: of aoi deploy; limit: runs that a worker takes."""
    port = free_port()
    made = Pool(lab, f"http://127.0.0.1:{port}/api")
    with ExitStack() as stack:
        server = [BIN / "prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
        stack.enter_context(program(server, lab.root / "server.log", variables=made.variables))
        wait(lambda: made.ask("/health"), UP_SECONDS, (lab.root / "server.log").read_text)
        words = [BIN / "aoi", "deploy", "--pool", "line", "--home", lab.root / "home", "--data", lab.root / "data"]
        words += options
        for _ in range(2):
            done = run(words, made.variables, lab.root / "cwd")
            check(done.returncode == 0, done.stdout)
        for name in ("one", "two"):
            words = [BIN / "prefect", "worker", "start", "--pool", "line", "--name", name]
            words += ["--limit", limit] if limit else []
            worker = program(words, lab.root / f"{name}.log", variables=made.variables)
            made.workers[name] = stack.enter_context(worker)
        yield made


def two_workers(lab: Lab) -> str:
    """One run at a time; one worker killed, then one with its run, as a machine that goes; both runs go on."""
    with pool(lab) as line:
        first = line.start("full", {"settings": SLOW})
        others = [line.start("ingest", {"settings": {"preprocess": {"image_size_px": size}}}) for size in (40, 48)]
        wait(line.trained, RUN_SECONDS, lambda: (line.run(first)["state"], (lab.root / "one.log").read_text()))
        waiting = [line.run(other)["state"]["type"] for other in others]
        check(waiting == ["SCHEDULED"] * 2, f"beside the first run: {waiting}")
        pid = line.run(first)["infrastructure_pid"]
        killed = line.worker_of(int(pid))
        began = time.monotonic()
        line.workers[killed].kill()
        crashed = line.ended(first, "CRASHED", CRASHED_SECONDS)
        took = time.monotonic() - began
        wait(lambda: not lives(int(pid)), 20, lambda: "its run goes on")
        spans = [(line.ended(other, "COMPLETED", RUN_SECONDS)) for other in others]
        times = sorted((span["start_time"], span["end_time"]) for span in [*spans, crashed])
        check(all(end <= begin for (_, end), (begin, _) in pairwise(times)), f"at once: {times}")
        line.prefect("flow-run", "retry", first)
        wait(lambda: line.run(first)["state"]["type"] == "RUNNING", RUN_SECONDS, lambda: line.run(first)["state"])
        left = next(name for name in line.workers if name != killed)
        began = time.monotonic()
        os.kill(int(line.run(first)["infrastructure_pid"]), signal.SIGKILL)
        line.workers[left].kill()  # before it says so
        lost = line.ended(first, "CRASHED", CRASHED_SECONDS)
        lost_after = time.monotonic() - began
        words = [BIN / "prefect", "worker", "start", "--pool", "line", "--name", "three"]
        with program(words, lab.root / "three.log", variables=line.variables):
            line.prefect("flow-run", "retry", first)
            wait(lambda: line.run(first)["state"]["type"] != "CRASHED", 60, lambda: line.run(first)["state"])
            line.ended(first, "COMPLETED", RUN_SECONDS)
        epochs = [int(epoch) for epoch in re.findall(r"epoch (\d+) of", (lab.root / "three.log").read_text())]
        check(min(epochs, default=0) > 1, f"the finished epochs were trained again: {epochs}")
        check(not list((lab.root / "cwd").iterdir()), "files in the current folder")
        check("no sign of life" in lost["state"]["message"], lost["state"])
    told = f"crashed {took:.0f} s after its worker was killed, {lost_after:.0f} s after worker and run were"
    return f"{told}; retried to its end, from epoch {min(epochs)}"


def folds_on_two_workers(lab: Lab) -> str:
    """A cross-validation whose folds two workers train at the same time, each some of them."""
    training = {"train": SLOW["train"]}
    with pool(lab, "--at-once", 2, limit=1) as line:
        whole = line.start("crossval", {"settings": training})
        line.ended(whole, "COMPLETED", RUN_SECONDS)
        named = {"flow_runs": {"name": {"like_": "fold "}}}
        folds = {run["name"]: run for run in line.ask("/flow_runs/filter", named)}
        check(len(folds) == 4, f"offered: {sorted(folds)}")  # all but the first
        own = line.run(whole)
        elsewhere = [run for run in folds.values() if run["state"]["type"] == "COMPLETED"]
        taken_back = [run for run in folds.values() if run["state"]["type"] == "CANCELLED"]
        states = {name: run["state"]["type"] for name, run in folds.items()}
        check(bool(elsewhere) and len(elsewhere) + len(taken_back) == 4, states)
        begun = [run["start_time"] for run in elsewhere]
        check(own["start_time"] < min(begun) and max(begun) < own["end_time"], f"not beside it: {begun}")
        check(all(run["parent_task_run_id"] for run in elsewhere), "not below the run that asked")
    words = [word for setting in settings(training) for word in ("--set", setting)]
    alone = run([BIN / "aoi", "crossval", "--home", lab.root / "home", *words], line.variables, lab.root / "cwd")
    check("crossval  was there" in alone.stdout, alone.stdout)  # the same models, by name
    return (
        f"of 4 folds beside the first, {len(elsewhere)} trained by the other worker, {len(taken_back)} by the run's own"
    )


# --- All of it ------------------------------------------------------------------------------------------------


def postgresql(lab: Lab) -> None:
    with apart(lab) as own, cluster(own) as port:
        own.tried("PostgreSQL", "wrong password, no such host, no answer", lambda: told_at_once(own, port))
        own.tried("PostgreSQL", "aoi serve, both databases", lambda: served(own, port))


def work_pool(lab: Lab) -> None:
    with apart(lab) as own:
        own.tried("work pool", "two workers, both killed", lambda: two_workers(own))
        own.tried("work pool", "cross-validation on two workers", lambda: folds_on_two_workers(own))


PARTS = [Part("postgresql", postgresql, no_postgresql), Part("pool", work_pool)]

if __name__ == "__main__":
    sys.exit(main(PARTS, __doc__))
