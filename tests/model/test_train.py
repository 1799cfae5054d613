"""The train stage: the same model from the same seed, whether or not it was interrupted, and one MLflow run for it."""

import csv
import re
import zipfile
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import keras
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from flows.home import Home
from flows.stages.stage import Job
from flows.stages.train import make_model
from model.decisions.halves import OTHER_EPOCH, choosing
from model.manifests import ModelManifest
from model.network.files import load
from model.registry.store import Store, store_of
from model.registry.tracking import TRAINING_TAG
from model.training.best_epoch import best_epoch
from tfrecords.dataset import DatasetManifest
from tfrecords.errors import AoiError
from tfrecords.records.reader import validation_batches, validation_ids

NETWORK = {"model.keras", "model.tflite", "model.novelty.npz"}
FOLDER = NETWORK | {"card.json", "curves.png", "history.csv", "manifest.json"}
OTHER = f"model{OTHER_EPOCH}"  # where the halves of the fold would choose different epochs


@pytest.fixture(scope="module")
def place(made, tmp_path_factory):
    """(a HOME where no training was yet, its MLflow store)."""
    home = Home(tmp_path_factory.mktemp("train") / "home")
    return home, store_of(home.root, "tiny")


@pytest.fixture(scope="module")
def dataset(made):
    return made[1].open(made[3]["ingest"], DatasetManifest)


