"""A cross-validation's networks as one model: every picture is judged by the one that did not see it, and read once."""

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from flows.settings import load_settings
from flows.stages.crossval import crossval
from flows.stages.evaluate import make_evaluation
from flows.stages.export import export
from flows.stages.ingest import ingest
from flows.stages.stage import Job
from model.decisions.novelty import Novelty
from model.inference.classifier import open_classifier
from model.manifests import ModelManifest
from tfrecords.dataset import DatasetManifest
from tfrecords.records import arrays
from tfrecords.records.arrays import read_arrays

FOLDS, SHARDS = 3, 4
OPTIONS = ("preprocess.image_size_px=32", "train.alpha=0.25", "train.recipe=frozen")


@pytest.fixture(scope="module")
def crossed(made, copy_home, tmp_path_factory):
    """What a cross-validation of three folds made: its job, which makes again what is there, dataset and model."""
    home = copy_home(tmp_path_factory.mktemp("ensemble") / "home")
    settings = load_settings(overrides=[*OPTIONS, f"ingest.folds={FOLDS}", f"ingest.shards={SHARDS}"])
    job = Job(home, settings)
    dataset = home.open(ingest(job, str(made[0])), DatasetManifest)
    model = home.open(crossval(job), ModelManifest)
    evaluation = home.evaluation_of(model.fingerprint)
    return SimpleNamespace(job=replace(job, force=True), dataset=dataset, model=model, evaluation=evaluation)


@pytest.fixture
def opened(monkeypatch):
    """How often each shard is opened to be decoded, as a counter by file name."""
    counts = Counter()

    def counting(path, *mode):
        counts[Path(path).name] += 1
        return open(path, *mode)

    monkeypatch.setattr(arrays, "open", counting, raising=False)
    return counts


def test_an_evaluation_opens_every_shard_once_and_to_withhold_classes_once_at_most_however_many_folds_there_are(
    crossed, opened
):
    make_evaluation(crossed.job, crossed.model, crossed.dataset)
    assert len(opened) == SHARDS
    assert max(opened.values()) <= 2


def test_an_evaluation_lists_fold_after_fold_each_in_the_order_of_the_shards(crossed):
    with open(crossed.evaluation.path / "predictions.csv", newline="", encoding="utf-8") as file:
        listed = [row["ID"] for row in csv.DictReader(file)]
    batches = (batch for fold in range(FOLDS) for batch in read_arrays(crossed.dataset, {fold}))
    assert listed == [name for batch in batches for name in batch["id"]]


@pytest.mark.parametrize("precision", ["float", "int8"])
def test_an_export_opens_every_shard_once_to_make_it_once_in_8_bits_to_calibrate_and_once_at_most_to_time_it(
    crossed, opened, precision
):
    export(crossed.job, str(crossed.model.path), precision=precision)
    assert len(opened) == SHARDS
    assert max(opened.values()) <= (3 if precision == "int8" else 2)


def test_the_novelty_of_an_ensemble_counts_the_pictures_of_all_folds(crossed):
    operating = crossed.evaluation.manifest.operating
    classifier = open_classifier(crossed.model.path)
    sizes = [len(detector.usual) for detector in classifier.novelty.detectors]
    assert len(sizes) == FOLDS
    assert operating.promise_unknown.pictures == sum(sizes) < crossed.dataset.manifest.records
    assert operating.promise_unknown.proven >= 2 * operating.promise_unknown.bound
    images = next(read_arrays(crossed.dataset))["image"]
    looks = classifier.look(images)
    alone = [Novelty((each,)).of([seen]) for each, seen in zip(classifier.novelty.detectors, looks, strict=True)]
    weights = [size + 1 for size in sizes]
    np.testing.assert_allclose(classifier.novelty_of(looks), np.average(alone, axis=0, weights=weights))


def test_an_ensemble_is_compared_with_lots_by_its_confidence_too(crossed):
    assert set(crossed.evaluation.manifest.reference) == {"brightness", "contrast", "confidence", "predicted class"}
