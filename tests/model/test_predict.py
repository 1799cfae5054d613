"""The predict stage: an answer for every row of test.csv, in its order, whatever the pictures are like."""

import csv
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.stages.predict import predict
from flows.stages.stage import Job
from model.manifests import PredictionManifest
from model.settings import PredictSettings
from pipeline.inputs.inputs import RESERVED_NAMES
from tfrecords.errors import AoiError

CLASSES = ("plain", "rows", "columns")
ROOT = Path(__file__).resolve().parents[2]
CUT, TEXT = "test_001.png", "test_004.png"


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def home(copy_home, tmp_path_factory):
    return copy_home(tmp_path_factory.mktemp("predict") / "home")


@pytest.fixture
def ask(home, made):
    """A function that predicts a folder's test pictures with the model of the whole run."""
    settings = made[2]

    def run(data, **chosen):
        with_these = settings.model_copy(update={"predict": PredictSettings(**chosen)})
        artifact = home.open(predict(Job(home, with_these), data=str(data)), PredictionManifest)
        return SimpleNamespace(
            artifact=artifact,
            rows=table(artifact.path / "predictions.csv"),
            submission=(artifact.path / "submission.csv").read_bytes(),
        )

    return run


def spoil(data, *names):
    """Makes pictures unreadable, by cutting one and writing text over the others."""
    for name in names:
        path = data / "test_images" / name
        path.write_bytes(path.read_bytes()[:200] if name == CUT else b"this is no picture")


def reverse(data):
    header, *lines = (data / "test.csv").read_text().split()
    (data / "test.csv").write_text("\n".join([header, *reversed(lines)]) + "\n")
    return [line.rstrip(",") for line in reversed(lines)]


def test_the_submission_is_id_and_whole_number_in_the_order_of_test_csv_with_crlf(ask, data):
    order = reverse(data)
    given = ask(data)
    lines = given.submission.decode("ascii").split("\r\n")
    assert lines[0] == "ID,Label"
    assert lines[-1] == ""
    assert "\n" not in "".join(lines)
    assert [line.split(",")[0] for line in lines[1:-1]] == order
    assert {line.split(",")[1] for line in lines[1:-1]} <= {"0", "1", "2"}


def test_it_lies_in_home_too(ask, home, data):
    given = ask(data)
    assert (home.root / "submission.csv").read_bytes() == given.submission


def test_predictions_tell_label_name_and_one_probability_a_class(ask, data):
    given = ask(data)
    assert list(given.rows[0]) == ["ID", "label", "name", "plain", "rows", "columns", "decision", "status"]
    for row in given.rows:
        odds = [float(row[name]) for name in ("plain", "rows", "columns")]
        assert sum(odds) == pytest.approx(1, abs=1e-5)
        assert int(row["label"]) == odds.index(max(odds))
        assert row["name"] == ("plain", "rows", "columns")[int(row["label"])]
        assert row["status"] == "ok"
    submitted = [line.split(",")[1] for line in given.submission.decode().split()[1:]]
    assert submitted == [row["label"] for row in given.rows]


def test_no_class_may_be_named_as_a_column_of_predictions_or_review(ask, data):
    given = ask(data)
    with open(given.artifact.path / "review.csv", encoding="utf-8", newline="") as file:
        columns = {*given.rows[0], *next(csv.reader(file))}
    assert columns - set(CLASSES) < RESERVED_NAMES
    assert "novelty" in RESERVED_NAMES


def test_the_manifest_counts_what_was_said(ask, data):
    manifest = ask(data).artifact.manifest
    assert (manifest.pictures, manifest.unreadable) == (6, 0)
    assert sum(manifest.counts.values()) == 6


def test_an_unreadable_picture_keeps_its_row_and_changes_no_other(ask, data):
    whole = ask(data).rows
    spoil(data, CUT, TEXT)
    given = ask(data)
    assert [row["ID"] for row in given.rows] == [row["ID"] for row in whole]
    for before, after in zip(whole, given.rows, strict=True):
        if after["ID"] in (CUT, TEXT):
            assert after == {**dict.fromkeys(before, ""), "ID": after["ID"]} | {
                "label": "1",
                "name": "rows",
                "decision": "review",
                "status": "unreadable",
            }
        else:
            assert after == before
    assert given.artifact.manifest.unreadable == 2


def test_what_is_said_of_an_unreadable_picture_can_be_set(ask, data):
    spoil(data, TEXT)
    (row,) = (row for row in ask(data, unreadable_label=2).rows if row["ID"] == TEXT)
    assert (row["label"], row["name"], row["status"]) == ("2", "columns", "unreadable")


def test_a_label_outside_the_classes_is_refused(ask, data):
    with pytest.raises(AoiError, match=r"predict\.unreadable_label: 3, of 3 classes\. Set 0 to 2\."):
        ask(data, unreadable_label=3)


def test_a_lot_of_nothing_but_unreadable_pictures_still_gets_its_submission(ask, data):
    spoil(data, *(f"test_{index:03d}.png" for index in range(6)))
    given = ask(data)
    assert given.submission.decode().split() == ["ID,Label", *(f"test_{index:03d}.png,1" for index in range(6))]
    assert {row["status"] for row in given.rows} == {"unreadable"}
    assert given.artifact.manifest.counts == {"plain": 0, "rows": 6, "columns": 0}


def test_a_lot_of_one_picture_gets_its_submission(ask, data):
    for path in (data / "test_images").iterdir():
        if path.name != "test_003.png":
            path.unlink()
    (data / "test.csv").write_text("ID,Label\ntest_003.png,\n")
    assert [row["ID"] for row in ask(data).rows] == ["test_003.png"]


def test_every_runtime_names_the_parts_alike(ask, data):
    given = {runtime: ask(data, runtime=runtime).rows for runtime in ("litert", "litert-int8", "keras")}
    labels = {runtime: [row["label"] for row in rows] for runtime, rows in given.items()}
    assert labels["litert"] == labels["litert-int8"] == labels["keras"]
    for ours, theirs in zip(given["litert"], given["keras"], strict=True):
        assert all(abs(float(ours[name]) - float(theirs[name])) < 1e-5 for name in CLASSES)


def test_a_lot_is_named_without_importing_tensorflow(home, made, data):
    code = (
        "import sys; from pathlib import Path; from flows.home import Home; from flows.settings import Settings\n"
        "from flows.stages.predict import predict; from flows.stages.stage import Job\n"
        "settings = Settings.model_validate_json(sys.argv[2])\n"
        "print(predict(Job(Home(Path(sys.argv[1])), settings, force=True), data=sys.argv[3]).cached)\n"
        "assert 'tensorflow' not in sys.modules"
    )
    given = [str(home.root), made[2].model_dump_json(), str(data)]
    run = subprocess.run([sys.executable, "-c", code, *given], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stdout.split()) == (0, ["False"]), run.stderr
