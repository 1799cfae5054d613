"""Pictures in an object store: the same dataset as from a folder, by one client; faults of the store are no rejects.

The store is moto's server on this machine, and in front of it a server that delays and refuses.
"""

import logging
import shutil
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tiny import write_data

from pipeline import store
from pipeline.inputs.inputs import read_inputs
from pipeline.job.ingest import ingest
from pipeline.settings import IngestSettings
from tfrecords.errors import MISSED, AoiError
from tfrecords.settings import PreprocessSettings

boto3 = pytest.importorskip("boto3", reason="pip install 'aoi[s3]'")
logging.getLogger("werkzeug").setLevel(logging.ERROR)
moto = pytest.importorskip("moto.server", reason="pip install 'moto[s3]'")

SMALL = PreprocessSettings(image_size_px=32)
THREE = IngestSettings(shards=3)


@pytest.fixture(scope="module")
def address():
    started = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    yield f"http://{host}:{port}"
    started.stop()


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """Credentials as the store's own tools take them; no options left in this process."""
    for name, value in {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "geheim", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setattr(store, "PAUSE_SECONDS", 0.01)
    yield
    store.use(())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A set of pictures; for reading only."""
    return write_data(tmp_path_factory.mktemp("store") / "data", train=30, test=0)


@pytest.fixture(scope="module")
def bucket(address, data):
    """s3://..., with the files of `data`."""
    upload(address, data, *(path for path in data.rglob("*") if path.is_file()))
    return "s3://lot/data"


def upload(address, data, *paths):
    given = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=address, **given)
    client.create_bucket(Bucket="lot")
    for path in paths:
        client.upload_file(str(path), "lot", f"{data.name}/{path.relative_to(data)}")


@pytest.fixture(scope="module")
def here(data, tmp_path_factory):
    """The dataset that the folder gives."""
    return made(data, tmp_path_factory.mktemp("here"))


def made(data, root, beam=""):
    """{file: bytes} of the training set of a folder or bucket."""
    store.use(beam.split())
    inputs = read_inputs(str(data), "train", 5)
    dataset, _ = ingest(inputs, root, "tiny", THREE, SMALL, beam=beam)
    return {path.name: path.read_bytes() for path in dataset.path.iterdir()}


# --- Read as from a folder ----------------------------------------------------------------------------------


def test_a_bucket_gives_the_dataset_that_a_folder_gives(bucket, address, here, tmp_path):
    assert made(bucket, tmp_path / "there", f"--s3_endpoint_url={address}") == here


def test_so_does_a_zip_in_a_bucket(address, data, here, tmp_path):
    zipped = tmp_path / "zipped"
    zipped.mkdir()
    shutil.make_archive(str(zipped / "train_images"), "zip", data / "train_images")
    for name in ("train.csv", "classes.txt"):
        shutil.copy(data / name, zipped)
    upload(address, zipped, *zipped.iterdir())
    assert made("s3://lot/zipped", tmp_path / "there", f"--s3_endpoint_url={address}") == here


