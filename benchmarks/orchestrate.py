"""Orchestrate: what Prefect and MLflow add to a bare call of the stages, and what waiting a user has."""

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.core import Contestant, aoi, by_turns, goal, median
from benchmarks.pictures import draw, repeat
from flows.serving.serve import answers, start, wait
from tfrecords.system import stop

BARE, PREFECT = "bare call of the stages", "as a Prefect flow, beside a server"
CACHED, CACHED_PREFECT, HELP = "aoi run, all found", "Prefect flow, all found, beside a server", "aoi --help"


def measure(work: Path, size: Mapping[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """size: drawn, rounds, imports (modules), settings."""
    data = str(repeat(draw(work, size["drawn"]), work, size["drawn"], test=size["drawn"]))
    home = str(work / "orchestrate-home")
    settings = list(size["settings"])
    words = [word for setting in settings for word in ("--set", setting)]
    given = {"data": data, "settings": settings}
    tell("a run to be found again")
    aoi(["run", "--data", data, "--home", home, *words])
    with _server(work / "prefect", tell) as address:
        given_prefect = {**given, "address": address, "prefect_home": str(work / "prefect")}
        runs = by_turns(
            [
                Contestant(BARE, "benchmarks.orchestrate:bare", {**given, "work": str(work)}),
                Contestant(PREFECT, "benchmarks.orchestrate:flow", {**given_prefect, "home": None, "work": str(work)}),
                Contestant(
                    CACHED, "benchmarks.core:command", {"words": ["run", "--data", data, "--home", home, *words]}
                ),
                Contestant(
                    CACHED_PREFECT,
                    "benchmarks.orchestrate:flow",
                    {**given_prefect, "home": home, "work": str(work)},
                ),
                Contestant(HELP, "benchmarks.core:asked_for_help", {}),
            ],
            size["rounds"],
            tell,
        )
    imports = by_turns(
        [Contestant(name, "benchmarks.core:imported", {"module": name}) for name in size["imports"]],
        size["rounds"],
        tell,
    )
    return {
        "size": {**size, "data": "sample pictures"},
        "tables": {"runs": runs, "imports": imports},
        "goals": [
            goal(
                "a full run that finds all, beside a Prefect server",
                median(runs, CACHED_PREFECT, "seconds"),
                5,
                False,
                "s",
            ),
            goal("a full run that finds all", median(runs, CACHED, "seconds"), 3, False, "s"),
            goal("aoi --help", median(runs, HELP, "help_s"), 0.5, False, "s"),
        ],
    }


def bare(data: str, settings: list[str], work: str) -> dict[str, float]:
    """The whole chain by plain calls. Returns: mlflow_s, the time inside what records runs and models."""
    from tempfile import TemporaryDirectory

    from flows.home import Home
    from flows.settings import load_settings
    from flows.stages import load_stage
    from flows.stages.chain import chain
    from flows.stages.stage import Job

    chosen = load_settings(overrides=settings)
    began = time.perf_counter()
    from model.registry import tracking

    spent = [time.perf_counter() - began]
    for name in ("log_history", "finish_training", "log_evaluation", "move_alias", "connect"):
        setattr(tracking, name, _timed(getattr(tracking, name), spent))
    with TemporaryDirectory(dir=work) as folder:
        job = Job(Home(Path(folder, "home")), chosen)
        began = time.perf_counter()
        chain(lambda stage, **given: load_stage(stage).run(job, **given), job, data)
        return {"chain_s": time.perf_counter() - began, "mlflow_s": sum(spent)}


def _timed(function: Callable, spent: list[float]) -> Callable:
    def timed(*values: Any, **named: Any) -> Any:
        before, began = len(spent), time.perf_counter()
        try:
            return function(*values, **named)
        finally:
            spent[before:] = [time.perf_counter() - began]  # what it called of the others is within it

    return timed


def flow(
    data: str, settings: list[str], address: str, prefect_home: str, home: str | None, work: str
) -> dict[str, float]:
    """The flow `aoi`, as a deployment runs it, in HOME or a fresh one."""
    from tempfile import TemporaryDirectory

    os.environ |= _environment(Path(prefect_home)) | {"PREFECT_API_URL": f"{address}/api"}
    from flows.serving.deployments import full
    from flows.settings import load_settings

    with TemporaryDirectory(dir=work) as folder:
        began = time.perf_counter()
        full(data=data, settings=load_settings(overrides=settings), home=home or str(Path(folder, "home")))
        return {"chain_s": time.perf_counter() - began}


def _environment(home: Path) -> dict[str, str]:
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_LOCAL_STORAGE_PATH": str(home / "results"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "ERROR",
    }


@contextmanager
def _server(home: Path, tell: Callable[[str], None]) -> Iterator[str]:
    """A Prefect server of our own for as long as the block runs: its address."""
    tell("a Prefect server")
    home.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, log = f"http://127.0.0.1:{port}", home / "server.log"
    command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    process = start(command, {**os.environ, **_environment(home)}, log)
    try:
        wait("prefect", lambda: answers(f"{address}/api/health"), process, log)
        yield address
    finally:
        stop(process, 5)
