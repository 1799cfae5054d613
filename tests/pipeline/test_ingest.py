"""The real Beam job: the same bytes on every runner, nothing lost, and a dataset that is there whole or not at all."""

import csv
import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.inputs import depth as depths
from pipeline.inputs import files
from pipeline.inputs.inputs import read_inputs
from pipeline.inputs.rows import Reject, Row, Rows
from pipeline.job import beam, ingest
from pipeline.job import shard as convert
from pipeline.job.beam import refuse_lossy
from pipeline.job.plan import shard_rows
from pipeline.job.work import read_plan, write_plan
from pipeline.settings import IngestSettings
from tfrecords.artifacts import files as artifact_files
from tfrecords.artifacts.artifact import read, verify
from tfrecords.artifacts.manifest import MANIFEST
from tfrecords.dataset import (
    NO_FOLD,
    ROW_COLUMNS,
    Dataset,
    DatasetManifest,
    darkness,
    read_example,
    record_count,
    saturation,
    shard_index,
    shard_key,
)
from tfrecords.errors import MISSED, AoiError
from tfrecords.pictures.preprocessing import prepare
from tfrecords.records.arrays import read_arrays
from tfrecords.records.schema import UNLABELLED
from tfrecords.settings import PreprocessSettings

SMALL = PreprocessSettings(image_size_px=32)
FOUR = IngestSettings(shards=4)


def ingested(data: Path, root: Path, split: str = "train", settings=FOUR, preprocess=SMALL, **more) -> Dataset:
    inputs = read_inputs(str(data), split, settings.folds)
    return ingest.ingest(inputs, root, "tiny", settings, preprocess, **more)[0]


def contents(dataset: Dataset) -> dict[str, bytes]:
    """Every file of the dataset with its bytes."""
    return {path.name: path.read_bytes() for path in dataset.path.iterdir()}


def records_of(dataset: Dataset) -> dict[str, dict]:
    found = {}
    for batch in read_arrays(dataset):
        for index, name in enumerate(batch["id"]):
            assert name not in found
            found[name] = {key: values[index] for key, values in batch.items()}
    return found


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def damage(data: Path, split: str, number: int, how: str = "cut") -> Path:
    path = data / f"{split}_images" / f"{split}_{number:03d}.png"
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    else:  # a whole frame, but more pixels than are decoded
        path.write_bytes(cv2.imencode(".png", np.zeros((400, 400), np.uint8))[1].tobytes())
    return path


def test_pictures_whose_names_are_bytes_of_big5_become_records(tmp_path):
    names = ["刮傷1.png", "刮傷2.png", "正常1.png", "正常2.png"]
    for folder in ("train_images", "test_images"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for gray, name in enumerate(names):
            picture = cv2.imencode(".png", np.full((40, 40), 20 * gray, np.uint8))[1].tobytes()
            with open(os.fsencode(tmp_path / "data" / folder) + b"/" + name.encode("cp950"), "wb") as file:
                file.write(picture)
    rows = [f"{name},{label}" for name, label in zip(names, "0011", strict=True)]
    (tmp_path / "data" / "train.csv").write_text("\n".join(["ID,Label", *rows]))
    two = IngestSettings(shards=2, folds=2)
    for split in ("train", "test"):  # the lot has no CSV
        dataset = ingested(tmp_path / "data", tmp_path / "home", split, two)
        assert sorted(records_of(dataset)) == names


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, Dataset]:
    """(data, its training dataset) for reading only."""
    root = tmp_path_factory.mktemp("ingest")
    names = [f"train_{index:03d}.png" for index in range(30)]
    (root / "train_images").mkdir()
    for index, name in enumerate(names):
        pixels = np.random.default_rng(index).integers(0, 256, (40 + index, 50), np.uint8)
        (root / "train_images" / name).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    shutil.copy(root / "train_images" / names[3], root / "train_images" / names[6])  # the same file twice
    (root / "classes.txt").write_text("plain\nrows\ncolumns\n")
    (root / "train.csv").write_text("".join(["ID,Label\n", *(f"{name},{i % 3}\n" for i, name in enumerate(names))]))
    return root, ingested(root, root / "datasets")


# --- What is in it ------------------------------------------------------------------------------------------


def test_every_picture_is_in_exactly_one_shard_the_one_of_its_hash_and_in_the_order_of_the_hashes(whole):
    data, dataset = whole
    shards = sorted(path.name for path in dataset.path.glob("*.tfrecord"))
    assert shards == [f"train-{index:05d}-of-00004.tfrecord" for index in range(4)]
    ids = [name for batch in read_arrays(dataset) for name in batch["id"]]
    assert sorted(ids) == sorted(os.listdir(data / "train_images"))
    assert ids == sorted(ids, key=shard_key)
    per_shard = [sum(shard_index(name, 4) == index for name in ids) for index in range(4)]
    assert [shard.records for shard in dataset.manifest.shards] == per_shard


