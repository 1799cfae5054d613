"""`aoi watch`: each picture that appears in a folder is answered once, whatever ends the process in the meantime."""

import csv
import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue

import hypothesis.strategies as st
import pandas as pd
import pytest
from hypothesis import given
from lively import lively_home
from serving import BIN, DOWN_SECONDS, UP_SECONDS, wait_for
from tiny import picture, png

from flows.champion import Champion
from flows.cli import main
from flows.products import Champions
from flows.stages.predict import predict
from flows.stages.stage import Job
from flows.watch import watch as watching
from flows.watch.inbox import Inbox, listed, name_of, signature_at
from flows.watch.looks import QUIET_SECONDS, RESERVED_SECONDS, Looks
from flows.watch.outbox import OWN, PART, Outbox, Row
from flows.watch.watch import Tally, Watcher
from model.manifests import ModelManifest
from model.registry.store import CHAMPION
from model.settings import Decision, PredictSettings
from tfrecords.errors import AoiError

# --- Which file is looked at, and when ------------------------------------------------------------------------------


def test_a_file_is_looked_at_when_it_is_new_and_when_it_has_changed():
    inbox = Inbox()
    assert inbox.listed({"a.png": (1, 1)}, 0) == ["a.png"]
    assert inbox.listed({"a.png": (1, 1)}, 1) == []  # somebody is at work on it
    assert not inbox.ended("a.png", (1, 1), None, 2)
    assert inbox.listed({"a.png": (1, 1)}, 99) == []
    assert inbox.listed({"a.png": (2, 1)}, 100) == ["a.png"]
    assert inbox.since("a.png") == ((2, 1), 100)


def test_a_file_that_is_not_whole_is_looked_at_again_once_it_has_been_unchanged_for_so_long():
    inbox = Inbox()
    inbox.listed({"a.png": (1, 1)}, 0)
    inbox.ended("a.png", (2, 1), 5, 1)  # it grew while it was read: it is unchanged since then
    assert inbox.listed({"a.png": (2, 1)}, 5.9) == []
    assert inbox.listed({"a.png": (2, 1)}, 6) == ["a.png"]


def test_a_file_that_changes_while_somebody_is_at_work_on_it_is_looked_at_again():
    inbox = Inbox()
    assert inbox.changed("a.png", (1, 1), 0)
    assert not inbox.changed("a.png", (2, 2), 1)
    assert inbox.ended("a.png", (1, 1), None, 2)
    assert not inbox.ended("a.png", (2, 2), None, 3)


def test_a_file_that_goes_is_new_when_it_comes_again():
    inbox = Inbox()
    inbox.changed("a.png", (1, 1), 0)
    inbox.ended("a.png", (1, 1), None, 1)
    assert not inbox.changed("a.png", None, 2)
    assert inbox.changed("a.png", (1, 1), 3)
    assert not inbox.ended("a.png", None, None, 4)
    assert inbox.listed({"a.png": (1, 1)}, 5) == ["a.png"]


@given(st.lists(st.sampled_from(["change", "event", "list", "end"])))
def test_no_change_is_missed_and_never_are_two_at_work(steps):
    inbox, version, at_work, looked = Inbox(), 0, None, None

    def begin(name_due):
        nonlocal at_work
        if name_due:
            assert at_work is None
            at_work = version

    for now, step in enumerate([*steps, "list", "end", "end"]):
        if step == "change":
            version += 1
        elif step == "event":
            begin(inbox.changed("a.png", (version, 0), now))
        elif step == "list":
            begin(inbox.listed({"a.png": (version, 0)}, now))
        elif at_work is not None:
            looked, at_work = at_work, None
            begin(inbox.ended("a.png", (looked, 0), None, now))
    assert at_work is None
    assert looked == version


