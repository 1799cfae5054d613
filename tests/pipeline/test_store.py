"""Pictures in an object store: the same dataset as from a folder, by one client; faults of the store are no rejects.

The store is moto's server on this machine, and in front of it a server that delays and refuses.
"""

import logging
import os
import shutil
import threading
import time
import zipfile
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tiny import write_data

from flows.cli import main
from pipeline import store
from pipeline.inputs.files import opened
from pipeline.inputs.inputs import read_inputs
from pipeline.job.ingest import ingest
from pipeline.location import check_stored, fetch
from pipeline.settings import IngestSettings
from tfrecords.artifacts.artifact import read, verify
from tfrecords.dataset import DatasetManifest
from tfrecords.errors import MISSED, REFUSED, AoiError
from tfrecords.records.arrays import read_arrays
from tfrecords.settings import PreprocessSettings

boto3 = pytest.importorskip("boto3", reason="pip install '.[s3]'")
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
def here_dataset(data, tmp_path_factory):
    """The dataset that the folder gives; for reading only."""
    return dataset_of(data, tmp_path_factory.mktemp("here"))


@pytest.fixture(scope="module")
def here(here_dataset):
    """{file: bytes} of it."""
    return files_of(here_dataset)


def made(data, root, beam=""):
    """{file: bytes} of the training set of a folder or bucket."""
    return files_of(dataset_of(data, root, beam))


def dataset_of(data, root, beam="", location=None, force=False):
    """The training set of a folder or bucket; its shards at a location."""
    store.use(beam.split())
    inputs = read_inputs(str(data), "train", 5)
    settings = THREE.model_copy(update={"location": location and str(location)})
    return ingest(inputs, root, "tiny", settings, SMALL, beam=beam, force=force)[0]


def files_of(dataset):
    """{file: bytes} of its folder."""
    return {path.name: path.read_bytes() for path in dataset.path.iterdir()}


# --- Read as from a folder ----------------------------------------------------------------------------------


def test_a_bucket_gives_the_dataset_that_a_folder_gives(bucket, address, here, tmp_path):
    assert made(bucket, tmp_path / "there", f"--s3_endpoint_url={address}") == here


@pytest.fixture(scope="module")
def zipped(address, data, tmp_path_factory):
    """s3://lot/zipped, with the pictures of `data` in a zip, among others that make it large; and the zip's path."""
    folder = tmp_path_factory.mktemp("zips") / "zipped"
    folder.mkdir()
    path = folder / "train_images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for picture in sorted((data / "train_images").iterdir()):
            archive.write(picture, picture.name)
            archive.writestr(f"{picture.stem}.raw", os.urandom(50_000))
    for name in ("train.csv", "classes.txt"):
        shutil.copy(data / name, folder)
    upload(address, folder, *folder.iterdir())
    return "s3://lot/zipped", path


def test_so_does_a_zip_in_a_bucket(zipped, address, here, tmp_path):
    assert made(zipped[0], tmp_path / "there", f"--s3_endpoint_url={address}") == here


def test_the_environment_alone_can_name_the_store(bucket, address, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    assert made(bucket, tmp_path / "there")["manifest.json"]


def test_worker_processes_read_and_write_with_the_same_options(bucket, address, here_dataset, tmp_path):
    beam = f"--direct_running_mode=multi_processing --direct_num_workers=2 --s3_endpoint_url={address}"
    dataset = dataset_of(bucket, tmp_path / "there", beam, "s3://lot/others")
    check_stored(dataset)
    assert dataset.digest == here_dataset.digest


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

    told = {"delay": 0.0, "refuse": lambda path: None, "now": 0, "most": 0, "bytes": 0}
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
            status, body, headers = told["refuse"](self.path) or self.asked()
            told["bytes"] += len(body)
            cut = status == -1
            self.send_response(200 if cut else status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body) + (10 if cut else 0)))
            self.end_headers()
            self.wfile.write(body)
            if cut:
                self.close_connection = True

        do_GET = do_HEAD = do_PUT = answer

        def asked(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))) if self.command == "PUT" else None
            kind = {"Content-Type": "application/octet-stream"}  # or urllib says that it is a form
            request = urllib.request.Request(address + self.path, body, kind, method=self.command)
            for name, value in self.headers.items():
                if name.lower() not in ("host", "connection", "expect"):
                    request.add_header(name, value)
            try:
                with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as given:
                    kept = {"content-type", "content-range", "etag"}
                    return given.status, given.read(), {k: v for k, v in given.headers.items() if k.lower() in kept}
            except urllib.error.HTTPError as error:
                return error.code, error.read(), {"Content-Type": "application/xml"}

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
            return (-1, b"cut", {}) if status == "cut" else (status, b"", {})

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


