"""What a person should know about the pictures before trusting a model: duplicates, conflicts, leaks, outliers.

Works on the rows tables of datasets alone; the pictures were measured when they were converted.
"""

import csv
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from pipeline.audit.figure import draw_audit
from pipeline.audit.near import nearest
from tfrecords.artifacts.artifact import Artifact
from tfrecords.artifacts.files import hash_json
from tfrecords.artifacts.make import make
from tfrecords.artifacts.manifest import MadeFrom, Manifest
from tfrecords.dataset import ROWS, Dataset, class_counts

VERSION = 4  # raise it when the same dataset would give another audit
# Distance from the median brightness, in robust standard deviations (1.4826 MAD), from which a picture stands out.
OUTLIER_DEVIATIONS = 6.0
TOLD_AT_ONCE = 1 << 14  # pictures, so that a million take no more memory than their hashes
CONCERNS = ("conflict", "leak", "duplicate", "outlier")  # the gravest first
COLUMNS = ("finding", "concern", "split", "id", "label", "other_split", "other_id", "other_label", "seen")
# What is known of a picture. label: -1 where there is none; size: "512 x 512", in pixels; mean: gray level. As an
# array they take half the memory that they would as objects.
PICTURE = np.dtype(
    {
        "names": ("split", "id", "label", "sha256", "size", "mean", "phash"),
        "formats": (object, object, int, "V32", object, float, np.uint64),
    }
)


class AuditManifest(Manifest):
    """What was found in a training set, and in the lot where there is one. concerns: findings by concern."""

    KIND = "audit"
    FOLDER = "audits"
    MADE_BY = "aoi ingest"

    datasets: tuple[MadeFrom, ...]
    pictures: int
    concerns: dict[str, int]


Audit = Artifact[AuditManifest]


def audit(datasets: Sequence[Dataset], root: Path, name: str) -> tuple[Audit, bool]:
    """Compares all pictures of the training set, and of the lot where there is one.

    Returns:
        the audit's folder (audit.csv with COLUMNS, audit.png), and whether it was there before. Its manifest has
        the number of findings by concern.
    """
    fingerprint = hash_json({"version": VERSION, "datasets": [dataset.digest for dataset in datasets]})

    def build(work: Path) -> AuditManifest:
        concerns, means = _compare(datasets, work / "audit.csv")
        draw_audit(class_counts(datasets[0]), means, concerns, work / "audit.png")
        return AuditManifest(
            datasets=tuple(dataset.made_from for dataset in datasets),
            pictures=sum(dataset.manifest.records + dataset.manifest.rejects for dataset in datasets),
            concerns=concerns,
        )

    return make(root, name, AuditManifest, fingerprint, build)


def summary(audit: Audit) -> str:
    """One line for people: '2 leaks, 1 duplicate', or '' where nothing was found."""
    found = audit.manifest.concerns.items()
    return ", ".join(f"{count} {concern}{'s' if count > 1 else ''}" for concern, count in found if count)


def _compare(datasets: Sequence[Dataset], path: Path) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """Writes the findings to `path`. Returns: their number by concern, and every picture's mean gray by split."""
    pictures = np.fromiter(chain.from_iterable(map(read_pictures, datasets)), PICTURE)
    findings = find(pictures, datasets[0].manifest.classes)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(findings)
    found = Counter(concern for _, concern, *_ in findings)
    splits = [dataset.manifest.split for dataset in datasets]
    means = {split: pictures["mean"][pictures["split"] == split] for split in splits}
    return {concern: found[concern] for concern in CONCERNS}, means


