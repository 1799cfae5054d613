"""What people see of long work: how many, how fast, how long still."""

import re

import pytest

from flows import progress
from flows.progress import Meter, describe, duration
from flows.stages import load_stage
from flows.stages.stage import Job


@pytest.fixture
def told(monkeypatch):
    """A function that calls a meter with (second, done, total, note) and gives the lines that it emitted."""

    def tell(*calls):
        lines, now = [], iter(call[0] for call in calls)
        monkeypatch.setattr(progress, "monotonic", lambda: next(now))
        meter = Meter("train", lines.append, 1.0)
        for _, done, total, note in calls:
            meter(done, total, note)
        return lines

    return tell


def test_a_line_has_the_count_the_rate_and_the_time_left(told):
    assert told((0, 0, 100, "epoch 1"), (2, 20, 100, "epoch 1")) == ["train     20 of 100  10/s  8.0 s left  epoch 1"]


def test_lines_come_no_faster_than_asked_but_the_last_always(told):
    lines = told((0, 0, 9, "n"), (0.5, 3, 9, "n"), (1.2, 6, 9, "n"), (1.3, 9, 9, "n"))
    assert [line.split()[1] for line in lines] == ["6", "9"]


def test_the_rate_goes_on_through_the_notes_of_a_count(told):
    lines = told((0, 0, 40, "epoch 1"), (1, 10, 40, "epoch 1"), (2, 20, 40, "epoch 2"), (4, 40, 40, "epoch 2"))
    assert [line.split("  ")[-2] for line in lines] == ["3.0 s left", "2.0 s left", "10/s"]


def test_the_rate_begins_anew_with_each_count(told):
    lines = told((0, 0, 40, "hashed"), (1, 40, 40, "hashed"), (9, 0, 40, "converted"), (11, 20, 40, "converted"))
    assert lines[-1] == "train     20 of 40  10/s  2.0 s left  converted"
    lines = told((0, 0, 40, "fold 1"), (4, 40, 200, "fold 1"), (9, 90, 250, "fold 2"), (11, 130, 250, "fold 2"))
    assert lines[-1] == "train     130 of 250  20/s  6.0 s left  fold 2"


def test_work_that_is_done_at_once_has_the_rate_of_all_its_time(told):
    lines = told((0, 0, 40, "hashed"), (2, 40, 40, "hashed"))
    assert lines == ["train     40 of 40  20/s  hashed"]


def test_what_an_earlier_try_finished_is_not_in_the_rate(told):
    lines = told((0, 0, 40, "hashed"), (1, 40, 40, "hashed"), (5, 30, 40, "converted"), (7, 36, 40, "converted"))
    assert lines[-1] == "train     36 of 40  3/s  1.3 s left  converted"
    lines = told((0, 0, 40, "hashed"), (1, 40, 40, "hashed"), (9, 40, 40, "converted"))
    assert lines[-1] == "train     40 of 40  converted"


def test_the_end_of_a_count_is_told_once(told):
    lines = told((0, 0, 40, "converted"), (2, 40, 40, "converted"), (3, 40, 40, "converted"))
    assert lines == ["train     40 of 40  20/s  converted"]


# --- What the stages tell -----------------------------------------------------------------------------------


def begun(calls):
    """The first call of each kind of work, its note without numbers."""
    first = {}
    for done, total, note in calls:
        first.setdefault(re.sub(r"\d+", "N", note), (done, total))
    return first


def test_every_stage_tells_before_each_kind_of_work_that_nothing_is_done_yet(made, copy_home, tmp_path):
    data, _, settings, _ = made
    home, calls = copy_home(tmp_path / "home"), {}
    given = {"ingest": {"data": str(data)}, "export": {"precision": "int8"}}
    for stage in ("ingest", "train", "evaluate", "predict", "export"):
        told = calls[stage] = []
        job = Job(home, settings, force=True, progress=lambda *call, told=told: told.append(call))
        load_stage(stage).run(job, **given.get(stage, {}))
    assert {stage: begun(told) for stage, told in calls.items()} == {
        "ingest": {"hashed": (0, 60), "converted": (0, 60)},
        "train": {"epoch N of N": (0, 100), "epoch N of N, validation N.N": (50, 100)},
        "evaluate": {"pictures": (0, 10)},
        "predict": {"hashed": (0, 9), "pictures": (0, 9)},
        "export": {"checked, keras": (0, 60), "checked, litert": (0, 60)},
    }
    for told in calls.values():
        assert told[-1][0] == told[-1][1]


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.21, "4.2 s"), (59, "59 s"), (185, "3 min 05 s"), (4320, "1 h 12 min")]
)
def test_durations_read_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_without_anything_counted_there_is_no_rate():
    assert describe(0, 10, 3.0, 0) == "0 of 10"