@pytest.mark.parametrize(
    ("error", "remedy", "tries"),
    [
        (ValueError("Unable to get filesystem, ensure the required dependency is installed"), ".[gcs]", 1),
        (ValueError("Bad response: not multi-part"), "Check the store's address", store.TRIES),
    ],
    ids=["no package", "answer"],
)
def test_a_package_that_is_missing_is_not_blamed_for_an_answer_that_was_cut(monkeypatch, error, remedy, tries):
    asked = []

    def ask(path):
        asked.append(path)
        raise error

    monkeypatch.setattr(store, "_read_any", ask)
    with pytest.raises(AoiError) as refused:
        store.read("gs://lot/a.png")
    assert remedy in refused.value.problems[0].remedy
    assert len(asked) == tries


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


def test_of_a_zip_in_a_bucket_only_the_pictures_are_transferred(zipped, between, here, data, tmp_path):
    front, told, seen, _ = between
    assert made(zipped[0], tmp_path / "there", f"--s3_endpoint_url={front}") == here
    pictures = sum(path.stat().st_size for path in (data / "train_images").iterdir())
    opened = 8  # by the driver twice to look, and for its phases; by each of three shards
    assert 2 * pictures < told["bytes"] < 2.5 * pictures + opened * (store.TAIL + 1000)
    assert seen["/lot/zipped/train_images.zip"] < 2 * 30 + opened + 5
    assert told["bytes"] < zipped[1].stat().st_size


def test_a_zip_that_changes_while_it_is_read_is_told_and_makes_no_reject(zipped, address, data, tmp_path):
    store.use([f"--s3_endpoint_url={address}"])
    with opened("s3://lot/zipped/train_images.zip") as read_picture:
        assert read_picture("train_000.png") == (data / "train_images" / "train_000.png").read_bytes()
        changed = tmp_path / "zipped" / "train_images.zip"
        changed.parent.mkdir()
        with zipfile.ZipFile(changed, "w") as archive:
            archive.writestr("other.png", b"1")
        upload(address, changed.parent, changed)
        try:
            with pytest.raises(AoiError, match="the file changed while it was being read"):
                read_picture("train_001.png")
        finally:
            upload(address, zipped[1].parent, zipped[1])
    with opened("s3://lot/zipped/train_images.zip") as read_picture:
        assert read_picture("train_001.png") == (data / "train_images" / "train_001.png").read_bytes()


@pytest.mark.parametrize("content", [b"", b"no zip", b"no zip" * 100_000], ids=["empty", "short", "long"])
def test_what_is_no_zip_is_told_as_on_this_machine(address, content, tmp_path):
    bad = tmp_path / "bad" / "train_images.zip"
    bad.parent.mkdir()
    bad.write_bytes(content)
    upload(address, bad.parent, bad)
    store.use([f"--s3_endpoint_url={address}"])
    for place in ("s3://lot/bad", str(bad.parent)):
        with pytest.raises(zipfile.BadZipFile), opened(f"{place}/train_images.zip"):
            pass


def test_an_empty_zip_is_told_where_the_store_gives_no_part_of_it(zipped, between):
    front, told, _, _ = between
    told["refuse"] = lambda path: (
        416,
        b"<Error><Code>InvalidRange</Code></Error>",
        {"Content-Type": "application/xml"},
    )
    store.use([f"--s3_endpoint_url={front}"])
    with pytest.raises(zipfile.BadZipFile), opened(f"{zipped[0]}/train_images.zip"):
        pass


# --- Shards in a store ------------------------------------------------------------------------------------


def ids(dataset):
    """Of its records, in their order, as they are read."""
    return [name for batch in read_arrays(dataset) for name in batch["id"]]


def stored(address):
    """What lies below s3://lot/shards/."""
    return boto3.resource("s3", endpoint_url=address).Bucket("lot").objects.filter(Prefix="shards/")


