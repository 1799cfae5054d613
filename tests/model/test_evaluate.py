"""The evaluate stage: figures checked by hand, files that agree with each other, and the bound that stops a model."""

import copy
import csv
import json
import warnings
from collections import Counter
from dataclasses import replace
from unittest import mock

import cv2
import numpy as np
import pytest

from flows.home import Home
from flows.stages.evaluate import make_evaluation
from flows.stages.stage import Job
from model.checks import check_passed, check_same, normal_class
from model.decisions.halves import choosing
from model.evaluation.evaluate import _write_confusion
from model.evaluation.metrics import measure
from model.manifests import EvaluationManifest, ModelManifest
from model.settings import EvaluateSettings
from pipeline.inputs.classes import RESERVED_NAMES
from tfrecords.artifacts.manifest import RunRecord
from tfrecords.dataset import DatasetManifest
from tfrecords.errors import AoiError
from tfrecords.settings import Equalization, Fit

TABLES = {"metrics.json", "operating.json", "confusion.csv", "per_class.csv", "predictions.csv", "label_audit.csv"}
TABLES |= {"novelty.csv"}
FIGURES = {"confusion.png", "mistakes.png", "tradeoff.png", "suspects.png", "gradcam.png", "novelty.png"}
FILES = TABLES | FIGURES


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- Figures of merit ---------------------------------------------------------------------------------------

MEASURED = {
    "all right": ([0, 1, 2], [0, 1, 2], 0, (1, 1, 1, 0, 0)),
    "all wrong": ([0, 1, 2], [1, 2, 0], 0, (0, 0, 0, 1 / 2, 1)),
    # recalls 1/2, 1/2, 1; F1 1/2, 1/2, 1; of three defects one is called normal, of two normal parts one defective
    "by hand": ([0, 0, 1, 1, 2], [0, 1, 1, 0, 2], 0, (3 / 5, 2 / 3, 2 / 3, 1 / 3, 1 / 2)),
    # a defect called another defect is neither an escape nor overkill
    "wrong defect": ([0, 1, 2], [0, 2, 1], 0, (1 / 3, 1 / 3, 1 / 3, 0, 0)),
    # the same answers, seen from another normal class
    "normal is 2": ([0, 0, 1, 1, 2], [0, 1, 1, 0, 2], 2, (3 / 5, 2 / 3, 2 / 3, 0, 0)),
    "no normal class": ([0, 0, 1, 1, 2], [0, 1, 1, 0, 2], None, (3 / 5, 2 / 3, 2 / 3, None, None)),
    # F1 2/3, 0 and 0; balanced accuracy counts the classes that there are, macro F1 all of them
    "only normal parts in the fold": ([0, 0], [0, 1], 0, (1 / 2, 1 / 2, 2 / 9, None, 1 / 2)),
    "no normal part in the fold": ([1, 1, 1, 2], [1, 1, 0, 2], 0, (3 / 4, 5 / 6, 3 / 5, 1 / 4, None)),
}


@pytest.mark.parametrize("case", MEASURED)
def test_figures_are_those_that_a_hand_works_out(case):
    labels, predicted, normal, (accuracy, balanced, macro_f1, escape, overkill) = MEASURED[case]
    expected = {"accuracy": accuracy, "balanced_accuracy": balanced, "macro_f1": macro_f1, "pictures": len(labels)}
    expected |= {} if escape is None else {"escape_rate": escape}
    expected |= {} if overkill is None else {"overkill_rate": overkill}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a class that the fold lacks is nothing to tell on stderr
        metrics = measure(np.array(labels), np.array(predicted), 3, normal)
    assert metrics == pytest.approx(expected)
    json.dumps(metrics)


@pytest.mark.parametrize(
    ("classes", "setting", "label"),
    [
        (("normal", "void"), None, 0),
        (("Normal", "void"), None, 0),
        (("void", "normal"), None, None),
        (("plain", "rows"), None, None),
        (("plain", "rows"), 1, 1),
        (("normal", "void"), 1, 1),
    ],
)
def test_the_normal_class_is_the_one_that_is_set_else_class_0_where_it_is_named_so(classes, setting, label):
    assert normal_class(classes, EvaluateSettings(normal_class=setting)) == label