def test_what_systems_put_there_links_and_other_files_are_passed_over(tmp_path):
    for name in (
        "a.png",
        "lot/B.JPG",
        "lot/deep/c.tif",
        ".hidden.png",
        "._a.png",
        "@eaDir/a.png",
        "Thumbs.db",
        "a.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "lot")
    names = ["a.png", "lot/B.JPG", "lot/deep/c.tif"]
    assert sorted(listed(tmp_path)) == names
    told = [name_of(tmp_path, str(path)) for path in sorted(tmp_path.rglob("*"))]
    assert [name for name in told if name and signature_at(tmp_path / name)] == names


def test_the_longest_unchanged_comes_first(tmp_path):
    for name, at in (("a.png", 30), ("b.png", 10), ("c.png", 20)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (at, at))
    assert list(listed(tmp_path)) == ["b.png", "c.png", "a.png"]


# --- The table ---------------------------------------------------------------------------------------------------

COLUMNS = ("ID", "label", "name", "plain", "größe, 2", "decision", "status", *OWN)


def row_of(number, columns=COLUMNS, decision="accept", status="ok"):
    values = dict.fromkeys(columns, "0.5") | {"ID": f'{number} "ä", b.png', "decision": decision, "status": status}
    values |= {"sha256": sha256(bytes([number])).hexdigest(), "time": "2026-01-31T00:00:00.000+00:00"}
    return Row(columns, tuple(values[name] for name in columns))


@contextmanager
def opened(folder):
    outbox = Outbox(folder)
    try:
        yield outbox
    finally:
        outbox.close()


def rows_in(folder):
    """Rows of all tables of an OUTBOX, as text."""
    return [row for path in sorted(folder.glob("decisions*.csv")) for row in read(path)]


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_picture_has_one_row_whenever_it_is_added(tmp_path):
    with opened(tmp_path / "out") as outbox:
        assert outbox.add([row_of(1), row_of(1)]) == [row_of(1)]
        assert outbox.add([row_of(2, decision="review", status="unreadable"), row_of(1)]) == [
            row_of(2, decision="review", status="unreadable")
        ]
    with opened(tmp_path / "out") as outbox:
        assert outbox.add([row_of(1), row_of(2)]) == []
        assert [outbox.decided(row_of(n).values[0], row_of(n).values[-2]) for n in (1, 2, 3)] == ["accept", "", None]
    assert [row["ID"] for row in rows_in(tmp_path / "out")] == ['1 "ä", b.png', '2 "ä", b.png']


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """(bytes of a decisions.csv, where each of its lines ends)."""
    folder = tmp_path_factory.mktemp("table")
    with opened(folder) as outbox:
        outbox.add([row_of(number) for number in range(3)])
    data = (folder / "decisions.csv").read_bytes()
    return data, [at + 1 for at, byte in enumerate(data) if byte == ord("\n")]


@given(data=st.data())
def test_of_whatever_a_kill_leaves_of_a_table_the_whole_rows_stay_and_the_rest_is_added_again(
    data, table, tmp_path_factory
):
    whole, ends = table
    length = data.draw(st.integers(0, len(whole)))
    zeros = data.draw(st.sampled_from([0, 0, 7]))  # as a power cut may leave behind the end
    folder = tmp_path_factory.mktemp("torn")
    (folder / "decisions.csv").write_bytes(whole[:length] + bytes(zeros))
    kept = max(0, sum(end <= length for end in ends) - 1)
    with opened(folder) as outbox:
        assert outbox.add([row_of(number) for number in range(3)]) == [row_of(number) for number in range(kept, 3)]
    assert (folder / "decisions.csv").read_bytes() == whole


def test_rows_of_other_columns_begin_another_table_and_the_former_one_still_counts(tmp_path):
    other = ("ID", "label", "name", "plain", "decision", "novelty", "status", *OWN)
    with opened(tmp_path) as outbox:
        outbox.add([row_of(1)])
        outbox.add([row_of(2, other)])
        outbox.add([row_of(3)])
    with opened(tmp_path) as outbox:
        assert outbox.add([row_of(1), row_of(2, other), row_of(3), row_of(4)]) == [row_of(4)]
    tables = {path.name: [row["ID"][0] for row in read(path)] for path in tmp_path.glob("*.csv")}
    assert tables == {"decisions-0001.csv": ["1"], "decisions-0002.csv": ["2"], "decisions.csv": ["3", "4"]}


def test_a_table_that_people_take_away_is_begun_anew(tmp_path):
    with opened(tmp_path) as outbox:
        outbox.add([row_of(1)])
        (tmp_path / "decisions.csv").rename(tmp_path / "of yesterday.csv")
        outbox.add([row_of(1), row_of(2)])
    assert [row["ID"][0] for row in read(tmp_path / "decisions.csv")] == ["2"]


def test_a_row_that_can_not_be_kept_leaves_none_of_itself(tmp_path, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    with opened(tmp_path) as outbox:
        outbox.add([row_of(1)])
        before = (tmp_path / "decisions.csv").read_bytes()
        monkeypatch.setattr("flows.watch.outbox.os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            outbox.add([row_of(2)])
        assert (tmp_path / "decisions.csv").read_bytes() == before
        monkeypatch.undo()
        assert outbox.add([row_of(2)]) == [row_of(2)]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (b"ID,label\n1,2\n", "not a table that aoi watch wrote"),
        (b"ID,decision,status,sha256,time\na,accept,ok,1\n", "row 2 has 4 fields in place of 5"),
        (b"ID,decision,status,sha256,time\n\xff,accept,ok,1,2\n", "can't be read"),
    ],
)
def test_a_table_that_is_none_of_ours_or_damaged_is_refused_and_stays(text, seen, tmp_path):
    (tmp_path / "decisions.csv").write_bytes(text)
    for _ in range(2):  # and the lock is free again
        with pytest.raises(AoiError, match=seen):
            Outbox(tmp_path)
    assert (tmp_path / "decisions.csv").read_bytes() == text


# --- Moving -----------------------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path):
    """(INBOX, OUTBOX) with nothing in them."""
    (tmp_path / "in").mkdir()
    return tmp_path / "in", tmp_path / "out"


def drop(inbox, name, data):
    path = inbox / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def move(outbox, source, name, data):
    return outbox.move(source, signature_at(source), name, sha256(data).hexdigest(), "accept")


def test_a_picture_of_a_name_that_is_taken_gets_one_of_its_own_and_the_same_picture_does_not(places):
    inbox, out = places
    with opened(out) as outbox:
        for data in (b"one", b"two", b"one", b"two"):
            assert move(outbox, drop(inbox, "lot/a.png", data), "lot/a.png", data)
    second = f"a.{sha256(b'two').hexdigest()[:16]}.png"
    moved = {path.name: path.read_bytes() for path in (out / "accept" / "lot").iterdir()}
    assert moved == {"a.png": b"one", second: b"two"}
    assert not any(path.is_file() for path in inbox.rglob("*"))


def test_a_second_name_of_a_picture_that_was_moved_goes(places):
    inbox, out = places
    target = drop(out, "accept/a.png", b"one")
    os.link(target, inbox / "a.png")
    with opened(out) as outbox:
        assert move(outbox, inbox / "a.png", "a.png", b"one")
    assert target.read_bytes() == b"one"
    assert not list(inbox.iterdir())


def test_a_picture_that_has_changed_since_it_was_answered_stays(places):
    inbox, out = places
    source = drop(inbox, "a.png", b"one")
    read = signature_at(source)
    source.write_bytes(b"longer")
    with opened(out) as outbox:
        assert not outbox.move(source, read, "a.png", sha256(b"one").hexdigest(), "accept")
        source.unlink()
        assert not outbox.move(source, read, "a.png", sha256(b"one").hexdigest(), "accept")


@pytest.mark.parametrize("killed", [False, "while it copies", "before it removes"])
def test_to_another_disk_it_is_copied_whole_and_then_removed(killed, places, monkeypatch):
    inbox, out = places
    source = drop(inbox, "a.png", b"one")

    def across(source, target):
        if Path(source).parent == inbox:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        os.replace(source, target)

    monkeypatch.setattr("flows.watch.outbox.rename", across)
    with opened(out) as outbox:
        if killed == "while it copies":
            drop(out, f"accept/{PART}", b"o")
        if killed == "before it removes":
            drop(out, "accept/a.png", b"one")
        assert move(outbox, source, "a.png", b"one")
    assert {path.name: path.read_bytes() for path in (out / "accept").iterdir()} == {"a.png": b"one"}
    assert not source.exists()


def test_a_copy_for_which_there_is_no_room_leaves_nothing(places, monkeypatch):
    """Else it would take the room of the pictures that fit."""
    inbox, out = places
    source = drop(inbox, "a.png", b"one")

    def across(source, target):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    def full(source, target):
        Path(target).write_bytes(b"o")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("flows.watch.outbox.rename", across)
    monkeypatch.setattr("flows.watch.outbox.shutil.copy2", full)
    with opened(out) as outbox, pytest.raises(OSError, match="No space left"):
        move(outbox, source, "a.png", b"one")
    assert not list((out / "accept").iterdir())
    assert source.read_bytes() == b"one"


@pytest.mark.parametrize("name", [f"{'a' * 251}.png", f"{'圖' * 83}.png"])
def test_names_as_long_as_can_be_are_moved_too(places, name, monkeypatch):
    inbox, out = places
    with opened(out) as outbox:
        assert move(outbox, drop(inbox, name, b"one"), name, b"one")
        assert move(outbox, drop(inbox, name, b"two"), name, b"two")
    assert sorted(path.read_bytes() for path in (out / "accept").iterdir()) == [b"one", b"two"]
    assert all(path.suffix == ".png" for path in (out / "accept").iterdir())


# --- One look ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(made, copy_home, tmp_path_factory):
    return lively_home(made, copy_home(tmp_path_factory.mktemp("watch") / "home"))


@pytest.fixture(scope="module")
def home(models):
    return models[0]


@pytest.fixture(scope="module")
def champion(home):
    return Champion(home, None, None, PredictSettings())


@pytest.fixture
def look(places, champion):
    """A function: what a look at a file of these bytes finds that has not changed for so many seconds."""
    inbox, out = places
    with opened(out) as outbox:
        looks = Looks(inbox, outbox, lambda: champion.now, 1)

        def at(data, quiet=0.0):
            path = drop(inbox, "a.png", data)
            return looks.look("a.png", signature_at(path), time.monotonic() - quiet)

        yield at


GOOD = png(picture(1, 1))


def test_a_picture_is_answered_as_soon_as_it_is_whole_and_not_before(look):
    for length in (0, 1, 8, len(GOOD) // 2, len(GOOD) - 1):
        assert (look(GOOD[:length]).decision, look(GOOD[:length]).wait) == (None, QUIET_SECONDS)
    assert look(GOOD).decision in list(Decision)


def test_a_file_whose_space_is_reserved_is_not_read_as_whole(look):
    """A BMP says how long it is and no more: it would decode, black where its bytes have not come."""
    import cv2

    bmp = cv2.imencode(".bmp", picture(1, 1))[1].tobytes()
    reserved = bmp[: len(bmp) // 2] + bytes(len(bmp) - len(bmp) // 2)
    assert (look(reserved).decision, look(reserved).wait) == (None, RESERVED_SECONDS)
    assert look(bmp).decision
    assert look(reserved, quiet=RESERVED_SECONDS).decision  # then it is as dark as it says


def test_what_has_not_changed_for_five_seconds_and_does_not_decode_is_unreadable(look):
    assert look(GOOD[:99], quiet=4.9).row is None
    told = look(GOOD[:99], quiet=5)
    assert told.problem == "the PNG is cut off after 99 bytes. Copy the picture again"
    values = dict(zip(told.row.columns, told.row.values, strict=True))
    assert (values["label"], values["name"], values["decision"], values["status"]) == (
        "1",
        "rows",
        "review",
        "unreadable",
    )
    assert values["plain"] == ""
    assert told.decision == ""  # it stays where it is, for the rest may come


def test_what_is_too_large_is_unreadable_too_and_not_read_before_it_is_whole(look, monkeypatch):
    monkeypatch.setattr("pipeline.inputs.files.MAX_BYTES", len(GOOD) - 1)
    assert (look(GOOD, quiet=4.9).sha256, look(GOOD, quiet=4.9).wait) == ("", QUIET_SECONDS)
    told = look(GOOD, quiet=5)
    problem = f"it holds {len(GOOD):,} bytes, more than {len(GOOD) - 1:,}. Save the picture as a smaller file"
    assert (told.problem, told.sha256) == (problem, sha256(GOOD).hexdigest())
    assert told.row.values[-3] == "unreadable"


def test_a_file_that_may_not_be_read_is_told_and_tried_again(look, monkeypatch):
    def refuse(*given):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("flows.watch.looks.open", refuse, raising=False)
    found = look(GOOD)
    assert (found.decision, found.problem) == (None, "it can't be read (Permission denied); it is tried again")
    assert found.wait >= QUIET_SECONDS


# --- The watcher, without a process of its own ---------------------------------------------------------------------


@pytest.fixture
def run(places, champion):
    """A function that watches until it has so many rows in all, or until `done` says so."""
    inbox, out = places

    def until(rows, sort=False, done=lambda: True):
        tally = Tally(lambda line: None, 0)

        def check():
            if len(rows_in(out)) >= rows and done():
                raise KeyboardInterrupt
            assert time.monotonic() < ends

        ends = time.monotonic() + UP_SECONDS
        with opened(out) as outbox, pytest.raises(KeyboardInterrupt):
            Watcher(inbox, outbox, sort, champion, 1, tally).run(check)
        return tally

    return until


def empty(inbox):
    return lambda: not any(path.is_file() for path in inbox.rglob("*"))


def test_events_that_end_begin_again(monkeypatch, tmp_path, capsys):
    told, begun = SimpleQueue(), []

    def changes(root, stop_event, **_):
        begun.append(root)
        if len(begun) < 3:
            raise RuntimeError("a name that is no UTF-8")
        yield [(1, "a.png")]
        stop_event.wait()

    monkeypatch.setattr("watchfiles.watch", changes)
    monkeypatch.setattr(watching, "AGAIN_SECONDS", 0.01)
    with watching._events(tmp_path, told.put):
        assert told.get(timeout=10) == "a.png"
    assert len(begun) == 3
    assert capsys.readouterr().err.count("tells no changes") == 1


def test_without_events_the_list_of_the_folder_tells(places, run, monkeypatch):
    @contextmanager
    def none(root, tell):
        yield

    monkeypatch.setattr(watching, "_events", none)
    inbox, out = places
    late = threading.Timer(0.5, drop, (inbox, "late.png", GOOD))
    drop(inbox, "a.png", GOOD)
    late.start()
    run(2)
    assert [row["ID"] for row in rows_in(out)] == ["a.png", "late.png"]


def test_a_restart_finishes_the_move_of_what_was_answered_and_answers_nothing_twice(places, run):
    inbox, out = places
    for number in range(5):
        drop(inbox, f"{number}.png", png(picture(number % 3, number)))
    run(5)
    before = (out / "decisions.csv").read_bytes()
    assert len(list(inbox.iterdir())) == 5  # as after a kill between the row and the move
    assert run(5, sort=True, done=empty(inbox)).counts.total() == 0
    assert (out / "decisions.csv").read_bytes() == before
    for row in rows_in(out):
        assert sha256((out / row["decision"] / row["ID"]).read_bytes()).hexdigest() == row["sha256"]


def test_the_same_name_with_other_content_and_the_same_content_under_another_name_are_other_pictures(places, run):
    inbox, out = places
    other = png(picture(0, 9))
    drop(inbox, "a.png", GOOD)
    run(1)
    drop(inbox, "b.png", GOOD)
    drop(inbox, "a.png", other)
    run(3)
    told = sorted((row["ID"], row["sha256"]) for row in rows_in(out))
    content = [sha256(data).hexdigest() for data in (GOOD, other)]
    assert told == sorted([("a.png", content[0]), ("b.png", content[0]), ("a.png", content[1])])


def test_an_unreadable_file_is_told_once_and_answered_when_the_rest_of_it_comes(places, run, monkeypatch, capsys):
    monkeypatch.setattr("flows.watch.looks.QUIET_SECONDS", 0.1)
    inbox, out = places
    drop(inbox, "a.png", GOOD[:99])
    run(1, sort=True)
    drop(inbox, "b.png", GOOD)
    run(2, sort=True, done=lambda: not (inbox / "b.png").exists())
    assert capsys.readouterr().err.count("a.png: the PNG is cut off") == 1
    drop(inbox, "a.png", GOOD)
    run(3, sort=True, done=empty(inbox))
    assert [(row["ID"], row["status"]) for row in rows_in(out)] == [
        ("a.png", "unreadable"),
        ("b.png", "ok"),
        ("a.png", "ok"),
    ]


def test_names_that_do_not_print_are_written_out(places, run):
    inbox, out = places
    drop(inbox, "line\nbreak.png", GOOD)
    drop(inbox, os.fsdecode(b"caf\xe9.png"), GOOD)
    run(2, sort=True, done=empty(inbox))
    assert sorted(row["ID"] for row in rows_in(out)) == ["caf\\udce9.png", "line\\nbreak.png"]


def test_a_picture_that_can_not_be_moved_is_told_once_and_tried_again_and_the_others_go_on(
    places, run, capsys, monkeypatch
):
    inbox, out = places
    tried, move = [], Outbox.move
    monkeypatch.setattr(Outbox, "move", lambda outbox, *given: tried.append(given[2]) or move(outbox, *given))
    monkeypatch.setattr(watching, "QUIET_SECONDS", 0)
    for decision in Decision:
        drop(out, f"{decision}/lot", b"a file in the way of a folder")
    drop(inbox, "lot/a.png", GOOD)
    drop(inbox, "b.png", GOOD)
    run(2, sort=True, done=lambda: tried.count("lot/a.png") >= 3 and not (inbox / "b.png").exists())
    assert capsys.readouterr().err.count("lot/a.png: it stays in the INBOX") == 1
    assert (inbox / "lot" / "a.png").read_bytes() == GOOD
    for decision in Decision:
        (out / decision / "lot").unlink()
    run(2, sort=True, done=empty(inbox))
    assert len(rows_in(out)) == 2


def test_people_see_what_was_answered_where_there_is_something_new(monkeypatch):
    now, lines = [0.0], []
    monkeypatch.setattr(watching, "monotonic", lambda: now[0])
    tally = Tally(lines.append, 5.0)
    for at, rows in ((10, [row_of(1), row_of(2)]), (12, [row_of(3, decision="reject")]), (16, []), (30, [])):
        now[0] = at
        tally.add(rows)
        tally.show()
    tally.add([row_of(4, decision="review", status="unreadable")])
    shown = "watch     {} answered  0/s  accept 2, reject {}, review 0"
    assert [line.split(", unknown")[0] for line in lines] == [shown.format(2, 0), shown.format(3, 1)]
    assert tally.summary().startswith("answered    4 in 30 s: accept 2, reject 1, review 0")
    assert tally.summary().endswith(", unreadable 1")


# --- The command ------------------------------------------------------------------------------------------------


@pytest.fixture
def start(tmp_path, home):
    """A function that starts `aoi watch`, and gives its process and its log."""
    running = []

    def started(inbox, out, *words, own=home):
        log = tmp_path / f"log-{len(running)}"
        with log.open("wb") as output:
            command = [BIN / "aoi", "watch", inbox, "--out", out, "--home", own.root, *words]
            running.append(subprocess.Popen(command, stdout=output, stderr=output))
        wait_for("watches ", UP_SECONDS, running[-1], log)
        return running[-1], log

    yield started
    for process in running:
        process.kill()
        process.wait()


def wait_until(seen, process):
    ends = time.monotonic() + UP_SECONDS
    while not seen():
        assert process.poll() is None
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_answers_are_those_of_predictions_csv_however_a_picture_comes(start, places, made, home):
    data, _, settings, _ = made
    folder = home.root / predict(Job(home, settings), data=str(data)).folder
    expected = pd.read_csv(folder / "predictions.csv", dtype=str, keep_default_na=False)
    assert expected["decision"].nunique() > 1  # else the folders would prove nothing
    inbox, out = places
    process, log = start(inbox, out, "--sort")
    for number, name in enumerate(expected["ID"]):
        content = (data / "test_images" / name).read_bytes()
        if number % 3 == 0:
            drop(out.parent, "aside", content).rename(inbox / name)
        elif number % 3 == 1:
            with open(inbox / name, "wb", buffering=0) as file:
                for at in range(0, len(content), 500):
                    file.write(content[at : at + 500])
                    time.sleep(0.02)
        else:
            with open(inbox / name, "wb", buffering=0) as file:
                file.truncate(len(content))
                time.sleep(0.1)
                file.write(content)
    wait_until(empty(inbox), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(DOWN_SECONDS) == 0
    table = pd.read_csv(out / "decisions.csv", dtype=str, keep_default_na=False)
    assert list(table.columns) == [*expected.columns, "sha256", "time"]
    pd.testing.assert_frame_equal(table.sort_values("ID", ignore_index=True)[expected.columns.to_list()], expected)
    for row in rows_in(out):
        assert sha256((out / row["decision"] / row["ID"]).read_bytes()).hexdigest() == row["sha256"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", row["time"])
    counts = ", ".join(f"{each} {sum(expected['decision'] == each)}" for each in Decision)
    assert re.search(rf"answered +9 in .*: {counts}\ndecisions +{out}/decisions.csv\nstopped\n$", log.read_text())


def test_a_kill_loses_nothing_and_answers_nothing_twice(start, places):
    inbox, out = places
    sent = {f"{number}.png": png(picture(number % 3, number)) for number in range(60)}
    for kept in (1, 20, 40):
        for name in list(sent)[: kept + 20]:
            if not any((out / each / name).exists() for each in Decision):
                drop(inbox, name, sent[name])
        process, _ = start(inbox, out, "--sort")
        wait_until(lambda kept=kept: (out / "decisions.csv").exists() and len(rows_in(out)) > kept, process)
        process.kill()
        process.wait()
        with open(out / "decisions.csv", "ab") as torn:
            torn.write(b"59.png,0,pl")
    process, _ = start(inbox, out, "--sort")
    wait_until(lambda: empty(inbox)() and len(rows_in(out)) == 60, process)
    assert sorted(row["ID"] for row in rows_in(out)) == sorted(sent)
    for row in rows_in(out):
        assert (out / row["decision"] / row["ID"]).read_bytes() == sent[row["ID"]]


def test_the_champion_is_followed_and_two_watchers_of_one_outbox_are_refused(
    start, places, models, copy_home, tmp_path, capsys
):
    own = copy_home(tmp_path / "home", models[0])
    inbox, out = places
    process, log = start(inbox, out, own=own)
    assert main(["watch", str(inbox), "--out", str(out), "--home", str(own.root)]) == 2
    assert f"{out}: another aoi watch writes there. Use that one, end it" in capsys.readouterr().err
    other = own.named(ModelManifest, models[2].path.name)
    Champions(own, "tiny").note(CHAMPION, other)
    wait_for(rf"answers +{other.path}\n", UP_SECONDS, process, log)
    drop(inbox, "a.png", GOOD)
    wait_until(lambda: (out / "decisions.csv").exists() and rows_in(out), process)
    (row,) = rows_in(out)
    answer = Champion(own, None, other.path.name, PredictSettings()).now.answering.answer(GOOD)
    assert [float(row[name]) for name in ("plain", "rows", "columns")] == pytest.approx(answer.probabilities, abs=1e-6)


@pytest.mark.parametrize(
    ("inbox", "out", "seen"),
    [
        ("in", "in", "--out: {0}/in is the INBOX too. Name a folder beside it."),
        ("in", "in/out", "--out: of {0}/in and {0}/in/out, one lies in the other"),
        ("out/in", "out", "--out: of {0}/out/in and {0}/out, one lies in the other"),
        (".", "../out", "--home: of {0} and {0}/home, one lies in the other"),
        ("home", "out", "--home: {0}/home is the INBOX too"),
        ("in", "home", "--out: {0}/home is HOME too"),
        ("in", "home/out", "--out: of {0}/home/out and {0}/home, one lies in the other"),
        ("nothing", "out", "{0}/nothing: no such folder. Make the folder"),
        ("file", "out", "{0}/file: it is not a folder"),
        ("in", "file", "{0}/file: it is not a folder"),
    ],
)
def test_folders_that_can_not_be_used_are_refused(inbox, out, seen, tmp_path, capsys):
    for folder in ("in", "out/in", "home"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "file").touch()
    words = [str(tmp_path / inbox), "--out", str(tmp_path / out), "--home", str(tmp_path / "home")]
    before = sorted(tmp_path.rglob("*"))
    assert main(["watch", *words]) == 2
    assert seen.format(tmp_path) in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_neither_tensorflow_nor_anything_slow_is_imported():
    slow = ["tensorflow", "keras", "pandas", "scipy", "sklearn", "matplotlib", "mlflow", "prefect", "apache_beam"]
    program = f"import sys, flows.watch.watch, model.inference.runtime; print([m for m in {slow} if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"
