"""Does one network learn more from a cross-validation's members than from the labels alone?

usage: python docs/study/distill.py NEU XSDD RESULTS

Nested folds. An outer fold judges and no network learns from it. Of the pictures outside it some are drawn to train on.
Three members, each trained without one inner third of these, answer about that third: out of fold, so no label is told
to the one who is asked about it. Then two networks learn from all of the drawn pictures: "single" from the labels,
"student" from labels mixed with the members' probabilities. Both begin with the same weights and see the same pictures
in the same order, shift, light and mirror images, for the same number of steps.

How much of the label to mix in is chosen from two shares on the first regime, which judges nothing. The rule, written
before any result was seen: the student wins if it is better in at least one of the four other regimes (p < 0.05 / 4,
for there are four chances, and in each outer fold), and worse in none (p < 0.05).

Appends a line of JSON per regime and outer fold to RESULTS, leaves out what is there already, and prints the table.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import process_time

import keras
import numpy as np
import tensorflow as tf
from scipy.stats import binomtest

from model.network.build import build
from model.network.parts import seed_dropout
from model.settings import ClassWeights, TrainSettings
from model.training.class_weights import class_weights
from model.training.fused import fused
from model.training.schedule import learning_rate
from pipeline.inputs import files
from pipeline.inputs.inputs import read_inputs
from tfrecords.pictures.formats import decode
from tfrecords.pictures.opencv import cv2
from tfrecords.pictures.preprocessing import finish
from tfrecords.records.augmentation import bordered, mirror, relight, shift, shift_corners, shift_offsets
from tfrecords.settings import PreprocessSettings

SIZE, STEPS, OUTER, MEMBERS = 96, 150, 3, 3
PREPROCESS = PreprocessSettings(image_size_px=SIZE)
SHARES = {"half": 0.5, "soft": 0.0}  # of the label in what a student learns; the rest is the members' answer
CHOOSING = "dull steel, wrong"
USED = 2  # of the outer folds: a third takes ten more processor minutes


@dataclass(frozen=True)
class Pictures:
    """ready: uint8 (N, SIZE, SIZE, 1), as records have them; labels: int (N,)."""

    ready: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Regime:
    """A hard set. pictures: makes it; per_class: pictures to train on; wrong: share of their labels that is wrong."""

    pictures: Callable[[], Pictures]
    per_class: int
    wrong: float = 0.0


# --- The sets ------------------------------------------------------------------------------------------------------


@cache
def read(data: str) -> tuple[list[np.ndarray], np.ndarray]:
    """The labelled pictures of a folder as they are decoded, uint8 (height, width), and their labels, int (N,)."""
    inputs = read_inputs(data, "train", folds=2)
    with files.opened(inputs.container) as content:
        grays = [decode(content(row.name), PREPROCESS) for row in inputs.rows]
    return grays, np.array([row.label for row in inputs.rows])


def ready(grays: Sequence[np.ndarray]) -> np.ndarray:
    bytes_ = [np.clip(np.rint(gray), 0, 255).astype(np.uint8) for gray in grays]
    return np.stack([finish(gray, PREPROCESS) for gray in bytes_])[..., None]


def plain(data: str) -> Pictures:
    grays, labels = read(data)
    return Pictures(ready(grays), labels)


def dull(data: str, contrast: float, noise: float) -> Pictures:
    """Contrast times a factor around middle gray, with noise of that many gray levels."""
    grays, labels = read(data)
    rng = np.random.default_rng(7)
    faded = [128 + (gray - gray.mean()) * contrast + rng.normal(0, noise, gray.shape) for gray in grays]
    return Pictures(ready(faded), labels)


def marked(folders: Sequence[str], count: int) -> Pictures:
    """Textures of all sets, every second one with a drawn line or spot of 3 to 6 times its deviation (label 1)."""
    rng = np.random.default_rng(3)
    grays = [cv2.resize(gray, (200, 200)).astype(float) for data in folders for gray in read(data)[0]]
    labels = np.arange(count) % 2
    chosen = [grays[at] for at in rng.permutation(len(grays))[:count]]
    for gray, label in zip(chosen, labels, strict=True):
        mark = np.zeros(gray.shape, np.float32)
        x, y = rng.uniform(30, 170, 2)
        if rng.random() < 0.5:
            angle, half = rng.uniform(0, np.pi), rng.uniform(20, 70)
            ends = [(round(x + way * half * np.cos(angle)), round(y + way * half * np.sin(angle))) for way in (-1, 1)]
            cv2.line(mark, *ends, 1.0, int(rng.integers(1, 4)))
        else:
            axes = (rng.uniform(5, 18), rng.uniform(4, 12))
            cv2.ellipse(mark, ((x, y), (2 * axes[0], 2 * axes[1]), rng.uniform(0, 180)), 1.0, -1)
        strength = rng.choice([-1, 1]) * rng.uniform(3, 6) * max(6.0, gray.std())
        gray += label * strength * cv2.GaussianBlur(mark, (0, 0), rng.uniform(0.6, 2.0))
    return Pictures(ready(chosen), labels)


def regimes(neu: str, xsdd: str) -> dict[str, Regime]:
    return {
        CHOOSING: Regime(lambda: dull(xsdd, 0.25, 4), 20, wrong=0.1),
        "dull": Regime(lambda: dull(neu, 0.2, 5), 20),
        "few steel": Regime(lambda: plain(xsdd), 10),
        "faint": Regime(lambda: marked((neu, xsdd), 1200), 100),
        "wrong": Regime(lambda: plain(neu), 20, wrong=0.2),
    }


# --- Training ------------------------------------------------------------------------------------------------------


@cache
def trained_here(classes: int) -> keras.Model:
    """One network per number of classes, trained again and again: to build its graph takes as long as 50 steps."""
    network = fused(build(TrainSettings(), SIZE, classes))
    network.compile(keras.optimizers.Adam(), "categorical_crossentropy")
    return network


@cache
def first_weights(classes: int, seed: int) -> list[np.ndarray]:
    return build(TrainSettings(seed=seed), SIZE, classes).get_weights()


def train(pictures: np.ndarray, targets: np.ndarray, weights: np.ndarray, seed: int) -> keras.Model:
    """The default's first round, of STEPS steps, with mirror images both ways.

    pictures: uint8 (N, S, S, 1); targets: float (N, classes); weights: of each picture, (N,). The same seed and N
    give the same order and the same changes. Returns: a network that is good until the next one is trained.
    """
    settings, (count, classes) = TrainSettings(seed=seed), targets.shape
    network = trained_here(classes)
    network.set_weights(first_weights(classes, seed))
    for variable in network.optimizer.variables:
        variable.assign(tf.zeros_like(variable))
    seed_dropout(network, seed, epoch=0)
    shown = STEPS * settings.batch_size
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(count) for _ in range(-(-shown // count))])[:shown]
    most_px = round(settings.shift_fraction * SIZE)
    corners = shift_corners(shift_offsets(seed, tf.constant(0), shown, most_px), most_px)
    borders = tf.stack([bordered(picture, most_px) for picture in pictures])
    soft, counted = tf.constant(targets, tf.float32), tf.constant(weights, tf.float32)

    def at(place: tf.Tensor, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        key = tf.stack([tf.constant(seed, tf.int64), place])
        picture = mirror(shift(borders[index], corners[place], SIZE), key, horizontal=True, vertical=True)
        return relight(picture, key, settings.light_fraction), soft[index], counted[index]

    batches = tf.data.Dataset.from_tensor_slices(order).enumerate().map(at).batch(settings.batch_size)
    warmup = max(1, -(-count // settings.batch_size) // 2)

    def set_rate(step: int, logs: object) -> None:
        network.optimizer.learning_rate.assign(learning_rate(step, settings.learning_rate, [STEPS], warmup))

    callback = keras.callbacks.LambdaCallback(on_train_batch_begin=set_rate)
    network.fit(batches, shuffle=False, verbose=0, callbacks=[callback])
    return network


def answers(network: keras.Model, pictures: np.ndarray) -> np.ndarray:
    return network.predict(pictures, batch_size=64, verbose=0)


# --- Nested folds --------------------------------------------------------------------------------------------------


def draw(labels: np.ndarray, regime: Regime, fold: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places to train on, the labels to train on (some wrong), and the places of the outer fold, int (n,) each."""
    outer = np.random.default_rng(0).permutation(len(labels)) % OUTER
    rng = np.random.default_rng(fold)
    places = rng.permutation(np.flatnonzero(outer != fold))
    inside = np.concatenate([places[labels[places] == label][: regime.per_class] for label in np.unique(labels)])
    told, classes = labels[inside].copy(), labels.max() + 1
    wrong = rng.permutation(len(told))[: round(regime.wrong * len(told))]
    told[wrong] = (told[wrong] + rng.integers(1, classes, len(wrong))) % classes
    return inside, told, np.flatnonzero(outer == fold)


