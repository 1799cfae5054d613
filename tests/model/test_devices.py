"""Training on several devices of one machine, proved on a processor that TensorFlow divides into two."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from tiny import write_data

from flows.home import Home
from flows.stages.ingest import ingest
from flows.stages.stage import Job
from flows.stages.train import make_model
from model.inference.runtime import open_network
from model.settings import Recipe, TrainSettings
from model.training.devices import with_devices
from tfrecords.dataset import DatasetManifest
from tfrecords.errors import AoiError
from tfrecords.records.arrays import read_arrays

ROOT = Path(__file__).resolve().parents[2]
# A process of its own, since TensorFlow divides a processor before its first use alone.
PROGRAM = """
import json, sys
from dataclasses import replace
from pathlib import Path
from unittest import mock
import keras
import tensorflow as tf

(processor,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)

from flows.home import Home
from flows.settings import load_settings
from flows.stages.stage import Job
from flows.stages.train import make_model
from tfrecords.dataset import DatasetManifest
from tfrecords.records.reader import training_batches

sys.path.insert(0, "tests")
from small import small


def stop(done, total, note):
    if note.startswith("epoch 2"):
        raise KeyboardInterrupt


def train(home, *overrides, **given):
    settings = load_settings(overrides=[*json.loads(sys.argv[2]), *overrides])
    return str(make_model(Job(Home(Path(home)), settings, **given), dataset)[0].path)


root = Path(sys.argv[1])
dataset = Home(root).latest(DatasetManifest, "")
made = {}
with mock.patch("model.network.build.convolutions", small):
    made["two"] = train(root, "train.devices=2", "train.dropout=0")
    # In the order that two devices see.
    divided = lambda *given: training_batches(*given[:-1], 2)
    with mock.patch("model.training.train.training_batches", divided):
        made["one"] = train(root, "train.devices=1", "train.dropout=0")
    made["whole"] = train(root, "train.devices=2")
    try:
        train(root / "resumed", "train.devices=2", progress=stop)
    except KeyboardInterrupt:
        keras.utils.set_random_seed(99)
        made["resumed"] = train(root / "resumed", "train.devices=2")
    physical = tf.config.list_physical_devices
    with mock.patch.object(tf.config, "list_physical_devices", lambda kind=None: physical("CPU")):
        made["half"] = train(root, "train.devices=2", "train.mixed_precision=true", "train.epochs=1")
print(json.dumps(made))
"""
QUICK = [
    "preprocess.image_size_px=48",
    "train.epochs=2",
    "train.learning_rate=0.01",
    "train.class_weights=balanced",
    "train.flips=horizontal",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A HOME with a dataset of classes that differ in size, of which an even number of pictures trains."""
    from flows.settings import load_settings

    root = tmp_path_factory.mktemp("devices")
    data = write_data(root / "tiny", train=120, test=3)
    header, *lines = (data / "train.csv").read_text().split()
    rare = [line for line in lines if line.endswith(",2")][15:]
    (data / "train.csv").write_text("\n".join([header, *(line for line in lines if line not in rare)]) + "\n")
    for line in rare:
        (data / "train_images" / line.partition(",")[0]).unlink()
    home = Home(root / "home")
    ingest(Job(home, load_settings(overrides=QUICK)), data=str(data))
    return home


@pytest.fixture(scope="module")
def trained(home):
    """What PROGRAM made."""
    given = [sys.executable, "-c", PROGRAM, str(home.root), json.dumps(QUICK)]
    done = subprocess.run(given, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def answers(home, trained):
    """A function: what a model says of the pictures of its fold."""
    dataset = home.latest(DatasetManifest, "")
    images = np.concatenate([batch["image"] for batch in read_arrays(dataset, {0})])
    return lambda name: open_network(Path(trained[name]) / "model.tflite")(images)


def history(folder):
    with open(Path(folder) / "history.csv", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def test_two_devices_train_the_network_that_one_trains_but_for_rounding(trained, answers):
    one, two = history(trained["one"]), history(trained["two"])
    assert len(one) == len(two) == 2
    for ours, theirs in zip(one, two, strict=True):
        assert ours == pytest.approx(theirs, abs=2e-3)
    assert one[0]["loss"] > one[1]["loss"] + 0.05
    np.testing.assert_allclose(answers("one"), answers("two"), atol=5e-3)
    assert np.ptp(answers("one"), axis=0).max() > 0.1


def test_the_number_of_devices_names_the_model(trained):
    manifests = {name: json.loads((Path(trained[name]) / "manifest.json").read_text()) for name in ("one", "two")}
    assert [manifests[name]["settings"]["train"]["devices"] for name in manifests] == [1, 2]
    assert manifests["one"]["fingerprint"] != manifests["two"]["fingerprint"]


def test_on_two_devices_an_interrupted_training_ends_in_the_very_model_of_one_that_was_not(trained):
    whole, resumed = Path(trained["whole"]), Path(trained["resumed"])
    assert whole.name == resumed.name
    for file in sorted(path.name for path in whole.iterdir() if path.name != "manifest.json"):
        assert (resumed / file).read_bytes() == (whole / file).read_bytes(), file


def test_16_bits_train_a_network_of_32(trained, answers):
    network = keras.saving.load_model(Path(trained["half"]) / "model.keras", compile=False)
    assert {layer.dtype_policy.name for layer in network.layers} <= {"float32", "uint8"}
    assert history(trained["half"])[0]["loss"] == pytest.approx(history(trained["whole"])[0]["loss"], abs=0.02)
    assert np.isfinite(answers("half")).all()


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"devices": 2}, "train.devices: 2, and TensorFlow sees no GPU here"),
        ({"mixed_precision": True}, "train.mixed_precision: true, and TensorFlow sees no GPU here. Leave it out"),
    ],
)
def test_what_needs_gpus_is_refused_without_them_and_leaves_nothing(wanted, told, home, tmp_path):
    from flows.settings import load_settings

    settings = load_settings(overrides=QUICK)
    settings = settings.model_copy(update={"train": settings.train.model_copy(update=wanted)})
    with pytest.raises(AoiError, match=told) as refused:
        make_model(Job(Home(tmp_path / "home"), settings), home.latest(DatasetManifest, ""))
    assert refused.value.exit_code == 2
    assert not (tmp_path / "home").exists()


RESOLVED = {  # (settings, GPUs) -> devices
    "a machine without a GPU": ({}, 0, 1),
    "one GPU": ({}, 1, 1),
    "all of four": ({}, 4, 4),
    "those of three that divide a step": ({}, 3, 2),
    "of three, where three divide it": ({"batch_size": 48}, 3, 3),
    "the number that is set, whatever there is": ({"devices": 2}, 0, 2),
    "the frozen recipe, which has no steps": ({"recipe": Recipe.FROZEN, "devices": 2}, 4, 1),
}


@pytest.mark.parametrize("case", RESOLVED)
def test_auto_is_all_gpus_that_share_a_step_evenly(case):
    given, found, devices = RESOLVED[case]
    assert with_devices(TrainSettings(**given), 1000, lambda: found).devices == devices


def test_auto_takes_no_more_devices_than_there_are_pictures():
    assert with_devices(TrainSettings(), 3, lambda: 8).devices == 2
