"""A dataset folder: which record lies in which shard and fold, and what its manifest says."""

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from tfrecords.artifacts.artifact import Artifact
from tfrecords.artifacts.manifest import Facts, FileEntry, Manifest
from tfrecords.settings import AUTO, LayoutSettings, PreprocessSettings

NO_FOLD = -1
EXAMPLE = "example"  # with its format's suffix: a training picture's file as it came, for people to try a model with
ROWS = "rows.csv"  # every row of the CSV in its order, rejected ones too
MEASURES = ("width", "height", "mean", "deviation", "phash")  # of the picture as decoded; blank where it was not
COLOR_MEASURES = ("red", "blue")  # of color sets too: shares of the light, 0..1, the same for every brightness
DARK, MOSTLY = 256 / 16, 0.9  # gray level of a sixteenth of the range; share of pictures that are nearly all
ROW_COLUMNS = ("row", "id", "label", "fold", "sha256", *MEASURES)  # of color sets then COLOR_MEASURES


class ShardEntry(FileEntry):
    """A shard file. records: how many it holds."""

    records: int

    @property
    def stored_name(self) -> str:
        """Its name at a location of its own: by its content, so that no other shard ever has it."""
        path = PurePosixPath(self.file)
        return f"{path.stem}-{self.sha256[:16]}{path.suffix}"


class DatasetSettings(Facts):
    """The settings that a dataset was made with."""

    preprocess: PreprocessSettings
    ingest: LayoutSettings


class Lenience(Facts):
    """Something that was taken although it is not written as it should be.

    kind: what; count: how often; example: one.
    """

    kind: str
    count: int
    example: str


class DatasetManifest(Manifest):
    """A dataset folder.

    split: "train" or "test"; classes: their names in label order; input_digest: hash of the rows of the CSV, the
    contents of the pictures and the classes; counts: records per class name and fold; duplicates: groups of ids whose
    files are byte-identical; saturated: how many pictures have values above the bit depth; leniences: how what was
    handed in when it was made was taken. They do not name the dataset and are no part of its digest: the same pictures,
    labels and IDs are the same dataset, however they are written. location: the folder or URL that the shards lie in,
    under their `stored_name`, where it is not the dataset's folder; of a URL copies lie there. No part of the digest.
    """

    KIND = "dataset"
    FOLDER = "datasets"
    MADE_BY = "aoi ingest"

    split: str
    classes: tuple[str, ...]
    settings: DatasetSettings
    input_digest: str
    records: int
    counts: dict[str, dict[str, int]]
    rejects: int
    duplicates: tuple[tuple[str, ...], ...]
    saturated: int = 0  # earlier manifests do not tell
    versions: dict[str, int | str]
    leniences: tuple[Lenience, ...] = ()
    location: str | None = None
    shards: tuple[ShardEntry, ...]

    def listed(self) -> tuple[FileEntry, ...]:
        return self.shards

    def place(self, folder: Path, entry: FileEntry) -> Path:
        if self.location and isinstance(entry, ShardEntry) and not self.is_copy(entry):
            return Path(self.location, entry.stored_name)
        return super().place(folder, entry)

    def is_copy(self, entry: FileEntry) -> bool:
        return isinstance(entry, ShardEntry) and bool(self.location) and "://" in str(self.location)


Dataset = Artifact[DatasetManifest]


def shard_name(split: str, index: int, count: int) -> str:
    """train-00003-of-00008.tfrecord"""
    return f"{split}-{index:05d}-of-{count:05d}.tfrecord"


def shard_key(picture_id: str) -> int:
    """Place of a picture in the whole order: 64 bits of the hash of its id."""
    return int.from_bytes(hashlib.sha256(picture_id.encode()).digest()[:8], "big")


def shard_index(picture_id: str, count: int) -> int:
    """Shard of a picture: `count` equal ranges of the hash, so no other picture matters."""
    return shard_key(picture_id) * count >> 64


