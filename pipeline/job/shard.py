"""The work of one shard: read, decode, equalize, resize and write its pictures. Runs here or on any Beam worker."""

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from pipeline import store
from pipeline.inputs.files import READ_ERRORS, opened
from pipeline.inputs.look import unreadable
from pipeline.inputs.rows import Reject, Row, Rows
from pipeline.location import put
from tfrecords.artifacts.files import appearing, hash_json
from tfrecords.dataset import ShardEntry
from tfrecords.pictures.errors import PictureError
from tfrecords.pictures.formats import in_bytes, samples, saturates
from tfrecords.pictures.light import light
from tfrecords.pictures.opencv import cv2
from tfrecords.pictures.perceptual_hash import perceptual_hash
from tfrecords.pictures.preprocessing import finish
from tfrecords.records.schema import Record, encode, frame
from tfrecords.settings import PreprocessSettings

REPORT_VERSION = 5  # of what a report holds
# Pictures that a thread takes at once: by one, threads would hand over so often that cores wait for each other. Where
# there are many threads they take fewer, or some would idle at the end of a shard.
AT_ONCE, TURNS = 4, 8
CHANGED = "run again while no other program writes there, or take the picture out with its row"


@dataclass(frozen=True)
class ShardPlan:
    """Everything a worker needs for one shard. rows: in the order of the shard; folds: theirs."""

    folder: str
    file: str
    container: str
    rows: Rows
    folds: tuple[int, ...]
    preprocess: PreprocessSettings
    threads: int
    options: tuple[str, ...] = ()  # of Beam, for the store that the pictures lie in
    location: str | None = None  # where the shard goes, where it is not `folder`

    @cached_property
    def digest(self) -> str:
        """Hash of what decides the shard and its report; one that carries it need not be made again."""
        decides = [self.file, self.location, self.rows.plain(), self.folds, self.preprocess.model_dump()]
        return hash_json([REPORT_VERSION, *decides])

    def place(self, entry: ShardEntry) -> str:
        """Where the shard lies once it is whole: a path, or a URL in a store. entry: of its report."""
        return f"{self.location}/{entry.stored_name}" if self.location else os.path.join(self.folder, self.file)

    @property
    def report_path(self) -> str:
        return os.path.join(self.folder, f".{self.file}.json")

    def is_done(self) -> bool:
        return read_report(self) is not None

    def do(self, check: Callable[[], None] = lambda: None) -> str:
        return write_shard(self, check)


class Measures(NamedTuple):
    """What the audit and drift need of a picture as it was decoded; width and height in pixels, then gray levels.

    phash: its perceptual hash, 16 hex digits; red, blue: shares of the light, 0..1. A tuple, since a report holds
    hundreds, and JSON has it as a list.
    """

    width: int
    height: int
    mean: float
    deviation: float
    phash: str
    red: float
    blue: float


@dataclass(frozen=True)
class ShardReport:
    """What a worker leaves beside a finished shard. plan: digest of the ShardPlan; written: measures of each id.

    bytes, sha256: of the shard's file; saturated: how many have values above preprocess.bit_depth.
    """

    plan: str
    file: str
    records: int
    bytes: int
    sha256: str
    written: dict[str, Measures]
    rejects: list[Reject]
    saturated: int

    @property
    def entry(self) -> ShardEntry:
        """What the dataset's manifest says of the shard."""
        return ShardEntry(file=self.file, bytes=self.bytes, sha256=self.sha256, records=self.records)

    def to_json(self) -> dict[str, Any]:
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return plain | {"rejects": [asdict(reject) for reject in self.rejects]}

    @staticmethod
    def from_json(plain: dict[str, Any]) -> "ShardReport":
        written = {picture_id: Measures(*values) for picture_id, values in plain["written"].items()}
        rejects = [Reject(**reject) for reject in plain["rejects"]]
        return ShardReport(**plain | {"written": written, "rejects": rejects})


class Converted(NamedTuple):
    """A picture that is a record.

    entry: its bytes in the shard; saturated: whether it has values above preprocess.bit_depth.
    """

    entry: bytes
    measures: Measures
    saturated: bool


