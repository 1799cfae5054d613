"""What MLflow knows of a training: one run, what went in, how it went, and a model that takes PNG bytes."""

import csv
import json
import os
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import pytest

from flows.products import rollback
from flows.stages.evaluate import evaluate
from flows.stages.stage import Job
from flows.stages.train import train
from model.manifests import ModelManifest
from model.registry.store import CHAMPION, STORE_VARIABLE, store_of
from model.registry.tracking import connect, flatten
from tfrecords.dataset import DatasetManifest
from tfrecords.errors import AoiError

CLASSES = ["plain", "rows", "columns"]


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run_of(home, name="tiny"):
    """(client, the only run of the data's experiment)."""
    client = connect(store_of(home.root, name))
    (run,) = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    return client, run


@pytest.fixture
def logged(made):
    """The whole run's client, run, references and HOME."""
    data, home, settings, refs = made
    client, run = run_of(home)
    return SimpleNamespace(client=client, run=run, data=data, home=home, settings=settings, refs=refs)


# --- The run ------------------------------------------------------------------------------------------------


def test_a_training_is_one_finished_run_named_after_what_matters(logged):
    fingerprint = logged.refs["train"].fingerprint
    assert logged.run.info.status == "FINISHED"
    assert logged.run.info.run_name == f"mobilenet-0.25 32px 2ep {fingerprint[:6]}"
    assert logged.home.open(logged.refs["train"], ModelManifest).manifest.mlflow.run_id == logged.run.info.run_id


def test_every_setting_is_a_parameter_under_its_own_name(logged):
    params = logged.run.data.params
    manifest = logged.home.open(logged.refs["ingest"], DatasetManifest).manifest
    for section in ("train", "preprocess"):
        for key, value in getattr(logged.settings, section).model_dump().items():
            assert params[f"{section}.{key}"] == str(value)
    assert params["ingest.folds"] == str(manifest.settings.ingest.folds)
    assert params["dataset.fingerprint"] == logged.refs["ingest"].fingerprint
    assert [params[f"counts.{name}"] for name in CLASSES] == ["20", "20", "20"]


def test_settings_are_flattened_to_dotted_names():
    assert flatten({"a": {"b": {"c": 1}, "d": None}, "e": "x"}) == {"a.b.c": 1, "a.d": None, "e": "x"}


def test_the_dataset_is_an_input_whose_digest_is_its_fingerprint(logged):
    (given,) = logged.run.inputs.dataset_inputs
    assert given.dataset.name == "tiny"
    assert given.dataset.digest == logged.refs["ingest"].fingerprint


def test_it_has_metrics_for_every_epoch_and_those_of_the_evaluation(logged):
    rows = table(logged.home.root / logged.refs["train"].folder / "history.csv")
    for key, column in {"train_loss": "loss", "train_accuracy": "accuracy", "val_accuracy": "val_accuracy"}.items():
        values = logged.client.get_metric_history(logged.run.info.run_id, key)
        assert [value.step for value in values] == [1, 2]
        assert [value.value for value in values] == pytest.approx([float(row[column]) for row in rows])
    metrics = json.loads((logged.home.root / logged.refs["evaluate"].folder / "metrics.json").read_text())
    assert {key: logged.run.data.metrics[key] for key in metrics} == pytest.approx(metrics)


def test_it_has_every_file_of_training_and_evaluation(logged, tmp_path):
    kept = {
        "training": (logged.refs["train"], {"curves.png", "history.csv"}),
        "evaluation": (logged.refs["evaluate"], None),
    }
    for folder, (ref, names) in kept.items():
        files = {path.name: path for path in (logged.home.root / ref.folder).iterdir() if path.name != "manifest.json"}
        got = logged.client.download_artifacts(logged.run.info.run_id, folder, str(tmp_path))
        assert set(os.listdir(got)) == (names or set(files))
        for name in os.listdir(got):
            assert (tmp_path / folder / name).read_bytes() == files[name].read_bytes()


# --- The model ----------------------------------------------------------------------------------------------


def test_the_model_is_registered_and_champion_once_it_passed(logged):
    version = logged.client.get_model_version_by_alias("aoi-tiny", CHAMPION)
    assert int(version.version) == 1
    assert version.run_id == logged.run.info.run_id
    assert logged.run.data.tags["aoi.passed"] == "true"


@pytest.fixture
def served(logged):
    return mlflow.pyfunc.load_model(store_of(logged.home.root, "tiny").model_uri)


def test_it_tells_what_it_takes_and_gives_and_brings_an_example(served):
    (taken,) = served.metadata.get_input_schema().to_dict()
    given = {column["name"]: column["type"] for column in served.metadata.get_output_schema().to_dict()}
    assert taken["type"] == "binary"
    assert given == {"label": "long", "name": "string", **dict.fromkeys(CLASSES, "float")}
    assert served.metadata.saved_input_example_info is not None


FORMS = {
    "a table": lambda pictures: pd.DataFrame({"picture": pictures}),
    "a list": lambda pictures: pictures,
    "single pictures": lambda pictures: None,
}


