"""One picture at a time over HTTP: `aoi api` against `mlflow models serve`, and the same answer without a server.

The load comes from wrk, and every request has another picture.
"""

import base64
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import quantiles
from typing import Any

from benchmarks.core import Contestant, aoi, by_turns, goal, median, run_alone
from benchmarks.pictures import draw
from benchmarks.train import chosen, ingested, told_data
from flows.champion import Champion
from flows.home import Home, name_of
from model.manifests import Model, ModelManifest
from model.registry.store import store_of
from model.settings import PredictSettings, Runtime
from tfrecords.errors import MISSED, AoiError, refuse
from tfrecords.system import start, stop

OURS, INT8, MLFLOW, ALONE, ALONE8 = "ours", "ours, int8", "mlflow models serve", "in process", "in process, int8"
CLIENTS = 8
UP_SECONDS, STOP_SECONDS = 120, 20
# Of wrk: each of its threads goes through the bodies from another place on.
LOAD = """
local number = 0
function setup(thread) thread:set("at", number * 37); number = number + 1 end
function init(given)
  bodies = {}
  for name in io.lines(given[1]) do
    local file = io.open(name, "rb"); bodies[#bodies + 1] = file:read("*a"); file:close()
  end
  wrk.method = "POST"; wrk.headers["Content-Type"] = given[2]
end
function request() at = at + 1; return wrk.format(nil, nil, nil, bodies[at % #bodies + 1]) end
function done(summary, latency)
  local failed = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout
  io.write(string.format("\\n@%d %d %d %f %f", summary.requests, summary.duration, failed,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Service:
    """A server to be measured. start: its command line for a port; bodies: files to send; kind: their media type."""

    name: str
    start: Callable[[int], list[str]]
    up: str
    path: str
    bodies: Sequence[Path]
    kind: str
    variables: Mapping[str, str]


def measure(work: Path, size: Mapping[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """size: data (what the model is trained on, or None: sample pictures), drawn, seconds (per load), rounds, int8,
    settings.
    """
    if not shutil.which("wrk"):
        raise refuse("wrk", "the load tool is not there", "apt install wrk, or leave out the section api")
    tell("a model to serve")
    home, model = model_to_serve(work, size)
    pictures = sorted((draw(work, size["drawn"]) / "train_images").iterdir())
    contestants = [in_process(ALONE, home, model, Runtime.LITERT, pictures, size["seconds"])]
    written = _json_bodies(pictures, work / "mlflow-bodies")
    store = store_of(Path(home), name_of(model))
    api = [sys.executable, "-m", "flows", "api", "--home", home, "--model", model.path.name, "--port"]
    mlflow = [sys.executable, "-m", "mlflow", "models", "serve", "-m", store.model_uri, "--env-manager", "local", "-p"]
    given = {"PYTHONPATH": os.pathsep.join(sys.path), "MLFLOW_TRACKING_URI": store.uri}
    given["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])  # MLflow looks for uvicorn
    octets = "application/octet-stream"
    services = {
        OURS: Service(OURS, lambda port: [*api, str(port)], "/readyz", "/v1/predict", pictures, octets, given),
        MLFLOW: Service(
            MLFLOW, lambda port: [*mlflow, str(port)], "/ping", "/invocations", written, "application/json", given
        ),
    }
    if size["int8"]:
        try:
            aoi(["export", "--home", home, "--model", model.path.name, "--precision", "int8"])
            eight = ["--set", "predict.runtime=litert-int8"]
            services[INT8] = Service(
                INT8, lambda port: [*api, str(port), *eight], "/readyz", "/v1/predict", pictures, octets, given
            )
            contestants += [in_process(ALONE8, home, model, Runtime.LITERT_INT8, pictures, size["seconds"])]
        except AoiError as refused:
            tell(f"int8 is left out: {refused}")
    contestants += [Contestant(name, "", {}) for name in services]

    def run(contestant: Contestant) -> dict[str, float]:
        if contestant.name in services:
            return _serve(services[contestant.name], size["seconds"], work)
        answers = run_alone(contestant)
        return {key: value for key, value in answers.items() if key not in ("seconds", "memory_mb")}

    rows = by_turns(contestants, size["rounds"], tell, run)
    goals = []
    for ours, without in ((OURS, ALONE), (INT8, ALONE8)):
        if ours in services:
            figure = partial(median, rows, ours)
            p50 = figure("p50_ms") / median(rows, without, "p50_ms")
            many = figure("pictures_per_s") / median(rows, without, "pictures_per_s")
            tail = figure("many_p99_ms") / figure("p50_ms")
            goals += [
                goal(f"ready, {ours}", figure("ready_s"), 1.5, more=False, unit="s"),
                goal(f"p50 of one client over in process, {ours}", p50, 1.25, more=False, unit="x"),
                goal(f"rate of {CLIENTS} clients over in process, {ours}", many, 0.9, unit="x"),
                goal(f"p99 of {CLIENTS} clients over p50 of one, {ours}", tail, 8, more=False, unit="x"),
            ]
    return {"size": {**size, "data": told_data(size)}, "tables": {"answers": rows}, "goals": goals}


def model_to_serve(work: Path, size: Mapping[str, Any]) -> tuple[str, Model]:
    """A model, and the HOME in which it is champion."""
    home = ingested(work, size)
    aoi(["train", "--home", home, *chosen(size["settings"])])
    aoi(["evaluate", "--home", home, "--set", "evaluate.max_escape_rate=0.5"])
    return home, Home(Path(home)).latest(ModelManifest, "")


def _json_bodies(pictures: Sequence[Path], folder: Path) -> list[Path]:
    """The pictures as MLflow's server takes them, a file each."""
    folder.mkdir(exist_ok=True)
    written = []
    for picture in pictures:
        text = base64.b64encode(picture.read_bytes()).decode()
        written.append(folder / f"{picture.stem}.json")
        written[-1].write_text(json.dumps({"inputs": [text]}))
    return written