def test_every_record_is_the_prepared_picture_with_the_label_of_its_row(whole):
    data, dataset = whole
    for name, record in records_of(dataset).items():
        expected = prepare((data / "train_images" / name).read_bytes(), SMALL)
        np.testing.assert_array_equal(record["image"][..., 0], expected)
        assert record["label"] == int(name[6:9]) % 3


def test_a_training_set_keeps_its_first_picture_as_it_came(whole):
    data, dataset = whole
    assert read_example(dataset) == (data / "train_images" / "train_000.png").read_bytes()


def test_the_picture_that_is_kept_is_one_that_can_be_used(data, tmp_path):
    damage(data, "train", 0)
    dataset = ingested(data, tmp_path / "datasets", settings=IngestSettings(shards=4, max_rejects=1))
    assert read_example(dataset) == (data / "train_images" / "train_001.png").read_bytes()


def test_a_test_set_keeps_none(data, tmp_path):
    assert read_example(ingested(data, tmp_path / "datasets", "test")) is None


def test_the_manifest_says_what_was_made_from_what(whole):
    data, dataset = whole
    manifest = read(dataset.path, DatasetManifest).json
    inputs = read_inputs(str(data), "train", 5)
    assert (manifest["kind"], manifest["split"]) == ("dataset", "train")
    assert manifest["classes"] == ["plain", "rows", "columns"]
    assert manifest["settings"] == {
        "preprocess": SMALL.model_dump(exclude_none=True) | {"bit_depth": 8},
        "ingest": {"folds": 5, "shards": 4, "shard_size_mb": 8},
    }
    assert manifest["input_digest"] == inputs.digest
    assert manifest["records"] == record_count(dataset) == 30
    assert {name: sum(folds.values()) for name, folds in manifest["counts"].items()} == dict.fromkeys(
        ("plain", "rows", "columns"), 10
    )
    assert manifest["rejects"] == 0
    assert manifest["duplicates"] == [["train_003.png", "train_006.png"]]
    assert sorted(manifest["versions"]) == ["opencv", "schema"]
    assert [entry["file"] for entry in manifest["files"]] == ["example.png", "rejects.csv", "rows.csv"]
    verify(dataset)


def test_the_counts_are_those_of_the_records_and_no_fold_of_a_class_is_empty(whole):
    _, dataset = whole
    counts: dict = {}
    for record in records_of(dataset).values():
        folds = counts.setdefault(dataset.manifest.classes[record["label"]], {})
        folds[str(record["fold"])] = folds.get(str(record["fold"]), 0) + 1
    assert counts == dataset.manifest.counts
    assert all(sorted(folds) == list("01234") for folds in counts.values())


def test_identical_files_lie_in_the_same_fold(whole):
    found = records_of(whole[1])
    assert found["train_003.png"]["fold"] == found["train_006.png"]["fold"]


def test_the_table_of_rows_is_in_the_order_of_the_csv_and_agrees_with_the_records(whole):
    _, dataset = whole
    rows, found = table(dataset.path / "rows.csv"), records_of(dataset)
    assert tuple(rows[0]) == ROW_COLUMNS
    assert [row["id"] for row in rows] == [f"train_{index:03d}.png" for index in range(30)]
    assert [int(row["row"]) for row in rows] == list(range(2, 32))
    for index, row in enumerate(rows):
        record = found[row["id"]]
        assert (int(row["label"]), int(row["fold"])) == (record["label"], record["fold"])
        assert len(row["sha256"]) == 64
        assert (row["width"], row["height"]) == ("50", str(40 + (3 if index == 6 else index)))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8)
    assert float(rows[0]["mean"]) == pytest.approx(pixels.mean(), abs=0.001)
    assert float(rows[0]["deviation"]) == pytest.approx(pixels.std(), abs=0.001)


def test_the_test_split_has_neither_labels_nor_folds(data, tmp_path):
    dataset = ingested(data, tmp_path / "datasets", "test")
    assert dataset.path.name == f"tiny-test-{dataset.fingerprint}"
    found = records_of(dataset)
    assert len(found) == 6
    assert {(int(record["label"]), int(record["fold"])) for record in found.values()} == {(UNLABELLED, NO_FOLD)}
    assert dataset.manifest.counts == {"": {"-1": 6}}


def test_more_shards_than_pictures_leave_some_empty_but_there(data, tmp_path):
    dataset = ingested(data, tmp_path / "datasets", "test", IngestSettings(shards=20))
    assert len(list(dataset.path.glob("test-*-of-00020.tfrecord"))) == 20
    assert len(records_of(dataset)) == 6


@pytest.mark.parametrize(("size_px", "size_mb", "count"), [(32, 1, 1), (512, 1, 8), (512, 8, 1), (1024, 2, 15)])
def test_without_a_count_the_shards_are_about_the_size_that_is_aimed_at(whole, size_px, size_mb, count):
    inputs = read_inputs(str(whole[0]), "train", 5)
    shards = list(shard_rows(inputs, IngestSettings(shard_size_mb=size_mb), size_px**2))
    assert len(shards) == count
    assert sum(len(rows) for _, rows, _ in shards) == 30


