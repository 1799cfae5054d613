"""Which shard and fold each row goes to. Done with columns: a million rows take seconds."""

from collections.abc import Iterator

import numpy as np

from pipeline.inputs.inputs import Inputs
from pipeline.inputs.rows import Rows
from pipeline.settings import IngestSettings
from tfrecords.dataset import NO_FOLD, assign_folds, shard_key, shard_name


def shard_rows(
    inputs: Inputs, settings: IngestSettings, picture_bytes: int
) -> Iterator[tuple[str, Rows, tuple[int, ...]]]:
    """Every shard's file name with its rows in their order, and their folds. Empty shards are there too.

    picture_bytes: of a record's pixels.
    """
    rows = inputs.rows
    count = settings.shards or max(1, round(len(rows) * picture_bytes / (settings.shard_size_mb << 20)))
    folds = folds_of(rows, settings.folds) if inputs.split == "train" else np.full(len(rows), NO_FOLD, np.int16)
    keys = np.fromiter(map(shard_key, rows.ids), np.uint64, len(rows))
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    for at in np.flatnonzero(keys[1:] == keys[:-1]).tolist():  # two hashes that begin alike: never seen, and possible
        same = np.flatnonzero(keys == keys[at])
        order[same] = sorted(order[same].tolist(), key=rows.ids.__getitem__)
    # The first key of each shard, see `tfrecords.dataset.shard_index`.
    edges = np.array([-(-(index << 64) // count) for index in range(count)], np.uint64)
    stops = [*np.searchsorted(keys, edges[1:]).tolist(), len(rows)]
    start = 0
    for index, stop in enumerate(stops):
        places = order[start:stop]
        yield shard_name(inputs.split, index, count), rows.take(places), tuple(folds[places].tolist())
        start = stop


def folds_of(rows: Rows, folds: int) -> np.ndarray:
    """The fold of each row's content, int16 (n,), as `assign_folds` says; NO_FOLD for rejects."""
    begins = rows.sha256.view(">u8")[::4].astype(np.uint64)
    usable = np.ones(len(rows), bool)
    usable[list(rows.rejects)] = False
    found = np.where(usable, begins % np.uint64(folds), NO_FOLD).astype(np.int16)
    for label in np.unique(rows.labels[usable]).tolist():
        own = usable & (rows.labels == label)
        if len(np.unique(found[own])) == folds:
            continue  # where no fold is empty, the hash alone picks it
        places = np.flatnonzero(usable & np.isin(begins, begins[own])).tolist()
        contents = [rows.sha256[place].tobytes() for place in places]
        fold_of = assign_folds(zip(rows.labels[places].tolist(), contents, strict=True), folds)
        found[places] = [fold_of[content] for content in contents]
    return found