@pytest.mark.parametrize("form", FORMS)
def test_served_png_bytes_get_the_answers_of_the_predict_stage(form, logged, served):
    expected = table(logged.home.root / logged.refs["predict"].folder / "predictions.csv")
    pictures = [(logged.data / "test_images" / row["ID"]).read_bytes() for row in expected]
    if form == "single pictures":
        answers = pd.concat([served.predict(picture) for picture in pictures], ignore_index=True)
    else:
        answers = served.predict(FORMS[form](pictures))
    assert list(answers.columns) == ["label", "name", *CLASSES]
    assert answers["label"].tolist() == [int(row["label"]) for row in expected]
    assert answers["name"].tolist() == [row["name"] for row in expected]
    probabilities = [[float(row[name]) for name in CLASSES] for row in expected]
    np.testing.assert_allclose(answers[CLASSES].to_numpy(), probabilities, atol=1e-5)


def test_a_served_model_names_the_picture_that_it_can_t_read(logged, served):
    whole = (logged.data / "test_images" / "test_000.png").read_bytes()
    with pytest.raises(ValueError, match="picture 1: the PNG is cut off after 100 bytes"):
        served.predict([whole, whole[:100]])


# --- Several models -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def second(copy_home, made, tmp_path_factory):
    """A HOME with the whole run's model and a second one, which was not evaluated yet."""
    _, _, settings, refs = made
    home = copy_home(tmp_path_factory.mktemp("tracking") / "home")
    other = settings.model_copy(update={"train": settings.train.model_copy(update={"epochs": 1, "seed": 1})})
    dataset = refs["ingest"].folder
    return SimpleNamespace(home=home, settings=settings, first=refs["train"], ref=train(Job(home, other), dataset))


def judge(second, ref, minimum=0.0):
    bound = second.settings.evaluate.model_copy(update={"minimum_accuracy": minimum})
    return evaluate(Job(second.home, second.settings.model_copy(update={"evaluate": bound})), ref.folder)


def champion(home):
    """Fingerprint of the model that carries the alias."""
    client = connect(store_of(home.root, "tiny"))
    run = client.get_run(client.get_model_version_by_alias("aoi-tiny", CHAMPION).run_id)
    return run.data.tags["aoi.training"]


def test_champion_moves_to_a_model_that_passes_and_to_no_other(second):
    assert champion(second.home) == second.first.fingerprint  # training alone moves nothing
    with pytest.raises(AoiError, match="is under evaluate"):
        judge(second, second.ref, minimum=1.0)
    assert champion(second.home) == second.first.fingerprint
    assert "not worse" in judge(second, second.ref).note  # ten pictures prove nothing against it
    assert champion(second.home) == second.home.recall("champion-tiny")["fingerprint"] == second.ref.fingerprint


def test_a_champion_can_be_rolled_back_to_the_one_before_it_and_no_further(second):
    judge(second, second.ref)
    assert rollback(second.home, None)[0].fingerprint == second.first.fingerprint
    assert champion(second.home) == second.home.recall("champion-tiny")["fingerprint"] == second.first.fingerprint
    with pytest.raises(AoiError, match="no champion of tiny before the present one"):
        rollback(second.home, None)
    again = judge(second, second.ref)  # found, not measured again: it is judged all the same
    assert again.cached
    assert champion(second.home) == second.home.recall("champion-tiny")["fingerprint"] == second.ref.fingerprint


def test_two_runs_stand_side_by_side_in_one_experiment(second):
    client = connect(store_of(second.home.root, "tiny"))
    runs = client.search_runs(
        [client.get_experiment_by_name("tiny").experiment_id], order_by=["attributes.start_time ASC"]
    )
    assert [run.data.params["train.seed"] for run in runs] == ["0", "1"]
    assert [run.data.params["train.epochs"] for run in runs] == ["2", "1"]
    first, other = (set(run.data.params) for run in runs)
    assert first == other
    assert len({run.info.run_name for run in runs}) == 2


# --- Which store --------------------------------------------------------------------------------------------


def test_every_home_has_a_store_of_its_own_in_one_process(second, made):
    _, origin, _, _ = made
    assert STORE_VARIABLE not in os.environ
    assert store_of(second.home.root, "tiny").uri != store_of(origin.root, "tiny").uri
    run_of(origin)  # still exactly one run there
    record = second.home.open(second.ref, ModelManifest).manifest.mlflow
    place = connect(store_of(second.home.root, "tiny")).get_run(record.run_id).info.artifact_uri
    assert place.startswith((second.home.root / "mlartifacts").as_uri())


def test_a_store_that_is_named_is_used_and_stays_named(monkeypatch, tmp_path):
    address = f"sqlite:///{tmp_path / 'named.db'}"
    monkeypatch.setenv(STORE_VARIABLE, address)
    store = store_of(tmp_path / "home", "tiny")
    assert (store.uri, store.artifacts) == (address, "")
    assert not (tmp_path / "home").exists()
