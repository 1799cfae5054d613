"""Faults at named moments; `make faults` has hundreds at random ones, and the slow kinds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("faults.py")
KINDS = (
    "kill ingest at each of its moments",
    "kill ingest --force, replacing",
    "kill train at each of its moments",
    "kill evaluate at each of its moments",
    "kill predict at each of its moments",
    "Ctrl-C ingest at each of its moments",
    "Ctrl-C predict at each of its moments",
    "one byte changed",
    "two at once: the same ingest",
    "HOME moved",
    "older schema",
    "disk full: ingest",
    "disk full: predict",
    "read-only",
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The script's table, {kind: row}. In a process of its own: TensorFlow's threads here would not survive a fork."""
    told = tmp_path_factory.mktemp("faults") / "faults.json"
    command = [sys.executable, SCRIPT, "--quick", "--json", told]
    paths = os.pathsep.join([str(SCRIPT.parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
    assert told.exists(), done.stdout[-3000:] + done.stderr[-3000:]
    return {row["kind"]: row for row in json.loads(told.read_text())}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_finished_stays_whole_and_the_next_run_completes(rows, kind):
    row = rows[kind]
    if skipped := [note for note in row["notes"] if note.startswith("skipped")]:
        pytest.skip(skipped[0])
    assert not row["problems"]
    assert row["times"] >= 1
    assert row["same"] == row["completed"] >= 1


def test_nothing_is_left_out(rows):
    assert sorted(rows) == sorted(KINDS)
