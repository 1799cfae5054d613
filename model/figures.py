"""Figures that people look at instead of tables, each below 4,000 px. Same data, same bytes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from textwrap import wrap

import numpy as np
from matplotlib import colormaps, rc_context, rcParams
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, fontManager

from model.manifests import Promise
from tfrecords.lettering import fonts_of, legible, names_in_figures, shorten

BLUE, ORANGE, GRAY, GREEN = "#2166ac", "#d6604d", "#666666", "#4d9221"
CELL, MATRIX = 0.62, 25.0  # inches: a cell of the confusion matrix, and the most that all cells take
POINTS_PER_INCH = 72
MARKED = 60  # epochs that have a mark each at most
AXIS, ALL_AXES = 1.7, 28.0  # inches: between two axes of parallel coordinates, and the most that all take
TICKS = 20  # values that an axis of parallel coordinates names at most


def training_curves(history: Sequence[Mapping[str, float]], best: int, path: Path) -> None:
    """Loss and accuracy per epoch, for training and validation; `best` (from 1) is marked."""
    epochs = [row["epoch"] for row in history]
    circle, square = ("o", "s") if len(epochs) <= MARKED else ("", "")
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, [row[name] for row in history], f"{circle}-", color=BLUE, label="training")
        axes.plot(epochs, [row[f"val_{name}"] for row in history], f"{square}-", color=ORANGE, label="validation")
        axes.axvline(best, color=GRAY, linestyle=":", label=f"kept: epoch {best}")
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    _write(figure, path)


def confusion_matrix(matrix: np.ndarray, classes: Sequence[str], title: str, path: Path) -> None:
    """Counts int (C, C), rows true and columns predicted; shaded by the share of the row.

    With many classes cells are smaller. Cells too small for their counts are explained by a color bar, on which small
    shares differ more than large ones; rows too narrow for a name each have one for every few.
    """
    names, note = names_in_figures(classes)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    cell = min(CELL, MATRIX / len(classes))
    side = 2.6 + cell * len(classes)
    points = cell * POINTS_PER_INCH
    name_size = min(10.0, max(6.0, 0.75 * points))
    step = -int(-1.2 * name_size // points)
    count_size = min(10.0, 0.75 * points, 1.3 * points / len(str(matrix.max())))
    with _literal([*names, note]):
        figure = Figure(figsize=(side + 0.6, side), layout="constrained")
        axes = figure.subplots()
        if count_size < 7:
            image = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.4, 0, 1), interpolation="nearest")
            bar = figure.colorbar(image, fraction=0.03, pad=0.01)
            bar.ax.tick_params(labelsize=20)
            bar.set_label("share of the true class", fontsize=25)
        else:
            axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
            for (row, column), count in np.ndenumerate(matrix):
                color = "white" if share[row, column] > 0.5 else "black"
                if count:
                    axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=count_size)
        named = range(0, len(classes), step)
        rotation, align = (45, "right") if step * points > 2 * name_size else (90, "center")
        axes.set_xticks(named, names[::step], fontsize=name_size, rotation=rotation, ha=align)
        axes.set_yticks(named, names[::step], fontsize=name_size)
        enlarged = 1 if cell == CELL else 2.5  # what stands around a matrix as large as may be
        axes.set_xlabel("predicted", fontsize=10 * enlarged)
        axes.set_ylabel("true", fontsize=10 * enlarged)
        axes.set_title(title, fontsize=12 * enlarged)
        notes = [note] if note else []
        if step > 1:
            notes.append(f"one class in {step} is named")
        if notes:
            figure.supxlabel("\n".join(notes), fontsize=8 * enlarged, color=GRAY)
        _write(figure, path)


def picture_sheet(
    pictures: Sequence[np.ndarray], captions: Sequence[str], title: str, path: Path, columns: int = 6, note: str = ""
) -> None:
    """Pictures uint8 (S, S, 1) or (S, S, 3), RGB, in a grid, a caption under each; says so where there are none."""
    rows = max(1, -(-len(pictures) // columns))
    captions = legible(captions)
    with _literal(captions):
        figure = Figure(figsize=(1.9 * columns, 2.35 * rows + 0.5), layout="compressed")
        figure.suptitle(title)
        if note:
            figure.supxlabel(note, fontsize=8, color=GRAY)
        for place, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if place < len(pictures):
                axes.imshow(pictures[place], cmap="gray", vmin=0, vmax=255)
                axes.set_xlabel(captions[place], fontsize=7.5)  # unlike a text, it gets the room that it takes
        _write(figure, path)


def tradeoff(
    thresholds: np.ndarray,
    cost: np.ndarray,
    escapes: np.ndarray,
    proven: np.ndarray,
    chosen: float,
    promise: Promise,
    path: Path,
) -> None:
    """Escapes against what avoiding them costs, over all thresholds (T,): as counted, and as each one proves them.

    The chosen threshold is marked on both curves, and the bound of the promise is drawn.
    """
    figure = Figure(figsize=(6, 5.2), layout="constrained")
    axes = figure.subplots()
    sure = f"{100 * promise.confidence:g} %"
    axes.step(100 * cost, 100 * proven, where="post", color=ORANGE, label=f"proven with {sure} confidence")
    axes.step(100 * cost, 100 * escapes, where="post", color=BLUE, label="as counted")
    axes.axhline(100 * promise.bound, color=GRAY, linestyle=":", label=f"bound: {100 * promise.bound:g} %")
    at = min(int(np.searchsorted(thresholds, chosen)), len(thresholds) - 1)
    paid = f"{100 * escapes[at]:.2f} % counted, {100 * proven[at]:.2f} % proven, for {100 * cost[at]:.2f} %"
    both, label = [100 * escapes[at], 100 * proven[at]], f"chosen {chosen:.4f}: {paid}"
    axes.plot([100 * cost[at]] * 2, both, "o", color="black", zorder=3, clip_on=False, label=label)
    if promise.of == "misnamed":
        axes.set(xlabel="parts to review, %", ylabel="misnamed among the others, %")
    else:
        axes.set(xlabel="good parts not accepted, %", ylabel="defects accepted (escapes), %")
    axes.set_xscale("symlog", linthresh=1)
    axes.set_yscale("symlog", linthresh=1)
    axes.set(xlim=(0, 105), ylim=(0, 105), title="every threshold, and the chosen one")
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=1)
    axes.spines[["top", "right"]].set_visible(False)
    _write(figure, path)


def shares(names: Sequence[str], parts: Mapping[str, Sequence[float]], title: str, path: Path) -> None:
    """A bar per name, divided into shares that add up to 1. parts: what each part is called, to its share per name."""
    shown = legible(names)
    colors = dict(zip(parts, (BLUE, ORANGE, GRAY, GREEN), strict=False))
    with _literal(shown):
        figure = Figure(figsize=(8, 1.6 + 0.55 * max(1, len(names))), layout="constrained")
        axes, left = figure.subplots(), np.zeros(len(names))
        for part, values in parts.items():
            axes.barh(range(len(names)), values, left=left, color=colors[part], label=part, height=0.7)
            left += values
        axes.set_yticks(range(len(names)), shown, fontsize=8)
        axes.invert_yaxis()
        axes.set(xlim=(0, 1), xlabel="share of the parts", title=title)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(frameon=False, loc="outside lower center", ncols=max(1, len(parts)))
        _write(figure, path)


def parallel(
    axes: Mapping[str, Sequence[object]], results: Mapping[str, Sequence[float]], title: str, path: Path
) -> None:
    """Parallel coordinates: a line per point through its value on every axis, colored by the first result.

    axes: settings, each with a value per point; numbers in their order and words in that of their first use, equally
    spaced. results: figures, each with a number per point, to scale.
    """
    scales = [_spaced(values) for values in axes.values()] + [_to_scale(values) for values in results.values()]
    heights = np.array([height for height, _ in scales])  # (axes, points), 0..1
    judged = next(iter(results.values()))
    color = ScalarMappable(Normalize(min(judged), max(*judged, min(judged) + 0.001)), colormaps["viridis_r"])
    distance = min(AXIS, ALL_AXES / len(scales))
    width = 2 + distance * len(scales)
    names = [*axes, *results]
    crowded = any(len(one) + len(other) > 25 * distance for one, other in pairwise(names))
    shown = legible([shorten(text, int(14 * distance)) for _, ticks in scales for _, text in ticks])
    lines = wrap(legible([title])[0], int(10 * width), break_on_hyphens=False)
    with _literal([*shown, *lines]):
        figure = Figure(figsize=(width, 4), layout="constrained")
        plot = figure.subplots()
        for at in np.argsort(judged, kind="stable"):  # the best on top
            plot.plot(heights[:, at], color=color.to_rgba(judged[at]), linewidth=1.8, alpha=0.85)
        texts = iter(shown)
        for place, (_, ticks) in enumerate(scales):
            plot.axvline(place, color=GRAY, linewidth=0.8)
            for height, _ in ticks:
                plot.annotate(
                    next(texts),
                    (place, height),
                    xytext=(4, 0),
                    textcoords="offset points",
                    fontsize=8,
                    va="center",
                    bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1},
                )
        rotation, align = (20, "right") if crowded else (0, "center")
        plot.set_xticks(range(len(scales)), names, fontsize=9, rotation=rotation, ha=align)
        plot.set(yticks=[], ylim=(-0.06, 1.06), xlim=(-0.1, len(scales) - 0.55), title="\n".join(lines))
        plot.spines[:].set_visible(False)
        figure.colorbar(color, ax=plot, label=next(iter(results)), format="%.4f", pad=0.01)
        _write(figure, path)


def _spaced(values: Sequence[object]) -> tuple[list[float], list[tuple[float, str]]]:
    """(height of every value, ticks), equally spaced; numbers in their order, words in that of their first use."""
    known = list(dict.fromkeys(values))
    if not any(isinstance(value, str) for value in known):
        known.sort()
    place = {value: index / max(1, len(known) - 1) for index, value in enumerate(known)}
    ticks = [(height, str(value)) for value, height in place.items()]
    return [place[value] for value in values], ticks[:: -(-len(ticks) // TICKS)]


def _to_scale(values: Sequence[float]) -> tuple[list[float], list[tuple[float, str]]]:
    """(height of every number, ticks) between the least and the largest."""
    low, span = min(values), max(values) - min(values)
    heights = [(value - low) / span if span else 0.5 for value in values]
    return heights, [(part if span else 0.5, f"{low + part * span:.4g}") for part in (0, 0.25, 0.5, 0.75, 1)]


@contextmanager
def _literal(texts: Iterable[str]) -> Iterator[None]:
    """Figures made within it write texts as they stand, `$` too, in fonts that have the letters of `texts`."""
    files = dict.fromkeys(file for file in fonts_of(texts).values() if file)
    known = {entry.name for entry in fontManager.ttflist}
    # Each file as a family of its own: a family's name may stand for several files.
    fontManager.ttflist += [FontEntry(fname=file, name=file, size="scalable") for file in files if file not in known]
    with rc_context({"text.parse_math": False, "font.family": [*rcParams["font.family"], *files]}):
        yield


def _write(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=120, facecolor="white", metadata={"Software": None})
