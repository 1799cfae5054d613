"""Color from end to end: pictures that differ in hue alone, which a network over RGB names and one over gray can't."""

import csv
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from flows.home import Home
from flows.settings import load_settings
from flows.stages.crossval import crossval
from flows.stages.evaluate import evaluate
from flows.stages.export import export
from flows.stages.ingest import audit_of
from flows.stages.predict import predict
from flows.stages.stage import Job
from flows.stages.sweep import sweep
from model.evaluation.sweep import read_table
from model.inference.class_maps import heat_map
from model.inference.classifier import open_classifier
from model.manifests import EvaluationManifest, ExportManifest, ModelManifest, PredictionManifest, SweepManifest
from model.registry.store import CHAMPION, store_of
from model.registry.tracking import connect
from tfrecords.dataset import DatasetManifest
from tfrecords.errors import AoiError
from tfrecords.pictures.preprocessing import prepare
from tfrecords.records.arrays import read_arrays
from tfrecords.settings import Color

SPLITS = {"train": 60, "test": 9}
TINTS = {"red": (3.17, 0.08, 0), "green": (0, 1.67, 0.17), "blue": (1, 0.75, 2.3)}  # R, G, B, of luma 1
QUICK = (
    *("preprocess.image_size_px=32", "preprocess.equalize=none", "ingest.folds=2"),
    *("train.alpha=0.25", "train.recipe=frozen", "train.frozen_copies=1"),
)


def write_data(folder: Path) -> None:
    """Pictures in AIdea's layout: even ones with a little noise, in one of three tints by turns."""
    (folder / "classes.txt").write_text("\n".join(TINTS) + "\n")
    rng = np.random.default_rng(0)
    for split, count in SPLITS.items():
        (folder / f"{split}_images").mkdir()
        lines = ["ID,Label"]
        for index in range(count):
            label = index % len(TINTS)
            gray = rng.uniform(55, 65) + rng.normal(0, 1, (48, 48, 1))
            color = np.clip(gray * list(TINTS.values())[label], 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / f"{split}_images" / f"{index}.png"), color[..., ::-1])
            lines.append(f"{index}.png,{label if split == 'train' else ''}")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")


def write_weights(path: Path) -> str:
    """Random weights of a backbone over RGB, with the statistics of noisy colors: else all features would be alike."""
    import keras

    keras.utils.set_random_seed(7)
    network = keras.applications.MobileNet(input_shape=(32, 32, 3), alpha=0.25, include_top=False, weights=None)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0
    rng = np.random.default_rng(7)
    network(rng.uniform(-1, 1, (32, 1, 1, 3)) + rng.normal(0, 0.1, (32, 32, 32, 1)), training=True)
    network.save_weights(path)
    return str(path)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep over gray and rgb: data, job, the table's rows, and of each color its dataset and model."""
    data = tmp_path_factory.mktemp("color") / "tints"
    data.mkdir()
    write_data(data)
    home = Home(tmp_path_factory.mktemp("color-home"))
    weights = write_weights(data.parent / "quarter.weights.h5")
    job = Job(home, load_settings(overrides=[*QUICK, f"train.weights={weights}"]))
    table = read_table(home.open(sweep(job, {"preprocess": {"color": ["gray", "rgb"]}}, str(data)), SweepManifest))
    models = {row["preprocess.color"]: home.find(ModelManifest, row["model"]) for row in table}
    datasets = {
        color: home.find(DatasetManifest, model.manifest.dataset.fingerprint) for color, model in models.items()
    }
    return SimpleNamespace(data=data, home=home, job=job, table=table, models=models, datasets=datasets)


@pytest.fixture(scope="module")
def lot(swept):
    """The test pictures, named by the champion, which is a cross-validation's ensemble over RGB."""
    crossval(swept.job, str(swept.datasets["rgb"].path))
    return swept.home.open(predict(Job(swept.home), data=str(swept.data)), PredictionManifest)


