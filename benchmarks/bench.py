"""`python -m benchmarks`: which sections run, how large, and what becomes of the figures."""

import importlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.core import machine
from tfrecords.artifacts.files import write_whole
from tfrecords.errors import refuse

SECTIONS = ("convert", "plan", "audit", "read", "train", "predict", "orchestrate", "api", "watch")
VERSION = 1  # of the JSON
TINY = (
    *("preprocess.image_size_px=32", "train.alpha=0.25", "train.weights=none", "train.epochs=1"),
    "evaluate.max_escape_rate=0.5",
)
IMPORTS = ("tensorflow", "mlflow", "prefect", "apache_beam", "pandas", "cv2", "flows.stages.predict", "flows.cli")

# How large each section is. Slow contestants get fewer pictures and are compared by their rates.
FULL: dict[str, dict[str, Any]] = {
    "convert": {"drawn": 600, "pictures": 12670, "slow": 1200, "few": 200, "growth": [2500, 50000], "rounds": 3},
    "plan": {"rows": [10_000, 100_000, 1_000_000], "large": 10_000_000, "rounds": 3},
    "audit": {"drawn": 600, "hashes": 1_000_000, "slow": 100_000, "flipped_bits": 8, "rounds": 3},
    "read": {"drawn": 600, "pictures": 600, "seconds": 2, "still": True, "rounds": 3},
    "train": {
        "drawn": 600,
        "steps": 50,
        "keras_steps": 12,
        "recipes": {"frozen": ["train.recipe=frozen"], "full": [], "full, five epochs": ["train.epochs=5"]},
        "settings": [],
    },
    "predict": {
        "drawn": 600,
        "pictures": 10142,
        "slow": 1500,
        "rounds": 3,
        "int8": True,
        "arrays": 160,
        "calls": 9,
        "singles": 200,
        "settings": [],
    },
    "orchestrate": {"drawn": 60, "rounds": 3, "imports": list(IMPORTS), "settings": list(TINY)},
    "api": {"drawn": 600, "seconds": 10, "rounds": 3, "int8": True, "settings": []},
    "watch": {
        "drawn": 600,
        "backlog": 10000,
        "arriving": 600,
        "seconds": 10,
        "rounds": 3,
        "settings": ["train.recipe=frozen"],
    },
}
QUICK: dict[str, dict[str, Any]] = {
    "convert": {"drawn": 60, "pictures": 300, "slow": 120, "few": 60, "growth": [120, 600], "rounds": 1},
    "plan": {"rows": [1000, 10_000], "large": 20_000, "rounds": 1},
    "audit": {"drawn": 60, "hashes": 5000, "slow": 2000, "flipped_bits": 8, "rounds": 1},
    "read": {"drawn": 60, "pictures": 120, "seconds": 0.2, "still": False, "rounds": 1},
    "train": {
        "drawn": 60,
        "steps": 3,
        "keras_steps": 2,
        "recipes": {"frozen": ["train.recipe=frozen"]},
        "settings": ["preprocess.image_size_px=96", "train.alpha=0.25", "train.weights=none"],
    },
    "predict": {
        "drawn": 60,
        "pictures": 120,
        "slow": 60,
        "rounds": 1,
        "int8": False,
        "arrays": 32,
        "calls": 1,
        "singles": 20,
        "settings": [*TINY, "train.recipe=frozen"],
    },
    "orchestrate": {"drawn": 60, "rounds": 1, "imports": ["flows.cli"], "settings": list(TINY)},
    "api": {"drawn": 60, "seconds": 1, "rounds": 1, "int8": False, "settings": [*TINY[:3], "train.recipe=frozen"]},
    "watch": {
        "drawn": 60,
        "backlog": 200,
        "arriving": 20,
        "seconds": 1,
        "rounds": 1,
        "settings": [*TINY[:3], "train.recipe=frozen"],
    },
}


def plan(quick: bool, only: Sequence[str] = (), data: str | None = None) -> dict[str, dict[str, Any]]:
    """The sizes of the sections that shall run, in their order.

    Raises: AoiError for a section that there is not.
    """
    unknown = [name for name in only if name not in SECTIONS]
    if unknown:
        raise refuse("--only", f"{unknown[0]!r} is no section", f"Known: {', '.join(SECTIONS)}")
    sizes = QUICK if quick else FULL
    chosen = {name: dict(sizes[name]) for name in SECTIONS if not only or name in only}
    for name in {"audit", "train", "predict", "api", "watch"} & set(chosen):
        chosen[name]["data"] = data
    return chosen


def bench(
    sizes: Mapping[str, Mapping[str, Any]],
    work: Path,
    tell: Callable[[str, str], None],
    keep: Callable[[dict[str, Any]], None] = lambda result: None,
) -> dict[str, Any]:
    """Runs the sections of a plan in the folder `work`. tell: called with a section and what it does now.

    keep: called after each section with what there is until then, for a later one may fail.

    Returns: {version, machine, sections: {name: {size, tables, goals}}}, all of it JSON.

    Raises: AoiError for a contestant that fails.
    """
    result: dict[str, Any] = {"version": VERSION, "machine": machine(), "sections": {}}
    for name, size in sizes.items():
        module = importlib.import_module(f"benchmarks.{name}")
        result["sections"][name] = module.measure(work, size, lambda what, name=name: tell(name, what))
        keep(result)
    return result


def run(quick: bool, only: Sequence[str], data: str | None, out: Path) -> str:
    """The subcommand: measures, and leaves the JSON at `out`, and beside it a paper (.md) and a chart (.png).

    data: folder for the sections that take one; none: sample pictures. Returns: what the paper says.

    Raises: AoiError for a contestant that fails; the sections before it are then beside `out`, in STEM.partial.json.
    """
    from flows.progress import clear_line, duration

    sizes = plan(quick, only, os.path.abspath(data) if data else None)
    if out.suffix != ".json":
        raise refuse(out, "no name of a JSON file", "Name it FILE.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def tell(section: str, what: str) -> None:
        clear_line()
        print(f"{section:<11} {duration(time.monotonic() - began):>12}  {what}", file=sys.stderr, flush=True)

    partial = out.with_name(f"{out.stem}.partial.json")  # what is at `out` may be whole
    with tempfile.TemporaryDirectory(prefix="aoi-bench-") as work:
        try:
            result = bench(sizes, Path(work), tell, lambda result: _write(partial, result))
        except BaseException:
            if partial.exists():
                tell("stopped", f"what was measured before is in {partial}")
            raise
    words = [" --quick"] * quick + [f" --only {' '.join(only)}"] * bool(only) + [" --data DIR"] * bool(data)
    result |= {"command": "python -m benchmarks" + "".join(words), "seconds": time.monotonic() - began}
    _write(out, result)
    report.write(result, out)
    partial.unlink()
    return report.paper(result, out.stem)


def _write(path: Path, result: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(result, indent=1) + "\n")
