"""Audit: pairs of the same picture among hashes of real pictures, against comparing all with all."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.core import Contestant, by_turns, goal, median
from benchmarks.pictures import draw
from pipeline.audit.findings import PICTURE, same_pictures
from pipeline.audit.near import NEAR_BITS
from pipeline.inputs.files import opened
from pipeline.inputs.inputs import read_inputs
from tfrecords.pictures.formats import decode
from tfrecords.pictures.perceptual_hash import perceptual_hash
from tfrecords.settings import PreprocessSettings

OURS, SLOW, ALL = "ours", "ours, few", "all with all, few"


def measure(work: Path, size: Mapping[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """size: drawn, hashes, slow (hashes of those that compare all), flipped_bits, data (folder; none: samples)."""
    tell("perceptual hashes of the pictures")
    inputs = read_inputs(size["data"] or str(draw(work, size["drawn"])), "train", 2)
    settings = PreprocessSettings()
    with opened(inputs.container) as read:
        hashes = [perceptual_hash(decode(read(row.name), settings)) for row in inputs.rows]
    np.savez(work / "hashes.npz", hashes=np.array(hashes, np.uint64), labels=[row.label for row in inputs.rows])

    def contestant(name: str, call: str, count: int) -> Contestant:
        given = {"path": str(work / "hashes.npz"), "count": count, "flipped_bits": size["flipped_bits"]}
        return Contestant(name, f"benchmarks.audit:{call}", given)

    pairs = by_turns(
        [
            contestant(OURS, "indexed", size["hashes"]),
            contestant(SLOW, "indexed", size["slow"]),
            contestant(ALL, "all_with_all", size["slow"]),
        ],
        size["rounds"],
        tell,
    )
    return {
        "size": {**size, "data": (size["data"] and Path(size["data"]).name) or "sample pictures"},
        "tables": {"pairs": pairs},
        "goals": [goal(f"pairs among {size['hashes']:,} hashes", median(pairs, OURS, "cpu_s"), 30, False, "s")],
    }


def flipped(path: str, count: int, flipped_bits: int) -> np.ndarray:
    """So many PICTUREs: a tenth a lot, of the others a hundredth with a label by chance."""
    rng = np.random.default_rng(0)
    with np.load(path) as told:
        which = rng.integers(0, len(told["hashes"]), count)
        hashes, labels = told["hashes"][which], told["labels"][which]
    flips = rng.integers(0, flipped_bits + 1, count)
    for flip in range(flipped_bits):
        bit = np.uint64(1) << rng.integers(0, 64, count).astype(np.uint64)
        hashes = np.where(flip < flips, hashes ^ bit, hashes)
    lot = rng.random(count) < 0.1
    pictures = np.zeros(count, PICTURE)
    pictures["phash"], pictures["split"] = hashes, np.where(lot, "test", "train").astype(object)
    wrong = rng.random(count) < 0.01
    pictures["label"] = np.where(lot, -1, np.where(wrong, rng.integers(0, labels.max() + 1, count), labels))
    return pictures


def indexed(path: str, count: int, flipped_bits: int) -> dict[str, float]:
    """A contestant: `same_pictures`, by its multi-index."""
    return _timed(same_pictures, flipped(path, count, flipped_bits))


def all_with_all(path: str, count: int, flipped_bits: int) -> dict[str, float]:
    """A contestant: the same findings by comparing each picture with all before it."""
    return _timed(compared, flipped(path, count, flipped_bits))


def compared(pictures: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """What `same_pictures` gives, the plain way."""
    hashes, labels, splits = (np.ascontiguousarray(pictures[field]) for field in ("phash", "label", "split"))
    for later in range(len(hashes)):
        bits = np.bitwise_count(hashes[:later] ^ hashes[later])
        near = np.flatnonzero(bits <= NEAR_BITS)
        concern = 2 * (splits[near] == splits[later]) + (labels[near] == labels[later])
        for kind in sorted(set(concern.tolist())):
            same = near[concern == kind]
            nearest = same[bits[same].argmin()]
            yield int(nearest), later, int(bits[nearest])


def _timed(pairs: Callable[[np.ndarray], Iterator[tuple[int, int, int]]], pictures: np.ndarray) -> dict[str, float]:
    began = time.process_time()
    found = sum(1 for _ in pairs(pictures))
    return {"hashes": len(pictures), "cpu_s": time.process_time() - began, "found": found}
