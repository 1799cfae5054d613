"""From shards to arrays, without TensorFlow: to import it takes longer than to name the parts of a small lot."""

from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np

from tfrecords.dataset import Dataset, fold_counts, image_shape, record_count, training_counts
from tfrecords.errors import AoiError, refuse
from tfrecords.records.schema import Record, RecordError, read

BATCH = 64


def read_arrays(dataset: Dataset, folds: Collection[int] | None = None) -> Iterator[dict[str, np.ndarray]]:
    """Records in shard order as batches of arrays, of some folds or of all. Every shard is opened once.

    Yields: id str (B,), image uint8 (B, size, size, channels), label int64 (B,), fold int64 (B,).

    Raises:
        AoiError: a shard that can't be read, or a count that is not the manifest's; it names the shard.
    """
    seen = 0
    for shard in dataset.manifest.shards:
        path = dataset.place(shard)
        in_shard = 0
        try:
            with open(path, "rb") as file:
                records = read(file)
                while some := list(islice(records, BATCH)):
                    in_shard += len(some)
                    if kept := [record for record in some if folds is None or record.fold in folds]:
                        yield _arrays(kept, image_shape(dataset))
        except FileNotFoundError:
            raise _damaged(path, "there is no such file any more")
        except RecordError as error:
            raise _damaged(path, f"a damaged record ({error})")
        if in_shard != shard.records:
            raise _damaged(path, f"{in_shard} records, not {shard.records}")
        seen += in_shard
    if seen != record_count(dataset):
        raise _damaged(dataset.path, f"{seen} records, not {record_count(dataset)}")


def read_first(dataset: Dataset, counts: Mapping[int, int]) -> dict[int, np.ndarray]:
    """The first pictures of each fold in shard order, in one pass that ends with the last of them.

    counts: how many of each fold; a fold that has fewer gives all. No other picture is kept in memory.

    Returns: for each fold of `counts` uint8 (N, size, size, channels). Raises: AoiError, see `read_arrays`.
    """
    there = fold_counts(dataset)
    missing = {fold: min(count, there[fold]) for fold, count in counts.items()}
    found = {fold: [np.zeros((0, *image_shape(dataset)), np.uint8)] for fold in counts}
    batches = read_arrays(dataset, counts)
    while any(missing.values()) and (batch := next(batches, None)):
        for fold, count in missing.items():
            found[fold].append(batch["image"][batch["fold"] == fold][:count])
            missing[fold] -= len(found[fold][-1])
    return {fold: np.concatenate(parts) for fold, parts in found.items()}


def first_of_each(dataset: Dataset, fold: int, most: int) -> Iterator[tuple[np.ndarray, int]]:
    """The first `most` training pictures of each class in shard order; the pass ends with the last of them.

    fold: validates, is not read. A class that has fewer gives all.

    Yields: uint8 (size, size, channels), label. Raises: AoiError, see `read_arrays`.
    """
    missing = [min(most, count) for count in training_counts(dataset, fold)]
    batches = read_arrays(dataset, set(range(dataset.manifest.settings.ingest.folds)) - {fold})
    while any(missing):
        batch = next(batches)
        for picture, label in zip(batch["image"], batch["label"].tolist(), strict=True):
            if missing[label]:
                missing[label] -= 1
                yield picture, label


def _arrays(records: list[Record], shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
    images = [np.atleast_3d(record.pixels) for record in records]
    for record, image in zip(records, images, strict=True):
        if image.shape != shape:
            raise RecordError(f"{record.id} has the shape {image.shape}, not {shape}")
    return {
        "id": np.array([record.id for record in records], dtype=object),
        "image": np.stack(images),
        "label": np.array([record.label for record in records], dtype=np.int64),
        "fold": np.array([record.fold for record in records], dtype=np.int64),
    }


def _damaged(path: Path, seen: str) -> AoiError:
    return refuse(path, seen, "Make the dataset again: aoi ingest --force")
