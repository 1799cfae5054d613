"""The inbox of `aoi serve`: which lots are finished, each of which is started once."""

import os
from pathlib import Path

import pytest

from flows.home import Home
from flows.serving.inbox import Inbox, open_inbox
from tfrecords.errors import AoiError

SETTLE = 30.0


@pytest.fixture
def inbox(tmp_path):
    (tmp_path / "inbox").mkdir()
    return open_inbox(Home(tmp_path / "home"), str(tmp_path / "inbox"), SETTLE)


def put(inbox: Inbox, lot: str, *names: str) -> Path:
    """Files of a lot."""
    for name in names:
        path = inbox.folder / lot / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return inbox.folder / lot


def started(inbox: Inbox, now: float) -> list[str]:
    """Names of the lots that are started at a time."""
    lots = inbox.finished(now)
    for lot in lots:
        inbox.note(lot)
    return [lot.name for lot in lots]


def again(inbox: Inbox) -> Inbox:
    """The same inbox after a restart."""
    return open_inbox(inbox.home, str(inbox.folder), inbox.settle)


def touched(lot: Path) -> None:
    """A .done that is newer than the one before."""
    os.utime(lot / ".done", ns=(0, (lot / ".done").stat().st_mtime_ns + 1))


# --- When a lot is finished ---------------------------------------------------------------------------------


def test_a_lot_with_its_mark_is_started_at_once(inbox):
    put(inbox, "lot-1", "a.png", ".done")
    put(inbox, "lot-2", "a.png")
    assert started(inbox, 0) == ["lot-1"]


def test_a_lot_without_its_mark_is_started_when_nothing_has_changed_for_long_enough(inbox):
    put(inbox, "lot-1", "a.png")
    assert started(inbox, 0) == []
    assert started(inbox, SETTLE - 1) == []
    put(inbox, "lot-1", "deep/b.png")  # anywhere in it
    assert started(inbox, SETTLE) == []
    (inbox.folder / "lot-1" / "a.png").write_bytes(b"more of it")  # a slow copy
    assert started(inbox, SETTLE + 20) == []
    assert started(inbox, 2 * SETTLE + 19) == []
    assert started(inbox, 2 * SETTLE + 20) == ["lot-1"]


def test_files_that_keep_an_old_date_are_new_all_the_same(inbox):
    lot = put(inbox, "lot-1", "a.png")
    os.utime(lot / "a.png", (0, 0))
    os.utime(lot, (0, 0))
    assert started(inbox, 1e9) == []


@pytest.mark.parametrize("name", ["results", ".lot-1", ".results.tmp", "#recycle", "@eaDir"])
def test_results_and_hidden_folders_are_no_lots(inbox, name):
    put(inbox, name, "a.png", ".done")
    assert started(inbox, 0) == started(inbox, SETTLE) == []


def test_an_empty_folder_and_a_file_are_no_lots_yet(inbox):
    (inbox.folder / "lot-1").mkdir()
    (inbox.folder / "lot-2.zip").write_bytes(b"")
    assert started(inbox, 0) == started(inbox, SETTLE) == []


def test_a_file_whose_name_is_in_another_encoding_is_part_of_its_lot(inbox):
    lot = put(inbox, "lot-1", "a.png")
    with open(os.fsencode(lot) + b"/" + "批次.png".encode("cp950"), "wb") as file:
        file.write(b"b")
    assert started(inbox, 0) + started(inbox, SETTLE) == ["lot-1"]


def test_a_lot_whose_own_name_is_in_another_encoding_is_told_once_and_passed_over(inbox, caplog):
    os.mkdir(os.fsencode(inbox.folder) + b"/" + "批次".encode("cp950"))
    put(inbox, "lot-1", ".done")
    assert started(inbox, 0) == ["lot-1"]
    assert started(inbox, 1) == []
    assert caplog.text.count("passed over: its name") == 1


