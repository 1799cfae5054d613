"""The predict stage: an answer for every row of test.csv, in its order, whatever the pictures are like."""

import csv
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from flows.stages.export import make_export
from flows.stages.predict import lot_promises, predict
from flows.stages.stage import Job
from model.card import Card, write_card
from model.decisions import drift
from model.inference.litert import to_litert
from model.inference.predict import predict_lot
from model.manifests import Drift, EvaluationManifest, ExportManifest, Feature, ModelManifest, PredictionManifest
from model.settings import PredictSettings
from pipeline.inputs.classes import RESERVED_NAMES
from tfrecords.artifacts.artifact import Artifact
from tfrecords.dataset import DatasetManifest
from tfrecords.errors import MISSED, AoiError
from tfrecords.progress import silent

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
    assert list(given.rows[0]) == ["ID", "label", "name", "plain", "rows", "columns", "decision", "novelty", "status"]
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
    given = ask(data, max_unreadable=0.5)
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


def test_a_lot_with_too_many_unreadable_pictures_is_not_predicted_and_its_rejects_are_kept(ask, data, home):
    spoil(data, CUT, TEXT)
    with pytest.raises(AoiError, match=r"2 of 6 pictures can't be read, more than 0\.05.*rejects\.csv") as stopped:
        ask(data)
    assert stopped.value.exit_code == MISSED
    (lost,) = {problem.file for problem in stopped.value.problems}
    assert [row["id"] for row in table(Path(lost) / "rejects.csv")] == sorted([CUT, TEXT])


def test_one_unreadable_picture_stops_no_lot_however_small(ask, data):
    spoil(data, TEXT)
    assert ask(data, max_unreadable=0).artifact.manifest.unreadable == 1


def test_how_many_are_tolerated_names_no_other_prediction(ask, data):
    assert ask(data, max_unreadable=0.5).artifact.fingerprint == ask(data).artifact.fingerprint


def test_what_is_said_of_an_unreadable_picture_can_be_set(ask, data):
    spoil(data, TEXT)
    (row,) = (row for row in ask(data, unreadable_label=2).rows if row["ID"] == TEXT)
    assert (row["label"], row["name"], row["status"]) == ("2", "columns", "unreadable")


def test_a_label_outside_the_classes_is_refused(ask, data):
    with pytest.raises(AoiError, match=r"predict\.unreadable_label: 3, of 3 classes\. Set 0 to 2\."):
        ask(data, unreadable_label=3)


def test_a_lot_of_nothing_but_unreadable_pictures_still_gets_its_submission(ask, data):
    spoil(data, *(f"test_{index:03d}.png" for index in range(6)))
    given = ask(data, max_unreadable=1)
    assert given.submission.decode().split() == ["ID,Label", *(f"test_{index:03d}.png,1" for index in range(6))]
    assert {row["status"] for row in given.rows} == {"unreadable"}
    assert given.artifact.manifest.counts == {"plain": 0, "rows": 6, "columns": 0}


def test_a_lot_of_one_picture_gets_its_submission(ask, data):
    for path in (data / "test_images").iterdir():
        if path.name != "test_003.png":
            path.unlink()
    (data / "test.csv").write_text("ID,Label\ntest_003.png,\n")
    assert [row["ID"] for row in ask(data).rows] == ["test_003.png"]


@pytest.fixture
def lively(network, made, tmp_path):
    """Asks a network whose answers differ about the training pictures: a function of what was usual, the number of
    shifted copies, and a reference of its own if it is an export. Returns: the prediction's manifest and its rows.
    """
    _, home, settings, refs = made
    kinds = {"train": ModelManifest, "ingest": DatasetManifest, "evaluate": EvaluationManifest}
    model, dataset, evaluation = (home.open(refs[stage], kind) for stage, kind in kinds.items())
    folder = tmp_path / "model"
    folder.mkdir()
    write_card(folder, Card(CLASSES, settings.preprocess, {"model": 0}))
    (folder / "model.tflite").write_bytes(to_litert(network))
    manifest = ExportManifest.model_construct(reference={})

    def run(usual, copies=0, own=None):
        known = replace(evaluation, manifest=evaluation.manifest.model_copy(update={"reference": usual}))
        exported = Artifact(folder, manifest.model_copy(update={"reference": own}), {}) if own else None
        given = predict_lot(
            replace(model, path=folder),
            exported,
            dataset,
            known,
            PredictSettings(shift_copies=copies),
            tmp_path,
            silent,
        )
        return given, table(tmp_path / "predictions.csv")

    return run


def usual_of(rows):
    """What is usual of answers, from the rows of predictions.csv."""
    odds = np.array([[float(row[name]) for name in CLASSES] for row in rows])
    return drift.describe({"confidence": odds.max(axis=1)}, odds.argmax(axis=1), len(CLASSES))


def test_a_lot_of_the_very_pictures_that_are_usual_has_not_drifted_whether_shifted_copies_are_asked_or_not(lively):
    _, alone = lively({})
    for copies in (0, 4):
        given, rows = lively(usual_of(alone), copies)
        assert {name: feature.psi for name, feature in given.drift.items()} == {"confidence": 0, "predicted class": 0}
        assert (rows == alone) == (copies == 0)


def test_an_export_is_compared_with_its_own_answers(lively):
    _, rows = lively({})
    surer = {"confidence": Feature(edges=(0.99,), shares=(0.0, 1.0), count=60)}
    assert lively(surer)[0].drift["confidence"].drifted
    assert lively(surer, own=usual_of(rows))[0].drift["confidence"].psi == 0


def test_an_export_knows_how_sure_it_is_of_the_pictures_that_the_network_did_not_train_on(made, home):
    exported, _ = make_export(Job(home, made[2]), home.open(made[3]["train"], ModelManifest), "int8")
    known = exported.manifest.reference
    assert {name: feature.count for name, feature in known.items()} == {"confidence": 10, "predicted class": 10}


def test_the_promise_is_void_for_a_lot_that_drifted_and_for_answers_of_another_kind(ask, home, made, data):
    prediction = ask(data).artifact
    evaluation = home.open(made[3]["evaluate"], EvaluationManifest)

    def told(drifted=False, **chosen):
        feature = Drift(psi=0.91, limit=0.2, drifted=drifted)
        changes = {"drift": {"brightness": feature}, "settings": PredictSettings(**chosen)}
        lot = replace(prediction, manifest=prediction.manifest.model_copy(update=changes))
        return lot_promises(lot, evaluation)

    usual, unknown = told()
    assert re.match(r"at most [\d.]+ % of the parts that nobody reviews are misnamed \(95 % confidence, \d+", usual)
    assert re.match(r"on average at most [\d.]+ % of the parts of known classes are called unknown \(\d+", unknown)
    (drifted,) = told(drifted=True)
    assert drifted.startswith("void for this lot")
    assert "brightness (PSI 0.91)" in drifted
    for other in ({"runtime": "litert-int8"}, {"shift_copies": 2}):
        assert told(**other)[0].startswith("void for this lot")
    assert lot_promises(prediction, None) == []


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
