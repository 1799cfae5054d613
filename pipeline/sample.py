"""Made-up look-alikes of AIdea's AOI pictures: same size, classes and balance, and free to copy.

Every picture is one speckled surface under uneven light; a class adds its mark to the light and leaves
the grain to follow, because in the real pictures bright regions are also the grainier ones.
"""

from __future__ import annotations

import csv
import math
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.inputs.classes import AIDEA_CLASSES
from tfrecords.cores import cores
from tfrecords.pictures.opencv import cv2
from tfrecords.progress import Progress, silent
from tfrecords.system import rename

CLASS_NAMES = AIDEA_CLASSES
CLASS_COUNTS = (674, 492, 100, 378, 240, 644)  # AIdea's training set: the balance to copy

SIZE = 512
BLACK = 90  # gray level at which the speckle dies out; its strength grows in proportion above it
TRAIN, TEST, SHUFFLE = 0, 1, 2  # what a stream of random numbers is for
AT_LEAST = 5  # pictures of the rarest class in a set of 60 or more, so that five folds each get one

_ALONG = np.arange(SIZE, dtype=np.float32)
_DOWN = _ALONG[:, None]


# --- What all classes share ---------------------------------------------------------------------------------


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """A number from `low` to `high`, uniform in its logarithm: for scales, where a factor is what counts."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _speckle(rng: np.random.Generator, zoom: float, length: float, width: float) -> np.ndarray:
    """Grain of mean 0 and deviation about 1, with a longer bright tail: float32 (512, 512).

    `length` and `width` are the deviations of one slanted grain before it is enlarged `zoom` times.
    """
    side = math.ceil(SIZE / zoom)
    noise: Any = rng.standard_normal((side, side), dtype=np.float32)
    angle = rng.normal(0, 0.5)
    radius = math.ceil(2.5 * length)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kernel = np.exp(-0.5 * ((u / length) ** 2 + (v / width) ** 2))
    noise = cv2.filter2D(noise, -1, kernel / np.sqrt((kernel**2).sum()), borderType=cv2.BORDER_REFLECT)
    noise += rng.uniform(0.04, 0.14) * (noise * noise - 1)
    # A line camera's rows and columns are never quite equally bright.
    noise += 0.06 * rng.standard_normal((side, 1), dtype=np.float32)
    noise += 0.06 * rng.standard_normal(side, dtype=np.float32)
    return noise if side == SIZE else cv2.resize(noise, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


def _fine_speckle(rng: np.random.Generator) -> np.ndarray:
    """Grain of about a pixel, in one picture of four seen closer: float32 (512, 512)."""
    zoom = _between(rng, 1.2, 3) if rng.random() < 0.25 else 1
    return _speckle(rng, zoom, length=rng.uniform(0.6, 1.0), width=rng.uniform(0.3, 0.7))


def _clouds(rng: np.random.Generator, down: int, across: int) -> np.ndarray:
    """Smooth unevenness of deviation about 1, `down` by `across` swells: float32 (512, 512)."""
    swells = rng.standard_normal((down, across), dtype=np.float32)
    return cv2.resize(swells, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


def _wander(rng: np.random.Generator, swells: int) -> np.ndarray:
    """A smooth random walk about 0, of deviation about 1: float32 (512,)."""
    walk = rng.standard_normal((1, swells), dtype=np.float32)
    return cv2.resize(walk, (SIZE, 1), interpolation=cv2.INTER_CUBIC)[0]


def _ramp(distance: np.ndarray, softness: float) -> np.ndarray:
    """From 0 well below distance 0 to 1 well above, `softness` wide: float32, shape of `distance`."""
    t = np.clip(distance / softness + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def _frayed(rng: np.random.Generator, inside: np.ndarray, softness: float, ragged: float) -> np.ndarray:
    """1 where `inside`, a distance in pixels, is positive, else 0: float32 (512, 512).

    The change is `softness` pixels wide, and its line frays by about `ragged` pixels.
    """
    fray = ragged * _clouds(rng, 16, 16) + 0.7 * math.sqrt(ragged) * _clouds(rng, 90, 90)
    return _ramp(inside + fray, softness)


def _from_spot(rng: np.random.Generator, centre: np.ndarray, size: float, stretch: float) -> np.ndarray:
    """Distance from `centre` (x, y), 1 on a dented ellipse of radius `size`: float32 (512, 512)."""
    angle, root = rng.uniform(0, math.pi), math.sqrt(stretch)
    cos, sin = math.cos(angle) / size, math.sin(angle) / size
    dx, dy = _ALONG - float(centre[0]), _DOWN - float(centre[1])
    u, v = (dx * cos + dy * sin) / root, (dy * cos - dx * sin) * root
    return cv2.magnitude(u, v) + 0.06 * _clouds(rng, 6, 6)


def _lit(gray: np.ndarray, contrast: np.ndarray | float, speckle: np.ndarray) -> np.ndarray:
    """The surface as the camera sees it: float32 (512, 512), not yet clipped to 0..255."""
    return gray + np.maximum(gray - BLACK, 0) * contrast * speckle


# --- One function a class: random numbers in, float32 (512, 512) out ----------------------------------------


def _normal(rng: np.random.Generator) -> np.ndarray:
    gray = rng.uniform(145, 190) + rng.uniform(0.3, 2) * _clouds(rng, 4, 4)
    return _lit(gray, _between(rng, 0.08, 0.22), _fine_speckle(rng))


def _void(rng: np.random.Generator) -> np.ndarray:
    gray = rng.uniform(155, 195) + rng.uniform(2, 5) * (_clouds(rng, 5, 4) + _clouds(rng, 24, 9))
    cut_by_frame = rng.random() < 0.3
    centre = rng.uniform(0, SIZE, 2) if cut_by_frame else rng.normal(SIZE / 2, 40, 2)
    distance = _from_spot(rng, centre, size=_between(rng, 75, 210), stretch=rng.uniform(1, 1.6))
    patch = _ramp(1 - distance, softness=_between(rng, 0.1, 1))
    patch *= 1 - rng.uniform(0, 0.6) * np.exp(-4 * distance * distance)  # paler in the middle
    contrast = _between(rng, 0.06, 0.28)
    gray += math.copysign(rng.uniform(16, 40) + 60 * contrast, rng.uniform(-1, 1)) * patch
    speckle = _speckle(rng, _between(rng, 2.2, 7), length=rng.uniform(0.7, 1.4), width=rng.uniform(0.5, 0.8))
    return _lit(gray, contrast, speckle)


def _horizontal(rng: np.random.Generator) -> np.ndarray:
    gray = rng.uniform(160, 188) + rng.uniform(0.3, 2) * _clouds(rng, 4, 4)
    step = rng.normal(0.47, 0.06) * SIZE + rng.normal(0, 0.02) * (_ALONG - SIZE / 2) + 3 * _wander(rng, 5)
    below = _DOWN - step + 0.7 * _clouds(rng, 60, 60)
    # Light gathers towards the step, drops by it, and goes on fading beyond.
    near = np.exp(-np.abs(below) / _between(rng, 80, 220))
    rise, fall = rng.uniform(7, 14), rng.uniform(8, 17)
    light = np.where(below < 0, rise * near, rise + fall * (near - 1))
    strength = np.clip(1 + 0.25 * _wander(rng, 3), 0.5, 1.4)  # fainter here, plainer there
    light -= rng.uniform(8, 15) * strength * _ramp(below, softness=_between(rng, 3, 25))
    upside_down = rng.random() < 0.15
    return _lit(gray - light if upside_down else gray + light, _between(rng, 0.08, 0.19), _fine_speckle(rng))


def _stripes(rng: np.random.Generator) -> list[tuple[float, float, float, float, float]]:
    """One picture's stripes: middle, half width, softness (pixels), depth (grays), factor on the contrast."""
    kind = rng.choice(["thin", "band", "side"], p=[0.5, 0.25, 0.25])
    if kind == "thin":
        return [
            (rng.uniform(40, 470), _between(rng, 3, 18), _between(rng, 1.5, 6), depth, 1.3)
            for depth in rng.choice([-35, 70, 70], size=rng.choice([1, 1, 2, 3])).tolist()
        ]
    if kind == "band":
        half, depth = _between(rng, 20, 90), math.copysign(rng.uniform(22, 45), rng.uniform(-1, 1))
        return [(rng.uniform(100, 410), half, _between(rng, 5, 60), depth, rng.uniform(0.8, 1.5))]
    # A dark side of coarser grain, and a faint streak in the brighter rest.
    side, inwards = (0, 1) if rng.random() < 0.5 else (SIZE, -1)
    streak = side + inwards * rng.uniform(330, 450)
    return [
        (side, rng.uniform(130, 280), _between(rng, 5, 40), -rng.uniform(25, 45), rng.uniform(1.3, 2.2)),
        (streak, _between(rng, 8, 30), _between(rng, 15, 60), -rng.uniform(22, 45), rng.uniform(1, 1.5)),
    ]


