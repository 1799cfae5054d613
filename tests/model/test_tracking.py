"""What MLflow knows of a training: one run, what went in, how it went, and a model that takes PNG bytes."""

import csv
import getpass
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.products import rollback
from flows.stages.evaluate import evaluate
from flows.stages.stage import Job
from flows.stages.train import train
from model.card import Card, write_card
from model.inference.classifier import open_classifier
from model.manifests import ModelManifest
from model.registry import origin as provenance
from model.registry.store import (
    CHAMPION,
    STORE_VARIABLE,
    TABLE_METRICS,
    experiments_address,
    run_address,
    runs_address,
    store_of,
)
from model.registry.tracking import connect, finish_training, flatten, legal_names, runs_addresses, training_run
from model.settings import Recipe
from tfrecords.dataset import DatasetManifest
from tfrecords.errors import AoiError

CLASSES = ["plain", "rows", "columns"]
EXPERIMENT_TAGS = {"mlflow.experimentKind", "mlflow.sharedViewState.aoi"}


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
    train = logged.settings.train.model_copy(update={"devices": 1})  # which is what auto is here
    for section, used in (("train", train), ("preprocess", manifest.settings.preprocess)):
        for key, value in used.model_dump().items():
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
        "training": (logged.refs["train"], {"curves.png", "history.csv", "model.other_epoch.csv"}),
        "evaluation": (logged.refs["evaluate"], None),
    }
    for folder, (ref, names) in kept.items():
        files = {path.name: path for path in (logged.home.root / ref.folder).iterdir() if path.name != "manifest.json"}
        got = logged.client.download_artifacts(logged.run.info.run_id, folder, str(tmp_path))
        assert set(os.listdir(got)) == (names & set(files) if names else set(files))
        for name in os.listdir(got):
            assert (tmp_path / folder / name).read_bytes() == files[name].read_bytes()


# --- The model ----------------------------------------------------------------------------------------------


def test_the_model_is_registered_and_champion_once_it_passed(logged):
    version = logged.client.get_model_version_by_alias("aoi-tiny", CHAMPION)
    assert int(version.version) == 1
    assert version.run_id == logged.run.info.run_id
    assert logged.run.data.tags["aoi.passed"] == "true"


@pytest.fixture
def served(logged, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))  # MLflow puts the model's own code there
    return mlflow.pyfunc.load_model(store_of(logged.home.root, "tiny").model_uri)


def test_it_tells_what_it_takes_and_gives_and_brings_an_example(served):
    (taken,) = served.metadata.get_input_schema().to_dict()
    given = {column["name"]: column["type"] for column in served.metadata.get_output_schema().to_dict()}
    assert taken["type"] == "binary"
    assert given == {"label": "long", "name": "string", **dict.fromkeys(CLASSES, "float"), "novelty": "double"}


def test_its_input_example_is_a_picture_file_as_the_camera_wrote_it(logged, served):
    example = served.input_example["picture"].tolist()
    assert example == [(logged.data / "train_images" / "train_000.png").read_bytes()]
    assert len(served.predict(served.input_example)) == 1


def test_it_has_the_networks_and_the_card_and_no_checkpoint_of_the_training(logged, second_run):
    run_id = second_run(checkpoints=[".epoch-001.keras"])
    (model,) = logged_models(second_run.store, run_id)
    assert files_in(second_run.store, model, "data/model") == [
        "card.json",
        "model.keras",
        "model.novelty.npz",
        "model.tflite",
    ]


def test_a_dataset_of_an_earlier_version_has_no_example_and_its_model_neither(second_run):
    run_id = second_run(example=None)
    (model,) = logged_models(second_run.store, run_id)
    assert mlflow.models.get_model_info(f"models:/{model}").saved_input_example_info is None


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
    assert list(answers.columns) == ["label", "name", *CLASSES, "novelty"]
    np.testing.assert_allclose(answers["novelty"], [float(row["novelty"]) for row in expected], atol=1e-6)
    assert answers["label"].tolist() == [int(row["label"]) for row in expected]
    assert answers["name"].tolist() == [row["name"] for row in expected]
    probabilities = [[float(row[name]) for name in CLASSES] for row in expected]
    np.testing.assert_allclose(answers[CLASSES].to_numpy(), probabilities, atol=1e-5)


def test_a_served_model_names_the_picture_that_it_can_t_read(logged, served):
    whole = (logged.data / "test_images" / "test_000.png").read_bytes()
    with pytest.raises(ValueError, match="picture 1: the PNG is cut off after 100 bytes"):
        served.predict([whole, whole[:100]])