def judge(regime: Regime, pictures: Pictures, fold: int, shares: dict[str, float], with_single: bool) -> dict:
    """What every network of an outer fold says about it, as labels."""
    inside, told, outside = draw(pictures.labels, regime, fold)
    classes = pictures.labels.max() + 1
    hard = np.eye(classes)[told]
    counted = np.array(class_weights(np.bincount(told, minlength=classes), ClassWeights.SQRT))[told]
    part = np.empty(len(told), int)  # inner folds with as many of each label as can be
    for label in np.unique(told):
        alike = np.flatnonzero(told == label)
        part[alike] = np.random.default_rng(fold).permutation(len(alike)) % MEMBERS
    out_of_fold, outer = np.empty_like(hard), []
    for member in range(MEMBERS):
        learned = part != member
        network = train(pictures.ready[inside][learned], hard[learned], counted[learned], fold)
        out_of_fold[~learned] = answers(network, pictures.ready[inside][~learned])
        outer.append(answers(network, pictures.ready[outside]))
    said = {"member": outer[0], "ensemble": np.mean(outer, axis=0)}
    if with_single:
        said["single"] = answers(train(pictures.ready[inside], hard, counted, fold), pictures.ready[outside])
    for name, share in shares.items():
        targets = share * hard + (1 - share) * out_of_fold
        said[name] = answers(train(pictures.ready[inside], targets, counted, fold), pictures.ready[outside])
    truth = pictures.labels[outside]
    right = {name: (each.argmax(axis=1) == truth).astype(int).tolist() for name, each in said.items()}
    inner = out_of_fold.argmax(axis=1)
    taught = {"out of fold": float(np.mean(inner == pictures.labels[inside])), "told": float(np.mean(inner == told))}
    return {"trained on": len(inside), "members": taught, "right": right}


