"""`aoi api`: answers over HTTP that are predict's, within bounds, kept, by whoever is champion."""

import asyncio
import base64
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from contextlib import contextmanager
from hashlib import sha256
from types import SimpleNamespace

import cv2
import httpx
import numpy as np
import pandas as pd
import pytest
import schemathesis
import uvicorn
from lively import lively_home
from serving import BIN, DOWN_SECONDS, UP_SECONDS, wait_for
from tiny import picture, png

from flows.api.answers import Answers
from flows.api.app import _Front
from flows.api.decisions import SYNC_SECONDS, DecisionLog
from flows.api.metrics import Metrics
from flows.api.requests import Picture, Refusal
from flows.api.server import Connection, token_for
from flows.champion import Champion
from flows.cli import main
from flows.products import Champions, crown
from flows.stages.evaluate import evaluate
from flows.stages.predict import predict
from flows.stages.stage import Job
from model.decisions.novelty import NOVELTY_FILE
from model.inference.answers import Answering
from model.manifests import ModelManifest
from model.registry.store import CHAMPION
from model.settings import PredictSettings
from tfrecords.errors import AoiError

NO_PICTURE = b"no picture at all"


class Server:
    """An `aoi api` from its start to its end."""

    def __init__(self, home, log, *words, **variables):
        with log.open("wb") as output:
            command = [BIN / "aoi", "api", "--home", home.root, "--port", "0", *words]
            self.process = subprocess.Popen(command, env=os.environ | variables, stdout=output, stderr=output)
        self.log = log
        self.address = wait_for(r"at +(http://\S+)/v1/predict", UP_SECONDS, self.process, log)[1]
        self.client = httpx.Client(base_url=self.address, timeout=60, trust_env=False)

    def predict(self, data, **query):
        return self.client.post("/v1/predict", content=data, params=query)

    def predict_parts(self, *files):
        return self.client.post("/v1/predict", files=[("file", file) for file in files])

    def end(self, number=signal.SIGTERM):
        """Its exit code after a signal."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(DOWN_SECONDS)


@pytest.fixture(scope="module")
def models(made, copy_home, tmp_path_factory):
    """(HOME, champion, another model): the champion's answers differ from picture to picture."""
    return lively_home(made, copy_home(tmp_path_factory.mktemp("api") / "home"))


@pytest.fixture(scope="module")
def home(models):
    return models[0]


@pytest.fixture(scope="module")
def server(home, tmp_path_factory):
    words = ["--set", "api.max_body_mb=1", "--set", "api.max_pictures=4"]
    running = Server(home, tmp_path_factory.mktemp("server") / "log", *words)
    yield running
    running.end()


@pytest.fixture
def start(tmp_path):
    """A function that starts a server of a test's own."""
    running = []

    def started(home, *words, **variables):
        running.append(Server(home, tmp_path / f"log-{len(running)}", *words, **variables))
        return running[-1]

    yield started
    for each in running:
        each.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def lot(made, home):
    """(file name, bytes) of every picture of the lot, and the rows that predict wrote about them, by shifted copies."""
    data, tables = made[0], {}
    for copies in (0, 2):
        settings = made[2].model_copy(update={"predict": PredictSettings(shift_copies=copies)})
        folder = home.root / predict(Job(home, settings), data=str(data)).folder
        tables[copies] = pd.read_csv(folder / "predictions.csv")
    return [(name, (data / "test_images" / name).read_bytes()) for name in tables[0]["ID"]], tables


# --- Answers -----------------------------------------------------------------------------------------------


COLUMNS = ["label", "name", "plain", "rows", "columns", "decision"]


def assert_same(results, table):
    """Results say what the rows of predictions.csv say."""
    rows = pd.DataFrame([{**each, **each["probabilities"]} for each in results])[COLUMNS]
    pd.testing.assert_frame_equal(rows, table[COLUMNS], check_exact=False, rtol=0, atol=1e-6)
    assert {(each["novelty"], each["error"]) for each in results} == {(None, None)}


def test_answers_are_those_of_predictions_csv(server, lot):
    files, tables = lot
    results = [server.predict(data).json()["results"][0] for _, data in files]
    assert_same(results, tables[0])
    assert {each["id"] for each in results} == {None}
    assert tables[0]["label"].nunique() == 3  # else equal answers would prove nothing


