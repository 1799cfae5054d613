"""Lets the tests import what fuzz.py runs by its plain names, and gives them a folder that is watched."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from oracle import listing


@pytest.fixture
def own(tmp_path):
    """A folder that a kind may use; fails the test that leaves anything beside it."""
    folder = tmp_path / "own"
    folder.mkdir()
    before, here = listing(tmp_path, folder), sorted(os.listdir())
    yield folder
    assert listing(tmp_path, folder) == before
    assert sorted(os.listdir()) == here
