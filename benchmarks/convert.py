"""Convert: our ingest against a plain loop, a process pool, and the sum of the parts."""

import os
import time
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.core import Contestant, by_turns, goal, median, run_alone
from benchmarks.pictures import draw, repeat, saved_as

OURS, LOOP, POOL, PARTS = "ours, in_memory", "plain loop", "process pool", "sum of the parts"
SIZE_PX = 224
FORMATS = (".jpg", ".bmp", ".tiff")
PART_NAMES = ("read", "decode", "clahe", "resize")


def measure(work: Path, size: Mapping[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """size: drawn (distinct pictures), pictures, slow (of the loop, the parts and Beam's workers), few, growth (counts
    for the memory), rounds.
    """
    drawn = draw(work, size["drawn"])
    cores = os.cpu_count() or 1

    def one(name: str, count: int, function: str = "ours", **given: Any) -> Contestant:
        place = {"data": str(repeat(drawn, work, count)), "work": str(work)}
        return Contestant(name, f"benchmarks.convert:{function}", {**place, **given})

    def rated(contestants: list[Contestant]) -> list[dict[str, Any]]:
        return by_turns(contestants, size["rounds"], tell, lambda contestant: _rated(run_alone(contestant)))

    beam = "--direct_running_mode=multi_processing --direct_num_workers="
    large = [one(OURS, size["pictures"]), one(POOL, size["pictures"], "pool", workers=cores)]
    large += [one(LOOP, size["slow"], "loop"), one(PARTS, size["slow"], "parts", workers=cores)]
    large += [
        one(f"ours, multi_processing, {workers} worker(s)", size["slow"], beam=f"{beam}{workers}")
        for workers in sorted({1, cores})
    ]
    many = rated(large)
    few = rated([one(OURS, size["few"]), one(LOOP, size["few"], "loop")])
    others = []
    for suffix in FORMATS:
        place = work / suffix[1:]
        place.mkdir(exist_ok=True)
        pictures = saved_as(drawn, place / drawn.name, suffix)
        for name, count, function, given in (
            (f"{suffix}: {OURS}", size["pictures"], "ours", {}),
            (f"{suffix}: {PARTS}", size["slow"], "parts", {"workers": cores}),
        ):
            data = str(repeat(pictures, place, count))
            contestant = Contestant(name, f"benchmarks.convert:{function}", {"data": data, "work": str(work), **given})
            others.append(contestant)
    formats = rated(others)
    growth = []
    for count in size["growth"]:
        growth += by_turns([one(f"{count:,} pictures", count)], 1, tell)
    # Few pictures are converted without Beam, which alone takes more memory than they do.
    grown = growth[-1]["median"]["memory_mb"] / median(many, OURS, "memory_mb")
    rate = {name: median(many, name, "pictures_per_s") for name in (OURS, LOOP, PARTS)}
    ratio = median(few, LOOP, "seconds") / median(few, OURS, "seconds")
    return {
        "size": dict(size),
        "tables": {"many": many, "formats": formats, "few": few, "growth": growth},
        "goals": [
            goal("of the sum-of-parts limit, start-up included", rate[OURS] / rate[PARTS], 0.9, unit="x"),
            *(
                goal(
                    f"of the sum-of-parts limit, {suffix}",
                    median(formats, f"{suffix}: {OURS}", "pictures_per_s")
                    / median(formats, f"{suffix}: {PARTS}", "pictures_per_s"),
                    0.9,
                    unit="x",
                )
                for suffix in FORMATS
            ),
            goal("as fast as the plain loop", rate[OURS] / rate[LOOP], 1.7, unit="x"),
            goal(f"as fast as the plain loop, {size['few']} pictures", ratio, 1.0, unit="x"),
            goal(
                f"memory at {size['growth'][-1]:,} pictures of that at {size['pictures']:,}",
                grown,
                1.1,
                more=False,
                unit="x",
            ),
        ],
    }


def _rated(told: dict[str, float]) -> dict[str, float]:
    """Adds the rate where the contestant has not told one of its own."""
    return {"pictures_per_s": told["pictures"] / told["seconds"], **told}


def ours(data: str, work: str, beam: str = "") -> dict[str, float]:
    """`aoi ingest` as it is used: hash, audit and manifest too. Its result is removed again."""
    import shutil
    import tempfile

    from benchmarks.core import command

    home = tempfile.mkdtemp(dir=work)
    command(["ingest", "--data", data, "--home", home, *(["--beam", beam] if beam else [])])
    shutil.rmtree(home)
    return {"pictures": len(_paths(data))}


def loop(data: str, work: str) -> dict[str, float]:
    """What one would write first: read, decode, CLAHE, resize, append to one file of records; no check of anything."""
    import cv2

    cv2.setNumThreads(1)
    paths = _paths(data)
    _convert(paths, Path(work, f"loop-{os.getpid()}.tfrecord"))
    return {"pictures": len(paths)}


def pool(data: str, work: str, workers: int) -> dict[str, float]:
    """The same on every core, a file of records a process."""
    paths = _paths(data)
    jobs = [(paths[at::workers], Path(work, f"pool-{os.getpid()}-{at}.tfrecord")) for at in range(workers)]
    with get_context("fork").Pool(workers) as processes:
        processes.starmap(_convert, jobs, chunksize=1)
    return {"pictures": len(paths)}


def parts(data: str, work: str, workers: int) -> dict[str, float]:
    """What the machine can do: the four parts, timed one by one while every core does the same.

    Returns: pictures_per_s without start-up, and each part in ms of one core a picture.
    """
    paths = _paths(data)
    with get_context("fork").Pool(workers) as processes:
        timed = processes.starmap(_parts, [(paths[at::workers],) for at in range(workers)], chunksize=1)
    each = [sum(values) / len(paths) for values in zip(*timed, strict=True)]
    told = {f"{name}_ms": 1000 * value for name, value in zip(PART_NAMES, each, strict=True)}
    return {"pictures": len(paths), "pictures_per_s": workers / sum(each), **told}


def _paths(data: str) -> list[str]:
    return sorted(str(path) for path in Path(data, "train_images").iterdir())


def steps_to(size_px: int) -> tuple[Callable, ...]:
    """Read, decode, CLAHE and resize as OpenCV has them, with the settings that ours has by default."""
    import cv2
    import numpy as np

    from tfrecords.settings import PreprocessSettings

    chosen = PreprocessSettings()
    clahe = cv2.createCLAHE(chosen.clahe_clip_limit, (chosen.clahe_tile_grid, chosen.clahe_tile_grid))
    return (
        lambda path: Path(path).read_bytes(),
        lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE),
        clahe.apply,
        lambda pixels: cv2.resize(pixels, (size_px, size_px), interpolation=cv2.INTER_AREA),
    )


def _convert(paths: list[str], out: Path) -> None:
    from tfrecords.records.schema import Record, write

    steps = steps_to(SIZE_PX)
    with open(out, "wb") as file:
        for path in paths:
            value: Any = path
            for step in steps:
                value = step(value)
            write(file, Record(os.path.basename(path), value, 0, 0, ""))
    out.unlink()


def _parts(paths: list[str]) -> list[float]:
    import cv2

    cv2.setNumThreads(1)
    steps, seconds = steps_to(SIZE_PX), [0.0] * len(PART_NAMES)
    for path in paths:
        value: Any = path
        for at, step in enumerate(steps):
            began = time.perf_counter()
            value = step(value)
            seconds[at] += time.perf_counter() - began
    return seconds