def _vertical(rng: np.random.Generator) -> np.ndarray:
    gray = rng.uniform(145, 188) + rng.uniform(0.3, 2) * _clouds(rng, 4, 4)
    contrast = np.full((SIZE, SIZE), _between(rng, 0.1, 0.32), np.float32)
    for middle, half, softness, depth, grainier in _stripes(rng):
        line = middle + rng.normal(0, 0.02) * (_ALONG - SIZE / 2) + rng.uniform(1, 6) * _wander(rng, 5)
        away = np.abs(_ALONG - line[:, None])
        halves = half + 0.6 * math.sqrt(half) * _wander(rng, 6)
        shown = np.ones_like(_ALONG)
        if half < 100 and rng.random() < 0.35:  # it tapers off inside the picture
            shown = np.clip((_ALONG - rng.uniform(30, 300)) / _between(rng, 20, 250), 0, 1)
            shown = shown if rng.random() < 0.5 else shown[::-1]
        inside = (halves * np.sqrt(shown))[:, None] - away
        stripe = _frayed(rng, inside, softness, ragged=rng.uniform(0.4, 1.2))
        stripe *= np.minimum(8 * shown, 1)[:, None]
        if depth > 50:  # bright ridges throw a shadow
            shadow = np.exp(-away / _between(rng, 12, 35))
            gray -= rng.uniform(2, 20) * shown[:, None] * shadow
        gray += depth * rng.uniform(0.7, 1.2) * stripe
        contrast *= 1 + (grainier - 1) * stripe
    return _lit(gray, contrast, _fine_speckle(rng))


