"""Copies of artefacts: whole or not at all, and never in place of something else."""

from pathlib import Path

import pytest

from tfrecords.artifacts import copies
from tfrecords.artifacts.copies import put_copy
from tfrecords.artifacts.files import hash_json
from tfrecords.artifacts.make import make
from tfrecords.artifacts.manifest import Manifest
from tfrecords.errors import AoiError


class Sheet(Manifest):
    KIND, FOLDER = "sheet", "sheets"


@pytest.fixture
def sheet(tmp_path):
    """A function that makes an artefact of one file."""

    def of(text: str):
        def build(work: Path) -> Sheet:
            (work / "sheet.txt").write_text(text)
            return Sheet()

        return make(tmp_path / "sheets", "a", Sheet, hash_json(text), build)[0]

    return of


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_copy_has_the_same_bytes_and_takes_the_place_of_an_earlier_one(sheet, tmp_path):
    for text in ("one", "two"):
        put_copy(made := sheet(text), tmp_path / "out" / "lot-1")
        assert content(tmp_path / "out" / "lot-1") == content(made.path)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["lot-1"]


@pytest.mark.parametrize("at", ["copytree", "rename"])
def test_a_copy_that_is_killed_leaves_the_one_before(at, sheet, tmp_path, monkeypatch):
    target = tmp_path / "out" / "lot-1"
    put_copy(before := sheet("one"), target)
    place = copies.shutil if at == "copytree" else copies
    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(place, at, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        put_copy(sheet("two"), target)
    assert content(target) == content(before.path)
    put_copy(after := sheet("two"), target)
    assert content(target) == content(after.path)
    assert [path.name for path in target.parent.iterdir()] == ["lot-1"]


def test_what_is_no_copy_is_never_replaced(sheet, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"cat")
    (tmp_path / "file").write_bytes(b"")
    for target in ("photos", "file"):
        with pytest.raises(AoiError, match="it holds something else"):
            put_copy(sheet("one"), tmp_path / target)
    assert content(tmp_path / "photos") == {"cat.png": b"cat"}
    put_copy(made := sheet("one"), tmp_path / "out")
    assert content(tmp_path / "out") == content(made.path)
