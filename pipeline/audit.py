"""What a person should know about the pictures before trusting a model: doubles, conflicts, leaks, outliers.

Works on the rows tables of datasets alone; the pictures were measured when they were converted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfrecords.artifact import Artifact, hash_json, make
from tfrecords.dataset import ROWS

if TYPE_CHECKING:
    import pandas as pd

KIND = "audit"
VERSION = 2
# Hamming distance of 64-bit perceptual hashes up to which pictures count as near-identical. Of unrelated ones
# one pair in about 10^10 comes as close.
NEAR_BITS = 6
# Distance from the median brightness, in robust standard deviations (1.4826 MAD), from which a picture stands out.
OUTLIER_DEVIATIONS = 6.0
CONCERNS = ("conflict", "leak", "duplicate", "outlier")  # the gravest first
COLUMNS = ("finding", "concern", "split", "id", "label", "other_split", "other_id", "other_label", "seen")


def audit(datasets: Sequence[Artifact], root: Path, name: str) -> tuple[Artifact, bool]:
    """Compares all pictures of the training set, and of the lot where there is one.

    Returns:
        the audit's folder (audit.csv with COLUMNS, audit.png), and whether it was there before. Its manifest has
        the number of findings by concern.
    """
    fingerprint = hash_json({"version": VERSION, "datasets": [dataset.digest for dataset in datasets]})

    def build(work: Path) -> dict[str, Any]:
        import pandas as pd  # half a second, and only where there is work

        rows = pd.concat([read_rows(dataset) for dataset in datasets], ignore_index=True)
        classes = datasets[0].manifest["classes"]
        findings = pd.DataFrame(find(rows, classes), columns=COLUMNS)
        findings.to_csv(work / "audit.csv", index=False)
        _draw(rows, classes, findings, work / "audit.png")
        return {
            "datasets": [{"fingerprint": dataset.fingerprint, "digest": dataset.digest} for dataset in datasets],
            "pictures": len(rows),
            "concerns": {concern: int((findings["concern"] == concern).sum()) for concern in CONCERNS},
        }

    return make(root, name, KIND, fingerprint, build)


def summary(audit: Artifact) -> str:
    """One line for people: '2 leaks, 1 duplicate', or '' where nothing was found."""
    found = audit.manifest["concerns"].items()
    return ", ".join(f"{count} {concern}{'s' if count > 1 else ''}" for concern, count in found if count)


def read_rows(dataset: Artifact) -> pd.DataFrame:
    """The rows table of a dataset with its split: id, label, sha256, width, height, mean, deviation, phash."""
    import pandas as pd

    rows = pd.read_csv(dataset.path / ROWS, dtype={"id": str, "sha256": str, "phash": str}, keep_default_na=False)
    rows["split"] = dataset.manifest["split"]
    for column in ("width", "height", "mean", "deviation"):
        rows[column] = pd.to_numeric(rows[column])  # blank where the picture could not be read
    return rows


def find(rows: pd.DataFrame, classes: Sequence[str]) -> Iterator[tuple]:
    """Findings, the gravest first, as tuples of COLUMNS.

    concern: conflict (same picture, two labels), leak (same picture in training and test), duplicate, outlier.
    """
    label_name = {-1: "", **dict(enumerate(classes))}
    pairs = []
    # As plain rows: to look one up in the table takes 50 times longer, and a set of copies has thousands of pairs.
    facts = rows[["split", "id", "label", "sha256"]].to_dict("records")
    for first, second, distance in same_pictures(rows):
        a, b = facts[first], facts[second]
        finding = "identical" if a["sha256"] == b["sha256"] else "near-identical"
        same_label = "duplicate" if a["label"] == b["label"] else "conflict"
        concern = same_label if a["split"] == b["split"] else "leak"
        seen = "the same bytes" if finding == "identical" else f"perceptual hashes differ in {distance} of 64 bits"
        pair = (a["split"], a["id"], label_name[a["label"]], b["split"], b["id"], label_name[b["label"]])
        pairs.append((finding, concern, *pair, seen))
    yield from sorted(pairs, key=lambda pair: (CONCERNS.index(pair[1]), pair[0], pair[2:]))
    for index, finding, seen in outliers(rows):
        row = rows.iloc[index]
        yield (finding, "outlier", row["split"], row["id"], label_name[row["label"]], "", "", "", seen)


def same_pictures(rows: pd.DataFrame) -> Iterator[tuple[int, int, int]]:
    """(row, later row, differing bits) of byte-identical and near-identical pictures.

    A later picture is told once for each concern, with the nearest one before it: a thousand copies of a picture
    are a thousand findings and not half a million.
    """
    readable = np.flatnonzero((rows["phash"] != "").to_numpy())
    hashes = np.array([int(text, 16) for text in rows["phash"].iloc[readable]], dtype=np.uint64)
    labels, splits = (rows[column].to_numpy()[readable] for column in ("label", "split"))
    for later, own in enumerate(hashes):
        bits = np.bitwise_count(hashes[:later] ^ own)
        near = np.flatnonzero(bits <= NEAR_BITS)
        concern = 2 * (splits[near] == splits[later]) + (labels[near] == labels[later])
        for kind in np.unique(concern):
            nearest = near[concern == kind][bits[near[concern == kind]].argmin()]
            yield int(readable[nearest]), int(readable[later]), int(bits[nearest])


def outliers(rows: pd.DataFrame) -> Iterator[tuple[int, str, str]]:
    """(row, finding, what was seen) of pictures of an odd size or brightness."""
    readable = rows[rows["phash"] != ""]
    if readable.empty:
        return
    sizes = readable.groupby(["width", "height"]).size()
    usual = sizes.idxmax()
    for (width, height), count in sizes.items():
        # Sets of many sizes have none that is odd.
        if (width, height) != usual and count <= 0.01 * len(readable) and sizes[usual] > 0.9 * len(readable):
            for index in readable.index[(readable["width"] == width) & (readable["height"] == height)]:
                yield index, "size", f"{width:.0f} x {height:.0f} px; {usual[0]:.0f} x {usual[1]:.0f} is usual"
    middle = readable["mean"].median()
    spread = 1.4826 * (readable["mean"] - middle).abs().median()
    for index, mean in readable["mean"].items():
        if abs(mean - middle) > OUTLIER_DEVIATIONS * max(spread, 1.0):
            yield index, "brightness", f"mean gray {mean:.1f}; the median is {middle:.1f}"


def _draw(rows: pd.DataFrame, classes: Sequence[str], findings: pd.DataFrame, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.8), layout="constrained")
    counts, brightness, concerns = figure.subplots(1, 3)
    labelled = rows[rows["label"] >= 0]
    totals = [int((labelled["label"] == label).sum()) for label in range(len(classes))]
    bars = counts.barh(classes, totals, color="#2166ac")
    counts.bar_label(bars, padding=3)
    counts.invert_yaxis()
    counts.set(title="pictures a class", xlim=(0, 1.15 * max(totals)))
    for split, color in (("train", "#2166ac"), ("test", "#d6604d")):
        means = rows.loc[(rows["split"] == split) & (rows["phash"] != ""), "mean"]
        if len(means):
            brightness.hist(means, bins=np.arange(0, 257, 8), density=True, alpha=0.6, color=color, label=split)
    brightness.set(title="brightness of the pictures", xlabel="mean gray", yticks=[])
    brightness.legend(frameon=False)
    totals = [int((findings["concern"] == concern).sum()) for concern in CONCERNS]
    bars = concerns.barh(CONCERNS, totals, color="#666666")
    concerns.bar_label(bars, padding=3)
    concerns.invert_yaxis()
    concerns.set(title="findings (audit.csv)", xlim=(0, 1.2 * max(1, *(bar.get_width() for bar in bars))), xticks=[])
    for axes in (counts, brightness, concerns):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120, facecolor="white", metadata={"Software": None})
