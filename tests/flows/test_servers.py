"""Whose server answers at an address: only this HOME's own is used, all others are refused before anything starts."""

import json
import re
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from flows.addresses import is_here, reachable
from flows.cli import main
from flows.home import Home
from flows.serving import servers
from flows.serving.servers import is_server, only_runner, prefect_home, runs_already, servers_of
from model.registry.store import store_of
from model.registry.tracking import connect
from tfrecords.errors import AoiError

SETTINGS = "/api/admin/settings"
EXPERIMENTS = "/api/2.0/mlflow/experiments/search"
HOSTS = ["127.0.0.1", "0.0.0.0", *(["::1", "::"] if is_here("::1") else [])]


@contextmanager
def answering(pages, host="127.0.0.1"):
    """The port of a server that answers with JSON pages, {path: what}, and with 404 otherwise."""

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "Somebody/1.0", ""

        def do_GET(self):
            page = pages.get(self.path.partition("?")[0])
            self.send_response(404 if page is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(page).encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer((host, 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def listening(host="127.0.0.1"):
    """The port of a program that takes connections, and never answers."""
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
        yield taken.getsockname()[1]


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing here may ask it
    return Home(tmp_path / "home")


def check(home, name, port, host="127.0.0.1"):
    """Whether the server of a name is found at a port."""
    store = store_of(home.root, "")
    prefect, mlflow = servers_of(home, store, host, *((port, 1) if name == "prefect" else (1, port)))
    return runs_already(prefect if name == "prefect" else mlflow, home, store)


def refused(seen, *given):
    """The refusal of `check`, whose message matches a regular expression."""
    with pytest.raises(AoiError, match=seen) as refusal:
        check(*given)
    assert refusal.value.exit_code == 2
    return str(refusal.value)


@pytest.mark.parametrize("name", ["prefect", "mlflow"])
@pytest.mark.parametrize("host", ["localhost", *HOSTS])
def test_a_free_port_is_for_our_own_server(name, host, home, free_ports):
    assert not check(home, name, *free_ports(1), host)


def test_the_prefect_server_of_this_home_is_used(home, tmp_path):
    prefect_home(home).mkdir(parents=True)
    (tmp_path / "link").symlink_to(home.root)
    for root in (home.root, tmp_path / "link"):
        with answering({SETTINGS: {"home": str(root / "prefect")}}) as port:
            assert check(home, "prefect", port)


def test_the_mlflow_server_of_this_home_is_known_by_its_oldest_experiment(home):
    created = connect(store_of(home.root, "")).get_experiment("0").creation_time
    with answering({EXPERIMENTS: {"experiments": [{"experiment_id": "0", "creation_time": created}]}}) as port:
        assert check(home, "mlflow", port)
    with answering({EXPERIMENTS: {"experiments": [{"experiment_id": "0", "creation_time": created + 1}]}}) as port:
        seen = f"--mlflow-port {port}: http.* is taken by the MLflow server of another store"
        refused(seen, home, "mlflow", port)


STRANGERS = {
    "prefect": ({SETTINGS: {"home": "/elsewhere/prefect"}}, "the Prefect server of another HOME .*/elsewhere/prefect"),
    "mlflow": ({EXPERIMENTS: {"experiments": [{"experiment_id": "0", "creation_time": 1}]}}, "the MLflow server of"),
    "empty mlflow": ({EXPERIMENTS: {"experiments": []}}, "the MLflow server of another store"),
    "other": ({}, r"another HTTP server \(Somebody/1.0, status 404\)"),
    "JSON for everything": ({SETTINGS: ["home"], EXPERIMENTS: "experiments"}, "another HTTP server"),
}


@pytest.mark.parametrize("name", ["prefect", "mlflow"])
@pytest.mark.parametrize("stranger", STRANGERS)
def test_other_servers_are_refused_by_name(name, stranger, home):
    pages, seen = STRANGERS[stranger]
    with answering(pages) as port:
        assert f"Choose another port with --{name}-port, or stop what is there" in refused(seen, home, name, port)
    assert not home.root.exists()


@pytest.mark.parametrize("host", HOSTS)
def test_what_never_answers_is_refused_soon(host, home, monkeypatch):
    monkeypatch.setattr(servers, "ASK_SECONDS", 0.1)
    with listening(reachable(host)) as port:
        refused("is taken by something that gives no HTTP answer", home, "prefect", port, host)


def test_our_own_server_at_the_port_of_the_other_is_refused(home):
    pages = {SETTINGS: {"home": str(prefect_home(home))}}
    with answering(pages) as port:
        refused("is taken by this HOME's Prefect server", home, "mlflow", port)


@pytest.mark.parametrize("host", ["203.0.113.7", "2001:db8::7"])
def test_an_address_of_another_machine_is_refused(host, home):
    refused("no server can listen there", home, "prefect", 4200, host)


def test_a_home_has_one_runner(home):
    again = pytest.raises(AoiError, match="another aoi serve runs the deployments of this HOME")
    with only_runner(home), again, only_runner(home):
        pass
    with only_runner(home):
        pass


def test_lists_of_processes_show_no_address_of_a_store(home, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://aoi:Wort@host/mlflow")
    mlflow = servers_of(home, store_of(home.root, ""), "127.0.0.1", 4200, 5000)[1]
    assert mlflow.environment == {
        "MLFLOW_BACKEND_STORE_URI": "postgresql://aoi:Wort@host/mlflow",
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": str(home.root / "mlartifacts"),
    }
    assert "Wort" not in " ".join(mlflow.command)


# --- As the command line tells it ---------------------------------------------------------------------------


@pytest.fixture
def serve(home, monkeypatch, capsys):
    """A function that gives exit code and stderr of `aoi serve`, which must not start anything."""
    monkeypatch.setattr("flows.serving.serve.start", lambda *_: pytest.fail("started"))

    def run(*words):
        return main(["serve", "--home", str(home.root), *words]), capsys.readouterr().err

    return run


def test_serve_refuses_a_strangers_port_before_it_starts_anything(serve):
    with listening() as free:
        pass
    with answering({}) as port:
        for words in (("--prefect-port", port, "--mlflow-port", free), ("--mlflow-port", port, "--prefect-port", free)):
            code, told = serve(*map(str, words))
            assert code == 2
            assert re.fullmatch(
                rf"aoi: {words[0]} {port}: .* is taken by another HTTP server .* or stop what is there\.\n", told
            )


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        (("--prefect-port", "0"), "--prefect-port: 0 is no port"),
        (("--mlflow-port", "65536"), "--mlflow-port: 65536 is no port"),
        (("--prefect-port", "4200", "--mlflow-port", "4200"), "--mlflow-port: 4200 is Prefect's port too"),
    ],
)
def test_serve_refuses_ports_that_are_none(words, seen, serve):
    code, told = serve(*words)
    assert code == 2
    assert seen in told


def test_a_server_that_keeps_the_store_already_is_not_started_again(home, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example.com")
    store = store_of(home.root, "")
    assert is_server(store)
    assert [server.name for server in servers_of(home, store, "127.0.0.1", 4200, 4200)] == ["prefect"]


def test_a_store_of_this_machine_that_does_not_answer_is_told(serve, monkeypatch):
    with listening() as free:
        pass
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free}")
    code, told = serve()
    assert code == 2
    assert "MLFLOW_TRACKING_URI: nothing answers at" in told
    assert "unset MLFLOW_TRACKING_URI" in told
