"""What a person should know about the pictures before trusting a model: doubles, conflicts, leaks, outliers.

Works on the rows tables of datasets alone; the pictures were measured when they were converted.
"""

import csv
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

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
TEXT_PX, ROW_PX = 15, 36  # the latter of a bar in the figure, with its distance from the next
BLUE, RED, GRAY = "#2166ac", "#d6604d", "#666666"
COLUMNS = ("finding", "concern", "split", "id", "label", "other_split", "other_id", "other_label", "seen")


# What is known of a picture. label: -1 where there is none; size: "512 x 512", in pixels; mean: gray level. As an
# array they take half the memory that they would as objects.
PICTURE = np.dtype(
    {
        "names": ("split", "id", "label", "sha256", "size", "mean", "phash"),
        "formats": (object, object, int, "V32", object, float, np.uint64),
    }
)


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
    pictures = np.fromiter(chain.from_iterable(map(read_pictures, datasets)), PICTURE)
    findings = find(pictures, datasets[0].manifest["classes"])
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(findings)
    found = Counter(concern for _, concern, *_ in findings)
    splits = [dataset.manifest["split"] for dataset in datasets]
    means = {split: pictures["mean"][pictures["split"] == split] for split in splits}
    return {concern: found[concern] for concern in CONCERNS}, means


def read_pictures(dataset: Artifact) -> Iterator[tuple]:
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
                yield dataset.manifest["split"], row["id"], *facts


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
    are a thousand findings and not half a million.
    """
    hashes, labels, splits = (np.ascontiguousarray(pictures[field]) for field in ("phash", "label", "split"))
    for later, own in enumerate(hashes):
        bits = np.bitwise_count(hashes[:later] ^ own)
        near = np.flatnonzero(bits <= NEAR_BITS)
        concern = 2 * (splits[near] == splits[later]) + (labels[near] == labels[later])
        for kind in sorted(set(concern.tolist())):
            same = near[concern == kind]
            nearest = same[bits[same].argmin()]
            yield int(nearest), later, int(bits[nearest])


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


def _draw(counts: Mapping[str, int], means: Mapping[str, np.ndarray], concerns: Mapping[str, int], path: Path) -> None:
    # With Pillow, since matplotlib takes longer to import and draw than 200 pictures to convert.
    from PIL import Image, ImageDraw

    # Pixels: each chart is so wide, and names stand in the gap before it.
    left, width, gap = 24 + round(max(map(_font(TEXT_PX).getlength, counts))), 300, 200
    rows = max(len(counts), len(concerns), 6)
    image = Image.new("RGB", (left + 3 * width + 2 * gap + 60, 100 + ROW_PX * rows), "white")
    draw = ImageDraw.Draw(image)
    _bars(draw, left, width, "pictures a class", counts, BLUE)
    _histograms(draw, left + width + gap - 80, width + 80, 50 + ROW_PX * rows, means)
    _bars(draw, left + 2 * (width + gap), width, "findings (audit.csv)", concerns, GRAY)
    image.save(path)


def _bars(draw: Any, left: int, width: int, title: str, values: Mapping[str, int], color: str) -> None:
    _text(draw, (left, 14), title, size=18)
    most = max(1, *values.values())
    for place, (name, value) in enumerate(values.items()):
        top, length = 50 + ROW_PX * place, round(width * value / most)
        draw.rectangle((left, top, left + length, top + ROW_PX - 10), fill=color)
        _text(draw, (left - 8, top + ROW_PX // 2 - 5), name, anchor="rm")
        _text(draw, (left + length + 8, top + ROW_PX // 2 - 5), f"{value:,}", anchor="lm")


def _histograms(draw: Any, left: int, width: int, bottom: int, values: Mapping[str, np.ndarray]) -> None:
    """Shares of each split by mean gray, as outlines one over the other."""
    _text(draw, (left, 14), "brightness of the pictures", size=18)
    bins = np.arange(0, 257, 8)
    shares = {split: np.histogram(one, bins)[0] / len(one) for split, one in values.items() if len(one)}
    most = max((share.max() for share in shares.values()), default=1.0)
    for place, ((split, share), color) in enumerate(zip(shares.items(), (BLUE, RED), strict=False)):
        heights = np.repeat(bottom - (bottom - 60) * share / most, 2)
        points = list(zip(left + np.repeat(bins, 2)[1:-1] * width / 256, heights, strict=True))
        draw.line([(left, bottom), *points, (left + width, bottom)], fill=color, width=3)
        _text(draw, (left + width, 60 + 22 * place), split, anchor="rm", fill=color)
    draw.line([(left, bottom), (left + width, bottom)], fill="black")
    for gray in (0, 64, 128, 192, 255):
        _text(draw, (left + gray * width / 256, bottom + 14), str(gray), anchor="mm")
    _text(draw, (left + width / 2, bottom + 36), "mean gray", anchor="mm")


def _text(draw: Any, at: tuple[float, float], text: str, size: int = TEXT_PX, **how: Any) -> None:
    draw.text(at, text, **{"fill": "black", "font": _font(size), **how})


@cache
def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