def test_the_environment_alone_can_name_the_store(bucket, address, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    assert made(bucket, tmp_path / "there")["manifest.json"]


def test_worker_processes_know_the_options_too(bucket, address, here, tmp_path):
    beam = f"--direct_running_mode=multi_processing --direct_num_workers=2 --s3_endpoint_url={address}"
    assert made(bucket, tmp_path / "there", beam) == here


def test_the_whole_chain_looks_ahead_with_the_same_options(bucket, address, tmp_path):
    from flows.home import Home
    from flows.stages.chain import chain
    from flows.stages.stage import Job

    ahead = []
    with pytest.raises(AoiError) as refused:  # the set has no pictures to predict, which shows in the bucket alone
        chain(ahead.append, Job(Home(tmp_path)), bucket, f"--s3_endpoint_url={address}")
    assert {problem.file.partition("/data/")[0] for problem in refused.value.problems} == {"s3://lot"}
    assert "the store" not in str(refused.value)
    assert ahead == []


def test_what_is_not_there_is_told_as_for_a_folder(bucket, address):
    store.use([f"--s3_endpoint_url={address}"])
    assert store.exists(bucket)
    assert store.exists(f"{bucket}/train.csv")
    assert not store.exists(f"{bucket}/train.cs")
    with pytest.raises(FileNotFoundError, match=r"s3://lot/data/none\.png"):
        store.read(f"{bucket}/none.png")
    with pytest.raises(AoiError, match="no such folder"):
        read_inputs("s3://nowhere/data", "train", 5)


# --- Between us and the store -------------------------------------------------------------------------------


@pytest.fixture
def between(address):
    """A server in front of the store, which answers as `told` says: (address, told, requests by client port)."""
    import urllib.error
    import urllib.request

    told = {"delay": 0.0, "refuse": lambda path: None, "now": 0, "most": 0}
    seen, ports, lock = Counter(), set(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            ports.add(self.client_address[1])
            with lock:
                seen[self.path.partition("?")[0]] += 1
                told["now"] += 1
                told["most"] = max(told["most"], told["now"])
            time.sleep(told["delay"])
            with lock:
                told["now"] -= 1
            status, body, kind = told["refuse"](self.path) or self.asked()
            cut = status == -1
            self.send_response(200 if cut else status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body) + (10 if cut else 0)))
            self.end_headers()
            self.wfile.write(body)
            if cut:
                self.close_connection = True

        do_GET = do_HEAD = answer

        def asked(self):
            request = urllib.request.Request(address + self.path, method=self.command)
            for name, value in self.headers.items():
                if name.lower() in ("authorization", "x-amz-date", "x-amz-content-sha256", "range"):
                    request.add_header(name, value)
            try:
                with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as given:
                    return given.status, given.read(), given.headers.get("Content-Type", "")
            except urllib.error.HTTPError as error:
                return error.code, error.read(), "application/xml"

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", told, seen, ports
    server.shutdown()
    server.server_close()


def failing(status, times, name="train_002.png"):
    """A refusal of one picture, so many times."""
    left = iter(range(times))

    def refuse(path):
        if name in path and next(left, None) is not None:
            return (-1, b"cut", "image/png") if status == "cut" else (status, b"", "application/xml")

    return refuse


@pytest.mark.parametrize("status", [503, 500, "cut"])
def test_a_fault_that_passes_changes_nothing(bucket, between, here, tmp_path, status):
    front, told, _, _ = between
    told["refuse"] = failing(status, 2)
    assert made(bucket, tmp_path / "there", f"--s3_endpoint_url={front}") == here


@pytest.mark.parametrize("status", [503, 403])
def test_a_fault_that_stays_is_told_and_makes_no_reject(bucket, between, tmp_path, status):
    front, told, _, _ = between
    told["refuse"] = failing(status, 10_000)
    with pytest.raises(AoiError, match=r"train_002\.png: the store can't be read") as stopped:
        made(bucket, tmp_path / "there", f"--s3_endpoint_url={front}")
    assert stopped.value.exit_code == MISSED
    assert "credentials in the environment" in stopped.value.problems[0].remedy
    assert "geheim" not in str(stopped.value)


def test_a_store_that_fails_while_shards_are_written_makes_no_reject_either(bucket, between, tmp_path):
    front, told, _, _ = between
    beam = f"--s3_endpoint_url={front}"
    store.use([beam])
    inputs = read_inputs(bucket, "train", 5)
    told["refuse"] = failing(403, 10_000)
    tolerant = IngestSettings(shards=3, max_rejects=30)
    with pytest.raises(AoiError, match="the store can't be read"):
        ingest(inputs, tmp_path / "there", "tiny", tolerant, SMALL, beam=beam)


def test_pictures_are_read_in_parallel_by_one_client_and_once_a_phase(bucket, between, tmp_path):
    front, told, seen, ports = between
    told["delay"] = 0.1
    made(bucket, tmp_path / "there", f"--s3_endpoint_url={front}")
    pictures = {path: count for path, count in seen.items() if path.endswith(".png")}
    assert len(pictures) == 30
    assert max(pictures.values()) <= 3  # hashed, converted, and one kept as it came
    assert told["most"] >= 4
    assert len(ports) < sum(seen.values())  # connections are used again