@pytest.fixture
def in_store(data, bucket, address, tmp_path):
    """The dataset, with its shards in the bucket."""
    stored(address).delete()
    return dataset_of(data, tmp_path / "home" / "datasets", f"--s3_endpoint_url={address}", "s3://lot/shards")


def test_a_dataset_whose_shards_lie_in_a_store_is_the_same_dataset(in_store, here_dataset, address):
    assert in_store.digest == here_dataset.digest
    shards = {shard.file for shard in in_store.manifest.shards}
    here = files_of(here_dataset)
    assert files_of(in_store).keys() == here.keys() - shards
    folder = in_store.path.name
    assert in_store.manifest.location == f"s3://lot/shards/{folder}"
    expected = {f"shards/{folder}/{shard.stored_name}": here[shard.file] for shard in in_store.manifest.shards}
    assert {item.key: item.get()["Body"].read() for item in stored(address)} == expected


def test_shards_in_a_store_are_read_from_copies_that_are_as_they_were_committed(in_store, here_dataset):
    fetch(in_store)
    assert ids(in_store) == ids(here_dataset)
    damaged = in_store.place(in_store.manifest.shards[1])
    damaged.write_bytes(b"cut")
    assert read(in_store.path, DatasetManifest) == in_store  # a copy is nothing that HOME promises
    fetch(in_store)
    assert ids(in_store) == ids(here_dataset)


def test_a_fetch_that_was_interrupted_goes_on(in_store, between, here_dataset):
    front, told, seen, _ = between
    store.use([f"--s3_endpoint_url={front}"])
    last = in_store.manifest.shards[-1].stored_name
    told["refuse"] = failing(403, 10_000, last)
    with pytest.raises(AoiError, match=last):
        fetch(in_store)
    told["refuse"] = lambda path: None
    seen.clear()
    counted = []
    fetch(in_store, lambda *done: counted.append(done))
    assert [path.rpartition("/")[2] for path in seen] == [last]
    assert counted == [(0, 3, "fetched"), (1, 3, "fetched"), (2, 3, "fetched"), (3, 3, "fetched")]
    assert ids(in_store) == ids(here_dataset)


def test_training_fetches_them_before_it_begins(in_store, tmp_path, monkeypatch):
    from flows.home import Home
    from flows.stages import train
    from flows.stages.stage import Job

    def verify(dataset):
        assert ids(dataset)
        raise AoiError(())

    monkeypatch.setattr(train, "verify", verify)
    monkeypatch.setenv("AOI_WEIGHTS", "none")
    assert not list(in_store.path.glob("*.tfrecord"))
    with pytest.raises(AoiError):
        train.make_model(Job(Home(tmp_path / "home")), in_store)