def _serve(service: Service, seconds: float, work: Path) -> dict[str, float]:
    """One server from its start to its end: until it answers, then one client, then several."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = work / "served.log"
    began = time.perf_counter()
    process = start(service.start(port), {**os.environ, **service.variables}, log)
    try:
        while not _is_up(port, service.up):
            if process.poll() is not None or time.perf_counter() > began + UP_SECONDS:
                said = log.read_text(errors="replace")[-300:]
                raise refuse(service.name, f"the server does not come up ({said})", "Mend it", exit_code=MISSED)
            time.sleep(0.01)
        ready = time.perf_counter() - began
        _load(service, port, 1, 1, work)  # the first requests open what was not yet
        one, many = (_load(service, port, clients, seconds, work) for clients in (1, CLIENTS))
    finally:
        stop(process, STOP_SECONDS)
    return {
        "ready_s": ready,
        "p50_ms": one["p50_ms"],
        "p99_ms": one["p99_ms"],
        "pictures_per_s": many["pictures_per_s"],
        "many_p50_ms": many["p50_ms"],
        "many_p99_ms": many["p99_ms"],
        "failed": one["failed"] + many["failed"],
    }


def _is_up(port: int, path: str) -> bool:
    with suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", path)
        return connection.getresponse().status == 200
    return False


def _load(service: Service, port: int, clients: int, seconds: float, work: Path) -> dict[str, float]:
    """What wrk measures."""
    script, names = work / "load.lua", work / "bodies.txt"
    script.write_text(LOAD)
    names.write_text("\n".join(map(str, service.bodies)) + "\n")
    command = ["wrk", f"-t{min(2, clients)}", f"-c{clients}", f"-d{max(1, round(seconds))}s", "--timeout", "60s"]
    command += ["-s", str(script), f"http://127.0.0.1:{port}{service.path}", "--", str(names), service.kind]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or "@" not in done.stdout:
        raise refuse("wrk", f"it failed ({done.stderr[-300:]})", "Mend it and run again", exit_code=MISSED)
    requests, micros, failed, half, tail = map(float, done.stdout.rpartition("@")[2].split())
    return {
        "pictures_per_s": requests / micros * 1e6,
        "p50_ms": half / 1e3,
        "p99_ms": tail / 1e3,
        "failed": failed,
    }


def in_process(
    name: str, home: str, model: Model, runtime: Runtime, pictures: Sequence[Path], seconds: float
) -> Contestant:
    """The contestant that answers without a server, see `alone`."""
    told = {"home": home, "model": model.path.name, "runtime": str(runtime)}
    return Contestant(name, "benchmarks.api:alone", {**told, "pictures": list(map(str, pictures)), "seconds": seconds})


def alone(home: str, model: str, runtime: str, pictures: list[str], seconds: float) -> dict[str, float]:
    """The server's answers (probabilities, novelty, decision) without it, one at a time, from one thread and from
    several.
    """
    began = time.perf_counter()
    answering = Champion(Home(Path(home)), None, model, PredictSettings(runtime=Runtime(runtime))).now.answering
    files = [Path(name).read_bytes() for name in pictures]

    def answer(data: bytes) -> float:
        begun = time.perf_counter()
        answering.answer(data)
        return 1e3 * (time.perf_counter() - begun)

    answer(files[0])
    ready, took = time.perf_counter() - began, []
    endless = cycle(files)
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        took.append(answer(next(endless)))
    some = max(CLIENTS, len(took))
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(answer, files[:CLIENTS]))
        begun = time.perf_counter()
        each = list(pool.map(answer, islice(endless, some)))
        rate = some / (time.perf_counter() - begun)
    one, many = quantiles(took, n=100), quantiles(each, n=100)
    return {
        "ready_s": ready,
        "p50_ms": one[49],
        "p99_ms": one[98],
        "pictures_per_s": rate,
        "many_p50_ms": many[49],
        "many_p99_ms": many[98],
        "failed": 0.0,
    }
