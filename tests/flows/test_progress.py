"""What people see of long work: how many, how fast, how long still."""

import pytest

from flows import progress
from flows.progress import Meter, describe, duration


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


def test_the_rate_goes_on_through_notes_and_begins_anew_with_each_count(told):
    lines = told((0, 0, 40, "epoch 1"), (1, 10, 40, "epoch 1"), (2, 20, 40, "epoch 2"), (4, 40, 40, "epoch 2"))
    assert [line.split("  ")[-2] for line in lines] == ["3.0 s left", "2.0 s left", "10/s"]
    lines = told((0, 0, 40, "hashed"), (1, 40, 40, "hashed"), (9, 0, 40, "converted"), (11, 20, 40, "converted"))
    assert lines[-1] == "train     20 of 40  10/s  2.0 s left  converted"


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.21, "4.2 s"), (59, "59 s"), (185, "3 min 05 s"), (4320, "1 h 12 min")]
)
def test_durations_read_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_without_anything_counted_there_is_no_rate():
    assert describe(0, 10, 3.0, 0) == "0 of 10"