@pytest.fixture(scope="module")
def resumed(made, place, dataset):
    """The training of `made`, stopped in its second epoch and asked for again."""
    home, store = place
    job = Job(home, made[2])

    def stop(done, total, note):
        if note.startswith("epoch 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_model(replace(job, progress=stop), dataset)
    stopped = runs(store)
    keras.utils.set_random_seed(99)  # the next try is another process, where nothing was seeded yet
    told = []
    model, cached = make_model(replace(job, progress=lambda *call: told.append(call)), dataset)
    return SimpleNamespace(model=model, cached=cached, told=told, stopped=stopped, root=home.folder(ModelManifest))


def runs(store: Store):
    client = MlflowClient(store.uri)
    return client.search_runs([client.get_experiment_by_name(store.name).experiment_id])


def history(folder):
    with open(folder / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


# --- What comes out -----------------------------------------------------------------------------------------


def test_a_model_s_folder_holds_exactly_these_files(made):
    _, home, _, refs = made
    assert {path.name for path in (home.root / refs["train"].folder).iterdir()} - {OTHER} == FOLDER


def test_the_model_is_made_of_layers_that_keras_has(made):
    _, home, _, refs = made
    with zipfile.ZipFile(home.root / refs["train"].folder / "model.keras") as file:
        config = file.read("config.json").decode()
    modules = set(re.findall(r'"module": "([^"]+)"', config))
    assert modules
    assert {module.partition(".")[0] for module in modules} == {"keras"}


def test_the_history_has_a_row_an_epoch_and_the_manifest_the_best_of_them(made):
    _, home, settings, refs = made
    model = home.open(refs["train"], ModelManifest)
    rows = history(model.path)
    assert [row["epoch"] for row in rows] == [str(epoch + 1) for epoch in range(settings.train.epochs)]
    best = rows[int(model.manifest.best["epoch"]) - 1]
    assert {key: float(best[key]) for key in model.manifest.best} == pytest.approx(model.manifest.best)


@pytest.fixture(scope="module")
def by_halves(made, dataset, tmp_path_factory):
    """A function: the training of `made` where these pictures of its fold choose the epoch."""

    def train(chose):
        home = Home(tmp_path_factory.mktemp("halves") / "home")
        with mock.patch("model.training.train.choosing", lambda dataset, ids: np.isin(ids, chose(ids))):
            return make_model(Job(home, made[2]), dataset)[0]

    return train


def test_the_half_that_chooses_alone_chooses_and_the_other_tells_what_it_would_have_chosen(by_halves, made, dataset):
    whole = by_halves(lambda ids: ids)
    rows = [{key: float(value) for key, value in row.items()} for row in history(whole.path)]
    assert whole.manifest.half_chose
    assert whole.manifest.best["epoch"] == best_epoch(rows)
    assert not (whole.path / OTHER).exists()
    model = made[1].open(made[3]["train"], ModelManifest)
    ids = validation_ids(dataset, 0)
    chose = choosing(dataset, ids)
    swapped = by_halves(lambda ids: [name for name, chosen in zip(ids, chose, strict=True) if not chosen])
    assert (swapped.path / OTHER).exists() == (model.path / OTHER).exists()
    told = pd.read_csv(model.path / OTHER) if (model.path / OTHER).exists() else None
    if told is None:  # both halves chose the same epoch
        assert swapped.manifest.best == model.manifest.best
    else:
        assert told["ID"].tolist() == [name for name, chosen in zip(ids, chose, strict=True) if chosen]
        network = load(swapped.path / "model.keras")
        images = np.concatenate([images for images, _ in validation_batches(dataset, 0, 16, 64).as_numpy_iterator()])
        expected = network(images[chose], training=False).numpy()
        np.testing.assert_allclose(told.drop(columns="ID").to_numpy(), expected, atol=1e-6)


def test_the_model_that_is_kept_is_the_one_of_the_best_epoch(made, dataset):
    _, home, _, refs = made
    model = home.open(refs["train"], ModelManifest)
    network = load(model.path / "model.keras")
    losses = []
    for images, labels in validation_batches(dataset, model.manifest.folds[0], 16, 64):
        odds = network(images, training=False).numpy()
        losses += list(-np.log(odds[np.arange(len(odds)), labels.numpy()]))
    assert np.mean(losses) == pytest.approx(model.manifest.best["val_loss"], abs=2e-6)
    validation = sorted(float(row["val_loss"]) for row in history(model.path))
    assert min(np.diff(validation)) > 1e-5  # else any epoch would do


def test_what_the_manifest_tells_is_enough_to_use_and_to_repeat_it(made, dataset):
    _, home, settings, refs = made
    manifest = home.open(refs["train"], ModelManifest).json
    assert manifest["classes"] == dataset.json["classes"]
    assert manifest["dataset"] == {"fingerprint": dataset.fingerprint, "digest": dataset.digest}
    assert manifest["settings"]["train"] == settings.train.model_dump(exclude_none=True) | {"devices": 1}
    assert manifest["settings"]["preprocess"] == dataset.json["settings"]["preprocess"]


# --- Again --------------------------------------------------------------------------------------------------


def test_a_training_that_was_interrupted_ends_in_the_very_model_of_one_that_was_not(made, resumed):
    _, home, _, refs = made
    whole = home.open(refs["train"], ModelManifest)
    assert not resumed.cached
    assert resumed.model.fingerprint == whole.fingerprint
    assert (whole.path / OTHER).exists() == (resumed.model.path / OTHER).exists()
    for file in sorted(path.name for path in whole.path.iterdir() if path.name != "manifest.json"):
        assert (resumed.model.path / file).read_bytes() == (whole.path / file).read_bytes(), file
    assert resumed.model.digest == whole.digest


def test_it_goes_on_after_the_last_finished_epoch(made, resumed):
    _, _, settings, _ = made
    (note,) = {note for _, _, note in resumed.told}
    reached = float(history(resumed.model.path)[0]["val_accuracy"])
    assert note == f"epoch 2 of 2, validation {reached:.4f}"
    counted = [done for done, _, _ in resumed.told]
    assert counted == sorted(counted)
    assert counted[-1] == resumed.told[-1][1] == 50 * settings.train.epochs  # 60 pictures, one fold of five is out


def test_an_interruption_leaves_one_mlflow_run_which_the_next_try_finishes(place, resumed):
    assert [run.info.status for run in resumed.stopped] == ["KILLED"]
    (run,) = runs(place[1])
    assert run.info.run_id == resumed.stopped[0].info.run_id == resumed.model.manifest.mlflow.run_id
    assert run.info.status == "FINISHED"
    assert run.data.tags[TRAINING_TAG] == resumed.model.fingerprint


@pytest.mark.parametrize("key", ["train_loss", "train_accuracy", "val_loss", "val_accuracy", "seconds"])
def test_mlflow_has_every_epoch_exactly_once(place, resumed, key):
    (run,) = runs(place[1])
    logged = MlflowClient(place[1].uri).get_metric_history(run.info.run_id, key)
    assert [metric.step for metric in logged] == [1, 2]
    row_key = key.removeprefix("train_")
    if key != "seconds":
        assert [metric.value for metric in logged] == pytest.approx(
            [float(row[row_key]) for row in history(resumed.model.path)]
        )


def test_a_finished_training_leaves_nothing_but_its_folder(resumed):
    assert list(resumed.root.iterdir()) == [resumed.model.path]


def test_the_second_time_it_is_found_without_training_or_a_run(made, place, dataset, resumed):
    told = []
    model, cached = make_model(Job(place[0], made[2], progress=lambda *call: told.append(call)), dataset)
    assert (cached, model.path, told) == (True, resumed.model.path, [])
    assert len(runs(place[1])) == 1


# --- What is refused ----------------------------------------------------------------------------------------


def refusals(folder):
    (folder / "text.weights.h5").write_text("no weights")
    return {
        "a fold that is not there": ({"fold": 5}, ("train.fold: 5, of a dataset with 5 folds", "Set 0 to 4")),
        "no weights file": ({"weights": "gone.weights.h5"}, ("gone.weights.h5", "no such weights file", "AOI_WEIGHTS")),
        "a file of no weights": (
            {"weights": str(folder / "text.weights.h5")},
            ("text.weights.h5", "not the weights of mobilenet of alpha 0.25", "train.alpha"),
        ),
    }


@pytest.mark.parametrize("case", ["a fold that is not there", "no weights file", "a file of no weights"])
def test_what_can_t_be_trained_is_refused_without_a_folder_or_a_run(case, made, dataset, tmp_path):
    settings = made[2]
    change, told = refusals(tmp_path)[case]
    settings = settings.model_copy(update={"train": settings.train.model_copy(update=change)})
    with pytest.raises(AoiError) as refused:
        make_model(Job(Home(tmp_path / "home"), settings), dataset)
    assert refused.value.exit_code == 2
    for words in told:
        assert words in str(refused.value)
    assert not (tmp_path / "home").exists()


def test_a_dataset_without_labels_is_refused(made, tmp_path):
    _, home, settings, _ = made
    lot = home.named(DatasetManifest, "tiny-test")
    with pytest.raises(AoiError, match=r"a dataset without labels\. Name one that was made from train\.csv"):
        make_model(Job(Home(tmp_path), settings), lot)
    assert not list(tmp_path.iterdir())


def test_training_ends_where_patience_does(made, dataset, tmp_path):
    impatient = made[2].train.model_copy(update={"epochs": 12, "patience": 1, "learning_rate": 0.05})
    model, _ = make_model(Job(Home(tmp_path), made[2].model_copy(update={"train": impatient})), dataset)
    rows = history(model.path)
    assert len(rows) == model.manifest.best["epoch"] + 1 < 12