def assign_folds(pictures: Iterable[tuple[int, bytes]], folds: int) -> dict[bytes, int]:
    """Fold of every content, from (label, sha256) pairs.

    The content's hash alone picks the fold, so a new picture moves no other one and byte-identical pictures
    share a fold. The one exception is a class so small that a fold would stay without it: then its fullest
    fold gives one content to each empty one.
    """
    fold_of: dict[bytes, int] = {}
    labels_of: dict[bytes, set[int]] = defaultdict(set)
    for label, sha256 in pictures:
        fold_of[sha256] = int.from_bytes(sha256[:8], "big") % folds
        labels_of[sha256].add(label)
    for label in sorted(set().union(*labels_of.values())):
        contents = [content for content, labels in labels_of.items() if label in labels]
        filled = Counter(fold_of[content] for content in contents)
        for empty in (fold for fold in range(folds) if not filled[fold]):
            # What two classes share stays where it is, or it would leave the other one's fold empty.
            free = [c for c in contents if labels_of[c] == {label} and filled[fold_of[c]] > 1]
            if not free:
                break
            moved = min(free, key=lambda content: (-filled[fold_of[content]], fold_of[content], content))
            filled[fold_of[moved]] -= 1
            filled[empty] += 1
            fold_of[moved] = empty
    return fold_of


def count_folds(records: Iterable[tuple[int, int]], classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Records per class name and fold, from (label, fold) pairs. Unlabelled ones count under ""."""
    table: dict[str, Counter] = defaultdict(Counter)
    for label, fold in records:
        table[classes[label] if label >= 0 else ""][str(fold)] += 1
    return {name: dict(sorted(counts.items())) for name, counts in sorted(table.items())}


def read_example(dataset: Dataset) -> bytes | None:
    """The picture file that the dataset keeps; None where it has none: test sets, and those of earlier versions."""
    found = [entry.file for entry in dataset.manifest.files if entry.file.startswith(f"{EXAMPLE}.")]
    return (dataset.path / found[0]).read_bytes() if found else None


def image_shape(dataset: Dataset) -> tuple[int, int, int]:
    """Height and width of the dataset's records, in pixels, and their channels."""
    return dataset.manifest.settings.preprocess.shape


def saturation(dataset: Dataset) -> str:
    """What to tell of pictures whose values do not fit the bit depth; "" where all fit."""
    made = dataset.manifest
    if not made.saturated:
        return ""
    return (
        f"{made.saturated:,} of the {made.records:,} {made.split} pictures have values above preprocess.bit_depth "
        f"({made.settings.preprocess.bit_depth}), which become white"
    )


def darkness(dataset: Dataset) -> str:
    """What to tell of training pictures of more than 8 bits nearly all of which are nearly black; "" for others."""
    made = dataset.manifest
    depth = made.settings.preprocess.bit_depth
    if made.split != "train" or depth in (AUTO, 8):
        return ""
    with open(dataset.path / ROWS, newline="", encoding="utf-8") as file:
        levels = [float(row["mean"]) + float(row["deviation"]) for row in csv.DictReader(file) if row["mean"]]
    dark = sum(level < DARK for level in levels)
    if dark < MOSTLY * len(levels):
        return ""
    return (
        f"{dark:,} of the {len(levels):,} train pictures use less than a sixteenth of their {depth} bits: where a few "
        "wrong pixels are brighter, set preprocess.bit_depth to that of the camera"
    )


def record_count(dataset: Dataset) -> int:
    """Number of records that the manifest promises."""
    return sum(shard.records for shard in dataset.manifest.shards)


def class_counts(dataset: Dataset, folds: set[int] | None = None) -> dict[str, int]:
    """Records per class in label order, of the given folds or of all."""
    counts = dataset.manifest.counts
    return {
        name: sum(n for fold, n in counts.get(name, {}).items() if folds is None or int(fold) in folds)
        for name in dataset.manifest.classes
    }


def fold_counts(dataset: Dataset) -> Counter[int]:
    """Records per fold."""
    counts: Counter[int] = Counter()
    for folds in dataset.manifest.counts.values():
        counts.update({int(fold): count for fold, count in folds.items()})
    return counts


def contents(dataset: Dataset) -> dict[str, str]:
    """What the files of its pictures hold: sha256 in hex by ID, "" of a picture that could not be read."""
    with open(dataset.path / ROWS, newline="", encoding="utf-8") as file:
        return {row["id"]: row["sha256"] for row in csv.DictReader(file)}


def training_counts(dataset: Dataset, fold: int) -> list[int]:
    """Records per class, in label order, of all folds but the one that validates."""
    folds = dataset.manifest.settings.ingest.folds
    return list(class_counts(dataset, set(range(folds)) - {fold}).values())
