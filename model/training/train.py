"""The train stage: a model from a dataset, recorded in MLflow."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from time import perf_counter
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from model import figures
from model.card import Card, write_card
from model.decisions.halves import choosing, write_other_epoch
from model.decisions.novelty import NOVELTY_FILE, save_detector
from model.inference.classifier import mirrored, open_classifier
from model.inference.formats import Network
from model.inference.keras_runtime import compiled
from model.inference.litert import to_litert
from model.inference.usual import detector_of
from model.manifests import ModelManifest, ModelSettings
from model.network.build import build
from model.network.files import load, save
from model.network.parts import head_of, seed_dropout
from model.network.weights import weights_digest
from model.registry import tracking
from model.registry.store import Store
from model.settings import NETWORK, NO_WEIGHTS, Recipe, TrainSettings
from model.training.best_epoch import best_epoch, scores
from model.training.class_weights import class_weights
from model.training.devices import on_devices
from model.training.flips import harmless_flips
from model.training.fused import fused
from model.training.linear_probe import fit_linear_probe
from model.training.schedule import copies_of, has_ended, learning_rate, length_of, may_be_kept, rounds
from model.training.state import State, checkpoint, finish_epoch, read_state, write_state
from tfrecords.artifacts.manifest import RunRecord
from tfrecords.dataset import Dataset, class_counts, image_shape, read_example, training_counts
from tfrecords.progress import Progress
from tfrecords.records.reader import training_batches, validation_batches, validation_ids

KEPT = ("val_accuracy", "val_balanced_accuracy", "val_loss")  # of the best epoch, in the manifest and the run


def train_model(
    dataset: Dataset,
    work: Path,
    store: Store,
    settings: TrainSettings,
    fingerprint: str,
    progress: Progress,
) -> ModelManifest:
    """Trains in the folder `work`, going on after the last epoch that an earlier try finished there.

    Leaves model.keras (the best epoch by the half of the fold that chooses), the same as model.tflite,
    model.novelty.npz (what it is used to), card.json, curves.png and history.csv, and model.other_epoch.csv where the
    other half would choose another epoch; the MLflow run has all of them.

    Raises: AoiError for weights that can't be had.
    """
    if tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_op_determinism()  # the CPU kernels are deterministic as they are
    size, classes = image_shape(dataset)[0], dataset.manifest.classes
    all_settings = {**dataset.manifest.settings.model_dump(), "train": settings.model_dump()}
    counts = {f"counts.{name}": count for name, count in class_counts(dataset).items()}
    facts = {**all_settings, "dataset": {"fingerprint": dataset.fingerprint, "records": dataset.manifest.records}}
    run_name = f"{settings.backbone}-{settings.alpha:g} {size}px {length_of(settings)} {fingerprint[:6]}"
    state = read_state(work)
    # Ahead of the run, so that refused weights leave no trace in MLflow.
    with on_devices(settings):
        network = _network(state, dataset, work, settings)
    if state.flips is None:
        state.flips = harmless_flips(dataset, settings.fold, settings.flips) if settings.recipe == Recipe.FULL else ()
    facts["flips"] = ", ".join(state.flips) or "none"
    with tracking.training_run(store, fingerprint, run_name, facts | counts, [dataset], state.run) as record:
        run_id = record["run_id"]
        state.run = record
        write_state(work, state)
        tracking.log_history(store, run_id, state.history, state.seconds)
        recipe = {Recipe.FULL: _epochs, Recipe.FROZEN: _probe}[settings.recipe]
        for _ in recipe(network, state, dataset, work, settings, progress):
            tracking.log_history(store, run_id, state.history, state.seconds)
        best = state.kept
        _finish(work, state, classes, dataset, settings)
        seconds, parameters = sum(state.seconds), network.count_params()
        summary = {"best_epoch": best["epoch"], **{f"best_{key}": best[key] for key in KEPT}}
        summary |= {"training_seconds": seconds, "parameters": parameters}
        registered = tracking.finish_training(store, run_id, summary, work, classes, read_example(dataset))
    named = settings.model_copy(update={"weights": weights_digest(settings.weights)})
    made_with = dataset.manifest.settings
    return ModelManifest(
        mlflow=RunRecord(**record, version=registered, seconds=seconds),
        dataset=dataset.made_from,
        classes=classes,
        settings=ModelSettings(preprocess=made_with.preprocess, ingest=made_with.ingest, train=named),
        folds=(settings.fold,),
        flips=tuple(state.flips),
        mirrors=tuple(state.mirrors),
        parameters=parameters,
        best={key: best[key] for key in ("epoch", "accuracy", "loss", *KEPT)},
        half_chose=True,
        versions={"tensorflow": version("tensorflow"), "keras": version("keras")},
    )


def _network(state: State, dataset: Dataset, work: Path, settings: TrainSettings) -> keras.Model:
    """The network to train, compiled: of the last finished epoch, or a new one.

    Raises: AoiError for weights that can't be had.
    """
    if state.history:
        return load(checkpoint(work, len(state.history)), compile=True)
    size, _, channels = image_shape(dataset)
    network = build(settings, size, len(dataset.manifest.classes), channels)
    # The kernel knows neither several devices nor 16 bits.
    if settings.recipe == Recipe.FULL and settings.devices == 1 and not settings.mixed_precision:
        network = fused(network)
    adam = keras.optimizers.Adam(settings.learning_rate)
    accuracy = keras.metrics.SparseCategoricalAccuracy("accuracy")
    network.compile(adam, "sparse_categorical_crossentropy", metrics=[accuracy])
    adam.build(network.trainable_variables)  # a step that makes variables is traced twice, for seconds
    return network


@dataclass(frozen=True)
class _Course:
    """How a training goes. rounds: epochs of each; steps, pictures: of an epoch."""

    rounds: tuple[int, ...]
    steps: int
    pictures: int

    def rate(self, step: int, highest: float) -> float:
        """The learning rate at a step of the training, from 0, see `learning_rate`."""
        return learning_rate(step, highest, [epochs * self.steps for epochs in self.rounds], max(1, self.steps // 2))


def _epochs(
    network: keras.Model,
    state: State,
    dataset: Dataset,
    work: Path,
    settings: TrainSettings,
    progress: Progress,
) -> Iterator[None]:
    """Trains the epochs that `state` has not yet; each is checkpointed, and in `state`, when it is yielded."""
    devices = int(settings.devices)
    batches = training_batches(
        dataset, settings.fold, settings.batch_size, settings.seed, settings.shift_fraction, settings.cache_mb, devices
    )
    validation = validation_batches(dataset, settings.fold, settings.batch_size, settings.cache_mb)
    counts = training_counts(dataset, settings.fold)
    pictures = sum(counts) - sum(counts) % devices
    steps = math.ceil(pictures / settings.batch_size)
    course = _Course(rounds(settings, steps), steps, pictures)
    flips, weights = state.flips or (), class_weights(counts, settings.class_weights)
    ask = compiled(network)
    ids = validation_ids(dataset, settings.fold)
    chose = choosing(dataset, ids)
    for epoch in range(len(state.history), sum(course.rounds)):
        if has_ended([chosen for chosen, _ in state.halves], state.best, settings, course.rounds):
            break
        seed_dropout(network, settings.seed, epoch)
        began = perf_counter()
        reached = f", validation {state.kept['val_accuracy']:.4f}" if epoch else ""
        trained = batches(epoch, settings.light_fraction, flips)
        row = _fit(network, trained, epoch, weights, settings, course, reached, progress)
        whole, halves = _validate(ask, validation, chose)
        row |= whole
        # A half without pictures leaves the choice to all; then there is next to nothing to prove with.
        state.halves.append([{"epoch": epoch + 1, **(half or row)} for half in halves])
        best, other = (_best(state, half, settings, course.rounds) for half in (0, 1))
        finish_epoch(network, state, row, perf_counter() - began, work, best, other)
        yield
    state.mirrors = copies_of(flips, settings, len(state.history), course.rounds)
    if (other := _best(state, 1, settings, course.rounds)) != state.best:
        theirs = mirrored(compiled(load(checkpoint(work, other))), state.mirrors)
        answers = np.concatenate([theirs(images.numpy()) for images, _ in validation])[chose]
        names = [name for name, is_chosen in zip(ids, chose, strict=True) if is_chosen]
        write_other_epoch(work, NETWORK, names, answers, dataset.manifest.classes)


def _fit(
    network: keras.Model,
    batches: tf.data.Dataset,
    epoch: int,
    weights: Sequence[float],
    settings: TrainSettings,
    course: _Course,
    reached: str,
    progress: Progress,
) -> dict[str, float]:
    """Trains an epoch, from 0. weights: of the classes; reached: what progress tells of the epochs before.

    Returns: a row of the history, without validation.
    """
    total = next(end for end in accumulate(course.rounds) if epoch < end)
    note = f"epoch {epoch + 1} of {total}{reached}"

    def tell(pictures: int) -> None:
        progress(epoch * course.pictures + min(course.pictures, pictures), total * course.pictures, note)

    def set_rate(step: int, logs: Any) -> None:
        network.optimizer.learning_rate.assign(course.rate(epoch * course.steps + step, settings.learning_rate))

    def seen(step: int, logs: Any) -> None:
        tell((step + 1) * settings.batch_size)

    tell(0)
    result = network.fit(
        batches,
        initial_epoch=epoch,
        epochs=epoch + 1,
        class_weight=dict(enumerate(weights)),
        shuffle=False,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_begin=set_rate, on_train_batch_end=seen)],
    )
    return {"epoch": epoch + 1, **{key: float(values[-1]) for key, values in result.history.items()}}


def _best(state: State, half: int, settings: TrainSettings, planned: Sequence[int]) -> int:
    """The epoch that a half of validation keeps: 0, the one that chooses, or 1. planned: epochs of the rounds."""
    return best_epoch(may_be_kept([halves[half] for halves in state.halves], settings, planned))


def _validate(
    ask: Network, validation: tf.data.Dataset, chose: np.ndarray
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """`_validated` of all pictures, and of each half of them, the one that chooses first; of none nothing.

    chose: which pictures choose, bool (N,).
    """
    parts = [(ask(images.numpy()), labels.numpy()) for images, labels in validation]
    answers, labels = (np.concatenate(each) for each in zip(*parts, strict=True))
    halves = [_validated(answers[half], labels[half]) if half.any() else {} for half in (chose, ~chose)]
    return _validated(answers, labels), halves


def _validated(answers: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return {f"val_{key}": value for key, value in scores(answers, labels).items()}


def _probe(
    network: keras.Model,
    state: State,
    dataset: Dataset,
    work: Path,
    settings: TrainSettings,
    progress: Progress,
) -> Iterator[None]:
    """The frozen recipe's one step, where it is not done yet; checkpointed as an epoch is."""
    if not state.history:
        began = perf_counter()
        row = fit_linear_probe(network, dataset, settings, progress)
        finish_epoch(network, state, row, perf_counter() - began, work, best=1, other=1)
        yield


def _finish(work: Path, state: State, classes: Sequence[str], dataset: Dataset, settings: TrainSettings) -> None:
    """Leaves in `work` what a model's folder holds, and nothing else."""
    size, _, channels = image_shape(dataset)
    network = build(settings.model_copy(update={"weights": NO_WEIGHTS}), size, len(classes), channels)
    network.set_weights(load(checkpoint(work, state.best)).get_weights())  # into layers of Keras alone, in 32 bits
    save(network, work / f"{NETWORK}.keras")
    (work / f"{NETWORK}.tflite").write_bytes(to_litert(network))
    preprocess = dataset.manifest.settings.preprocess
    write_card(work, Card(classes, preprocess, {NETWORK: settings.fold}, {NETWORK: state.mirrors}))
    kernel, bias = head_of(network).get_weights()
    (in_use,) = open_classifier(work).networks
    detector = detector_of(in_use, kernel, bias, dataset, settings.fold)
    save_detector(detector, work / f"{NETWORK}{NOVELTY_FILE}")
    pd.DataFrame(state.history).to_csv(work / "history.csv", index=False)
    figures.training_curves(state.history, state.best, work / "curves.png")