def test_several_pictures_are_answered_in_their_order(server, lot):
    files, tables = lot
    parts = [files[at : at + 4] for at in range(0, len(files), 4)]
    results = [result for some in parts for result in server.predict_parts(*some).json()["results"]]
    assert_same(results, tables[0])
    assert [each["id"] for each in results] == [name for name, _ in files]


def test_shifted_copies_are_asked_as_predict_asks_them(home, lot):
    files, tables = lot
    answering = Champion(home, None, None, PredictSettings(shift_copies=2)).now.answering
    ours = np.array([answering.answer(data).probabilities for _, data in files])
    np.testing.assert_allclose(ours, tables[2][COLUMNS[2:5]], rtol=0, atol=1e-6)
    assert not np.allclose(ours, tables[0][COLUMNS[2:5]], rtol=0, atol=1e-6)


def test_every_answer_names_the_model(server, models):
    home, champion, _ = models
    told = server.predict(png(picture(0, 1))).json()["model"]
    assert told == {"name": "aoi-tiny", "version": "1", "fingerprint": champion.fingerprint}
    model, evaluation = server.client.get("/v1/model").json(), home.evaluation_of(champion.fingerprint)
    assert model["model"] == told
    assert model["classes"] == ["plain", "rows", "columns"]
    assert model["preprocess"]["image_size_px"] == 32
    assert model["operating"] == json.loads((evaluation.path / "operating.json").read_text())
    assert model["promise"] == model["operating"].get("promise")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", model["trained"])


def test_a_model_without_an_evaluation_leaves_every_part_to_people(models):
    assert Answering(models[1].path, None).answer(png(picture(1, 1))).decision == "review"


