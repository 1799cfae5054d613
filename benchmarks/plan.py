"""Plan: what the driver does alone between reading and converting, for made-up rows: no pixels."""

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.core import Contestant, by_turns, goal, median
from pipeline.inputs.inputs import Inputs
from pipeline.inputs.rows import Rows, duplicates
from pipeline.job.plan import shard_rows
from pipeline.job.shard import ShardPlan
from pipeline.job.work import write_plan
from pipeline.settings import IngestSettings
from tfrecords.settings import PreprocessSettings

CLASSES = 6
BOUNDS = {1_000_000: (10, 500), 10_000_000: (100, 4096)}  # seconds and MiB


def measure(work: Path, size: Mapping[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """size: rows (counts), large (one more, in one round), rounds."""
    rows = []
    for count in [*size["rows"], size["large"]]:
        contestant = Contestant(f"{count:,} rows", "benchmarks.plan:planned", {"work": str(work), "count": count})
        rows += by_turns([contestant], 1 if count == size["large"] else size["rounds"], tell)
    goals = []
    for count, (seconds, mebibytes) in BOUNDS.items():
        if count in (*size["rows"], size["large"]):
            name = f"{count:,} rows"
            goals.append(goal(f"{name} planned", median(rows, name, "cpu_s"), seconds, False, "s"))
            goals.append(goal(f"{name}, memory", median(rows, name, "memory_mb"), mebibytes, False, "MiB"))
    return {"size": dict(size), "tables": {"growth": rows}, "goals": goals}


def planned(work: str, count: int) -> dict[str, float]:
    """A contestant: digest, groups of equal files, folds, shards, and the plans as workers get them."""
    inputs = Inputs("train", "train.csv", "/data/train_images", tuple(map(str, range(CLASSES))), made_up(count))
    settings, preprocess = IngestSettings(), PreprocessSettings(bit_depth=8)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        began = time.process_time()
        assert inputs.digest and not duplicates(inputs.rows)
        shards = shard_rows(inputs, settings, preprocess.image_size_px**2)
        plans = [ShardPlan(folder, file, inputs.container, rows, folds, preprocess, 1) for file, rows, folds in shards]
        for plan in plans:
            write_plan(plan)
        return {"rows": count, "shards": len(plans), "cpu_s": time.process_time() - began}


def made_up(count: int) -> Rows:
    """So many rows of pictures that were read."""
    rng = np.random.default_rng(0)
    ids = [f"train_{number:08d}.png" for number in range(count)]
    rows = Rows.unread(ids, range(2, count + 2), rng.integers(0, CLASSES, count).tolist(), ids)
    rows.sha256[:] = np.frombuffer(rng.bytes(32 * count), "V32")
    return rows