# --- What people see -----------------------------------------------------------------------------------------


def test_the_experiment_opens_as_model_training_with_a_table_of_the_rates(logged):
    tags = logged.client.get_experiment(logged.run.info.experiment_id).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    view = json.loads(tags["mlflow.sharedViewState.aoi"])
    assert {type(view[key]) for key in ("name", "state")} == {str}
    assert {type(view[key]) for key in ("createdAt", "updatedAt")} == {int}
    assert json.loads(view["state"]) == {"selectedColumns": [f"metrics.`{metric}`" for metric in TABLE_METRICS]}
    assert set(TABLE_METRICS) == {"accuracy", "balanced_accuracy", "escape_rate", "overkill_rate"}


def test_the_address_of_the_table_names_the_mode_and_the_view():
    address = "http://h:5/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=aoi"
    assert runs_address("http://h:5", "7") == address
    assert "workflowType=machine_learning" in experiments_address("http://h:5")
    assert "workflowType=machine_learning" in run_address("http://h:5", "7", "r")


def strip(home):
    """Takes from the experiment what earlier versions did not give it."""
    client, run = run_of(home)
    for tag in EXPERIMENT_TAGS:
        client.delete_experiment_tag(run.info.experiment_id, tag)
    return client, run.info.experiment_id


def test_an_experiment_of_an_earlier_version_gets_that_when_its_addresses_are_asked_for(made, copy_home, tmp_path):
    home = copy_home(tmp_path / "home")
    client, experiment = strip(home)
    assert runs_addresses(store_of(home.root, ""), "http://h:5") == {"tiny": runs_address("http://h:5", experiment)}
    assert client.get_experiment(experiment).tags.keys() >= EXPERIMENT_TAGS


def test_an_experiment_of_an_earlier_version_gets_that_with_the_next_evaluation(made, copy_home, tmp_path):
    _, _, settings, refs = made
    home = copy_home(tmp_path / "home")
    client, experiment = strip(home)
    evaluate(Job(home, settings, force=True), refs["train"].folder)
    assert client.get_experiment(experiment).tags.keys() >= EXPERIMENT_TAGS


def test_a_kind_that_people_chose_for_an_experiment_stays(made, copy_home, tmp_path):
    home = copy_home(tmp_path / "home")
    client, run = run_of(home)
    client.set_experiment_tag(run.info.experiment_id, "mlflow.experimentKind", "classification")
    runs_addresses(store_of(home.root, ""), "http://h:5")
    assert client.get_experiment(run.info.experiment_id).tags["mlflow.experimentKind"] == "classification"


def test_a_shared_store_lists_the_experiments_of_this_project_alone(monkeypatch, tmp_path):
    monkeypatch.setenv(STORE_VARIABLE, f"sqlite:///{tmp_path / 'shared.db'}")
    store = store_of(tmp_path, "ours")
    client = connect(store)
    client.create_experiment("theirs")
    with training_run(store, "f" * 16, "run", {}, [], None) as record:
        pass
    assert runs_addresses(store, "http://h:5") == {"ours": runs_address("http://h:5", record["experiment_id"])}
    assert not EXPERIMENT_TAGS & client.get_experiment_by_name("theirs").tags.keys()


def test_a_run_says_who_made_it_and_with_which_code(logged):
    tags = logged.run.data.tags
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=os.path.dirname(__file__))
    assert tags["mlflow.user"] == logged.run.info.user_id == getpass.getuser()
    assert (tags["mlflow.source.name"], tags["mlflow.source.type"]) == ("aoi", "LOCAL")
    assert tags["aoi.version"]
    assert tags.get("mlflow.source.git.commit", "") == commit.stdout.strip()


def test_code_outside_a_checkout_and_a_user_without_a_name_are_no_errors(monkeypatch, tmp_path):
    def nobody():
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "origin.py"))
    monkeypatch.setattr(getpass, "getuser", nobody)
    tags = provenance.origin()
    assert tags["mlflow.user"] == "unknown"
    assert "mlflow.source.git.commit" not in tags