def test_a_heat_map_shows_what_spoke_for_the_answer_over_what_the_network_saw(server):
    (result,) = server.predict(png(picture(1, 1)), explain="true").json()["results"]
    drawn = cv2.imdecode(np.frombuffer(base64.b64decode(result["heat_map"]), np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape == (32, 32, 3)
    assert "heat_map" not in server.predict(png(picture(1, 1))).json()["results"][0]


# --- What is no picture, or too much ----------------------------------------------------------------------------


def refused(answer, status, seen):
    assert answer.status_code == status
    error = answer.json()["error"]
    assert re.search(seen, error["seen"])
    assert error["remedy"]
    assert "row" not in error["remedy"]  # a request has none


@pytest.mark.parametrize("data", [b"", NO_PICTURE, png(picture(0, 1))[:-20]], ids=["empty", "text", "cut"])
def test_a_picture_that_can_not_be_read_is_422(server, data):
    refused(server.predict(data), 422, r"empty|not a|cut off")


def test_in_a_batch_it_is_told_in_its_result_alone(server):
    good = png(picture(0, 1))
    answer = server.predict_parts(("a.png", good), ("b.png", NO_PICTURE), ("c.png", good))
    a, b, c = answer.json()["results"]
    assert answer.status_code == 200
    assert a == {**c, "id": "a.png"}
    assert b.pop("error")["seen"].startswith("the file is not a")
    assert b == {**dict.fromkeys(b), "id": "b.png"}


def test_a_picture_of_too_many_megapixels_is_not_decoded(server):
    header = struct.pack(">II5B", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    refused(server.predict(data), 422, "more than 100 megapixels")


def test_a_body_that_is_too_large_is_413_whether_its_length_is_told_or_not(server):
    refused(server.predict(bytes(3 << 20)), 413, "more than 1 MiB")
    refused(server.predict(iter([bytes(1 << 20)] * 3)), 413, "more than 1 MiB")
    refused(server.predict_parts(("a.png", bytes(3 << 20))), 413, "more than 1 MiB")
    assert server.predict(png(picture(0, 1))).status_code == 200


def test_too_many_pictures_are_422(server):
    refused(server.predict_parts(*[("a.png", png(picture(0, 1)))] * 5), 422, "5 pictures")
    refused(server.predict_parts(*[("a.png", png(picture(0, 1)))] * 9), 422, "more than 4 pictures")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=a", b"x"),
        ("multipart/form-data; boundary=a", b"--a--\r\n"),
        (
            "multipart/form-data; boundary=a",
            b'--a\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--a--\r\n',
        ),
    ],
)
def test_a_form_without_a_picture_is_422(server, kind, body):
    refused(server.client.post("/v1/predict", content=body, headers={"Content-Type": kind}), 422, "form|boundary")


@pytest.mark.parametrize(
    ("disposition", "seen"),
    [('name="file2"; filename="b.png"', "'file2' .* is not named file"), ('name="file"', "has no file name")],
)
def test_a_part_that_would_get_no_answer_is_422(server, disposition, seen):
    """Whoever pairs results with pictures by their places would be wrong from there on."""
    parts = [b'Content-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + png(picture(0, 1))]
    parts.append(f"Content-Disposition: form-data; {disposition}\r\n\r\n".encode() + png(picture(0, 2)))
    body = b"".join(b"--a\r\n" + part + b"\r\n" for part in parts) + b"--a--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=a"}
    refused(server.client.post("/v1/predict", content=body, headers=kind), 422, seen)


@pytest.mark.parametrize("charset", ["utf-7", "unicode_escape", "no-such"])
def test_a_form_in_another_charset_is_422(server, charset):
    body = b'--a\r\nContent-Disposition: form-data; name="file"; filename="+2AA-\\ud800"\r\n\r\nx\r\n--a--\r\n'
    kind = {"Content-Type": f"multipart/form-data; charset={charset}; boundary=a"}
    refused(server.client.post("/v1/predict", content=body, headers=kind), 422, "charset")


def test_what_there_is_not_is_told_alike(server):
    refused(server.client.get("/nothing"), 404, "GET /nothing")
    refused(server.client.get("/v1/predict"), 405, "GET /v1/predict")
    refused(server.predict(png(picture(0, 1)), explain="perhaps"), 422, "explain")


def test_a_websocket_is_refused(server):
    head = "GET /v1/predict HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    head += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    address = httpx.URL(server.address)
    with socket.create_connection((address.host, address.port), 10) as connection:
        connection.sendall(head.encode())
        assert b" 403 " in connection.recv(1000).partition(b"\r\n")[0]


def test_a_fault_is_500_and_goes_to_the_log():
    metrics = Metrics()

    async def broken(request, explain):
        raise ZeroDivisionError("a fault")

    async def ask():
        front = httpx.ASGITransport(_Front(None, None, broken, metrics), raise_app_exceptions=raising)
        async with httpx.AsyncClient(transport=front, base_url="http://here") as client:
            return await client.post("/v1/predict", content=b"a")

    raising = False
    refused(asyncio.run(ask()), 500, "a fault of the server")
    raising = True
    with pytest.raises(ZeroDivisionError):  # which uvicorn writes into its log
        asyncio.run(ask())
    assert metrics.requests.labels("/v1/predict", 500)._value.get() == 2


def test_a_full_queue_is_503_with_the_time_to_wait():
    started, go = threading.Event(), threading.Event()

    def slow(data, turn, explain):
        started.set()
        go.wait(60)
        raise Refusal(500, "done", "")

    served = SimpleNamespace(answering=SimpleNamespace(answer=slow))
    answers = Answers(2, Metrics(), None)

    async def ask():
        first = asyncio.create_task(answers.results(served, [Picture(None, b"")] * 3, False))  # alone it may be large
        assert await asyncio.to_thread(started.wait, 60)
        with pytest.raises(Refusal, match="3 pictures wait") as told:
            await answers.results(served, [Picture(None, b"")], False)
        go.set()
        with pytest.raises(Refusal, match="done"):
            await first
        return told.value

    told = asyncio.run(ask())
    answers.close()
    assert (told.status, int(told.headers["Retry-After"]) >= 1) == (503, True)


@pytest.mark.parametrize("sent", [b"", b"GET / HTT", b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTT"])
def test_who_sends_no_request_is_hung_up_on(sent, monkeypatch):
    with _listening(monkeypatch) as client:
        client.sendall(sent)
        received = b"".join(iter(lambda: client.recv(1000), b""))  # to the end that the server makes
    assert received.count(b"HTTP/1.1 200") == sent.count(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"GET /", b"a" * 100),
        (b"GET / HTTP/1.1\r\nHost: ", b"a" * 100),
        (b"GET / HTTP/1.1\r\n", b"a: b\r\n" * 20),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"a" * 100),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n" * 20),
    ],
    ids=["path", "header", "headers", "chunk", "trailers"],
)
def test_an_endless_head_is_refused(begin, more, monkeypatch):
    with _listening(monkeypatch, seconds=1.0, patience=600) as client:
        client.sendall(begin)
        with pytest.raises(OSError):  # long before all of it
            for _ in range(100_000):
                client.sendall(more)