# --- What it shows -------------------------------------------------------------------------------------------------


def accuracy(rows: Sequence[dict], name: str) -> float:
    return 100 * float(np.mean(np.concatenate([row["right"][name] for row in rows])))


COLUMNS = "set, trained on, judged by, one member, ensemble, single, student, of each fold, single : student alone, p"


def tell(rows: Sequence[dict]) -> None:
    """A row per regime: accuracy in percent, and an exact two-sided McNemar test of student against single."""
    print(f"| {COLUMNS.replace(', ', ' | ')} |")
    for name in dict.fromkeys(row["regime"] for row in rows if "single" in row["right"]):
        mine = [row for row in rows if row["regime"] == name]
        student = next(share for share in SHARES if share in mine[0]["right"])
        one, other = (np.concatenate([row["right"][who] for row in mine]) for who in ("single", student))
        alone = [int((one > other).sum()), int((other > one).sum())]
        chance = binomtest(alone[0], sum(alone)).pvalue if sum(alone) else 1.0
        cells = [name, str(mine[0]["trained on"]), str(len(one))]
        cells += [f"{accuracy(mine, who):.1f}" for who in ("member", "ensemble", "single", student)]
        cells += [", ".join(f"{accuracy([row], student) - accuracy([row], 'single'):+.1f}" for row in mine)]
        print(f"| {' | '.join([*cells, f'{alone[0]} : {alone[1]}', f'{chance:.3g}'])} |")


def main(neu: str, xsdd: str, results: Path) -> None:
    rows = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    sets, made = regimes(neu, xsdd), cache(lambda name: sets[name].pictures())

    def work(name: str, fold: int, shares: dict[str, float], with_single: bool) -> None:
        if any((row["regime"], row["fold"]) == (name, fold) for row in rows):
            return
        pictures, began = made(name), process_time()
        row = {"regime": name, "fold": fold, **judge(sets[name], pictures, fold, shares, with_single)}
        rows.append({**row, "seconds": round(process_time() - began)})
        with results.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        print(name, fold, {who: round(accuracy([row], who), 1) for who in row["right"]}, row["members"], flush=True)

    for fold in range(USED):
        work(CHOOSING, fold, SHARES, with_single=False)
    choice = max(SHARES, key=lambda share: accuracy([row for row in rows if row["regime"] == CHOOSING], share))
    print("chosen:", choice)
    for fold in range(USED):
        for name in sets:
            if name != CHOOSING:
                work(name, fold, {choice: SHARES[choice]}, with_single=True)
    tell(rows)
    print(f"{sum(row['seconds'] for row in rows) / 60:.0f} processor minutes on one of {os.cpu_count()} cores")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