def answers(prediction) -> list[dict[str, str]]:
    with open(prediction.path / "predictions.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def files(swept) -> list[bytes]:
    return [(swept.data / "test_images" / f"{index}.png").read_bytes() for index in range(SPLITS["test"])]


def test_what_differs_in_hue_alone_is_named_over_rgb(swept):
    accuracy = {row["preprocess.color"]: float(row["accuracy"]) for row in swept.table}
    assert accuracy["rgb"] == 1
    assert accuracy["gray"] < 0.7


def test_an_ensemble_over_rgb_shows_its_mean_heat_over_colors(lot, swept):
    predict(Job(swept.home), data=str(swept.data), explain=3)
    with open(lot.path / "explanations" / "index.csv", encoding="utf-8", newline="") as file:
        index = list(csv.DictReader(file))
    classifier = open_classifier(swept.home.find(ModelManifest, lot.manifest.model.fingerprint).path)
    assert len(classifier.networks) == 2
    for row in index:
        image = prepare((swept.data / "test_images" / row["ID"]).read_bytes(), classifier.preprocess)
        spoke = [seen.evidence[0, ..., int(row["label"])] for seen in classifier.look(image[None], evidence=True)]
        drawn = (lot.path / "explanations" / row["file"]).read_bytes()
        assert drawn == heat_map(image, np.mean(spoke, axis=0))


def test_records_hold_what_is_prepared_of_the_files(swept):
    dataset = swept.datasets["rgb"]
    seen = 0
    for batch in read_arrays(dataset):
        for name, image in zip(batch["id"], batch["image"], strict=True):
            data = (swept.data / "train_images" / name).read_bytes()
            np.testing.assert_array_equal(image, prepare(data, dataset.manifest.settings.preprocess))
            seen += 1
    assert seen == SPLITS["train"]


def test_pictures_are_measured_in_gray_whatever_their_records_hold(swept):
    gray, rgb = (
        list(csv.DictReader((swept.datasets[color].path / "rows.csv").read_text().splitlines())) for color in Color
    )
    assert list(rgb[0]) == [*gray[0], "red", "blue"]
    for one, other in zip(gray, rgb, strict=True):
        assert 0 <= float(other["red"]) + float(other["blue"]) <= 1
        assert abs(float(one["mean"]) - float(other["mean"])) < 1
        assert abs(float(one["deviation"]) - float(other["deviation"])) < 1
        assert len(other["phash"]) == 16


def test_shards_of_color_are_as_large_as_those_of_gray(swept):
    """Three times as many of them, where settings do not say how many."""
    gray, rgb = (sum(shard.bytes for shard in swept.datasets[color].manifest.shards) for color in Color)
    assert 2.5 < rgb / gray < 3


@pytest.mark.parametrize(("model", "dataset"), [("rgb", "gray"), ("gray", "rgb")])
def test_a_dataset_of_the_other_color_is_refused_by_name(swept, model, dataset):
    with pytest.raises(AoiError, match=f"preprocess.color is {dataset}, not {model}"):
        evaluate(swept.job, swept.models[model].fingerprint, str(swept.datasets[dataset].path))


def test_it_is_exported_in_8_bits_and_answers_as_keras_does(swept):
    artifact = swept.home.open(export(swept.job, swept.models["rgb"].fingerprint, precision="int8"), ExportManifest)
    assert artifact.manifest.check.labels_differ <= 1
    classifier = open_classifier(artifact.path)
    assert classifier.preprocess.color == Color.RGB
    assert classifier.classify(files(swept))["name"].tolist() == [*TINTS] * 3


def test_its_evaluation_has_all_figures(swept):
    evaluation = swept.home.evaluation_of(swept.models["rgb"].fingerprint)
    assert isinstance(evaluation.manifest, EvaluationManifest)
    for name in ("confusion", "mistakes", "suspects", "gradcam"):
        assert (evaluation.path / f"{name}.png").stat().st_size


def test_a_lot_is_read_in_the_color_of_the_model_whatever_is_set(swept, lot):
    dataset = swept.home.find(DatasetManifest, lot.manifest.dataset.fingerprint)
    assert swept.home.find(ModelManifest, lot.manifest.model.fingerprint).manifest.members
    assert dataset.manifest.settings.preprocess.color == Color.RGB
    assert [row["name"] for row in answers(lot)] == [*TINTS] * 3
    assert {"red", "blue"} < lot.manifest.drift.keys()
    assert not any(feature.drifted for feature in lot.manifest.drift.values())


def test_a_lot_in_light_of_another_color_is_told(swept, lot, tmp_path):
    data = Path(shutil.copytree(swept.data, tmp_path / "warm" / "tints"))
    for path in (data / "test_images").iterdir():
        color = cv2.imread(str(path)) * [0.4, 0.97, 1.28]  # B, G, R
        cv2.imwrite(str(path), np.clip(color, 0, 255).astype(np.uint8))
    ref = predict(Job(swept.home), swept.models["rgb"].fingerprint, data=str(data))
    assert swept.home.open(ref, PredictionManifest).manifest.drift["blue"].drifted


def test_the_audit_compares_color_sets(swept, tmp_path):
    from flows.stages.ingest import ingest

    settings = swept.job.settings.model_copy(update={"preprocess": swept.datasets["rgb"].manifest.settings.preprocess})
    audit = audit_of(swept.home, ingest(Job(swept.home, settings), str(swept.data)))
    assert audit.manifest.pictures == sum(SPLITS.values())
    assert (audit.path / "audit.png").stat().st_size


def test_the_model_in_mlflow_answers_as_predict_does(swept, lot, monkeypatch):
    import mlflow

    monkeypatch.setattr(sys, "path", list(sys.path))
    store = store_of(swept.home.root, "tints")
    client = connect(store)
    run = client.get_run(client.get_model_version_by_alias(store.model, CHAMPION).run_id)
    (logged,) = run.outputs.model_outputs
    served = mlflow.pyfunc.load_model(client.get_logged_model(logged.model_id).artifact_location)
    table = served.predict(files(swept))
    expected = answers(lot)
    for name in TINTS:
        np.testing.assert_allclose(table[name], [float(row[name]) for row in expected], atol=1e-6)