# --- The same bytes -----------------------------------------------------------------------------------------


def test_the_same_input_gives_the_same_bytes_again_elsewhere_and_from_a_zip(whole, tmp_path):
    data, dataset = whole
    copy = Path(shutil.copytree(data, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("datasets")))
    with zipfile.ZipFile(copy / "train_images.zip", "w") as archive:
        for path in (copy / "train_images").iterdir():
            archive.write(path, f"train_images/{path.name}")
    shutil.rmtree(copy / "train_images")
    assert contents(ingested(copy, tmp_path / "datasets")) == contents(dataset)


@pytest.mark.parametrize(
    "beam",
    [
        "--direct_running_mode=multi_processing --direct_num_workers=2",
        "--runner=DirectRunner --direct_running_mode in_memory",
        "--runner=FnApiRunner --job_name=other",
    ],
    ids=["two processes", "DirectRunner in memory", "FnApiRunner"],
)
def test_every_way_to_run_beam_gives_the_same_bytes(whole, tmp_path, beam):
    data, dataset = whole
    assert contents(ingested(data, tmp_path / "datasets", beam=beam)) == contents(dataset)


@pytest.mark.parametrize("cores", [1, 7])
def test_any_number_of_threads_gives_the_same_bytes(whole, tmp_path, monkeypatch, cores):
    data, dataset = whole
    monkeypatch.setattr("pipeline.job.ingest.cores", lambda: range(cores))
    assert contents(ingested(data, tmp_path / "datasets")) == contents(dataset)


def test_threads_that_take_several_pictures_at_once_give_the_same_bytes(whole, tmp_path, monkeypatch):
    data, _ = whole
    made = []
    for cores in (1, 7):  # of one shard with 30 pictures they take three at once, or one
        monkeypatch.setattr("pipeline.job.ingest.cores", lambda cores=cores: range(cores))
        made.append(contents(ingested(data, tmp_path / str(cores), settings=IngestSettings(shards=1))))
    assert made[0] == made[1]


def test_the_number_of_shards_changes_no_record_and_no_fold(whole, tmp_path):
    data, dataset = whole
    one = ingested(data, tmp_path / "datasets", settings=IngestSettings(shards=1))
    assert table(one.path / "rows.csv") == table(dataset.path / "rows.csv")
    some, others = records_of(one), records_of(dataset)
    assert sorted(some) == sorted(others)
    for name, record in some.items():
        np.testing.assert_array_equal(record["image"], others[name]["image"])