def test_a_normal_class_outside_the_classes_is_refused():
    with pytest.raises(AoiError, match=r"evaluate\.normal_class: 2, of 2 classes\. Set 0 to 1\."):
        normal_class(("plain", "rows"), EvaluateSettings(normal_class=2))


# --- What it leaves -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evaluated(made):
    """(evaluation, model, dataset) of the whole run."""
    _, home, _, refs = made
    kinds = {"evaluate": EvaluationManifest, "train": ModelManifest, "ingest": DatasetManifest}
    return tuple(home.open(refs[stage], kind) for stage, kind in kinds.items())


def test_every_evaluation_has_the_same_file_names(evaluated):
    evaluation, *_ = evaluated
    assert {path.name for path in evaluation.path.iterdir()} == FILES | {"manifest.json"}
    for name in FIGURES:
        assert min(cv2.imread(str(evaluation.path / name)).shape[:2]) > 100


def test_it_measures_every_picture_of_the_fold_that_was_left_out_and_no_other(evaluated):
    evaluation, model, dataset = evaluated
    left_out = {row["id"]: row["label"] for row in table(dataset.path / "rows.csv") if row["fold"] == "0"}
    rows = table(evaluation.path / "predictions.csv")
    assert model.manifest.folds == (0,)
    assert {row["ID"]: row["true_label"] for row in rows} == left_out
    assert len(rows) == len(left_out) == evaluation.manifest.metrics["pictures"]


def test_predictions_are_probabilities_and_the_label_is_the_likeliest(evaluated):
    evaluation, model, _ = evaluated
    classes = model.manifest.classes
    for row in table(evaluation.path / "predictions.csv"):
        odds = [float(row[name]) for name in classes]
        assert sum(odds) == pytest.approx(1, abs=1e-5)
        assert int(row["label"]) == int(np.argmax(odds))
        assert row["name"] == classes[int(row["label"])]
        assert row["true_name"] == classes[int(row["true_label"])]


def test_all_files_tell_the_same_story(evaluated):
    evaluation, model, _ = evaluated
    classes, folder = model.manifest.classes, evaluation.path
    metrics = json.loads((folder / "metrics.json").read_text())
    rows = table(folder / "predictions.csv")
    pairs = Counter((row["true_name"], row["name"]) for row in rows)
    confusion = {row["true"]: {name: int(row[name]) for name in classes} for row in table(folder / "confusion.csv")}
    assert confusion == {true: {name: pairs[true, name] for name in classes} for true in classes}
    assert metrics == evaluation.manifest.metrics
    assert metrics["accuracy"] == pytest.approx(sum(confusion[name][name] for name in classes) / len(rows))
    per_class = table(folder / "per_class.csv")
    assert [(row["label"], row["name"]) for row in per_class] == [(str(i), name) for i, name in enumerate(classes)]
    for row in per_class:
        of_class = confusion[row["name"]]
        assert int(row["pictures"]) == sum(of_class.values())
        assert float(row["recall"]) == pytest.approx(of_class[row["name"]] / max(1, sum(of_class.values())), abs=1e-6)
    assert metrics["macro_f1"] == pytest.approx(np.mean([float(row["f1"]) for row in per_class]), abs=1e-6)


def test_operating_json_has_the_promise_and_what_it_is_proven_by(evaluated):
    evaluation, _, dataset = evaluated
    told = json.loads((evaluation.path / "operating.json").read_text())
    promise = told["promise"]
    proving = ~choosing(dataset, [row["ID"] for row in table(evaluation.path / "predictions.csv")])
    assert promise == evaluation.manifest.operating.promise.model_dump()
    assert (promise["of"], promise["bound"], promise["confidence"]) == ("misnamed", 0.01, 0.95)
    assert 0 < promise["pictures"] <= proving.sum()  # those that nobody reviews
    assert (promise["met"], promise["proven"] > promise["bound"]) == (False, True)  # so few pictures prove little
    assert "promise_overkill" not in told  # there is no class of good parts