def _edge_defect(rng: np.random.Generator) -> np.ndarray:
    """The bare edge lies at the left until the picture is, one time in two, mirrored."""
    coarse = rng.random() < 0.35  # a grainy picture whose edge fades in, against a fine one with a torn edge
    gray = rng.uniform(148, 172) + rng.uniform(0.3, 2) * _clouds(rng, 4, 4)
    contrast = np.full((SIZE, SIZE), _between(rng, 0.08, 0.2) * (1.8 if coarse else 1), np.float32)
    for _ in range(rng.integers(1, 4)):  # layers behind the edge, each a step down with a dark seam
        seam = rng.uniform(150, 460) + _between(rng, 1, 45) * _wander(rng, 5)
        behind = _ALONG - seam[:, None]
        layer = _frayed(rng, behind, softness=_between(rng, 3, 40), ragged=rng.uniform(0.5, 2))
        gray -= rng.uniform(2, 15) * layer
        if coarse:
            contrast *= 1 + rng.uniform(0, 0.35) * layer
        away = behind / rng.uniform(4, 12)
        gray -= rng.uniform(0, 14) * np.exp(-away * away)
    border = rng.uniform(20, 130) + rng.uniform(5, 28) * _wander(rng, 5)
    if rng.random() < 0.3:  # a notch
        border += rng.uniform(25, 80) * np.exp(-np.abs(_ALONG - rng.uniform(60, 450)) / rng.uniform(8, 25))
    softness = _between(rng, 10, 45) if coarse else _between(rng, 2, 8)
    bare = _frayed(rng, border[:, None] - _ALONG, softness, ragged=_between(rng, 1.5, 9))
    if not coarse and rng.random() < 0.35:  # holes behind the edge
        for _ in range(rng.integers(1, 4)):
            size = _between(rng, 4, 40)
            hole = size * (1 - _from_spot(rng, rng.uniform((60, 0), (330, SIZE)), size, stretch=1.6))
            bare = np.maximum(bare, _frayed(rng, hole, softness=4, ragged=size / 4))
    gray += ((rng.uniform(195, 212) if coarse else rng.uniform(208, 242)) - gray) * bare
    contrast *= 1 - 0.3 * bare
    picture = _lit(gray, contrast, _fine_speckle(rng))
    return picture if rng.random() < 0.5 else picture[:, ::-1]


