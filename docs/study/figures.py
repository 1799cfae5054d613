"""The study's figures and numbers: python docs/study/figures.py DATA HOME

Reads the sweeps that are finished in HOME; writes equalize.png, results.png and size.png beside itself, and prints what
they show with its uncertainty.
"""

import csv
import shutil
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import binomtest

from flows.home import Home
from model.evaluation.sweep import FIGURE, read_table
from model.manifests import ModelManifest, SweepManifest
from model.registry.store import store_of
from model.registry.tracking import connect
from pipeline.inputs.files import opened
from tfrecords.artifacts.artifact import read
from tfrecords.pictures.formats import decode
from tfrecords.pictures.preprocessing import equalize
from tfrecords.settings import PreprocessSettings

HERE = Path(__file__).parent
WAYS = ("none", "histogram", "clahe")
SHOWN = (0, 2, 4)  # labels of the pictures that are shown
BLUE, ORANGE, GRAY = "#2166ac", "#d6604d", "#666666"


def main(data: Path, home: Home) -> None:
    draw_equalized(data, HERE / "equalize.png")
    tables = {}
    for path in home.committed(SweepManifest):
        rows = read_table(read(path, SweepManifest))
        tables[tuple(name for name in rows[0] if "." in name)] = rows
        if "preprocess.image_size_px" in rows[0]:
            shutil.copy(path / FIGURE, HERE / "size.png")
    draw_results(tables, home, HERE / "results.png")
    for axes in (("train.shift_fraction",), ("preprocess.image_size_px", "train.alpha")):
        print(*axes)
        compare(home, tables[axes], *axes)
    for axes in (("train.fold", "train.head"), ("preprocess.image_size_px", "train.alpha")):
        time(home, tables[axes], *axes)


def draw_equalized(data: Path, path: Path) -> None:
    """A picture of some classes before and after equalization, each over its histogram of grays."""
    names = (data / "classes.txt").read_text(encoding="utf-8").split()
    with open(data / "train.csv", encoding="utf-8", newline="") as file:
        first = {int(row["Label"]): row["ID"] for row in reversed(list(csv.DictReader(file)))}
    figure = Figure(figsize=(8, 2.75 * len(SHOWN)), layout="constrained")
    grid = figure.subplots(2 * len(SHOWN), len(WAYS), height_ratios=[3, 1] * len(SHOWN))
    with opened(str(data / "train_images.zip")) as read_picture:
        for place, label in enumerate(SHOWN):
            pixels = decode(read_picture(f"train_images/{first[label]}"), PreprocessSettings())
            for column, way in enumerate(WAYS):
                made = equalize(pixels, PreprocessSettings(equalize=way))
                shown, grays = grid[2 * place][column], grid[2 * place + 1][column]
                shown.imshow(made, cmap="gray", vmin=0, vmax=255)
                shown.set(xticks=[], yticks=[])
                grays.hist(made.ravel(), bins=64, range=(0, 256), color=GRAY)
                grays.set(yticks=[], xlim=(0, 255), xticks=[0, 128, 255])
                grays.spines[["top", "right", "left"]].set_visible(False)
                if not place:
                    shown.set_title(way)
            grid[2 * place][0].set_ylabel(names[label])
    write(figure, path, 75)


def draw_results(tables: dict[tuple[str, ...], list[dict[str, str]]], home: Home, path: Path) -> None:
    """One panel a question: accuracy of every fold, and of all their pictures with its 95 % interval."""
    figure = Figure(figsize=(9, 2.9), layout="constrained")
    panels = figure.subplots(1, 3)
    asked = {
        "preprocess.equalize": "equalization (frozen)",
        "train.head": "head (from random weights)",
        "train.shift_fraction": "shift (frozen)",
    }
    for axes, (axis, title) in zip(panels, asked.items(), strict=True):
        table = tables[axis, "train.fold"] if axis.startswith("pre") else tables["train.fold", axis]
        draw_axis(axes, table, axis)
        compare(home, table, axis)
        axes.set_title(title, fontsize=10)
    panels[0].set_ylabel("accuracy, %")
    write(figure, path, 90)


def draw_axis(axes: Axes, table: list[dict[str, str]], axis: str) -> None:
    values = list(dict.fromkeys(row[axis] for row in table))
    for place, value in enumerate(values):
        rows = [row for row in table if row[axis] == value]
        axes.plot([place] * len(rows), [100 * float(row["accuracy"]) for row in rows], "o", color=BLUE, alpha=0.6)
        mistakes, pictures = (sum(int(row[key]) for row in rows) for key in ("mistakes", "pictures"))
        low, high = binomtest(pictures - mistakes, pictures).proportion_ci(method="wilson")
        middle = 100 * (1 - mistakes / pictures)
        axes.errorbar(
            place + 0.2, middle, [[middle - 100 * low], [100 * high - middle]], fmt="s", color=ORANGE, capsize=4
        )
        print(f"{axis}={value}: {mistakes} mistakes of {pictures}, accuracy {middle:.2f} % ({low:.2%} to {high:.2%})")
    axes.set_xticks(np.arange(len(values)) + 0.1, values)
    axes.set_xlim(-0.4, len(values) - 0.3)
    axes.spines[["top", "right"]].set_visible(False)


def compare(home: Home, table: list[dict[str, str]], *axes: str) -> None:
    """Prints every two values' answers on the same pictures, those of all folds together (two-sided McNemar test)."""
    right: dict[str, dict[str, bool]] = {}
    for row in table:
        with open(home.evaluation_of(row["model"]).path / "predictions.csv", encoding="utf-8", newline="") as file:
            answers = {answer["ID"]: answer["label"] == answer["true_label"] for answer in csv.DictReader(file)}
        right.setdefault(" ".join(row[axis] for axis in axes), {}).update(answers)
    for one, other in combinations(right, 2):
        alone = [sum(right[a][at] and not right[b][at] for at in right[a]) for a, b in ((one, other), (other, one))]
        chance = binomtest(alone[0], sum(alone)).pvalue if sum(alone) else 1.0
        print(f"  {one} alone names {alone[0]} right, {other} alone {alone[1]}: p = {chance:.3g}")


def time(home: Home, table: list[dict[str, str]], *axes: str) -> None:
    """Prints the quickest epoch of every training: what else the machine does can only make one slower."""
    client = connect(store_of(home.root, ""))
    for row in table:
        record = home.named(ModelManifest, row["model"]).manifest.mlflow
        seconds = [metric.value for metric in client.get_metric_history(record.run_id, "seconds")]
        print(*(f"{axis}={row[axis]}" for axis in axes), f"quickest epoch {min(seconds):.1f} s")


def write(figure: Figure, path: Path, dpi: int) -> None:
    figure.savefig(path, dpi=dpi, facecolor="white", metadata={"Software": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Home(Path(sys.argv[2])))