def test_an_evaluation_of_an_earlier_version_opens_and_promises_nothing(evaluated):
    entries = copy.deepcopy(evaluated[0].json)
    del entries["operating"]["promise"]
    del entries["settings"]["confidence"]
    manifest = EvaluationManifest.model_validate(entries)
    assert manifest.operating.promises == ()
    assert manifest.operating.point == evaluated[0].manifest.operating.point


def test_a_model_whose_epoch_all_pictures_chose_promises_nothing(made, evaluated, tmp_path):
    _, model, dataset = evaluated
    entries = {key: value for key, value in model.json.items() if key != "half_chose"}
    former = replace(model, manifest=ModelManifest.model_validate(entries))
    with mock.patch("model.registry.tracking.log_evaluation"):
        evaluation, _ = make_evaluation(Job(Home(tmp_path), made[2]), former, dataset)
    promise = evaluation.manifest.operating.promise
    assert (promise.proven, promise.pictures, promise.met) == (1.0, 0, False)


def test_a_class_named_true_has_its_own_column_in_the_confusion_matrix(tmp_path):
    _write_confusion(np.array([[3, 1], [0, 2]]), ("true", "false"), tmp_path / "confusion.csv")
    assert table(tmp_path / "confusion.csv") == [
        {"true_name": "true", "true": "3", "false": "1"},
        {"true_name": "false", "true": "0", "false": "2"},
    ]


def test_no_class_may_be_named_as_a_column_of_the_predictions(evaluated):
    evaluation, model, _ = evaluated
    columns = set(table(evaluation.path / "predictions.csv")[0])
    assert columns - set(model.manifest.classes) < RESERVED_NAMES


def test_its_accuracy_is_the_one_that_training_saw_in_the_best_epoch(evaluated):
    evaluation, model, _ = evaluated
    assert evaluation.manifest.metrics["accuracy"] == pytest.approx(model.manifest.best["val_accuracy"])


# --- What is refused ----------------------------------------------------------------------------------------


def changed(artifact, classes=None, **preprocess):
    """The same artefact with another manifest."""
    manifest, settings = artifact.manifest, artifact.manifest.settings
    settings = settings.model_copy(update={"preprocess": settings.preprocess.model_copy(update=preprocess)})
    changes = {"classes": classes or manifest.classes, "settings": settings}
    return replace(artifact, manifest=manifest.model_copy(update=changes))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"classes": ("plain", "rows")}, ["its classes are plain, rows; the model's are plain, rows, columns"]),
        ({"classes": ("rows", "plain", "columns")}, ["its classes are rows, plain, columns"]),
        ({"equalize": Equalization.NONE}, ["preprocess.equalize is none, not clahe"]),
        (
            {"image_size_px": 64, "clahe_clip_limit": 4.0},
            ["preprocess.image_size_px is 64, not 32", "preprocess.clahe_clip_limit is 4.0, not 2.0"],
        ),
    ],
)
def test_a_dataset_of_another_kind_than_the_model_s_is_refused_with_what_differs(change, told, evaluated):
    _, model, dataset = evaluated
    with pytest.raises(AoiError) as refused:
        check_same(model, changed(dataset, **change))
    for words in [str(dataset.path), "or train", *told]:
        assert words in str(refused.value)


def test_the_model_s_own_dataset_is_accepted(evaluated):
    _, model, dataset = evaluated
    check_same(model, dataset)


def older(artifact):
    """The same artefact as a version without preprocess.fit would have written it, and this one reads it."""
    entries = copy.deepcopy(artifact.json)
    del entries["settings"]["preprocess"]["fit"]
    return replace(artifact, manifest=type(artifact.manifest).model_validate(entries), json=entries)


@pytest.mark.parametrize("fit", Fit)
@pytest.mark.parametrize("lacking", ["model", "dataset"])
def test_a_setting_that_only_one_of_the_manifests_has_is_compared_with_its_default(lacking, fit, evaluated):
    _, model, dataset = evaluated
    pair = {"model": model, "dataset": dataset}
    pair = {name: older(one) if name == lacking else changed(one, fit=fit) for name, one in pair.items()}
    if fit == "stretch":
        check_same(**pair)
    else:
        seen = {"model": "preprocess.fit is pad, not stretch", "dataset": "preprocess.fit is stretch, not pad"}[lacking]
        with pytest.raises(AoiError, match=seen):
            check_same(**pair)


