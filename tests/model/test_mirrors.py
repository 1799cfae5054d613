"""Answers as the mean over a picture and its mirror images: when a model gives them, and that all who use it do."""

import json
from unittest import mock

import numpy as np
import pytest

from flows.home import Home
from flows.stages.evaluate import make_evaluation
from flows.stages.export import export
from flows.stages.stage import Job
from flows.stages.train import make_model
from model.card import read_card
from model.inference.classifier import mirrored, open_classifier
from model.inference.formats import Network, Outputs
from model.inference.runtime import open_network
from model.manifests import ExportManifest, ModelManifest
from model.settings import TrainSettings
from model.training.schedule import copies_of
from tfrecords.dataset import DatasetManifest
from tfrecords.records.reader import validation_batches

BOTH = ("horizontal", "vertical")


def corner(images, evidence):
    """A network that looks at the upper left corner alone: of pictures (N, 2, 2, 1)."""
    seen = images[:, 0, 0] / np.float32(255)
    maps = np.stack([images, images], axis=-1)[..., 0, :].astype(np.float32) if evidence else None
    return Outputs(np.concatenate([seen, 1 - seen], axis=1), seen, 2 * seen, maps)


PICTURES = np.array([[[0, 51], [102, 255]], [[255, 0], [0, 0]]], np.uint8)[..., None]
MEANS = {  # how pictures are mirrored -> mean over the corners that the network then sees, of both pictures
    (): (0, 255),
    ("horizontal",): (25.5, 127.5),
    ("vertical",): (51, 127.5),
    BOTH: (102, 63.75),
}


@pytest.mark.parametrize("mirrors", MEANS)
def test_an_answer_is_the_mean_over_the_picture_and_its_mirror_images(mirrors):
    seen = mirrored(Network(corner), mirrors).look(PICTURES, evidence=True)
    np.testing.assert_allclose(seen.probabilities[:, 0], np.array(MEANS[mirrors]) / 255, atol=1e-6)
    np.testing.assert_allclose(seen.probabilities.sum(axis=1), 1, atol=1e-6)
    alone = corner(PICTURES, True)
    for name in ("features", "texture", "evidence"):
        np.testing.assert_array_equal(getattr(seen, name), getattr(alone, name))


def test_of_no_picture_there_is_no_answer():
    assert mirrored(Network(corner), BOTH)(PICTURES[:0]).shape == (0, 2)


@pytest.fixture(scope="module")
def dataset(made):
    return made[1].open(made[3]["ingest"], DatasetManifest)


@pytest.fixture(scope="module")
def hard(made, dataset, tmp_path_factory):
    """(a job in a HOME of its own, the model that it trained for a second round)."""
    settings = TrainSettings(**made[2].train.model_dump() | {"flips": "both", "epochs": None})
    job = Job(Home(tmp_path_factory.mktemp("mirrors")), made[2].model_copy(update={"train": settings}))
    with mock.patch("model.training.train.rounds", lambda settings, per_epoch: (1, 1)):
        return job, make_model(job, dataset)[0]


def test_a_model_that_took_a_second_round_answers_so(hard):
    _, model = hard
    assert model.manifest.mirrors == BOTH
    assert json.loads((model.path / "card.json").read_text())["mirrors"] == {"model": list(BOTH)}


@pytest.mark.parametrize(
    ("copies", "epochs", "mirrors"),
    [("auto", 5, []), ("auto", 6, BOTH), ("never", 18, []), ("always", 5, BOTH)],
)
def test_the_setting_decides_it_or_the_rounds_that_were_trained(copies, epochs, mirrors):
    assert copies_of(BOTH, TrainSettings(mirror_copies=copies), epochs, (5, 13)) == mirrors


def test_a_model_of_one_round_answers_from_the_picture_alone(made):
    model = made[1].open(made[3]["train"], ModelManifest)
    assert model.manifest.mirrors == ()
    assert read_card(model.path).mirrors == {}


def by_hand(model, images):
    network = open_network(model.path / "model.tflite")
    turned = (images, images[:, :, ::-1], images[:, ::-1], images[:, ::-1, ::-1])
    return np.mean([network(np.ascontiguousarray(each)) for each in turned], axis=0)


def test_evaluation_judges_the_answers_that_are_given_in_use(hard, dataset):
    job, model = hard
    images, labels = (np.concatenate(each) for each in zip(*validation_batches(dataset, 0, 64, 64), strict=True))
    given = open_classifier(model.path).probabilities(images)
    np.testing.assert_allclose(given, by_hand(model, images), atol=1e-6)
    evaluation, _ = make_evaluation(job, model, dataset)
    assert evaluation.manifest.metrics["accuracy"] == pytest.approx((given.argmax(axis=1) == labels).mean())


def test_an_export_answers_as_its_model(hard, made, dataset):
    job, model = hard
    with mock.patch("flows.stages.export.trained_on", lambda job, model: dataset):
        exported = job.home.open(export(job, str(model.path)), ExportManifest)
    images, _ = next(iter(validation_batches(dataset, 0, 16, 64).as_numpy_iterator()))
    theirs, ours = (open_classifier(path).probabilities(images) for path in (model.path, exported.path))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