def _particle(rng: np.random.Generator) -> np.ndarray:
    gray = rng.uniform(165, 200) + rng.uniform(5, 12) * _clouds(rng, 12, 9)
    centre = rng.normal(SIZE / 2, 10, 2)
    size = _between(rng, 18, 45)
    halo = (centre + rng.normal(0, size / 2, 2), 2.5 * size, rng.uniform(0, 30))
    spots = [(centre, size, rng.uniform(60, 100)), halo]
    for _ in range(rng.choice([0, 0, 1, 2])):  # more of them, dark or bright, anywhere
        spots.append((rng.uniform(0, SIZE, 2), _between(rng, 20, 70), rng.uniform(-50, 60)))
    for place, radius, depth in spots:
        distance = _from_spot(rng, place, radius, stretch=rng.uniform(1, 2.2))
        gray -= depth * np.exp(-distance * distance)
    speckle = _speckle(rng, _between(rng, 8, 20), length=rng.uniform(0.7, 1.2), width=rng.uniform(0.55, 0.9))
    return _lit(np.maximum(gray, BLACK - 10), _between(rng, 0.14, 0.32), speckle)


_CLASSES = (_normal, _void, _horizontal, _vertical, _edge_defect, _particle)


def draw(label: int, rng: np.random.Generator) -> np.ndarray:
    """One made-up picture of class `label` (0 to 5, see CLASS_NAMES): uint8 (512, 512).

    All its chances come from `rng`; another label raises ValueError.
    """
    if not 0 <= label < len(_CLASSES):
        raise ValueError(f"label must be 0 to {len(_CLASSES) - 1}, got {label}")
    return np.clip(_CLASSES[label](rng) + 0.5, 0, 255).astype(np.uint8)


# --- The data set -------------------------------------------------------------------------------------------


def _labels(count: int, split: int, seed: int) -> list[int]:
    """`count` labels in AIdea's balance by largest remainder, shuffled."""
    quota = np.array(CLASS_COUNTS) / sum(CLASS_COUNTS) * count
    counts = np.full(len(CLASS_NAMES), AT_LEAST if count >= 60 else int(count >= len(CLASS_NAMES)))
    for _ in range(count - counts.sum()):
        counts[np.argmax(quota - counts)] += 1  # fills each whole share, then the largest remainders
    labels = np.repeat(np.arange(len(CLASS_NAMES)), counts)
    return np.random.default_rng([seed, SHUFFLE, split]).permutation(labels).tolist()


def _write_picture(path: Path, label: int, key: list[int]) -> None:
    picture = draw(label, np.random.default_rng(key))
    path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())


def _write_csv(path: Path, rows: Iterable[tuple[str, int | str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("ID", "Label"), *rows])


def write_sample(
    out: Path,
    train: int = 600,
    test: int = 150,
    seed: int = 0,
    progress: Progress = silent,
) -> None:
    """Write a made-up data set laid out as AIdea's, whole or not at all.

    OUT gets train_images/, train.csv, test_images/, test.csv (labels blank) and test_answers.csv; the CSVs
    have the header ID,Label and CRLF line ends. The same `train`, `test` and `seed` give the same bytes.
    `progress` counts the pictures drawn.

    Raises FileExistsError if OUT is anything but an empty folder, ValueError if a count is too small.
    """
    out = Path(out)
    if train < len(CLASS_NAMES) or test < 0:
        raise ValueError(f"train must be >= {len(CLASS_NAMES)} and test >= 0, got {train} and {test}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} exists and is not an empty folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as work:
        whole = Path(work) / out.name  # a folder within, for only that gets the usual permissions
        jobs = []
        for split, name, count in ((TRAIN, "train", train), (TEST, "test", test)):
            folder = whole / f"{name}_images"
            folder.mkdir(parents=True)
            labels = _labels(count, split, seed)
            rows: list[tuple[str, int | str]] = [(f"{name}_{i:05d}.png", label) for i, label in enumerate(labels)]
            jobs += [(folder / f"{name}_{i:05d}.png", label, [seed, split, i]) for i, label in enumerate(labels)]
            if split == TEST:
                _write_csv(whole / "test_answers.csv", rows)
                rows = [(id, "") for id, _ in rows]
            _write_csv(whole / f"{name}.csv", rows)
        progress(0, len(jobs), "drawn")
        # Closing the results drops the pictures not yet begun, so a failure or Ctrl-C need not wait for them.
        with ThreadPoolExecutor(len(cores())) as pool:
            pictures: Any = pool.map(lambda job: _write_picture(*job), jobs)
            with closing(pictures) as written:
                for done, _ in enumerate(written, start=1):
                    progress(done, len(jobs), "drawn")
        if out.exists():  # an empty folder, onto which Windows renames none
            out.rmdir()
        rename(whole, out)
