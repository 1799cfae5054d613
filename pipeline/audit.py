"""What a person should know about the pictures before trusting a model: doubles, conflicts, leaks, outliers.

Works on the rows tables of datasets alone; the pictures were measured when they were converted.
"""

import csv
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfrecords.artifact import Artifact, hash_json, make
from tfrecords.dataset import ROWS, class_counts

KIND = "audit"
VERSION = 3
# Hamming distance of 64-bit perceptual hashes up to which pictures count as near-identical. Of unrelated ones
# one pair in about 10^10 comes as close.
NEAR_BITS = 6
# Distance from the median brightness, in robust standard deviations (1.4826 MAD), from which a picture stands out.
OUTLIER_DEVIATIONS = 6.0
CONCERNS = ("conflict", "leak", "duplicate", "outlier")  # the gravest first
COLUMNS = ("finding", "concern", "split", "id", "label", "other_split", "other_id", "other_label", "seen")


class Picture(NamedTuple):
    """What is known of a picture. label: -1 where there is none; size: "512 x 512", in pixels; mean: gray level."""

    split: str
    id: str
    label: int
    sha256: str
    size: str
    mean: float
    phash: int


def audit(datasets: Sequence[Artifact], root: Path, name: str) -> tuple[Artifact, bool]:
    """Compares all pictures of the training set, and of the lot where there is one.

    Returns:
        the audit's folder (audit.csv with COLUMNS, audit.png), and whether it was there before. Its manifest has
        the number of findings by concern.
    """
    fingerprint = hash_json({"version": VERSION, "datasets": [dataset.digest for dataset in datasets]})

    def build(work: Path) -> dict[str, Any]:
        concerns, means = _compare(datasets, work / "audit.csv")
        _draw(class_counts(datasets[0]), means, concerns, work / "audit.png")
        return {
            "datasets": [{"fingerprint": dataset.fingerprint, "digest": dataset.digest} for dataset in datasets],
            "pictures": sum(dataset.manifest["records"] + dataset.manifest["rejects"] for dataset in datasets),
            "concerns": concerns,
        }

    return make(root, name, KIND, fingerprint, build)


def summary(audit: Artifact) -> str:
    """One line for people: '2 leaks, 1 duplicate', or '' where nothing was found."""
    found = audit.manifest["concerns"].items()
    return ", ".join(f"{count} {concern}{'s' if count > 1 else ''}" for concern, count in found if count)


def _compare(datasets: Sequence[Artifact], path: Path) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """Writes the findings to `path`. Returns: their number by concern, and every picture's mean gray by split."""
    pictures = [picture for dataset in datasets for picture in read_pictures(dataset)]
    findings = find(pictures, datasets[0].manifest["classes"])
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(findings)
    found = Counter(concern for _, concern, *_ in findings)
    splits = [dataset.manifest["split"] for dataset in datasets]
    means = {split: np.array([one.mean for one in pictures if one.split == split]) for split in splits}
    return {concern: found[concern] for concern in CONCERNS}, means


def read_pictures(dataset: Artifact) -> Iterator[Picture]:
    """The pictures in a dataset's rows table; those that could not be read are left out."""
    with open(dataset.path / ROWS, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["phash"]:
                size = sys.intern(f"{row['width']} x {row['height']}")
                facts = (int(row["label"]), row["sha256"], size, float(row["mean"]), int(row["phash"], 16))
                yield Picture(dataset.manifest["split"], row["id"], *facts)


def find(pictures: Sequence[Picture], classes: Sequence[str]) -> list[tuple[str, ...]]:
    """Findings, the gravest first, as tuples of COLUMNS.

    concern: conflict (same picture, two labels), leak (same picture in training and test), duplicate, outlier.
    """
    label_name = {-1: "", **dict(enumerate(classes))}
    findings = []
    for first, second, distance in same_pictures(pictures):
        a, b = pictures[first], pictures[second]
        finding = "identical" if a.sha256 == b.sha256 else "near-identical"
        same_label = "duplicate" if a.label == b.label else "conflict"
        concern = same_label if a.split == b.split else "leak"
        seen = "the same bytes" if finding == "identical" else f"perceptual hashes differ in {distance} of 64 bits"
        pair = (a.split, a.id, label_name[a.label], b.split, b.id, label_name[b.label])
        findings.append((finding, concern, *pair, seen))
    findings.sort()
    findings.sort(key=lambda pair: CONCERNS.index(pair[1]))
    for index, finding, seen in outliers(pictures):
        one = pictures[index]
        findings.append((finding, "outlier", one.split, one.id, label_name[one.label], "", "", "", seen))
    return findings


def same_pictures(pictures: Sequence[Picture]) -> Iterator[tuple[int, int, int]]:
    """(picture, later picture, differing bits) of byte-identical and near-identical pictures.

    A later picture is told once for each concern, with the nearest one before it: a thousand copies of a picture
    are a thousand findings and not half a million.
    """
    hashes = np.array([picture.phash for picture in pictures], dtype=np.uint64)
    labels = np.array([picture.label for picture in pictures])
    splits = np.array([picture.split for picture in pictures])
    for later, own in enumerate(hashes):
        bits = np.bitwise_count(hashes[:later] ^ own)
        near = np.flatnonzero(bits <= NEAR_BITS)
        concern = 2 * (splits[near] == splits[later]) + (labels[near] == labels[later])
        for kind in np.unique(concern):
            nearest = near[concern == kind][bits[near[concern == kind]].argmin()]
            yield int(nearest), later, int(bits[nearest])


def outliers(pictures: Sequence[Picture]) -> Iterator[tuple[int, str, str]]:
    """(picture, finding, what was seen) of pictures of an odd size or brightness."""
    if not pictures:
        return
    (usual, most), *others = Counter(picture.size for picture in pictures).most_common()
    # Sets of many sizes have none that is odd.
    odd = {size for size, count in others if count <= 0.01 * len(pictures) and most > 0.9 * len(pictures)}
    for index, picture in enumerate(pictures):
        if picture.size in odd:
            yield index, "size", f"{picture.size} px; {usual} is usual"
    means = np.array([picture.mean for picture in pictures])
    middle = float(np.median(means))
    away = np.abs(means - middle)
    for index in np.flatnonzero(away > OUTLIER_DEVIATIONS * max(1.4826 * float(np.median(away)), 1.0)).tolist():
        yield index, "brightness", f"mean gray {means[index]:.1f}; the median is {middle:.1f}"


def _draw(counts: Mapping[str, int], means: Mapping[str, np.ndarray], concerns: Mapping[str, int], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.8), layout="constrained")
    classes, brightness, findings = figure.subplots(1, 3)
    bars = classes.barh(list(counts), list(counts.values()), color="#2166ac")
    classes.bar_label(bars, padding=3)
    classes.invert_yaxis()
    classes.set(title="pictures a class", xlim=(0, 1.15 * max(1, *counts.values())))
    for (split, values), color in zip(means.items(), ("#2166ac", "#d6604d"), strict=False):
        if len(values):
            brightness.hist(values, bins=np.arange(0, 257, 8), density=True, alpha=0.6, color=color, label=split)
    brightness.set(title="brightness of the pictures", xlabel="mean gray", yticks=[])
    brightness.legend(frameon=False)
    bars = findings.barh(list(concerns), list(concerns.values()), color="#666666")
    findings.bar_label(bars, padding=3)
    findings.invert_yaxis()
    findings.set(title="findings (audit.csv)", xlim=(0, 1.2 * max(1, *concerns.values())), xticks=[])
    for axes in (classes, brightness, findings):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120, facecolor="white", metadata={"Software": None})