def test_aoi_verify_reads_them_in_the_store(in_store, address, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    words = ["verify", "--home", str(tmp_path / "home")]
    assert main(words) == 0
    next(iter(stored(address))).delete()
    assert main(words) == REFUSED
    assert in_store.manifest.shards[0].stored_name in capsys.readouterr().err


def test_shards_that_changed_in_the_store_are_named(in_store, address):
    check_stored(in_store)
    changed, gone, _ = in_store.manifest.shards
    there = {item.key.rpartition("/")[2]: item for item in stored(address)}
    there[changed.stored_name].put(Body=b"other")
    there[gone.stored_name].delete()
    for read_all in (check_stored, fetch):
        with pytest.raises(AoiError) as refused:
            read_all(in_store)
        assert [problem.file.rpartition("/")[2] for problem in refused.value.problems] == [
            changed.stored_name,
            gone.stored_name,
        ]


def test_a_shard_that_could_not_be_put_there_is_made_by_the_next_try(data, bucket, between, here_dataset, tmp_path):
    front, told, seen, _ = between
    told["refuse"] = failing(403, 10_000, "train-00002-of-00003")
    with pytest.raises(AoiError, match="the store can't be written") as stopped:
        dataset_of(data, tmp_path / "there", f"--s3_endpoint_url={front}", "s3://lot/shards")
    assert stopped.value.exit_code == MISSED
    assert "geheim" not in str(stopped.value)
    assert not list((tmp_path / "there").glob("[!.]*"))
    first = {path for path in seen if "train-00000-of" in path}
    told["refuse"] = lambda path: None
    seen.clear()
    dataset = dataset_of(data, tmp_path / "there", f"--s3_endpoint_url={front}", "s3://lot/shards")
    assert dataset.digest == here_dataset.digest
    assert not first & set(seen)  # it was there


def test_a_shard_that_was_removed_since_the_first_try_is_made_again(data, bucket, between, address, tmp_path):
    front, told, _, _ = between
    told["refuse"] = failing(403, 10_000, "train-00002-of-00003")
    with pytest.raises(AoiError):
        dataset_of(data, tmp_path / "there", f"--s3_endpoint_url={front}", "s3://lot/shards")
    stored(address).delete()
    told["refuse"] = lambda path: None
    check_stored(dataset_of(data, tmp_path / "there", f"--s3_endpoint_url={front}", "s3://lot/shards"))


def test_no_bucket_no_dataset(data, address, tmp_path):
    with pytest.raises(AoiError, match=r"nowhere/.*there is no such bucket.*ingest\.location"):
        dataset_of(data, tmp_path, f"--s3_endpoint_url={address}", "s3://nowhere/shards")


def test_other_stores_are_written_and_read_through_beam(tmp_path):
    """As Beam has it, a folder of this machine is a store too."""
    place = f"{tmp_path}/below/shard"
    with open(__file__, "rb") as file:
        store._write_any(place, file)
    assert store._read_any(place) == Path(__file__).read_bytes()
    assert list(store._below_any(f"{tmp_path}/")) == [(place, os.path.getsize(__file__))]


# --- Shards in another folder of this machine ---------------------------------------------------------------


def test_shards_in_another_folder_are_read_from_there(data, here_dataset, tmp_path):
    dataset = dataset_of(data, tmp_path / "home", location=tmp_path / "large disk")
    assert dataset.digest == here_dataset.digest
    assert ids(dataset) == ids(here_dataset)
    folder = tmp_path / "large disk" / dataset.path.name
    assert sorted(path.name for path in folder.iterdir()) == [each.stored_name for each in dataset.manifest.shards]
    fetch(dataset)
    verify(dataset)
    assert not list(dataset.path.glob("*.tfrecord"))
    (folder / dataset.manifest.shards[0].stored_name).write_bytes(b"")
    with pytest.raises(AoiError, match=r"large disk/.*0 instead of"):
        read(dataset.path, DatasetManifest)


def test_datasets_share_a_location(data, tmp_path):
    other = write_data(tmp_path / "other" / "data", train=30, test=0, seed=7)
    made = [dataset_of(each, tmp_path / "home", location=tmp_path / "shards") for each in (data, other)]
    for dataset in made:
        verify(read(dataset.path, DatasetManifest))


def test_a_dataset_that_is_there_moves_by_force_alone(data, tmp_path):
    first = dataset_of(data, tmp_path / "home")
    assert dataset_of(data, tmp_path / "home", location=tmp_path / "shards") == first
    moved = dataset_of(data, tmp_path / "home", location=tmp_path / "shards", force=True)
    assert moved.digest == first.digest
    assert not list(moved.path.glob("*.tfrecord"))
    back = dataset_of(data, tmp_path / "home", force=True)
    assert len(list(back.path.glob("*.tfrecord"))) == 3


def test_what_a_killed_worker_left_there_goes(data, tmp_path, monkeypatch):
    folder = tmp_path / "shards" / dataset_of(data, tmp_path / "home").path.name
    folder.mkdir(parents=True)
    left = folder / ".train-00000-of-00003-0.tfrecord.1.tmp"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    dataset_of(data, tmp_path / "home", location=tmp_path / "shards", force=True)
    assert not left.exists()


@pytest.mark.parametrize("place", ["s3://key:geheim@bucket/shards", "s3://bucket/shards?X-Amz-Signature=geheim"])
def test_a_location_that_holds_a_secret_is_refused_without_showing_it(place, tmp_path):
    from flows.home import Home
    from flows.settings import load_settings
    from flows.stages.ingest import choose_data

    for ask in (
        lambda: load_settings(overrides=[f"ingest.location={place}"]),
        lambda: choose_data(Home(tmp_path), place),
    ):
        with pytest.raises(AoiError, match=r"secret|a user, a password or a signature") as refused:
            ask()
        assert "geheim" not in str(refused.value)