def test_a_model_of_a_time_without_bit_depths_takes_a_dataset_of_any(evaluated):
    _, model, dataset = evaluated
    check_same(changed(model, bit_depth="auto"), changed(dataset, bit_depth=12))
    with pytest.raises(AoiError, match=r"preprocess\.bit_depth is 12, not 8"):
        check_same(changed(model, bit_depth=8), changed(dataset, bit_depth=12))


def test_a_dataset_without_the_model_s_fold_is_refused(made, evaluated, tmp_path):
    _, home, settings, _ = made
    lot = home.named(DatasetManifest, "tiny-test")
    with pytest.raises(AoiError, match=r"no record in fold 0, which validates this model\. Name the dataset that"):
        make_evaluation(Job(Home(tmp_path), settings), evaluated[1], lot)
    assert not list(tmp_path.iterdir())


# --- With its store -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop(copy_home, made, tmp_path_factory):
    """(HOME, function that evaluates the model there with other settings)."""
    _, _, settings, refs = made
    home = copy_home(tmp_path_factory.mktemp("evaluate") / "home")
    given = (home.open(refs["train"], ModelManifest), home.open(refs["ingest"], DatasetManifest))

    def run(**chosen):
        job = Job(home, settings.model_copy(update={"evaluate": EvaluateSettings(**chosen)}))
        return make_evaluation(job, *given)

    return home, run


def test_a_model_under_the_bound_is_measured_all_the_same_and_then_fails_with_exit_code_1(shop):
    evaluation, cached = shop[1](minimum_accuracy=1.0)
    assert not cached
    assert evaluation.manifest.passed is False
    with pytest.raises(AoiError) as failed:
        check_passed(evaluation)
    assert failed.value.exit_code == 1
    accuracy = evaluation.manifest.metrics["accuracy"]
    assert f"accuracy {accuracy:.4f} is under evaluate.minimum_accuracy 1" in str(failed.value)
    assert "mistakes.png" in str(failed.value)
    assert {path.name for path in evaluation.path.iterdir()} >= FILES


def test_a_model_at_the_bound_passes(shop, evaluated):
    accuracy = evaluated[0].manifest.metrics["accuracy"]
    evaluation, _ = shop[1](minimum_accuracy=accuracy)
    assert evaluation.manifest.passed is True
    check_passed(evaluation)


def test_a_named_normal_class_adds_escape_and_overkill(shop, evaluated):
    assert not {"escape_rate", "overkill_rate"} & set(evaluated[0].manifest.metrics)
    evaluation, _ = shop[1](normal_class=0)
    rows = table(evaluation.path / "predictions.csv")
    defects = [row for row in rows if row["true_label"] != "0"]
    good = [row for row in rows if row["true_label"] == "0"]
    metrics = evaluation.manifest.metrics
    assert metrics["escape_rate"] == pytest.approx(sum(row["label"] == "0" for row in defects) / len(defects))
    assert metrics["overkill_rate"] == pytest.approx(sum(row["label"] != "0" for row in good) / len(good))


def test_a_store_that_does_not_have_the_model_s_run_is_refused_with_what_to_do(shop, made, evaluated):
    home, _ = shop
    _, model, dataset = evaluated
    unknown = RunRecord(experiment_id="1", run_id="0" * 32)
    stranger = replace(model, manifest=model.manifest.model_copy(update={"mlflow": unknown}))
    before = home.committed(EvaluationManifest)
    with pytest.raises(AoiError) as refused:
        make_evaluation(Job(home, made[2], force=True), stranger, dataset)
    assert "MLFLOW_TRACKING_URI" in str(refused.value)
    assert "train again with --force" in str(refused.value)
    assert refused.value.exit_code == 1  # it may pass, with another store
    assert home.committed(EvaluationManifest) == before
