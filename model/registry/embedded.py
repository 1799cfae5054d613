"""HOME's own store, a SQLite file: made whole, refused where it is damaged, corrected where HOME has moved.

Free of MLflow itself.
"""

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

from model.registry.store import SQLITE, Store
from tfrecords.errors import MISSED, refuse
from tfrecords.system import locked, rename

HEADER = b"SQLite format 3\0"
# Where MLflow 3 keeps absolute places of files.
PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def prepare(store: Store, database: Path, fill: Callable[[str], object]) -> None:
    """Makes an embedded store where it is not there, and lets it follow its HOME when that has moved.

    database: the store's file; fill: makes MLflow's tables in the database at an SQLAlchemy address.

    Raises: AoiError (exit code 1: what is finished is kept) for a file that is no database; sqlite3.Error.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    with locked(database.with_name(".mlflow.lock")):
        if database.exists():
            _refuse_unusable(database)
        else:
            _make(database, fill)
        _follow(store, database)


def _make(database: Path, fill: Callable[[str], object]) -> None:
    """The tables aside first: MLflow can't go on with a file that it made in part."""
    aside = database.with_name(f".{database.name}.tmp")
    for part in (aside, Path(f"{aside}-journal")):
        part.unlink(missing_ok=True)
    fill(f"{SQLITE}{aside}")
    rename(aside, database)


def _refuse_unusable(database: Path) -> None:
    with open(database, "rb") as file:
        header = file.read(len(HEADER))
    if header != HEADER:
        seen = "not a SQLite database" if header else "the file is empty (0 bytes), so MLflow's records in it are lost"
        remedy = (
            "Put a backup in its place; or delete it, so that a new one is made, and record the models anew "
            "with aoi train --force"
        )
        raise refuse(database, seen, remedy, exit_code=MISSED)


def _follow(store: Store, database: Path) -> None:
    """Corrects the absolute places that MLflow keeps of files, where HOME has moved since."""
    place = Path(store.artifacts).absolute().as_uri()
    with contextlib.closing(sqlite3.connect(database)) as records, records:
        for (location,) in records.execute("SELECT artifact_location FROM experiments WHERE name != 'Default'"):
            old, found, _ = location.rpartition(f"/{Path(store.artifacts).name}/")
            old += found.rstrip("/")
            if found and old != place:
                for table, column in PLACES:
                    records.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (old, place))