def read_pictures(dataset: Dataset) -> Iterator[tuple]:
    """The pictures in a dataset's rows table, with the values of PICTURE; those that could not be read are left out."""
    with open(dataset.path / ROWS, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["phash"]:
                size = sys.intern(f"{row['width']} x {row['height']}")
                facts = (
                    int(row["label"]),
                    bytes.fromhex(row["sha256"]),
                    size,
                    float(row["mean"]),
                    int(row["phash"], 16),
                )
                yield dataset.manifest.split, row["id"], *facts


def find(pictures: np.ndarray, classes: Sequence[str]) -> list[tuple[str, ...]]:
    """Findings among the PICTUREs, the gravest first, as tuples of COLUMNS.

    concern: conflict (same picture, two labels), leak (same picture in training and test), duplicate, outlier.
    """
    label_name = {-1: "", **dict(enumerate(classes))}
    findings = []
    for first, second, distance in same_pictures(pictures):
        a, b = pictures[first], pictures[second]
        finding = "identical" if a["sha256"] == b["sha256"] else "near-identical"
        same_label = "duplicate" if a["label"] == b["label"] else "conflict"
        concern = same_label if a["split"] == b["split"] else "leak"
        seen = "the same bytes" if finding == "identical" else f"perceptual hashes differ in {distance} of 64 bits"
        pair = ((one["split"], one["id"], label_name[one["label"]]) for one in (a, b))
        findings.append((finding, concern, *chain.from_iterable(pair), seen))
    findings.sort()
    findings.sort(key=lambda pair: CONCERNS.index(pair[1]))
    for index, finding, seen in outliers(pictures):
        one = pictures[index]
        findings.append((finding, "outlier", one["split"], one["id"], label_name[one["label"]], "", "", "", seen))
    return findings


def same_pictures(pictures: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """(picture, later picture, differing bits) of byte-identical and near-identical pictures.

    A later picture is told once for each concern, with the nearest one before it: a thousand copies of a picture
    are a thousand findings and not half a million. Copies are searched for as one.
    """
    if not len(pictures):
        return
    split_of, splits = np.unique(pictures["split"], return_inverse=True)
    label_of, labels = np.unique(pictures["label"], return_inverse=True)
    groups = np.empty(len(pictures), [("phash", np.uint64), ("kind", np.int64)])
    groups["phash"], groups["kind"] = pictures["phash"], splits * len(label_of) + labels
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    order = np.argsort(first)  # groups by their first picture, so that the first group is the first picture's
    first, group = first[order], np.argsort(order)[group]
    split, label = np.divmod(np.arange(len(split_of) * len(label_of)), len(label_of))
    relations = 2 * (split[:, None] == split) + (label[:, None] == label)
    near = nearest(groups["phash"][first], groups["kind"][first], relations)
    near[relations.max(), 0] = np.minimum(near[relations.max(), 0], np.arange(len(first)))  # copies are of their first
    first = np.append(first, len(pictures))  # of those that have none
    for at in range(0, len(pictures), TOLD_AT_ONCE):
        own = group[at : at + TOLD_AT_ONCE]
        others = first[near[:, :, own]]  # by concern, bits and picture
        known = others < np.arange(at, at + len(own))
        bits = known.argmax(axis=1)
        for later, concern in np.argwhere(known.any(axis=1).T).tolist():
            nearest_bits = int(bits[concern, later])
            yield int(others[concern, nearest_bits, later]), at + later, nearest_bits


def outliers(pictures: np.ndarray) -> Iterator[tuple[int, str, str]]:
    """(picture, finding, what was seen) of pictures of an odd size or brightness."""
    if not len(pictures):
        return
    (usual, most), *others = Counter(pictures["size"]).most_common()
    # Sets of many sizes have none that is odd.
    odd = {size for size, count in others if count <= 0.01 * len(pictures) and most > 0.9 * len(pictures)}
    for index, size in enumerate(pictures["size"]):
        if size in odd:
            yield index, "size", f"{size} px; {usual} is usual"
    means = pictures["mean"]
    middle = float(np.median(means))
    away = np.abs(means - middle)
    for index in np.flatnonzero(away > OUTLIER_DEVIATIONS * max(1.4826 * float(np.median(away)), 1.0)).tolist():
        yield index, "brightness", f"mean gray {means[index]:.1f}; the median is {middle:.1f}"
