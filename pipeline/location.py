"""Shards at a location of their own, a folder or a store: workers write them there, training fetches them.

A shard's name there has the hash of its content, so it never takes the place of another one, whichever job wrote that.
The manifest that lists it is in HOME.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline import store
from tfrecords.artifacts.files import appearing, hash_file
from tfrecords.dataset import Dataset, ShardEntry
from tfrecords.errors import MISSED, AoiError, Problem, refuse
from tfrecords.progress import Progress, silent
from tfrecords.system import sync

AT_ONCE = 4  # shards that are read from a store at a time, each whole


def folder_at(location: str, name: str) -> str:
    """The folder of a dataset at a location that a person named: a path from the root, or a URL."""
    return f"{location.rstrip('/')}/{name}" if store.is_remote(location) else os.path.abspath(f"{location}/{name}")


def put(path: Path, place: str) -> None:
    """Copies a whole file to a path or URL, where it appears whole or not at all. Raises: AoiError; OSError."""
    with open(path, "rb") as file:
        if store.is_remote(place):
            return store.write(place, file)
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        with appearing(Path(place)) as copy:
            shutil.copyfileobj(file, copy)
    sync(Path(place))


def sizes(folder: str) -> Mapping[str, int]:
    """Bytes of the files in a folder of a store, by their names. Raises: AoiError."""
    try:
        return store.sizes_below(folder)
    except FileNotFoundError as error:
        raise refuse(folder, "there is no such bucket", "Make it, or name another ingest.location") from error


def fetch(dataset: Dataset, progress: Progress = silent) -> None:
    """Copies the shards that lie in a store to their places in HOME; what is there and whole stays.

    progress: counts the shards.

    Raises: AoiError for shards that can't be read, or are not those that were committed. What was fetched is kept.
    """

    def fetched(shard: ShardEntry) -> Problem | None:
        place = dataset.place(shard)
        if place.is_file() and hash_file(place) == shard.sha256:
            return None
        data = _read(dataset, shard)
        if isinstance(data, Problem):
            return data
        with appearing(place) as file:
            file.write(data)
        return None

    _each(dataset, fetched, progress)


def check_stored(dataset: Dataset) -> None:
    """Reads the shards that lie in a store. Raises: AoiError, with all that are not those that were committed."""

    def checked(shard: ShardEntry) -> Problem | None:
        data = _read(dataset, shard)
        return data if isinstance(data, Problem) else None

    _each(dataset, checked, silent)


def _each(dataset: Dataset, look: Callable[[ShardEntry], Problem | None], progress: Progress) -> None:
    """Calls `look` for every shard that lies in a store. Raises: AoiError, with all problems that it returned."""
    shards = [shard for shard in dataset.manifest.shards if dataset.manifest.is_copy(shard)]
    if not shards:
        return
    problems = []
    progress(0, len(shards), "fetched")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done, problem in enumerate(pool.map(look, shards), 1):
            progress(done, len(shards), "fetched")
            problems += [problem] if problem else []
    if problems:
        raise AoiError(problems, exit_code=MISSED)


def _read(dataset: Dataset, shard: ShardEntry) -> bytes | Problem:
    """The bytes of a shard in a store, or what is wrong with it. Raises: AoiError where the store does not answer."""
    url = f"{dataset.manifest.location}/{shard.stored_name}"
    again = "Make the dataset again: aoi ingest --force"
    try:
        data = store.read(url)
    except FileNotFoundError:
        return Problem(url, "there is no such shard any more", again)
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        return Problem(url, "its bytes are not those that were committed", again)
    return data
