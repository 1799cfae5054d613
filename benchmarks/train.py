"""Train: what our input costs, and how long the recipes take to an accuracy."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.core import Contestant, aoi, by_turns, command, goal, row, run_alone
from benchmarks.pictures import draw, repeat
from tfrecords.errors import refuse

if TYPE_CHECKING:
    from flows.settings import Settings
    from tfrecords.dataset import Dataset

BOUNDS = (0.9666, 0.99)
EPOCHS_BEGUN = 5
OURS, REPEATED = "our loop", "one batch repeated in memory"
KERAS_BATCH = 32  # its default
KERAS = "Keras: full fine-tuning, five epochs"


def measure(work: Path, size: Mapping[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """size: drawn, data (a folder, or None: sample pictures), steps (pairs of them), keras_steps, settings, recipes:
    the settings of each.
    """
    home = ingested(work, size)
    given = {"home": home, "settings": list(size["settings"])}
    tell("our loop against one batch repeated")
    loops = run_alone(Contestant("loop", "benchmarks.train:loop", {**given, "steps": size["steps"]}))
    speed = [row(name, loops[name]) for name in (OURS, REPEATED)]
    recipes = [
        Contestant(f"recipe {name}", "benchmarks.train:recipe", {**given, "recipe": recipe})
        for name, recipe in size["recipes"].items()
    ]
    times = by_turns(recipes, 1, tell)
    keras = Contestant(KERAS, "benchmarks.train:keras_five_epochs", {**given, "steps": size["keras_steps"]})
    times += by_turns([keras], 1, tell)
    pairs = zip(loops[OURS], loops[REPEATED], strict=True)
    ratio = statistics.median(ours["pictures_per_s"] / repeated["pictures_per_s"] for ours, repeated in pairs)
    ratio *= 1 - loops["start_share"]
    goals = [
        goal("of the speed with one batch repeated in memory, an epoch's start included", ratio, 0.98, unit="x"),
        goal("of a step spent waiting for pictures", loops["wait_share"], 0.02, more=False),
    ]
    reached = [one["median"][f"to_{BOUNDS[0]}_s"] for one in times[:-1]]
    if any(reached):
        sooner = times[-1]["median"]["extrapolated_s"] / min(filter(None, reached))
        goals.append(goal(f"sooner at {BOUNDS[0]} than {KERAS} (extrapolated)", sooner, 15, unit="x"))
    return {
        "size": {**size, "data": told_data(size)},
        "tables": {"speed": speed, "recipes": times},
        "goals": goals,
    }


def told_data(size: Mapping[str, Any]) -> str:
    """What a paper says of the set: no path of this machine."""
    return "as given by --data" if size["data"] else "sample pictures"


def ingested(work: Path, size: Mapping[str, Any]) -> str:
    """The home of the trainings, where the training set of the sizes `data`, `drawn` and `settings` is the latest."""
    data = size["data"] or str(repeat(draw(work, size["drawn"]), work, size["drawn"]))
    home = str(work / "train-home")
    aoi(["ingest", "--data", data, "--home", home, *chosen(size["settings"])])
    return home


def chosen(settings: Sequence[str]) -> list[str]:
    """The settings as words of a command line."""
    return [word for setting in settings for word in ("--set", setting)]


def loop(home: str, settings: list[str], steps: int) -> dict[str, Any]:
    """One network fed step by step by turns from our reader and from memory; then how long it waits for our reader.

    The steps of a pair follow one another, since a machine's speed moves within minutes by more than what is measured
    here. The reader makes a batch anew as soon as one is taken, so its work falls into the steps that are ours.

    Returns: pictures_per_s of every step under OURS and REPEATED, start_share: of an epoch, what passes before its
    first batch, and wait_share: of a step.
    """
    import keras
    import tensorflow as tf

    from model.network.build import build
    from tfrecords.dataset import image_shape
    from tfrecords.records.reader import training_batches

    dataset, chosen = _dataset(home), _settings(settings).train
    size, _, channels = image_shape(dataset)
    network = build(chosen, size, len(dataset.manifest.classes), channels)
    network.compile(keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy", metrics=["accuracy"])
    epoch = training_batches(
        dataset, chosen.fold, chosen.batch_size, chosen.seed, chosen.shift_fraction, chosen.cache_mb
    )
    light = chosen.light_fraction
    whole = int(epoch(0, light).cardinality())
    first = next(iter(epoch(0, light)))
    network.fit(tf.data.Dataset.from_tensors(first), verbose=0, shuffle=False)  # traced
    sum(1 for _ in epoch(0, light))  # the records are in memory
    starts, ended = [], []
    for number in range(EPOCHS_BEGUN):
        began = time.perf_counter()
        next(iter(epoch(number, light)))
        starts.append(time.perf_counter() - began)
    pairs = min(steps, whole - 2)  # the last batch may be smaller, and the first pair does not count
    if pairs < 1:
        raise refuse("--data", f"{whole} batches per epoch", "Take a set of three batches or more")
    sources = [epoch(0, light), tf.data.Dataset.from_tensors(first).repeat()]
    total = 2 * (1 + pairs)
    in_turn = tf.data.Dataset.choose_from_datasets(sources, tf.data.Dataset.range(2).repeat()).take(total)
    options = tf.data.Options()
    options.experimental_optimization.inject_prefetch = False  # the reader's own two batches are all that wait
    in_turn = in_turn.with_options(options)
    tick = keras.callbacks.LambdaCallback(on_train_batch_end=lambda step, logs: ended.append(time.perf_counter()))
    network.fit(in_turn, verbose=0, callbacks=[tick], shuffle=False)
    seconds = [after - before for before, after in pairwise(ended[1:])]  # without the first pair, which starts it all
    waited, began, left = 0.0, time.perf_counter(), iter(epoch(1, light).take(steps))
    while True:
        asked = time.perf_counter()
        batch = next(left, None)
        waited += time.perf_counter() - asked
        if batch is None:
            break
        network.train_on_batch(*batch)
    return {
        OURS: [{"pictures_per_s": chosen.batch_size / one} for one in seconds[::2]],
        REPEATED: [{"pictures_per_s": chosen.batch_size / one} for one in seconds[1::2]],
        "start_share": statistics.median(starts) / (whole * statistics.median(seconds[::2])),
        "wait_share": waited / (time.perf_counter() - began),
    }


def recipe(home: str, settings: list[str], recipe: list[str]) -> dict[str, float | None]:
    """`aoi train` with one of our recipes, which `recipe` sets.

    Returns: seconds of the epochs, validation and checkpoints included, until each bound, None where it was not
    reached; and val_accuracy, the best.
    """
    from flows.home import Home, name_of
    from model.manifests import ModelManifest
    from model.registry.store import store_of
    from model.registry.tracking import connect

    command(["train", "--home", home, *chosen([*settings, *recipe])])
    place = Home(Path(home))
    model = place.latest(ModelManifest, "")
    run, client = model.manifest.mlflow.run_id, connect(store_of(place.root, name_of(model)))
    seconds, accuracy = (
        [metric.value for metric in sorted(client.get_metric_history(run, key), key=lambda metric: metric.step)]
        for key in ("seconds", "val_accuracy")
    )
    told: dict[str, float | None] = {"val_accuracy": max(accuracy)}
    for bound in BOUNDS:
        epochs = next((at for at, reached in enumerate(accuracy, 1) if reached >= bound), None)
        told[f"to_{bound}_s"] = sum(seconds[:epochs]) if epochs else None
    return told


def keras_five_epochs(home: str, settings: list[str], steps: int) -> dict[str, float]:
    """Keras as it comes: three channels, model.fit on arrays in batches of 32, every weight trained, validation.

    Some steps and a pass over some validation pictures are measured; five epochs are extrapolated from them.
    """
    import keras
    import numpy as np

    from tfrecords.dataset import class_counts, image_shape
    from tfrecords.records.arrays import read_arrays

    dataset, chosen = _dataset(home), _settings(settings).train
    (size, _, channels), classes = image_shape(dataset), len(dataset.manifest.classes)
    wanted = KERAS_BATCH * (steps + 1)  # the first builds the graph
    parts, label_parts = [], []
    for batch in read_arrays(dataset):
        parts.append(batch["image"])
        label_parts.append(batch["label"])
        if sum(map(len, parts)) >= wanted:
            break
    images = np.repeat(np.concatenate(parts)[:wanted], 3 // channels, axis=3).astype(np.float32)
    images = keras.applications.mobilenet.preprocess_input(images)
    labels = np.concatenate(label_parts)[:wanted]
    backbone = keras.applications.MobileNet(
        input_shape=(size, size, 3), include_top=False, pooling="avg", weights=None, alpha=chosen.alpha
    )  # the weights' values do not change the speed
    network = keras.Sequential([backbone, keras.layers.Dense(classes, activation="softmax")])
    network.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    ended: list[float] = []
    tick = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda step, logs: ended.append(time.perf_counter()),
        on_test_batch_end=lambda step, logs: ended.append(time.perf_counter()),
    )

    def a_picture_s(run: Callable) -> float:
        """Seconds a picture: the median step, since a call's end may be a wait of tf.data, see benchmarks.predict."""
        ended.clear()
        run(images, labels, batch_size=KERAS_BATCH, verbose=0, callbacks=[tick])
        return statistics.median(after - before for before, after in pairwise(ended)) / KERAS_BATCH

    train_s, validate_s = a_picture_s(network.fit), a_picture_s(network.evaluate)
    folds = set(range(dataset.manifest.settings.ingest.folds))
    training = sum(class_counts(dataset, folds - {chosen.fold}).values())
    validation = sum(class_counts(dataset, {chosen.fold}).values())
    return {
        "pictures_per_s": 1 / train_s,
        "validated_per_s": 1 / validate_s,
        "extrapolated_s": 5 * (training * train_s + validation * validate_s),
    }


def _settings(settings: list[str]) -> "Settings":
    from flows.settings import load_settings

    return load_settings(overrides=settings)


def _dataset(home: str) -> "Dataset":
    from flows.home import Home
    from tfrecords.dataset import DatasetManifest

    return Home(Path(home)).latest(DatasetManifest, "")
