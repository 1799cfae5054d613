"""Databases that keep MLflow's and Prefect's records: where files go, what is said of them, what is refused how soon.

tests/scale/servers.py tries a real PostgreSQL.
"""

import socket
import threading
import time

import pytest

from flows.cli import main
from model.registry import databases
from model.registry.databases import check_database
from model.registry.store import (
    ROOT_VARIABLE,
    STORE_VARIABLE,
    artifact_location,
    hidden,
    nameless,
    store_of,
    without_password,
)
from tfrecords.errors import AoiError

ASYNC = "postgresql+asyncpg"  # Prefect's driver, which is always installed
PREFECT = "PREFECT_API_DATABASE_CONNECTION_URL"


# --- Where files go -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["postgresql://u:p@h/d", "postgresql+psycopg2://h/d", "mysql://h/d", "sqlite:////db"]
)
def test_files_of_a_database_go_to_home(address, tmp_path, monkeypatch):
    monkeypatch.setenv(STORE_VARIABLE, address)
    store = store_of(tmp_path, "neu")
    assert (store.uri, store.embedded) == (address, None)
    assert artifact_location(store) == (tmp_path / "mlartifacts" / "neu").as_uri()


@pytest.mark.parametrize(
    ("root", "location"), [("s3://bucket/mlflow/", "s3://bucket/mlflow/neu"), ("/mnt/files", "file:///mnt/files/neu")]
)
def test_files_of_a_database_go_to_the_root_that_is_named(root, location, tmp_path, monkeypatch):
    monkeypatch.setenv(STORE_VARIABLE, "postgresql://h/d")
    monkeypatch.setenv(ROOT_VARIABLE, root)
    assert artifact_location(store_of(tmp_path, "neu")) == location


def test_a_server_and_a_folder_decide_themselves(tmp_path, monkeypatch):
    for address in ("https://mlflow.site", "file:///records"):
        monkeypatch.setenv(STORE_VARIABLE, address)
        assert artifact_location(store_of(tmp_path, "neu")) is None


def test_without_a_name_it_is_the_file_of_home(tmp_path, monkeypatch):
    monkeypatch.setenv(ROOT_VARIABLE, "/mnt/files")
    store = store_of(tmp_path, "neu")
    assert (store.uri, store.embedded) == (f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "mlflow.db")
    assert artifact_location(store) == (tmp_path / "mlartifacts" / "neu").as_uri()


# --- What is said of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("postgresql://aoi:Wort@host/mlflow", "postgresql://aoi:***@host/mlflow"),
        ("postgresql://aoi:W@rt/x:y@host/mlflow", "postgresql://aoi:***@host/mlflow"),
        ("postgresql://aoi@host/mlflow", "postgresql://aoi@host/mlflow"),
        ("postgresql://host/mlflow?user=aoi&password=Wort&x=1", "postgresql://host/mlflow?user=aoi&password=***&x=1"),
        ("https://aoi:Wort@mlflow.site:5000", "https://aoi:***@mlflow.site:5000"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
    ],
)
def test_addresses_are_told_without_their_password(address, told):
    assert hidden(address) == told


def test_words_of_others_are_told_without_the_password_as_written_and_as_meant():
    address = "postgresql://aoi:W%40rt@host/mlflow"
    said = f"{address} failed for W@rt and W%40rt"
    assert without_password(said, address) == "postgresql://aoi:***@host/mlflow failed for *** and ***"


def test_browsers_get_no_name_and_no_password():
    assert nameless("https://aoi:Wort@mlflow.site/a@b") == "https://mlflow.site/a@b"


# --- What is refused, and how soon --------------------------------------------------------------------------


@pytest.fixture
def silent():
    """The port of a server that takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = []
        threading.Thread(target=lambda: taken.append(server.accept()), daemon=True).start()
        yield server.getsockname()[1]
        for connection, _ in taken:
            connection.close()


def refused(address, variable=PREFECT):
    with pytest.raises(AoiError) as told:
        check_database(variable, address)
    assert "Wort" not in str(told.value)
    return str(told.value)


def test_nobody_there(free_ports):
    told = refused(f"{ASYNC}://aoi:Wort@127.0.0.1:{free_ports(1)[0]}/prefect")
    assert f"{PREFECT}: {ASYNC}://aoi:***@127.0.0.1" in told
    assert "Check host, port, user, password" in told


def test_no_answer(silent, monkeypatch):
    monkeypatch.setattr(databases, "CONNECT_SECONDS", 0.2)
    began = time.monotonic()
    assert "can't be used (no answer within 0.2 s)" in refused(f"{ASYNC}://aoi:Wort@127.0.0.1:{silent}/prefect")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("address", ["postgresql+paint://aoi:Wort@host/d", "aoi:Wort@host"])
def test_no_address(address):
    assert "is no address of a database" in refused(address)


def test_no_driver(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "psycopg2", None)
    assert "pip install '.[postgresql]'" in refused("postgresql://aoi:Wort@127.0.0.1/mlflow", STORE_VARIABLE)


def test_a_database_that_can_be_used_is_not_spoken_of(tmp_path):
    check_database(STORE_VARIABLE, f"sqlite:///{tmp_path / 'db'}")


@pytest.mark.parametrize("variable", [PREFECT, "PREFECT_SERVER_DATABASE_CONNECTION_URL", STORE_VARIABLE])
def test_serve_tells_of_it_before_it_starts_anything(variable, free_ports, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("flows.serving.serve.start", lambda *_: pytest.fail("started"))
    driver = "postgresql" if variable == STORE_VARIABLE else ASYNC
    monkeypatch.setenv(variable, f"{driver}://aoi:Wort@127.0.0.1:{free_ports(1)[0]}/d")
    assert main(["serve", "--home", str(tmp_path / "home")]) in (1, 2)
    told = capsys.readouterr().err
    assert told.startswith(f"aoi: {variable}: ")
    assert "Wort" not in told