def test_the_results_of_a_lot_have_its_name(inbox):
    put(inbox, "lot-1", ".done")
    (lot,) = inbox.finished(0)
    assert (lot.path, lot.results) == (inbox.folder / "lot-1", inbox.folder / "results" / "lot-1")


# --- Once ---------------------------------------------------------------------------------------------------


def test_a_lot_is_started_once_over_restarts_too(inbox):
    put(inbox, "marked", "a.png", ".done")
    put(inbox, "settled", "a.png")
    assert started(inbox, 0) + started(inbox, SETTLE) == ["marked", "settled"]
    after = again(inbox)
    assert started(after, 0) == started(after, SETTLE) == []
    put(after, "settled", "late.png")
    assert started(after, 2 * SETTLE) == started(after, 3 * SETTLE) == []


def test_a_newer_mark_starts_it_again_once(inbox):
    lots = [put(inbox, "marked", "a.png", ".done"), put(inbox, "settled", "a.png")]
    assert started(inbox, 0) + started(inbox, SETTLE) == ["marked", "settled"]
    keys = {}
    for lot in lots:
        put(inbox, lot.name, ".done")
        touched(lot)
    keys = {lot.key for lot in inbox.finished(SETTLE)}
    assert len(keys) == 2
    assert started(inbox, SETTLE) == ["marked", "settled"]
    assert started(again(inbox), SETTLE) == []


def test_what_was_asked_for_and_not_noted_is_asked_for_by_the_same_key(inbox):
    put(inbox, "lot-1", "a.png", ".done")
    put(inbox, "lot-2", "a.png")
    inbox.finished(0)
    keys = [lot.key for lot in inbox.finished(SETTLE)]
    after = again(inbox)
    after.finished(0)
    assert [lot.key for lot in after.finished(SETTLE)] == keys
    assert len(set(keys)) == 2


def test_a_lot_that_was_away_and_comes_back_under_its_name_is_a_new_one(inbox):
    lot = put(inbox, "lot-1", "a.png")
    assert started(inbox, 0) + started(inbox, SETTLE) == ["lot-1"]
    (lot / "a.png").unlink()
    lot.rmdir()
    assert started(inbox, 2 * SETTLE) == []
    put(inbox, "lot-1", "b.png")
    assert started(inbox, 3 * SETTLE) + started(inbox, 4 * SETTLE) == ["lot-1"]


def test_notes_of_lots_that_are_gone_go(inbox):
    gone = put(inbox, "gone", ".done")
    put(inbox, "lot-1", ".done")
    started(inbox, 0)
    (gone / ".done").unlink()
    gone.rmdir()
    put(inbox, "lot-2", ".done")
    started(inbox, 0)
    assert list(inbox.home.recall("inbox")["started"]) == ["lot-1", "lot-2"]


def test_an_inbox_that_is_away_for_a_time_is_told_as_such(inbox):
    put(inbox, "lot-1", ".done")
    assert started(inbox, 0) == ["lot-1"]
    inbox.folder.rename(inbox.folder.with_name("away"))
    with pytest.raises(FileNotFoundError):
        inbox.finished(1)
    inbox.folder.with_name("away").rename(inbox.folder)
    assert started(inbox, 2) == []


# --- What is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "settle", "seen"),
    [
        ("nowhere", SETTLE, "there is no such folder"),
        ("s3://bucket/inbox", SETTLE, "there is no such folder"),
        (".", SETTLE, "HOME is in it"),
        ("home", SETTLE, "HOME is in it"),
        ("inbox", 0.0, "0 is no time to wait"),
        ("inbox", float("nan"), "nan is no time to wait"),
    ],
)
def test_what_is_no_inbox_is_refused(folder, settle, seen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("home", "inbox"):
        (tmp_path / name).mkdir()
    with pytest.raises(AoiError, match=seen):
        open_inbox(Home(tmp_path / "home"), folder, settle)
