"""Whole ingests of hostile pictures: folder or zip in, shards, rejects.csv and audit out."""

import csv
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pictures
from oracle import DAMAGED, EQUAL, listing, rejected, require

from flows.home import Home
from flows.settings import parse_settings
from flows.stages.ingest import ingest
from flows.stages.stage import Job
from tfrecords.artifacts.artifact import verify
from tfrecords.dataset import ROWS, Dataset, DatasetManifest
from tfrecords.errors import AoiError
from tfrecords.pictures.preprocessing import prepare
from tfrecords.records.schema import UNLABELLED, Record, write
from tfrecords.settings import PreprocessSettings


def write_data(data: Path, cases: list[pictures.Case], zipped: bool) -> dict[str, pictures.Case]:
    """Both splits with these pictures, two classes in turn. Returns: the cases by id."""
    named = {f"p{index:03d}.png": case for index, case in enumerate(cases)}
    data.mkdir()
    (data / "classes.txt").write_text("good\nbad\n")
    for split in ("train", "test"):
        rows = [f"{name},{index % 2 if split == 'train' else ''}" for index, name in enumerate(named)]
        (data / f"{split}.csv").write_text("\n".join(["ID,Label", *rows]) + "\n")
        if zipped:
            with zipfile.ZipFile(data / f"{split}_images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for name, case in named.items():
                    archive.writestr(name, case.data)
        else:
            (data / f"{split}_images").mkdir()
            for name, case in named.items():
                (data / f"{split}_images" / name).write_bytes(case.data)
    return named


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def check(dataset: Dataset, named: dict[str, pictures.Case], preprocess: PreprocessSettings) -> tuple[int, int]:
    """(records, rejects) of a dataset.

    Raises Wrong unless every picture is a record equal to what `prepare` makes of its file, or a reject.
    """
    verify(dataset)
    rejects = {row["id"]: row["reason"] for row in table(dataset.path / "rejects.csv")}
    rows = {row["id"]: row for row in table(dataset.path / ROWS)}
    require(list(rows) == list(named), "rows.csv does not name every picture once")
    for name, reason in rejects.items():
        rejected(named[name].expected, reason)
    shards = b"".join((dataset.path / shard.file).read_bytes() for shard in dataset.manifest.shards)
    left = len(shards)
    for name, case in named.items():
        if name in rejects:
            continue
        require(case.expected != DAMAGED, f"accepted, though damaged: {case.name}")
        sha256 = hashlib.sha256(case.data).hexdigest()
        row = rows[name]
        record = Record(name, prepare(case.data, preprocess), int(row["label"]), int(row["fold"]), sha256)
        entry = io.BytesIO()
        write(entry, record)
        require(entry.getvalue() in shards, f"no record equal to {case.name}")
        left -= len(entry.getvalue())
    require(left == 0, f"{left} bytes of the shards are none of the records")
    require(dataset.manifest.records == len(named) - len(rejects), "the manifest counts other records")
    return len(named) - len(rejects), len(rejects)


class Kind:
    """Whole ingests of both splits, each of many hostile pictures, tolerated first and then not."""

    pictures = 100

    def __init__(self, root: Path):
        self.root = root
        self.counts = (0, 0)

    def run(self, rng: np.random.Generator) -> str:
        place = self.root / rng.bytes(8).hex()
        place.mkdir()
        cases = [pictures.make(rng) for _ in range(self.pictures)]
        named = write_data(place / "data", cases, zipped=bool(rng.random() < 0.5))
        preprocess = {"image_size_px": 32, "max_megapixels": pictures.MEGAPIXELS, "clahe_tile_grid": 4}
        tolerant = parse_settings({"preprocess": preprocess, "ingest": {"max_rejects": len(cases), "folds": 2}}, "")
        home = Home(place / "home")
        before = listing(self.root, home.root)
        dataset = home.open(ingest(Job(home, tolerant), str(place / "data")), DatasetManifest)
        lot = home.named(DatasetManifest, "-test-")
        self.counts = check(dataset, named, tolerant.preprocess)
        require(check(lot, named, tolerant.preprocess) == self.counts, "the test split has other rejects")
        require({row["label"] for row in table(lot.path / ROWS)} == {str(UNLABELLED)}, "a test picture has a label")
        strict = parse_settings({"preprocess": preprocess, "ingest": {"folds": 2}}, "")
        if self.counts[1]:
            try:
                ingest(Job(home, strict, force=True), str(place / "data"))
                require(False, "unusable training pictures were tolerated")
            except AoiError as error:
                require(0 < len(error.problems) <= self.counts[1], "other problems than rejects")
        require(listing(self.root, home.root) == before, "something was written outside HOME")
        return EQUAL