def test_an_installed_package_does_not_name_the_commit_of_a_checkout_around_it(monkeypatch, tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    author = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run(["git", "-C", tmp_path, *author, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    (tmp_path / "origin.py").touch()
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "origin.py"))
    assert "mlflow.source.git.commit" not in provenance.origin()


def test_its_description_tells_the_result_and_the_data_and_shows_the_mistakes(logged, tmp_path):
    note = logged.run.data.tags["mlflow.note.content"]
    metrics = json.loads((logged.home.root / logged.refs["evaluate"].folder / "metrics.json").read_text())
    assert note.startswith("### Result\n\n")
    assert f"accuracy **{metrics['accuracy']:.4f}**" in note or f"accuracy **{metrics['accuracy']:.0f}**" in note
    assert re.search(r"^Promise: at most .* confidence, \d+ labelled parts", note.replace("\\", ""), re.M)
    dataset = logged.refs["ingest"].fingerprint
    assert f"`tiny`, dataset `{dataset}`: 60 pictures of 3 classes (plain 20, rows 20, columns 20)." in note
    run_id = logged.run.info.run_id
    assert f"](get-artifact?run_uuid={run_id}&path=description/mistakes.png)" in note
    shown = logged.client.download_artifacts(run_id, "description/mistakes.png", str(tmp_path))
    assert Path(shown).read_bytes().startswith(b"\x89PNG")


def test_what_people_wrote_into_a_description_stays(made, copy_home, tmp_path):
    _, _, settings, refs = made
    home = copy_home(tmp_path / "home")
    client, run = run_of(home)
    before = run.data.tags["mlflow.note.content"]
    client.set_tag(run.info.run_id, "mlflow.note.content", f"Line 3, new lens.\n\n{before}### Mine\n\nkept\n")
    evaluate(Job(home, settings, force=True), refs["train"].folder)
    assert client.get_run(run.info.run_id).data.tags["mlflow.note.content"] == (
        f"Line 3, new lens.\n\n{before}\n### Mine\n\nkept\n"
    )


def test_metrics_are_linked_to_the_model_and_the_dataset(logged):
    (model,) = logged.run.outputs.model_outputs
    linked = logged.client.get_logged_model(model.model_id).metrics
    rates = {metric.key: metric for metric in linked}
    assert {"best_val_accuracy", "accuracy", "balanced_accuracy", "macro_f1"} <= rates.keys()
    for metric in linked:
        assert (metric.dataset_name, metric.dataset_digest) == ("tiny", logged.refs["ingest"].fingerprint)
        assert metric.value == logged.run.data.metrics[metric.key]


def test_neither_this_process_nor_what_it_starts_reports_its_use():
    code = (
        "import os, model.registry.tracking; from mlflow.telemetry import get_telemetry_client as client; "
        "print(client(), os.environ['MLFLOW_DISABLE_TELEMETRY'])"
    )
    asked = ("CI", "PYTEST_CURRENT_TEST", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK")
    environment = {key: value for key, value in os.environ.items() if key not in asked}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "true"]


# --- Names of any marks --------------------------------------------------------------------------------------

ODD = ["scratch (deep)", "a,b", "100 %", "R&D", "凹痕（深）", "../up", "/rooted", "a//b", "ends.", "x/../y", "k" * 300]


@pytest.fixture
def second_run(made, copy_home, tmp_path):
    """A function that logs the whole run's model once more, as another run of a copied HOME. Returns the run's id."""
    _, _, _, refs = made
    home = copy_home(tmp_path / "home")
    dataset, model = home.open(refs["ingest"], DatasetManifest), home.open(refs["train"], ModelManifest)
    store = store_of(home.root, "tiny")

    def log(classes=CLASSES, example=b"file", checkpoints=()):
        folder = shutil.copytree(model.path, tmp_path / "model")
        write_card(folder, Card(classes, open_classifier(folder).preprocess, {"model": 0}))
        for name in checkpoints:
            (folder / name).write_bytes(b"")
        params = {f"counts.{name}": at for at, name in enumerate(classes)}
        with training_run(store, "f" * 16, "second", params, [dataset], None) as record:
            finish_training(
                store, record["run_id"], {f"recall.{name}": 1.0 for name in classes}, folder, classes, example
            )
        return record["run_id"]

    log.store, log.data = store, made[0]
    return log


def logged_models(store, run_id):
    return [model.model_id for model in connect(store).get_run(run_id).outputs.model_outputs]


def files_in(store, model, folder):
    return sorted(posixpath.basename(file.path) for file in connect(store).list_logged_model_artifacts(model, folder))


@pytest.mark.parametrize("classes", [ODD[:3], ODD[3:6], ODD[6:9], ["a b", *ODD[9:]]], ids=lambda names: names[0])
def test_class_names_of_any_marks_are_logged_and_served(classes, second_run, monkeypatch):
    run = connect(second_run.store).get_run(second_run(classes))
    assert sorted(run.data.params.values()) == ["0", "1", "2"]
    assert len([key for key in run.data.metrics if key.startswith("recall.")]) == 3
    monkeypatch.setattr(sys, "path", list(sys.path))
    served = mlflow.pyfunc.load_model(f"models:/{logged_models(second_run.store, run.info.run_id)[0]}")
    answers = served.predict([(second_run.data / "test_images" / "test_000.png").read_bytes()])
    assert list(answers.columns) == ["label", "name", *classes, "novelty"]
    assert served.metadata.get_output_schema().input_names() == ["label", "name", *classes, "novelty"]


def test_more_classes_than_mlflow_takes_parameters_at_once_are_logged(tmp_path):
    store = store_of(tmp_path, "many")
    params = {f"counts.class {at}": at for at in range(300)}
    with training_run(store, "f" * 16, "run", params, [], None) as record:
        pass
    assert len(connect(store).get_run(record["run_id"]).data.params) == 300


@pytest.mark.parametrize("name", ["counts.plain", "counts.edge_defect", "counts.a b/c-d:e", "counts.凹痕"])
def test_names_that_mlflow_takes_stay_as_they_are(name):
    assert legal_names([name]) == {name: name}


@given(st.lists(st.text(st.characters(blacklist_categories=("C", "Zl", "Zp")), min_size=1), unique=True, max_size=5))
@settings(max_examples=200, derandomize=True, deadline=None)
def test_legal_names_are_legal_and_unlike_each_other(names):
    from mlflow.utils.validation import _validate_metric, _validate_param

    legal = legal_names(f"counts.{name}" for name in names)
    assert len(set(legal.values())) == len(names)
    for name in legal.values():
        _validate_param(name, "1")
        _validate_metric(name, 1.0, 0, 0)


def test_a_name_that_looks_like_a_changed_one_stays_its_own():
    (changed,) = legal_names(["counts.a,b"]).values()
    both = legal_names(["counts.a,b", changed])
    assert both[changed] == changed
    assert both["counts.a,b"] != changed


# --- Several models -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def second(copy_home, made, tmp_path_factory):
    """A HOME with the whole run's model and a second one, which was not evaluated yet."""
    _, _, settings, refs = made
    home = copy_home(tmp_path_factory.mktemp("tracking") / "home")
    quick = settings.train.model_copy(update={"recipe": Recipe.FROZEN, "epochs": 1, "seed": 1})
    other = settings.model_copy(update={"train": quick})
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


def test_no_file_of_a_store_stays_open(tmp_path):
    client = connect(store_of(tmp_path, "tiny"))
    client.create_experiment("tiny")
    assert (tmp_path / "mlflow.db").is_file()
    assert [file.path for file in psutil.Process().open_files() if file.path.startswith(str(tmp_path))] == []


def test_a_store_that_is_named_is_used_and_stays_named(monkeypatch, tmp_path):
    address = f"sqlite:///{tmp_path / 'named.db'}"
    monkeypatch.setenv(STORE_VARIABLE, address)
    store = store_of(tmp_path / "home", "tiny")
    assert store.uri == address
    assert not (tmp_path / "home").exists()


def test_an_address_that_mlflow_does_not_know_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv(STORE_VARIABLE, "foo://records")
    with pytest.raises(AoiError, match=r"foo://records: MLflow's store failed .*unsupported URI"):
        connect(store_of(tmp_path, "a"))


@pytest.mark.parametrize(
    ("content", "seen"), [(b"", r"is empty \(0 bytes\)"), (b"no database", "not a SQLite database")]
)
def test_a_store_that_is_no_database_is_refused_by_name_with_a_remedy_that_helps(content, seen, made, tmp_path):
    store = store_of(tmp_path, "tiny")
    (tmp_path / "mlflow.db").write_bytes(content)
    with pytest.raises(AoiError, match=rf"{tmp_path / 'mlflow.db'}: .*{seen}.* delete it.*--force") as refused:
        connect(store)
    assert refused.value.exit_code == 1  # what a training finished stays
    (tmp_path / "mlflow.db").unlink()
    assert connect(store).search_experiments()


def test_a_model_whose_run_is_lost_is_recorded_anew_by_force(made, copy_home, tmp_path):
    """What the refusals of a lost run, and of a store that is no database, say to do."""
    _, _, settings, refs = made
    home, model = copy_home(tmp_path / "home"), refs["train"]
    (home.root / "mlflow.db").unlink()
    with pytest.raises(AoiError, match="train again with --force"):
        evaluate(Job(home, settings, force=True), model.folder)
    again = train(Job(home, settings, force=True), refs["ingest"].folder)
    assert again.fingerprint == model.fingerprint
    evaluate(Job(home, settings, force=True), again.fingerprint)
    assert run_of(home)[1].data.tags["aoi.passed"] == "true"
