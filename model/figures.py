"""Figures that people look at instead of tables. Same data, same bytes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

BLUE, ORANGE, GRAY = "#2166ac", "#d6604d", "#666666"


def training_curves(history: Sequence[Mapping[str, float]], best: int, path: Path) -> None:
    """Loss and accuracy an epoch, for training and validation; `best` (from 1) is marked."""
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, [row[name] for row in history], "o-", color=BLUE, label="training")
        axes.plot(epochs, [row[f"val_{name}"] for row in history], "s-", color=ORANGE, label="validation")
        axes.axvline(best, color=GRAY, linestyle=":", label=f"kept: epoch {best}")
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    _write(figure, path)


def confusion_matrix(matrix: np.ndarray, classes: Sequence[str], title: str, path: Path) -> None:
    """Counts int (C, C), rows true and columns predicted; shaded by the share of the row."""
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 2.6 + 0.62 * len(classes)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        color = "white" if share[row, column] > 0.5 else "black"
        if count:
            axes.text(column, row, str(count), ha="center", va="center", color=color)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    _write(figure, path)


def picture_sheet(
    pictures: Sequence[np.ndarray], captions: Sequence[str], title: str, path: Path, columns: int = 6
) -> None:
    """Gray pictures uint8 (S, S) in a grid, a caption under each; says so where there are none."""
    rows = max(1, -(-len(pictures) // columns))
    figure = Figure(figsize=(1.9 * columns, 2.35 * rows + 0.5), layout="constrained")
    figure.suptitle(title)
    for place, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.axis("off")
        if place < len(pictures):
            axes.imshow(pictures[place], cmap="gray", vmin=0, vmax=255)
            axes.text(0.5, -0.03, captions[place], transform=axes.transAxes, ha="center", va="top", fontsize=7.5)
    _write(figure, path)


def tradeoff(
    thresholds: np.ndarray, cost: np.ndarray, escapes: np.ndarray, chosen: float, has_normal: bool, path: Path
) -> None:
    """Escapes against what avoiding them costs, over all thresholds (T,); the chosen one is marked."""
    figure = Figure(figsize=(5, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.step(100 * cost, 100 * escapes, where="post", color=BLUE)
    at = min(int(np.searchsorted(thresholds, chosen)), len(thresholds) - 1)
    axes.plot(100 * cost[at], 100 * escapes[at], "o", color=ORANGE, markersize=9)
    label = f"chosen: {chosen:.4f}\n{100 * escapes[at]:.2f} % for {100 * cost[at]:.2f} %"
    axes.annotate(label, (100 * cost[at], 100 * escapes[at]), xytext=(12, 12), textcoords="offset points")
    if has_normal:
        axes.set(xlabel="good parts not accepted, %", ylabel="defects accepted (escapes), %")
    else:
        axes.set(xlabel="parts to review, %", ylabel="misnamed among the others, %")
    axes.set_xscale("symlog", linthresh=1)
    axes.set_yscale("symlog", linthresh=1)
    axes.set(xlim=(0, 105), ylim=(0, 105), title="every threshold, and the chosen one")
    axes.spines[["top", "right"]].set_visible(False)
    _write(figure, path)


def parallel(
    axes: Mapping[str, Sequence[object]], results: Mapping[str, Sequence[float]], title: str, path: Path
) -> None:
    """Parallel coordinates: a line a point through its value on every axis, colored by the first result.

    axes: settings, each with a value a point; numbers in their order and words in that of their first use, equally
    spaced. results: figures, each with a number a point, to scale.
    """
    scales = [_spaced(values) for values in axes.values()] + [_to_scale(values) for values in results.values()]
    heights = np.array([height for height, _ in scales])  # (axes, points), 0..1
    judged = next(iter(results.values()))
    color = ScalarMappable(Normalize(min(judged), max(*judged, min(judged) + 0.001)), colormaps["viridis_r"])
    figure = Figure(figsize=(2 + 1.7 * len(scales), 4), layout="constrained")
    plot = figure.subplots()
    for at in np.argsort(judged, kind="stable"):  # the best on top
        plot.plot(heights[:, at], color=color.to_rgba(judged[at]), linewidth=1.8, alpha=0.85)
    for place, (_, ticks) in enumerate(scales):
        plot.axvline(place, color=GRAY, linewidth=0.8)
        for height, text in ticks:
            plot.annotate(
                text,
                (place, height),
                xytext=(4, 0),
                textcoords="offset points",
                fontsize=8,
                va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1},
            )
    plot.set_xticks(range(len(scales)), [*axes, *results], fontsize=9)
    plot.set(yticks=[], ylim=(-0.06, 1.06), xlim=(-0.1, len(scales) - 0.55), title=title)
    plot.spines[:].set_visible(False)
    figure.colorbar(color, ax=plot, label=next(iter(results)), format="%.4f", pad=0.01)
    _write(figure, path)


def _spaced(values: Sequence[object]) -> tuple[list[float], list[tuple[float, str]]]:
    """(height of every value, ticks), equally spaced; numbers in their order, words in that of their first use."""
    known = list(dict.fromkeys(values))
    if not any(isinstance(value, str) for value in known):
        known.sort()
    place = {value: index / max(1, len(known) - 1) for index, value in enumerate(known)}
    return [place[value] for value in values], [(height, str(value)) for value, height in place.items()]


def _to_scale(values: Sequence[float]) -> tuple[list[float], list[tuple[float, str]]]:
    """(height of every number, ticks) between the least and the largest."""
    low, span = min(values), max(values) - min(values)
    heights = [(value - low) / span if span else 0.5 for value in values]
    return heights, [(part if span else 0.5, f"{low + part * span:.4g}") for part in (0, 0.25, 0.5, 0.75, 1)]


def _write(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=120, facecolor="white", metadata={"Software": None})