def test_a_large_body_is_no_head(monkeypatch):
    with _listening(monkeypatch, seconds=0.1) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000_000))
        assert client.recv(1000).startswith(b"HTTP/1.1 200")


def test_who_has_asked_may_wait_longer_for_the_answer(monkeypatch):
    with _listening(monkeypatch, seconds=0.5) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")


@contextmanager
def _listening(monkeypatch, seconds=0.0, patience=0.1):
    """A client of a server that takes so many seconds for its answer, and waits as long as `patience` for a request."""
    monkeypatch.setattr("flows.api.server.HEAD_SECONDS", patience)

    async def app(scope, receive, send):
        await asyncio.sleep(seconds)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    config = uvicorn.Config(app, http=Connection, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            with socket.create_connection(listening.getsockname(), timeout=30) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


# --- What is kept ---------------------------------------------------------------------------------------------


def kept(home):
    """Every line of the logs, as the documentation reads them."""
    files = sorted((home.root / "api").glob("decisions*.jsonl"))
    return pd.concat([pd.read_json(file, lines=True, dtype=False) for file in files])


def test_every_answer_is_kept_with_the_picture_the_model_and_the_time(server, home):
    name = "kept ß.png"
    data = png(picture(2, 7))
    answer = server.predict_parts((name, data), ("bad.png", NO_PICTURE)).json()
    rows = kept(home)
    good, bad = (rows[rows["id"] == each].iloc[-1] for each in (name, "bad.png"))
    assert good["sha256"] == sha256(data).hexdigest()
    who = {"name": good["model"], "version": good["version"], "fingerprint": good["fingerprint"]}
    assert who == answer["model"]
    for key in ("label", "name", "decision"):
        assert good[key] == answer["results"][0][key]
    assert good["probabilities"] == pytest.approx(answer["results"][0]["probabilities"])
    assert bad["error"] == answer["results"][1]["error"]
    assert pd.Timestamp.now("UTC") - pd.to_datetime(good["time"], utc=True) < pd.Timedelta("1h")


def test_an_answer_that_was_given_survives_a_kill_and_half_a_line_goes(start, copy_home, tmp_path):
    own = copy_home(tmp_path / "home")
    server = start(own)
    given = []

    def ask(worker):
        with httpx.Client(base_url=server.address, timeout=60, trust_env=False) as client:
            for number in range(1000):
                file = (f"{worker}-{number}.png", png(picture(0, number)))
                try:
                    client.post("/v1/predict", files={"file": file}).raise_for_status()
                except httpx.TransportError:
                    return
                given.append(file[0])

    threads = [threading.Thread(target=ask, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    while len(given) < 40:
        time.sleep(0.01)
    server.process.kill()
    for thread in threads:
        thread.join()
    (file,) = (own.root / "api").glob("decisions*.jsonl")
    with file.open("ab") as torn:
        torn.write(b'{"time": "2026')
    start(own).predict(NO_PICTURE)
    assert set(given) <= set(kept(own)["id"])
    assert kept(own)["id"].isna().sum() == 1


def test_nothing_is_kept_where_that_is_set(start, copy_home, tmp_path):
    own = copy_home(tmp_path / "home")
    assert start(own, "--set", "api.log_decisions=false").predict(png(picture(0, 1))).status_code == 200
    assert not (own.root / "api").exists()


def test_a_log_begins_another_file_at_its_size_and_goes_on_with_the_last(tmp_path):
    log = DecisionLog(tmp_path, 100)
    for number in range(5):
        log.append([json.dumps({"number": number, "text": "x" * 20})])
    log.close()
    log = DecisionLog(tmp_path, 100)
    log.append([json.dumps({"number": 5, "text": "x" * 150})])
    log.close()
    files = sorted(path.name for path in tmp_path.glob("*.jsonl"))
    assert files == [f"decisions-{number:06d}.jsonl" for number in range(1, len(files) + 1)]
    numbers = [json.loads(line)["number"] for file in files for line in (tmp_path / file).read_text().splitlines()]
    assert numbers == list(range(6))
    assert [(tmp_path / file).stat().st_size <= 100 for file in files[:-1]] == [True] * (len(files) - 1)


@pytest.mark.parametrize("taken", ["file", "folder"])
def test_what_is_answered_after_people_took_the_log_away_is_kept_too(tmp_path, taken):
    folder = tmp_path / "api"
    log = DecisionLog(folder, 1 << 20)
    log.append(["before"])
    if taken == "file":
        (folder / "decisions-000001.jsonl").unlink()
    else:
        folder.rename(tmp_path / "elsewhere")
    log.append(["after"])
    log.close()
    assert "".join(path.read_text() for path in folder.glob("*.jsonl")) == "after\n"


def test_a_log_that_can_not_begin_another_file_keeps_the_one_it_has(tmp_path, monkeypatch, capfd):
    log = DecisionLog(tmp_path, 10)
    log.append(["first"])
    opened = os.open

    def full(path, *given):
        if "000002" in str(path):
            raise OSError(28, "No space left on device")
        return opened(path, *given)

    monkeypatch.setattr("flows.api.decisions.os.open", full)
    with pytest.raises(OSError, match="No space left"):
        log.append(["second"])
    time.sleep(2 * SYNC_SECONDS)  # the thread that brings lines to the disk lives
    monkeypatch.undo()
    log.append(["third"])
    assert log._syncing.is_alive()
    log.close()
    texts = [path.read_text() for path in sorted(tmp_path.glob("*.jsonl"))]
    assert texts == ["first\n", "third\n"]
    assert "Traceback" not in capfd.readouterr().err


def test_two_servers_of_one_home_keep_their_answers_in_files_of_their_own(tmp_path):
    logs = [DecisionLog(tmp_path, 1 << 20) for _ in range(2)]
    for number, log in enumerate(logs):
        log.append([str(number)])
        log.close()
    files = sorted(tmp_path.glob("*.jsonl"))
    assert [path.read_text() for path in files] == ["0\n", "1\n"]
    for path in files:
        path.write_text("whole\nhal")
    DecisionLog(tmp_path, 1 << 20).close()
    assert [path.read_text() for path in files] == ["whole\n", "whole\n"]


def test_a_line_that_can_not_be_written_leaves_none_of_itself_and_the_answer_is_refused(tmp_path, monkeypatch):
    log = DecisionLog(tmp_path, 1 << 20)
    log.append(["whole"])
    write, calls = os.write, []

    def full(file, data):
        if calls:
            raise OSError(28, "No space left on device")
        calls.append(data)
        return write(file, data[:3])

    monkeypatch.setattr("flows.api.decisions.os.write", full)
    served = SimpleNamespace(who={"name": "m", "version": None, "fingerprint": "f"})
    answers = Answers(1, Metrics(), log)
    with pytest.raises(Refusal, match="No space left") as told:
        answers._keep(log, served, ["0" * 64], [{"id": None}])
    assert told.value.status == 503
    monkeypatch.undo()
    log.append(["next"])
    log.close()
    answers.close()
    assert (tmp_path / "decisions-000001.jsonl").read_text() == "whole\nnext\n"


# --- The champion ----------------------------------------------------------------------------------------------


def test_another_champion_answers_without_a_failed_or_mixed_request(models, copy_home, tmp_path, start):
    own = copy_home(tmp_path / "home", models[0])
    models = [own.named(ModelManifest, model.path.name) for model in models[1:]]
    data = png(picture(1, 3))
    expected = {
        model.fingerprint: Champion(own, None, model.path.name, PredictSettings())
        .now.answering.answer(data)
        .probabilities
        for model in models
    }
    server, pinned = start(own), start(own, "--model", models[0].path.name)
    ended, answers = threading.Event(), []

    def ask():
        with httpx.Client(base_url=server.address, timeout=60, trust_env=False) as client:
            while not ended.is_set():
                answers.append(client.post("/v1/predict", files=[("file", ("a.png", data))] * 3))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for model in (*reversed(models), models[1]):
        Champions(own, "tiny").note(CHAMPION, model)
        while server.predict(data).json()["model"]["fingerprint"] != model.fingerprint:
            time.sleep(0.02)
    ended.set()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["model"]["fingerprint"] for answer in answers} == set(expected)
    for told in (answer.json() for answer in answers):
        for result in told["results"]:
            probabilities = list(result["probabilities"].values())
            np.testing.assert_allclose(probabilities, expected[told["model"]["fingerprint"]], rtol=0, atol=1e-6)
    assert pinned.predict(data).json()["model"]["fingerprint"] == models[0].fingerprint


def test_a_champion_that_is_damaged_leaves_the_answers_to_the_one_before(models, copy_home, tmp_path, capsys):
    own = copy_home(tmp_path / "home", models[0])
    models = [own.named(ModelManifest, model.path.name) for model in models[1:]]
    champion = Champion(own, None, None, PredictSettings())
    shutil.rmtree(own.root / "models" / models[1].path.name)
    own.remember(
        f"{CHAMPION}-tiny", {**json.loads(json.dumps(vars(own.ref(models[1], True)))), "folder": "models/gone"}
    )
    champion.look()
    champion.look()
    assert champion.now.model.fingerprint == models[0].fingerprint
    assert capsys.readouterr().err.count("goes on answering") == 1


@pytest.mark.parametrize("damage", ["note", "novelty"])
def test_of_whatever_damage_the_look_for_a_champion_goes_on(models, copy_home, tmp_path, capsys, damage):
    own = copy_home(tmp_path / "home", models[0])
    before, other = (own.named(ModelManifest, model.path.name) for model in models[1:])
    champion = Champion(own, None, None, PredictSettings())
    note = own.root / "latest" / f"{CHAMPION}-tiny.json"
    novelty = other.path / f"model{NOVELTY_FILE}"
    whole = novelty.read_bytes()
    if damage == "note":
        note.write_text('{"kind": "model"}')
    else:
        novelty.write_bytes(bytes(len(whole)))
        crown(Champions(own, "tiny"), other, CHAMPION)
    champion.look()
    assert champion.now.model.fingerprint == before.fingerprint
    assert "goes on answering" in capsys.readouterr().err
    novelty.write_bytes(whole)
    note.unlink()
    crown(Champions(own, "tiny"), other, CHAMPION)
    champion.look()
    assert champion.now.model.fingerprint == other.fingerprint


def test_thresholds_of_another_evaluation_are_followed(home, copy_home, tmp_path, made):
    own = copy_home(tmp_path / "home", home)
    champion = Champion(own, None, None, PredictSettings())
    before = champion.now
    strict = made[2].model_copy(update={"evaluate": made[2].evaluate.model_copy(update={"max_escape_rate": 0.5})})
    evaluate(Job(own, strict), before.model.path.name)
    champion.look()
    assert champion.now.model.fingerprint == before.model.fingerprint
    assert champion.now.describe()["operating"]["max_escape_rate"] == 0.5
    assert before.describe()["operating"]["max_escape_rate"] != 0.5


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        (["--model", "nobody"], "'nobody' in their name"),
        (["--product", "nobody"], "'nobody' is no product"),
        (["--set", "predict.runtime=keras"], "without Keras"),
        (["--set", "predict.runtime=litert-int8"], "in 8 bits"),
        (["--host", "0.0.0.0"], "there is no token"),
        (["--host", "192.0.2.1", "--port", "1"], "no token|no server can listen"),
        (["--port", "99999"], "is no port"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_can_not_answer_is_refused_before_anything_is_served(home, words, seen, capsys):
    assert main(["api", "--home", str(home.root), *words]) == 2
    assert re.search(seen, capsys.readouterr().err)


def test_a_port_that_is_taken_is_refused(server, home, capsys):
    port = server.address.rpartition(":")[2]
    assert main(["api", "--home", str(home.root), "--port", port]) == 2
    assert "no server can listen there" in capsys.readouterr().err


def test_a_home_without_a_model_is_refused(tmp_path, capsys):
    assert main(["api", "--home", str(tmp_path), "--port", "0"]) == 2
    assert "no finished model yet" in capsys.readouterr().err


# --- Who may ask -----------------------------------------------------------------------------------------------


def test_other_machines_need_the_token(start, home):
    token = "a long and random text"
    server = start(home, "--host", "0.0.0.0", AOI_TOKEN=token)
    data = png(picture(0, 1))
    assert "TLS" in server.log.read_text()
    assert {server.client.get(path).status_code for path in ("/healthz", "/readyz", "/docs")} == {200}
    for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": f"Basic {token}"}):
        for answer in (
            server.client.post("/v1/predict", content=data, headers=headers),
            server.client.get("/v1/model", headers=headers),
            server.client.get("/metrics", headers=headers),
        ):
            refused(answer, 401, "no token")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    allowed = server.client.post("/v1/predict", content=data, headers={"Authorization": f"Bearer {token}"})
    assert allowed.status_code == 200


def test_a_token_may_lie_in_a_file(tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_text("sixteen letters or more\n")
    monkeypatch.setenv("AOI_TOKEN_FILE", str(file))
    assert token_for("0.0.0.0") == token_for("127.0.0.1") == "sixteen letters or more"
    file.write_text("\ufeffsixteen letters or more \n", encoding="utf-8")  # as Notepad writes it
    assert token_for("127.0.0.1") == "sixteen letters or more"
    file.write_text("\n")
    with pytest.raises(AoiError, match="is empty"):  # a secret that is not there yet opens nothing
        token_for("127.0.0.1")
    file.write_text("short")
    with pytest.raises(AoiError, match="under 16 characters"):
        token_for("127.0.0.1")
    file.unlink()
    with pytest.raises(AoiError, match="can't be read"):
        token_for("127.0.0.1")


def test_a_token_is_what_a_client_can_send(monkeypatch):
    monkeypatch.setenv("AOI_TOKEN", "sixteen letters or more\n")  # as mounted secrets end
    assert token_for("127.0.0.1") == "sixteen letters or more"
    monkeypatch.setenv("AOI_TOKEN", "密碼" * 10)
    with pytest.raises(AoiError, match="ASCII"):
        token_for("127.0.0.1")


# --- The process -----------------------------------------------------------------------------------------------


def test_requests_that_have_begun_get_their_answers_after_sigterm(start, home):
    server = start(home)
    data = png(picture(0, 1))
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as slow:
        head = f"POST /v1/predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(data)}\r\n\r\n"
        slow.sendall(head.encode() + data[:10])
        while "/v1/predict" not in server.client.get("/openapi.json").text:  # it has been read until here
            time.sleep(0.02)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert server.process.poll() is None
        slow.sendall(data[10:])
        answer = b"".join(iter(lambda: slow.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["results"][0]["name"] in ("plain", "rows", "columns")
    assert server.process.wait(DOWN_SECONDS) == 0
    assert server.log.read_text().endswith("stopped\n")


def test_neither_tensorflow_nor_anything_slow_is_imported():
    slow = ["tensorflow", "keras", "pandas", "scipy", "sklearn", "matplotlib", "mlflow", "prefect", "apache_beam"]
    program = f"import sys, flows.api.server, model.inference.runtime; print([m for m in {slow} if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


def test_prometheus_is_told_of_requests_decisions_drift_and_the_model(server, models):
    before = server.client.get("/metrics").text
    server.predict(png(picture(0, 1)))
    server.predict(NO_PICTURE)
    after = server.client.get("/metrics").text

    def value(text, name):
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.M)
        return float(found[1]) if found else 0

    for name in ('aoi_requests_total{path="/v1/predict",status="422"}', "aoi_unreadable_total"):
        assert value(after, name) == value(before, name) + 1
    decided = [f'aoi_decisions_total{{decision="{each}"}}' for each in ("accept", "reject", "review")]
    assert sum(value(after, name) - value(before, name) for name in decided) == 1
    assert value(after, 'aoi_request_seconds_bucket{le="+Inf",path="/v1/predict"}') > 0
    for feature in ("brightness", "contrast", "confidence", "predicted class"):
        assert value(after, f'aoi_drift_limit{{feature="{feature}"}}') > 0
    assert f'fingerprint="{models[1].fingerprint}"' in after
    assert "aoi_novelty_bucket" in after


def test_it_says_that_it_lives_and_is_ready(server):
    assert [server.client.get(path).text for path in ("/healthz", "/readyz")] == ["ok", "ok"]
    assert [server.client.head(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
    page = server.client.get("/docs").text
    parts = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert any("swagger" in part for part in parts)
    assert {server.client.get(part).status_code for part in parts} == {200}  # from here: lines have no internet
    assert not [part for part in parts if "://" in part]


# Hypothesis takes it for the strategy's where another thread of this process, of a library, draws a number meanwhile.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
def test_whatever_is_sent_is_answered_as_the_documentation_says(server):
    from hypothesis import HealthCheck, given, settings
    from schemathesis.checks import load_all_checks
    from schemathesis.specs.openapi import checks

    load_all_checks()
    # Bytes that fit the documentation are no picture yet, and any media type but a form's may hold one.
    left_out = [checks.positive_data_acceptance, checks.negative_data_rejection, checks.unsupported_method]
    schema = schemathesis.openapi.from_url(f"{server.address}/openapi.json")
    for operation in (found.ok() for found in schema.get_all_operations()):

        @settings(max_examples=15, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def sent(case):
            case.call_and_validate(excluded_checks=left_out)

        sent()