def read_report(plan: ShardPlan) -> ShardReport | None:
    """The report of a shard that is written and whole; None where it still has to be made."""
    try:
        with open(plan.report_path, "rb") as file:
            report = json.load(file)
        if report["plan"] != plan.digest:  # one of another version is of another plan, see `ShardPlan.digest`
            return None
        found = ShardReport.from_json(report)
        place = plan.place(found.entry)
        # A store is asked for all shards at once, by the driver.
        return found if store.is_remote(place) or os.path.getsize(place) == found.bytes else None
    except (OSError, ValueError):
        return None


def write_shard(plan: ShardPlan, check: Callable[[], None] = lambda: None) -> str:
    """Writes the shard and, after it, its report; does nothing where both are there. Returns the file's name.

    check: called every few pictures; what it raises ends the work.
    """
    if read_report(plan):
        return plan.file
    making = TemporaryDirectory(prefix="aoi-") if plan.location else nullcontext(plan.folder)
    with appearing(Path(plan.report_path)) as file, making as folder:
        path = Path(folder, plan.file)
        report = _write(plan, path, check, file)
        if plan.location:
            put(path, plan.place(report.entry))
        file.write(json.dumps(report.to_json()).encode())
    return plan.file


def _write(plan: ShardPlan, path: Path, check: Callable[[], None], file: BinaryIO) -> ShardReport:
    """Writes the shard to a path on this machine. file: of the report, which grows, so that the driver sees the work
    go on wherever the shard is made: JSON has no meaning for the blanks."""
    written: dict[str, Measures] = {}
    rejects: list[Reject] = []
    saturated = 0
    digest = hashlib.sha256()
    threads = max(plan.threads, store.THREADS) if store.is_remote(plan.container) else plan.threads
    with opened(plan.container) as read, ThreadPoolExecutor(threads) as pool, appearing(path) as shard:
        placed = list(zip(plan.rows, plan.folds, strict=True))
        step = max(1, min(AT_ONCE, len(placed) // (TURNS * threads)))

        # cv2 and hashlib release the GIL, so threads use the cores; map keeps the order. Records are written while
        # later pictures are still being converted, or cores would idle at the end of every shard.
        def convert(at: int) -> list[Converted | Reject]:
            check()
            return [_convert(read, *one, plan.preprocess) for one in placed[at : at + step]]

        parts = pool.map(convert, range(0, len(placed), step))
        try:
            for (row, _), result in zip(placed, chain.from_iterable(parts), strict=True):
                file.write(b" ")
                file.flush()
                if isinstance(result, Reject):
                    rejects.append(result)
                else:
                    written[row.id] = result.measures
                    saturated += result.saturated
                    digest.update(result.entry)
                    shard.write(result.entry)
        finally:  # after an error nothing waits for the rest of the shard
            pool.shutdown(wait=False, cancel_futures=True)
        size = shard.tell()
    return ShardReport(plan.digest, plan.file, len(written), size, digest.hexdigest(), written, rejects, saturated)


def _convert(read: Callable[[str], bytes], row: Row, fold: int, preprocess: PreprocessSettings) -> Converted | Reject:
    """The row's entry of the shard and what was measured of its picture, or why there is none."""
    if row.reject:
        return row.reject
    try:
        data = read(row.name)
        if hashlib.sha256(data).digest() != row.sha256:
            return row.rejected("the file changed while it was being ingested", CHANGED)
        found = samples(data, preprocess, checksums=False)  # they held when it was hashed
    except PictureError as error:  # first, since it is a ValueError
        return row.rejected(str(error), error.remedy)
    except READ_ERRORS as error:
        return row.rejected(*unreadable(error))
    pixels = in_bytes(found, preprocess)
    record = Record(row.id, finish(pixels, preprocess), row.label, fold, row.sha256.hex())
    return Converted(frame(encode(record)), measure(pixels), saturates(found, preprocess))


def measure(pixels: np.ndarray) -> Measures:
    """What the audit and drift need of a picture, uint8 (height, width), or (height, width, 3), RGB."""
    gray = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    height, width = gray.shape
    seen = light(pixels)
    return Measures(width, height, seen.mean, seen.deviation, f"{perceptual_hash(gray):016x}", seen.red, seen.blue)