@pytest.mark.parametrize("shards", [1, 4])
def test_what_is_soon_done_is_made_without_beam_and_with_it_the_same(whole, tmp_path, shards):
    data, _ = whole
    words = f"""
import sys; from pathlib import Path
from pipeline.job.ingest import ingest; from pipeline.inputs.inputs import read_inputs
from pipeline.settings import IngestSettings; from tfrecords.settings import PreprocessSettings
inputs = read_inputs({str(data)!r}, "train", 5)
small = PreprocessSettings(image_size_px=32)
ingest(inputs, Path({str(tmp_path / "alone")!r}), "tiny", IngestSettings(shards={shards}), small)
assert "apache_beam" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", words], check=True)
    (alone,) = (tmp_path / "alone").iterdir()
    settings = IngestSettings(shards=shards)
    by_beam = ingested(data, tmp_path / "by_beam", settings=settings, beam="--direct_num_workers=1")
    assert contents(by_beam) == {path.name: path.read_bytes() for path in alone.iterdir()}


def test_shards_are_made_while_beam_is_imported(whole, tmp_path, monkeypatch):
    data, dataset = whole
    two_are_made, write, open_runner = threading.Barrier(2), convert.write_shard, beam.open_runner
    made = []

    def written(plan, check=lambda: None):
        made.append(write(plan, check))
        if len(made) == 2:
            two_are_made.wait(60)
        return made[-1]

    def opened(options):
        two_are_made.wait(60)
        return open_runner(options)

    monkeypatch.setattr(convert, "write_shard", written)
    monkeypatch.setattr(beam, "open_runner", opened)
    monkeypatch.setattr(beam, "WORTH_SECONDS", 0)
    assert contents(ingested(data, tmp_path / "datasets")) == contents(dataset)


def test_a_place_whose_name_is_full_of_marks_is_a_place_like_any_other(whole, tmp_path):
    data, dataset = whole
    odd = Path(shutil.copytree(data, tmp_path / "a [1] {b}*?ü", ignore=shutil.ignore_patterns("datasets")))
    made = ingested(odd, odd / "datasets")
    assert contents(made) == contents(dataset)
    assert contents(ingested(odd, odd / "datasets", force=True)) == contents(dataset)


# --- The fingerprint ----------------------------------------------------------------------------------------


def fingerprint(data: Path, root: Path, monkeypatch, settings=FOUR, preprocess=SMALL, beam: str = "") -> str:
    """Of what would be made, without making it."""

    def make(root, name, kind, fingerprint, *_):
        raise StopIteration(fingerprint)

    monkeypatch.setattr(ingest, "make", make)
    with pytest.raises(StopIteration) as stopped:
        ingested(data, root, settings=settings, preprocess=preprocess, beam=beam)
    return stopped.value.value


@pytest.mark.parametrize(
    "changed",
    [
        {"settings": IngestSettings(shards=5)},
        {"settings": IngestSettings(shards=4, folds=4)},
        {"preprocess": PreprocessSettings(image_size_px=33)},
        {"preprocess": PreprocessSettings(image_size_px=32, equalize="none")},
        {"preprocess": PreprocessSettings(image_size_px=32, clahe_clip_limit=2.5)},
    ],
    ids=["shards", "folds", "size", "equalize", "clip limit"],
)
def test_a_setting_that_changes_the_bytes_changes_the_fingerprint(whole, tmp_path, monkeypatch, changed):
    data, dataset = whole
    assert fingerprint(data, tmp_path, monkeypatch) == dataset.fingerprint
    assert fingerprint(data, tmp_path, monkeypatch, **changed) != dataset.fingerprint


@pytest.mark.parametrize(
    "changed",
    [
        {"beam": "--direct_num_workers=2"},
        {"beam": "--direct_running_mode=multi_processing"},
        {"beam": "--runner=FlinkRunner --parallelism=8"},
        {"settings": IngestSettings(shards=4, max_rejects=3)},
    ],
    ids=["workers", "processes", "runner", "tolerance"],
)
def test_how_it_is_run_and_what_is_tolerated_do_not(whole, tmp_path, monkeypatch, changed):
    data, dataset = whole
    assert fingerprint(data, tmp_path, monkeypatch, **changed) == dataset.fingerprint


def test_a_picture_that_changed_makes_another_dataset_and_the_first_stays(data, tmp_path):
    root = tmp_path / "datasets"
    first = ingested(data, root, "test")
    (data / "test_images" / "test_000.png").write_bytes((data / "test_images" / "test_001.png").read_bytes())
    second = ingested(data, root, "test")
    assert second.fingerprint != first.fingerprint
    assert first.path.exists()
    assert second.path.exists()


def test_the_same_request_is_answered_without_a_job(whole, monkeypatch):
    data, dataset = whole
    monkeypatch.setattr(ingest, "run_shards", lambda *_: pytest.fail("a job was run"))
    inputs = read_inputs(str(data), "train", 5)
    again, cached = ingest.ingest(inputs, data / "datasets", "tiny", FOUR, SMALL)
    assert cached
    assert again.path == dataset.path


# --- Pictures that can't be used ----------------------------------------------------------------------------


def test_unusable_training_pictures_are_all_told_and_nothing_is_left(data, tmp_path):
    paths = [damage(data, "train", number) for number in (2, 5, 7)]
    with pytest.raises(AoiError) as refused:
        ingested(data, tmp_path / "datasets")
    assert [problem.file for problem in refused.value.problems] == [str(path) for path in paths]
    for problem, row in zip(refused.value.problems, (4, 7, 9), strict=True):
        assert "cut off" in problem.seen
        assert f"row {row} of train.csv" in problem.remedy
        assert "ingest.max_rejects" in problem.remedy
    assert not (tmp_path / "datasets").exists()


def test_a_fault_that_all_pictures_have_is_told_once(tmp_path):
    for name in ("plain/1.png", "plain/2.png", "plain/3.png", "rows/1.png", "rows/2.png", "rows/3.png"):
        path = tmp_path / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no picture")
    with pytest.raises(AoiError) as refused:
        ingested(tmp_path, tmp_path / "datasets", settings=IngestSettings(folds=3))
    (problem,) = refused.value.problems
    assert problem.seen.startswith("6 of 6 pictures, such as plain/1.png, plain/2.png, plain/3.png: ")


def test_pictures_that_only_decoding_shows_to_be_unusable_are_told_alike(data, tmp_path):
    little = PreprocessSettings(image_size_px=32, max_megapixels=0.1)
    paths = [damage(data, "train", number, "too large") for number in (5, 2)]
    with pytest.raises(AoiError) as refused:
        ingested(data, tmp_path / "datasets", preprocess=little)
    assert {problem.file for problem in refused.value.problems} == {str(path) for path in paths}
    for problem, row in zip(refused.value.problems, (4, 7), strict=True):
        assert "400 x 400 pixels, more than 0.1 megapixels" in problem.seen
        assert problem.remedy.startswith("Raise preprocess.max_megapixels")
        assert f"It is row {row} of train.csv" in problem.remedy
    assert not (tmp_path / "datasets").exists()


def test_as_many_as_are_tolerated_stand_in_a_table_and_in_no_shard(data, tmp_path):
    damage(data, "train", 2)
    dataset = ingested(data, tmp_path / "datasets", settings=IngestSettings(shards=4, max_rejects=1))
    (reject,) = table(dataset.path / "rejects.csv")
    assert (reject["id"], reject["row"]) == ("train_002.png", "4")
    assert "cut off" in reject["reason"]
    assert reject["remedy"]
    assert dataset.manifest.rejects == 1
    assert dataset.manifest.records == record_count(dataset) == 29
    assert "train_002.png" not in records_of(dataset)
    rows = table(dataset.path / "rows.csv")
    assert len(rows) == 30
    assert rows[2]["mean"] == ""
    assert sum(sum(folds.values()) for folds in dataset.manifest.counts.values()) == 29


def test_every_reject_has_a_remedy_of_its_own_in_the_table(data, tmp_path):
    damage(data, "test", 1)
    damage(data, "test", 4, "too large")
    little = PreprocessSettings(image_size_px=32, max_megapixels=0.1)
    dataset = ingested(data, tmp_path / "datasets", "test", preprocess=little)
    assert {row["id"]: row["remedy"] for row in table(dataset.path / "rejects.csv")} == {
        "test_001.png": "copy the picture again, or take it out with its row",
        "test_004.png": "raise preprocess.max_megapixels, or take the picture out with its row",
    }


def test_one_more_than_tolerated_is_refused(data, tmp_path):
    damage(data, "train", 2)
    damage(data, "train", 3, "too large")
    little = PreprocessSettings(image_size_px=32, max_megapixels=0.1)
    with pytest.raises(AoiError) as refused:
        ingested(data, tmp_path / "datasets", settings=IngestSettings(shards=4, max_rejects=1), preprocess=little)
    assert len(refused.value.problems) == 2


def test_a_dataset_made_with_more_tolerance_is_refused_with_less(data, tmp_path):
    damage(data, "train", 2)
    damage(data, "train", 3, "too large")
    little = PreprocessSettings(image_size_px=32, max_megapixels=0.1)
    root, tolerant = tmp_path / "datasets", IngestSettings(shards=4, max_rejects=2)
    dataset = ingested(data, root, settings=tolerant, preprocess=little)
    with pytest.raises(AoiError) as refused:
        ingested(data, root, preprocess=little)
    assert [Path(problem.file).name for problem in refused.value.problems] == ["train_002.png", "train_003.png"]
    assert ingested(data, root, settings=tolerant, preprocess=little).path == dataset.path


def test_the_test_split_tolerates_any_number(data, tmp_path):
    damage(data, "test", 1)
    damage(data, "test", 4, "too large")
    little = PreprocessSettings(image_size_px=32, max_megapixels=0.1)
    dataset = ingested(data, tmp_path / "datasets", "test", preprocess=little)
    assert [row["id"] for row in table(dataset.path / "rejects.csv")] == ["test_001.png", "test_004.png"]
    assert sorted(records_of(dataset)) == [f"test_{number:03d}.png" for number in (0, 2, 3, 5)]


def test_a_fault_of_the_whole_set_is_told_once(data, tmp_path):
    for number in range(29):
        (data / "train_images" / f"train_{number:03d}.png").write_bytes(b"GIF89a" if number else b"")
    with pytest.raises(AoiError) as error:
        ingested(data, tmp_path / "datasets")
    whole, single = error.value.problems
    assert whole.seen.startswith(
        "28 of 30 pictures, such as train_001.png, train_002.png, train_003.png: the file is not"
    )
    assert (whole.file, Path(single.file).name) == (str(data / "train_images"), "train_000.png")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_picture_that_could_not_even_be_read_is_a_reject_too(data, tmp_path, monkeypatch, split):
    unreadable, read_bytes = f"{split}_001.png", files.read_bytes

    def failing(path: str) -> bytes:
        if path.endswith(unreadable):
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(files, "read_bytes", failing)
    dataset = ingested(data, tmp_path / "datasets", split, IngestSettings(shards=4, max_rejects=1))
    (reject,) = table(dataset.path / "rejects.csv")
    assert reject["id"] == unreadable
    assert "Permission denied" in reject["reason"]
    assert unreadable not in records_of(dataset)


@pytest.mark.parametrize("number", ["EMFILE", "ENOMEM", "ESTALE", "ETIMEDOUT", "ECONNRESET", "EHOSTUNREACH"])
@pytest.mark.parametrize("moment", ["hashing", "converting"])
def test_a_fault_of_the_system_is_no_fault_of_the_picture(data, tmp_path, monkeypatch, number, moment):
    inputs = read_inputs(str(data), "train", 5)
    monkeypatch.setattr(files, "read_bytes", failing_for("train_002.png", OSError(getattr(errno, number), number)))
    with pytest.raises((OSError, AoiError), match=number):
        if moment == "hashing":
            ingested(data, tmp_path / "datasets", settings=IngestSettings(shards=1, max_rejects=30))
        else:
            ingest.ingest(inputs, tmp_path / "datasets", "tiny", IngestSettings(shards=1, max_rejects=30), SMALL)


def failing_for(name, error):
    def read(path):
        if path.endswith(name):
            raise error
        return Path(path).read_bytes()

    return read


@pytest.mark.parametrize("change", ["changed", "removed"])
def test_a_picture_that_changes_between_hashing_and_conversion_is_a_reject(data, tmp_path, change):
    inputs = read_inputs(str(data), "train", 5)
    path = data / "train_images" / "train_001.png"
    if change == "changed":
        path.write_bytes((data / "train_images" / "train_004.png").read_bytes())
    else:
        path.unlink()
    with pytest.raises(AoiError) as refused:
        ingest.ingest(inputs, tmp_path / "datasets", "tiny", FOUR, SMALL)
    (problem,) = refused.value.problems
    assert problem.file == str(path)
    seen, remedy = {
        "changed": ("changed while", "Run again while no other program writes there"),
        "removed": ("can't be read", "Copy the picture again"),
    }[change]
    assert seen in problem.seen
    assert remedy in problem.remedy


def test_a_fold_of_a_class_is_not_left_empty_by_a_picture_that_is_no_record(tmp_path):
    (tmp_path / "train_images").mkdir()
    names = [f"{number}.png" for number in range(12)]
    for number, name in enumerate(names):
        data = cv2.imencode(".png", np.full((8, 8), 20 * number, np.uint8))[1].tobytes()
        (tmp_path / "train_images" / name).write_bytes(data[: -20 if number == 0 else None])
    (tmp_path / "classes.txt").write_text("good\nbad\n")
    lines = [f"{name},{number % 2}" for number, name in enumerate(names)]
    (tmp_path / "train.csv").write_text("\n".join(["ID,Label", *lines]))
    dataset = ingested(tmp_path, tmp_path / "datasets", settings=IngestSettings(shards=1, max_rejects=1))
    assert sorted(dataset.manifest.counts["good"]) == list("01234")  # five pictures are left


# --- Interrupted and damaged --------------------------------------------------------------------------------


def broken_off(data: Path, root: Path, monkeypatch) -> Path:
    """Ends an ingest after its first shards; returns the work folder."""
    inputs = read_inputs(str(data), "train", 5)

    def run(plans, *_):
        for plan in plans[:3]:
            convert.write_shard(plan)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "run_shards", run)
        with pytest.raises(KeyboardInterrupt):
            ingest.ingest(inputs, root, "tiny", FOUR, SMALL)
    (work,) = root.glob(".work-*")
    return work


def full_disk(*_):
    raise OSError(28, "No space left on device")


def open_on_a_full_disk(path, mode: str = "r", **how):
    return open("/dev/full", "wb") if mode == "xb" else open(path, mode, **how)


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("when", ["converting", "writing", "renaming"])
def test_what_stops_the_conversion_is_told_and_how_to_go_on(data, tmp_path, monkeypatch, shards, when):
    match when:
        case "converting":
            monkeypatch.setattr(convert, "frame", full_disk)
        case "writing":
            if not os.path.exists("/dev/full"):
                pytest.skip("there is no /dev/full here")
            monkeypatch.setattr(artifact_files, "open", open_on_a_full_disk, raising=False)
        case "renaming":
            replace = os.replace
            monkeypatch.setattr(
                os, "replace", lambda a, b: full_disk() if str(b).endswith("tfrecord") else replace(a, b)
            )
    with pytest.raises(AoiError, match=r"No space left on device.*run again: finished shards are kept") as stopped:
        ingested(data, tmp_path / "datasets", settings=IngestSettings(shards=shards))
    assert stopped.value.exit_code == MISSED
    assert not list((tmp_path / "datasets").glob("**/.*.tmp"))


@pytest.mark.parametrize("beam", ["", "--direct_running_mode=in_memory"])
def test_an_interruption_ends_a_shard_that_is_being_made(data, tmp_path, monkeypatch, beam):
    begun, stopped = threading.Event(), threading.Event()

    def writing(plan, check):
        begun.set()
        try:
            while True:
                check()
                time.sleep(0.01)
        finally:
            stopped.set()

    def interrupted(*_):
        if begun.is_set():
            raise KeyboardInterrupt

    monkeypatch.setattr(convert, "write_shard", writing)
    with pytest.raises(KeyboardInterrupt):
        ingested(data, tmp_path / "datasets", settings=IngestSettings(shards=1), beam=beam, progress=interrupted)
    assert stopped.wait(60)


def times(work: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in work.glob("*.tfrecord")}


def test_a_finished_shard_is_not_converted_again_after_an_interruption(whole, tmp_path, monkeypatch):
    data, dataset = whole
    work = broken_off(data, tmp_path / "datasets", monkeypatch)
    before = times(work)
    assert len(before) == 3
    done = ingested(data, tmp_path / "datasets")
    after = times(done.path)
    assert {name: after[name] for name in before} == before
    assert contents(done) == contents(dataset)


@pytest.mark.parametrize(
    "spoilt", ["cut shard", "cut report", "no report", "no shard", "report of other plan", "older report", "left over"]
)
def test_a_shard_that_is_not_whole_is_converted_again(whole, tmp_path, monkeypatch, spoilt):
    data, dataset = whole
    work = broken_off(data, tmp_path / "datasets", monkeypatch)
    shard = work / "train-00001-of-00004.tfrecord"
    report = work / f".{shard.name}.json"
    match spoilt:
        case "cut shard":
            shard.write_bytes(shard.read_bytes()[:-1])
        case "cut report":
            report.write_bytes(report.read_bytes()[:-1])
        case "no report":
            report.unlink()
        case "no shard":
            shard.unlink()
        case "report of other plan":
            report.write_text(json.dumps(json.loads(report.read_text()) | {"plan": "0" * 16}))
        case "older report":  # as the version before this one left it
            older = {"plan": "0" * 16, "rejects": [["train_000.png", 2, "cut off"]]}
            report.write_text(json.dumps(json.loads(report.read_text()) | older))
        case "left over":
            (work / f".{shard.name}.99999.tmp").write_bytes(b"half")
    assert contents(ingested(data, tmp_path / "datasets")) == contents(dataset)


def test_a_plan_is_the_same_where_a_worker_reads_it(tmp_path):
    cut = Reject('q"uoted, [1].png', 3, "cut off", "copy it again")
    rows = [
        Row(name, line, line % 3 - 1, f"train_images/{name}", b"\x5e" * 32, cut if line == 3 else None)
        for line, name in enumerate(("a.png", 'q"uoted, [1].png', "größe/ß.png", "line\u2028.png"), start=2)
    ]
    plan = convert.ShardPlan(
        str(tmp_path), "train-00000-of-00001.tfrecord", "/data/train.zip", Rows.of(rows), (2, 3, 4, 0), SMALL, 2
    )
    read = read_plan(write_plan(plan))
    assert read == plan
    assert read.digest == plan.digest


@pytest.mark.parametrize("loss", ["a shard", "a picture", "a picture twice"])
def test_a_runner_that_loses_or_doubles_something_is_found_out_and_nothing_is_left(data, tmp_path, monkeypatch, loss):
    def run(plans, *_):
        for index, plan in enumerate(plans):
            if index == 1 and loss == "a shard":
                continue
            convert.write_shard(plan)
            path = Path(plan.report_path)
            report = json.loads(path.read_text())
            if index == 1 and loss == "a picture":
                report["written"].pop(next(iter(report["written"])))
            elif index == 1 and loss == "a picture twice":
                twice = {"id": next(iter(report["written"])), "row": 1, "reason": "again", "remedy": "none"}
                report["rejects"].append(twice)
            path.write_text(json.dumps(report))

    monkeypatch.setattr(ingest, "run_shards", run)
    with pytest.raises(AoiError) as refused:
        ingested(data, tmp_path / "datasets")
    assert "where --beam names a runner, run without it" in refused.value.problems[0].remedy
    assert not (tmp_path / "datasets").exists()


def test_a_damaged_dataset_is_made_again(data, tmp_path):
    first = ingested(data, tmp_path / "datasets", "test")
    whole = contents(first)
    next(first.path.glob("*.tfrecord")).write_bytes(b"")
    assert contents(ingested(data, tmp_path / "datasets", "test")) == whole


def test_force_mends_a_flipped_byte(data, tmp_path):
    first = ingested(data, tmp_path / "datasets", "test")
    whole = contents(first)
    shard = max(first.path.glob("*.tfrecord"), key=lambda path: path.stat().st_size)
    flipped = bytearray(shard.read_bytes())
    flipped[100] ^= 1
    shard.write_bytes(flipped)
    again = ingested(data, tmp_path / "datasets", "test", force=True)
    verify(again)
    assert contents(again) == whole
    assert os.listdir(tmp_path / "datasets") == [again.path.name]


def test_progress_begins_at_none_and_ends_at_every_picture(data, tmp_path):
    seen = []
    ingested(data, tmp_path / "datasets", progress=lambda *call: seen.append(call))
    assert (seen[0], seen[-1]) == ((0, 30, "converted"), (30, 30, "converted"))
    assert seen == sorted(seen)


def test_an_unfinished_file_is_removed_once_no_worker_can_be_writing_it(tmp_path):
    for name, age in (("living", 5), ("left", 700)):
        path = tmp_path / f".{name}.tfrecord.1.tmp"
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    ingest._remove_left(tmp_path, 600)
    assert os.listdir(tmp_path) == [".living.tfrecord.1.tmp"]


def test_progress_begins_with_what_an_earlier_try_finished(whole, tmp_path, monkeypatch):
    data, dataset = whole
    broken_off(data, tmp_path / "datasets", monkeypatch)
    seen = []
    ingested(data, tmp_path / "datasets", progress=lambda *call: seen.append(call))
    assert seen[0] == (sum(shard.records for shard in dataset.manifest.shards[:3]), 30, "converted")
    assert seen[-1] == (30, 30, "converted")


def test_no_notes_are_left_in_the_dataset_or_beside_it(whole):
    data, dataset = whole
    assert not list(dataset.path.glob(".*"))
    assert os.listdir(data / "datasets") == [dataset.path.name]
    assert sorted(os.listdir(dataset.path)) == sorted(
        ["example.png", MANIFEST, "rejects.csv", "rows.csv", *(shard.file for shard in dataset.manifest.shards)]
    )


# --- Beam's options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "beam",
    [
        "--direct_running_mode=multi_threading",
        "--direct_running_mode multi_threading",
        "--direct_num_workers=2 --direct_running_mode='multi_threading'",
        "--direct_running_mode=in_memory --direct_running_mode=multi_threading",
    ],
    ids=["one word", "two words", "quoted", "the last one counts"],
)
def test_a_way_that_loses_records_is_refused_before_any_work(whole, tmp_path, beam):
    with pytest.raises(AoiError, match=r"--beam: .*multi_threading.*loses records.*multi_processing"):
        ingested(whole[0], tmp_path / "datasets", beam=beam)
    assert not (tmp_path / "datasets").exists()


@pytest.mark.parametrize("options", [[], ["--direct_running_mode"], ["--direct_running_mode=in_memory", "--x=y"]])
def test_other_options_pass(options):
    refuse_lossy(options)


@pytest.mark.parametrize("beam", ["--job_name='open", "--direct_num_workers=two", "--direct_running_mode=sideways"])
def test_options_that_beam_can_not_read_are_refused(whole, tmp_path, beam):
    with pytest.raises(AoiError, match="--beam"):
        ingested(whole[0], tmp_path / "datasets", beam=beam)


# --- Bit depth ----------------------------------------------------------------------------------------------


def deep(data: Path, split: str, top: int, number: int = 0) -> None:
    """A picture of 16 bits, whose largest value is `top`."""
    pixels = np.linspace(0, top, 1600).astype(np.uint16).reshape(40, 40)
    path = data / f"{split}_images" / f"{split}_{number:03d}.png"
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


@pytest.mark.parametrize(("top", "depth"), [(255, 8), (256, 10), (1023, 10), (4000, 12), (16383, 14), (16384, 16)])
def test_the_bit_depth_is_the_least_that_holds_the_largest_training_value(data, tmp_path, top, depth):
    deep(data, "train", 100)
    deep(data, "train", top, number=3)
    made = ingested(data, tmp_path / "datasets")
    assert made.manifest.settings.preprocess.bit_depth == depth
    chosen = SMALL.model_copy(update={"bit_depth": depth})
    assert made.path.name == ingested(data, tmp_path / "datasets", preprocess=chosen).path.name
    expected = prepare((data / "train_images" / "train_003.png").read_bytes(), chosen)
    np.testing.assert_array_equal(records_of(made)["train_003.png"]["image"][..., 0], expected)
    assert saturation(made) == ""


def test_a_bit_depth_that_a_few_wrong_pixels_ask_for_is_told(data, tmp_path):
    count = len(list((data / "train_images").iterdir()))
    for number in range(count):
        deep(data, "train", 4095, number)
    assert darkness(ingested(data, tmp_path / "datasets")) == ""
    path = data / "train_images" / "train_000.png"
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    pixels[0, 0] = 65535
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    made = ingested(data, tmp_path / "datasets")
    assert made.manifest.settings.preprocess.bit_depth == 16
    assert darkness(made).startswith(
        f"{count} of the {count} train pictures use less than a sixteenth of their 16 bits"
    )


def test_pictures_of_eight_bits_are_not_decoded_to_find_the_depth(data, tmp_path, monkeypatch):
    monkeypatch.setattr(depths, "samples", lambda *_, **__: pytest.fail("decoded"))
    assert ingested(data, tmp_path / "datasets").manifest.settings.preprocess.bit_depth == 8


def test_a_later_lot_keeps_the_depth_and_values_above_it_are_counted_and_told(data, tmp_path):
    deep(data, "test", 4095, number=0)
    deep(data, "test", 4096, number=1)
    deep(data, "test", 65535, number=2)
    lot = ingested(data, tmp_path / "datasets", "test", preprocess=SMALL.model_copy(update={"bit_depth": 12}))
    assert lot.manifest.saturated == 2
    told = "2 of the 6 test pictures have values above preprocess.bit_depth (12), which become white"
    assert saturation(lot) == told
    unresolved = ingested(data, tmp_path / "datasets", "test")
    assert (unresolved.manifest.settings.preprocess.bit_depth, saturation(unresolved)) == ("auto", "")


def test_a_damaged_picture_of_sixteen_bits_is_a_reject_and_no_end_of_the_search(data, tmp_path):
    deep(data, "train", 4000, number=1)
    path = data / "train_images" / "train_001.png"
    whole = path.read_bytes()
    at = whole.index(b"IDAT")
    packed = whole[at + 4 : at + 4 + int.from_bytes(whole[at - 4 : at], "big") // 2]
    chunk = b"IDAT" + packed
    sized = len(packed).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    path.write_bytes(whole[: at - 4] + sized + whole[-12:])
    with pytest.raises(AoiError, match="do not decode"):
        ingested(data, tmp_path / "datasets")
