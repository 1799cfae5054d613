"""The Prefect and the MLflow server of a HOME: how each is started, where it is, and whose it is that answers there."""

import errno
import http.client
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.addresses import host_of, is_here, reachable, url
from flows.home import Home
from model.registry.databases import check_database, check_store
from model.registry.store import ROOT_VARIABLE, STORE_VARIABLE, Store, hidden, is_database
from tfrecords.errors import refuse

ASK_SECONDS = 5
HEARTBEAT_SECONDS = 30  # between two signs of life of a run; Prefect takes no fewer
ANSWER_BYTES = 1 << 20
PORTS = range(1, 65536)
NO_TELEMETRY = {
    "DO_NOT_TRACK": "true",  # Prefect's clients; MLflow knows no other word for it than "true"
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
PREFECT_DATABASES = ("PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL")

# Without the proxy that the environment names for servers elsewhere.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Server:
    """One of the two servers that `aoi serve` shows.

    Args:
        name: prefect or mlflow; its log is NAME.log, the option for its port --NAME-port.
        host, port: where it listens.
        health: path that answers with status 200 once it is up.
        command: Python module and arguments that start it.
        environment: what it is told beside: addresses with passwords, which lists of processes must not show.
    """

    name: str
    host: str
    port: int
    health: str
    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where it is asked and opened."""
        return url(self.host, self.port)


@dataclass(frozen=True)
class Answer:
    """An HTTP answer. body: its first bytes, "" of errors; software: as its header Server tells."""

    status: int
    body: bytes
    software: str

    def json(self) -> Any:
        """The body as JSON; None where it is none."""
        with suppress(ValueError):
            return json.loads(self.body)


def servers_of(home: Home, store: Store, host: str, prefect_port: int, mlflow_port: int) -> list[Server]:
    """The servers that HOME needs: Prefect's, and MLflow's unless a server that runs already keeps the store.

    Raises: AoiError for ports that are none, or the same.
    """
    for name, port in (("--prefect-port", prefect_port), ("--mlflow-port", mlflow_port)):
        if port not in PORTS:
            raise refuse(name, f"{port} is no port", f"Give a number from {PORTS[0]} to {PORTS[-1]}")
    listen = ["--host", host, "--port"]
    prefect = ["prefect", "server", "start", *listen, str(prefect_port)]
    servers = [Server("prefect", host, prefect_port, "/api/health", prefect)]
    if not is_server(store):
        mlflow = ["mlflow", "server", *listen, str(mlflow_port), "--workers", "1"]
        told = {"MLFLOW_BACKEND_STORE_URI": store.uri}
        if store.artifacts:
            told[ROOT_VARIABLE] = store.artifacts
        if prefect_port == mlflow_port:
            raise refuse("--mlflow-port", f"{mlflow_port} is Prefect's port too", "Give each server a port of its own")
        servers.append(Server("mlflow", host, mlflow_port, "/health", mlflow, told))
    return servers


def is_server(store: Store) -> bool:
    """Whether an MLflow server keeps the store, rather than a database or a folder."""
    return store.uri.startswith(("http://", "https://"))


def check_stores(store: Store, environment: Mapping[str, str]) -> None:
    """Raises: AoiError where MLflow's store or the database that the environment names for Prefect can't be used."""
    check_store(store)
    if is_server(store) and is_here(host_of(store.uri)) and ask(store.uri) is None:
        remedy = f"Start that server, or unset {STORE_VARIABLE} to keep the records in HOME"
        raise refuse(STORE_VARIABLE, f"nothing answers at {hidden(store.uri)}", remedy)
    for variable in PREFECT_DATABASES:
        if is_database(address := environment.get(variable, "")) and not address.startswith("sqlite"):
            check_database(variable, address)


def runs_already(server: Server, home: Home, store: Store) -> bool:
    """Whether this HOME's server answers at its address; False where the address is free.

    Raises:
        AoiError: something else answers there, or nothing can listen there.
    """
    problem = _problem(server.host, server.port)
    if problem is None and not _accepts(server.host, server.port):
        return False
    option = f"--{server.name}-port {server.port}"
    if problem is not None and problem.errno != errno.EADDRINUSE:
        seen = f"no server can listen there ({problem.strerror})"
        raise refuse(f"--host {server.host} {option}", seen, "Name an address of this machine and a port that is yours")
    own, seen = _whose(server.address, home, store)
    if own != server.name:
        remedy = f"Choose another port with --{server.name}-port, or stop what is there"
        raise refuse(option, f"{server.address} is taken by {seen}", remedy)
    return True


@contextmanager
def only_runner(home: Home) -> Iterator[None]:
    """Held by the process that runs HOME's deployments; two would run everything twice.

    Raises: AoiError where another process holds it.
    """
    from filelock import FileLock, Timeout

    prefect_home(home).mkdir(parents=True, exist_ok=True)
    lock = FileLock(prefect_home(home) / "runner.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        remedy = "Use that one, or end it: its processes have HOME and flows.serving.runner in their command lines"
        raise refuse(home.root, "another aoi serve runs the deployments of this HOME", remedy)
    try:
        yield
    finally:
        lock.release()


def check_no_runner(home: Home) -> None:
    """Raises: AoiError where a process runs HOME's deployments already: told ahead, before anything is started."""
    with only_runner(home):
        pass


def ask(address: str) -> Answer | None:
    """What a server of this machine answers; None where there is no HTTP answer within some seconds."""
    try:
        with _direct.open(address, timeout=ASK_SECONDS) as answer:
            return Answer(answer.status, answer.read(ANSWER_BYTES), answer.headers.get("Server", "").strip())
    except urllib.error.HTTPError as error:
        return Answer(error.code, b"", error.headers.get("Server", "").strip())
    except (OSError, http.client.HTTPException):
        return None


def _problem(host: str, port: int) -> OSError | None:
    """Why no server can listen at an address; None where one can."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        return error
    problems = []
    for family, _, _, _, place in found:
        try:
            socket.create_server(place[:2], family=family).close()
        except OSError as error:
            problems.append(error)
    taken = [problem for problem in problems if problem.errno == errno.EADDRINUSE]
    # A name may stand for addresses that this machine does not have, such as ::1 where IPv6 is off.
    return taken[0] if taken else problems[0] if len(problems) == len(found) else None


def _accepts(host: str, port: int) -> bool:
    """Whether something takes connections: some systems let two programs listen at one address."""
    with suppress(OSError):
        socket.create_connection((reachable(host), port), ASK_SECONDS).close()
        return True
    return False


def _whose(address: str, home: Home, store: Store) -> tuple[str, str]:
    """What answers at an address: the name of a server of this HOME, else "", and what it is in words."""
    answer = ask(f"{address}/api/admin/settings")
    if answer is None:
        return "", "something that gives no HTTP answer"
    settings = answer.json()
    if isinstance(settings, dict) and isinstance(settings.get("home"), str):
        theirs = Path(settings["home"])
        if theirs.resolve() == prefect_home(home).resolve():
            return "prefect", "this HOME's Prefect server"
        return "", f"the Prefect server of another HOME (its PREFECT_HOME is {theirs})"
    experiments = ask(f"{address}/api/2.0/mlflow/experiments/search?max_results=1&order_by=creation_time+ASC")
    found = experiments.json() if experiments else None
    if isinstance(found, dict) and isinstance(found.get("experiments"), list):
        oldest = [(each.get("experiment_id"), each.get("creation_time")) for each in found["experiments"]]
        if oldest and oldest == _oldest_experiment(store):
            return "mlflow", "this HOME's MLflow server"
        return "", "the MLflow server of another store"
    software = f"{answer.software}, " if answer.software else ""
    return "", f"another HTTP server ({software}status {answer.status})"


def run_variables(home: Home) -> dict[str, str]:
    """The variables under which the runs of HOME's deployments live, whoever starts them."""
    return {
        "AOI_HOME": str(home.root),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        "PREFECT_LOCAL_STORAGE_PATH": str(prefect_home(home) / "results"),  # a retry looks there, on any machine
        **NO_TELEMETRY,
    }


def prefect_home(home: Home) -> Path:
    """Folder of the Prefect server: its database and settings."""
    return home.root / "prefect"


def _oldest_experiment(store: Store) -> list[tuple[str, int | None]]:
    """Number and time of creation (ms) of a store's oldest experiment, by which it is known from all others."""
    if store.embedded and not store.embedded.exists():
        return []  # asking would make one
    from model.registry.tracking import connect

    found = connect(store).search_experiments(max_results=1, order_by=["creation_time ASC"])
    return [(each.experiment_id, each.creation_time) for each in found]
