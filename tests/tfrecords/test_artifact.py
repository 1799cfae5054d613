"""A finished artefact appears whole or not at all, is found again, and says so when it is no longer what it was."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tfrecords.artifacts import artifact
from tfrecords.artifacts.artifact import Artifact, entry_of, read, verify
from tfrecords.artifacts.files import hash_json, write_whole
from tfrecords.artifacts.make import find, make
from tfrecords.artifacts.manifest import (
    CHECKSUM,
    MANIFEST,
    RECORD,
    SCHEMA_VERSION,
    FileEntry,
    Manifest,
    RecordedManifest,
    RunRecord,
)
from tfrecords.errors import MISSED, AoiError, refuse

FINGERPRINT = "0123456789abcdef"


class Small(Manifest):
    """The manifest of a kind of artefact."""

    KIND = "dataset"

    about: str = ""


def builder(**files: str):
    """A build that writes these files (a "__" in the name is a folder, a leading "_" a dot), counting its calls."""

    def build(work: Path) -> Small:
        build.calls += 1
        for name, text in files.items():
            path = work / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return Small(about="a test")

    build.calls = 0
    return build


def made(root: Path, build=None, force: bool = False, name: str = "tiny") -> tuple[Artifact, bool]:
    return make(root, name, Small, FINGERPRINT, build or builder(a="one", b__c="two"), force)


def names(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


# --- Made once, whole ---------------------------------------------------------------------------------------


def test_the_folder_is_named_by_name_and_fingerprint_and_holds_files_and_manifest_alone(tmp_path):
    done, cached = made(tmp_path)
    assert not cached
    assert names(tmp_path) == [
        f"tiny-{FINGERPRINT}",
        *(f"tiny-{FINGERPRINT}/{name}" for name in ("a", "b", "b/c", MANIFEST)),
    ]
    assert done.path == tmp_path / f"tiny-{FINGERPRINT}"


def test_the_manifest_lists_every_file_with_size_and_hash_beside_what_the_build_returns(tmp_path):
    done, _ = made(tmp_path)
    assert json.loads((done.path / MANIFEST).read_text()) == done.json
    assert {key: value for key, value in done.json.items() if key != CHECKSUM} == {
        "schema_version": SCHEMA_VERSION,
        "kind": "dataset",
        "fingerprint": FINGERPRINT,
        "about": "a test",
        "files": [
            {
                "file": "a",
                "bytes": 3,
                "sha256": "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed",
            },
            {
                "file": "b/c",
                "bytes": 3,
                "sha256": "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3",
            },
        ],
    }


def test_files_that_the_manifest_lists_itself_are_not_listed_twice(tmp_path):
    class Sharded(Small):
        shards: tuple[FileEntry, ...]

        def listed(self):
            return self.shards

    def build(work):
        (work / "s").write_text("shard")
        (work / "t").write_text("table")
        return Sharded(shards=(entry_of(work, "s"),))

    done, _ = make(tmp_path, "tiny", Sharded, FINGERPRINT, build)
    for one in (done, read(done.path, Sharded)):
        assert [entry.file for entry in one.manifest.files] == ["t"]
        assert [entry.file for entry in one.listed()] == ["s", "t"]
        verify(one)


def test_files_that_tell_of_the_making_are_verified_and_no_part_of_the_digest(tmp_path):
    class Timed(RecordedManifest):
        KIND = "dataset"

    def build(seconds):
        def write(work):
            (work / "times").write_text(seconds)
            files = (entry_of(work, "times"),)
            return Timed(mlflow=RunRecord(experiment_id="1", run_id=seconds, seconds=float(seconds), files=files))

        return write

    made_in = [make(tmp_path / seconds, "tiny", Timed, FINGERPRINT, build(seconds))[0] for seconds in ("200", "3")]
    slow, quick = made_in
    assert slow.digest == quick.digest
    assert [entry.file for entry in slow.listed()] == ["times"]
    assert slow.manifest.files == ()
    verify(slow)
    (slow.path / "times").write_text("100")
    with pytest.raises(AoiError, match="times: its bytes are not those that were committed"):
        verify(slow)


def test_the_same_request_finds_it_without_building(tmp_path):
    build = builder(a="one")
    first, _ = made(tmp_path, build)
    again, cached = made(tmp_path, build)
    assert cached
    assert build.calls == 1
    assert (again.path, again.manifest, again.json) == (first.path, first.manifest, first.json)


def test_it_is_found_by_fingerprint_whatever_its_name(tmp_path):
    done, _ = made(tmp_path, name="one.name")
    again, cached = made(tmp_path, name="another")
    assert cached
    assert again.path == done.path
    assert find(tmp_path, Small, "f" * 16) is None


@pytest.mark.parametrize("damage", ["cut", "removed", "no manifest", "half a manifest"])
def test_one_that_is_not_whole_is_not_found_and_is_made_again(tmp_path, damage):
    done, _ = made(tmp_path)
    match damage:
        case "cut":
            (done.path / "a").write_text("on")
        case "removed":
            (done.path / "a").unlink()
        case "no manifest":
            (done.path / MANIFEST).unlink()
        case "half a manifest":
            (done.path / MANIFEST).write_text('{"kind": "data')
    assert find(tmp_path, Small, FINGERPRINT) is None
    again, cached = made(tmp_path)
    assert not cached
    verify(read(again.path, Small))
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [again.path]  # the damaged one is gone


def test_a_copy_that_someone_keeps_beside_it_is_left_alone(tmp_path):
    done, _ = made(tmp_path)
    kept = tmp_path / f"{done.path.name}.bak"
    kept.mkdir()
    (kept / "mine").write_text("keep")
    made(tmp_path, builder(a="other"), force=True)
    assert find(tmp_path, Small, FINGERPRINT)
    assert (kept / "mine").read_text() == "keep"


# --- A build that ends early --------------------------------------------------------------------------------


def test_a_build_that_refuses_leaves_nothing_behind_and_touches_nothing_else(tmp_path):
    made(tmp_path)
    before = names(tmp_path)

    def build(work):
        (work / "half").write_text("x")
        (work / ".note").write_text("x")
        raise refuse("a", "it is bad", "Mend it")

    with pytest.raises(AoiError, match="it is bad"):
        make(tmp_path, "other", Small, "f" * 16, build)
    with pytest.raises(AoiError, match="it is bad"):
        made(tmp_path, build, force=True)
    assert names(tmp_path) == before


@pytest.mark.parametrize(
    "end",
    [
        RuntimeError("out of memory"),
        KeyboardInterrupt(),
        refuse("a", "the disk is full", "Make room", exit_code=MISSED),
    ],
    ids=["error", "Ctrl-C", "what may pass"],
)
def test_a_build_that_breaks_off_commits_nothing_and_the_next_goes_on_from_its_notes(tmp_path, end):
    def breaks(work):
        (work / "a").write_text("one")
        (work / ".note").write_text("a is done")
        raise end

    def goes_on(work):
        assert (work / ".note").read_text() == "a is done"
        assert (work / "a").read_text() == "one"
        (work / "b").write_text("two")
        return Small()

    with pytest.raises(type(end)):
        made(tmp_path, breaks)
    assert find(tmp_path, Small, FINGERPRINT) is None
    assert not list(tmp_path.glob("[!.]*"))
    done, cached = made(tmp_path, goes_on)
    assert not cached
    assert names(tmp_path) == [done.path.name, *(f"{done.path.name}/{name}" for name in ("a", "b", MANIFEST))]


def test_notes_are_no_part_of_the_artefact_even_if_they_are_folders(tmp_path):
    def build(work):
        (work / "a").write_text("one")
        (work / ".note").write_text("x")
        (work / ".notes").mkdir()
        (work / ".notes" / "n").write_text("x")
        return Small()

    done, _ = made(tmp_path, build)
    assert sorted(os.listdir(done.path)) == ["a", MANIFEST]


def test_a_killed_process_holds_no_lock_and_leaves_no_artefact(tmp_path):
    code = (
        "import os, pathlib, sys; from tfrecords.artifacts.make import make\n"
        "from tfrecords.artifacts.manifest import Manifest\n"
        "class Small(Manifest): KIND = 'dataset'\n"
        "def build(work):\n"
        "    (work / 'a').write_text('one'); os.kill(os.getpid(), 9)\n"
        f"make(pathlib.Path(sys.argv[1]), 'tiny', Small, '{FINGERPRINT}', build)"
    )
    root = Path(artifact.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root).returncode == -9
    assert find(tmp_path, Small, FINGERPRINT) is None
    done, cached = made(tmp_path)
    assert not cached
    assert names(tmp_path)[0] == done.path.name  # the lock and the work folder went too


# --- Force --------------------------------------------------------------------------------------------------


def test_force_builds_again_and_keeps_the_folder_when_the_result_is_equal(tmp_path):
    build = builder(a="one")
    first, _ = made(tmp_path, build)
    stamp = first.path.stat().st_ino
    again, cached = made(tmp_path, build, force=True)
    assert not cached
    assert build.calls == 2
    assert (again.path, again.path.stat().st_ino) == (first.path, stamp)
    assert os.listdir(tmp_path) == [first.path.name]


def test_force_with_another_result_makes_a_new_generation_and_the_old_one_goes(tmp_path):
    paths = [made(tmp_path, builder(a=text), force=True)[0].path for text in ("one", "two", "three")]
    assert [path.name.partition(FINGERPRINT)[2] for path in paths] == ["", ".2", ".3"]
    assert os.listdir(tmp_path) == [paths[-1].name]
    found = find(tmp_path, Small, FINGERPRINT)
    assert found.path == paths[-1]
    assert (found.path / "a").read_text() == "three"


def test_force_replaces_one_whose_bytes_have_rotted_without_changing_in_number(tmp_path):
    done, _ = made(tmp_path)
    (done.path / "a").write_text("onX")
    again, _ = made(tmp_path, force=True)
    verify(again)
    verify(find(tmp_path, Small, FINGERPRINT))


def test_the_newest_of_several_generations_is_found(tmp_path):
    for suffix in ("", ".2", ".10", ".9"):  # as after a process that died between its rename and the clearing up
        done, _ = make(tmp_path / "aside", "tiny", Small, FINGERPRINT, builder(a=f"generation {suffix}"))
        os.rename(done.path, tmp_path / f"tiny-{FINGERPRINT}{suffix}")
    assert find(tmp_path, Small, FINGERPRINT).path.suffix == ".10"


# --- Read and verify ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "seen"),
    [
        (lambda path: path.write_text("longer"), "6 instead of 3 bytes"),
        (lambda path: path.write_text(""), "0 instead of 3 bytes"),
        (lambda path: path.unlink(), "missing instead of 3 bytes"),
    ],
    ids=["longer", "empty", "missing"],
)
def test_a_file_of_another_size_is_named_on_reading(tmp_path, damage, seen):
    done, _ = made(tmp_path)
    damage(done.path / "b" / "c")
    with pytest.raises(AoiError) as refused:
        read(done.path, Small)
    (problem,) = refused.value.problems
    assert problem.file == str(done.path / "b" / "c")
    assert problem.seen == seen
    assert "--force" in problem.remedy


@pytest.mark.parametrize("name", ["a", "b/c"])
def test_a_changed_byte_is_named_on_verifying(tmp_path, name):
    done, _ = made(tmp_path)
    path = done.path / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(AoiError) as refused:
        verify(read(done.path, Small))
    assert [problem.file for problem in refused.value.problems] == [str(path)]


def test_every_damaged_file_is_told_at_once(tmp_path):
    done, _ = made(tmp_path, builder(a="one", b="two", c="three"))
    (done.path / "a").write_text("onX")
    (done.path / "c").write_text("threX")
    with pytest.raises(AoiError) as refused:
        verify(done)
    assert [Path(problem.file).name for problem in refused.value.problems] == ["a", "c"]


def test_a_file_that_went_after_opening_is_named_on_verifying(tmp_path):
    done, _ = made(tmp_path)
    (done.path / "a").unlink()
    with pytest.raises(AoiError) as refused:
        verify(done)
    assert [problem.file for problem in refused.value.problems] == [str(done.path / "a")]


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"kind": "model"}, "a model of schema version 1, not a dataset of version 1"),
        ({"schema_version": 2}, "a dataset of schema version 2, not a dataset of version 1"),
    ],
    ids=["kind", "schema"],
)
def test_another_kind_or_schema_version_is_refused_with_what_differs(tmp_path, change, seen):
    done, _ = made(tmp_path)
    (done.path / MANIFEST).write_text(json.dumps(done.json | change))
    with pytest.raises(AoiError, match=seen):
        read(done.path, Small)


@pytest.mark.parametrize("change", [{"about": "another"}, {"more": 1}, {CHECKSUM: "0" * 16}])
def test_a_manifest_that_was_edited_is_refused(tmp_path, change):
    done, _ = made(tmp_path)
    (done.path / MANIFEST).write_text(json.dumps(done.json | change))
    with pytest.raises(AoiError, match="changed after it was written"):
        read(done.path, Small)
    again, cached = made(tmp_path)
    assert not cached
    read(again.path, Small)


def test_what_json_changes_of_a_manifest_is_no_edit(tmp_path):
    class Paired(Small):
        pair: tuple[int, int]
        by_number: dict[int, int]
        blank: str | None = None

    paired = Paired(about="ü\u2028", pair=(1, 2), by_number={3: 4})
    done, _ = make(tmp_path, "tiny", Paired, FINGERPRINT, lambda work: paired)
    again = read(done.path, Paired)
    assert (again.manifest, again.json, again.digest) == (done.manifest, done.json, done.digest)
    assert again.json["by_number"] == {"3": 4}
    assert "blank" not in again.json


def test_entries_that_a_later_version_adds_are_kept_beside_those_that_are_known(tmp_path):
    class Later(Small):
        more: int

    done, _ = make(tmp_path, "tiny", Later, FINGERPRINT, lambda work: Later(more=1))
    older = read(done.path, Small)
    assert (older.manifest.about, older.json["more"], older.digest) == ("", 1, done.digest)


def test_a_manifest_that_lacks_what_this_version_needs_is_refused_with_what(tmp_path):
    class Later(Small):
        more: int

    done, _ = made(tmp_path)
    with pytest.raises(AoiError, match=r"another version wrote it \(more: Field required\).*--force"):
        read(done.path, Later)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "3", "null", '{"kind": "dataset"}', "\0"])
def test_a_manifest_that_is_none_is_refused(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(AoiError, match=r"not a manifest .*--force"):
        read(tmp_path, Small)


def test_a_folder_without_manifest_a_missing_folder_and_a_file_are_no_artefact(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "none", tmp_path / "file"):
        with pytest.raises(AoiError, match="no finished dataset"):
            read(path, Small)


def test_the_digest_is_of_the_content_and_not_of_where_it_is_recorded(tmp_path):
    one, _ = made(tmp_path / "here")
    two, _ = made(tmp_path / "there", name="other")
    other, _ = made(tmp_path / "else", builder(a="other"))
    assert one.digest == two.digest != other.digest
    assert replace(one, json={**one.json, RECORD: {"run_id": "1"}}).digest == one.digest


def test_the_hash_of_json_knows_no_order_of_keys_but_one_of_lists():
    assert hash_json({"a": 1, "b": [1, 2]}) == hash_json({"b": [1, 2], "a": 1})
    assert len({hash_json(value) for value in ([1, 2], [2, 1], ["1", 2], {"1": 2}, None, "ä", "a")}) == 7


# --- Several at a time --------------------------------------------------------------------------------------


def test_threads_that_want_the_same_artefact_build_it_once(tmp_path):
    start = threading.Barrier(8)
    calls = []

    def build(work):
        calls.append(1)
        (work / "a").write_text("one")
        return Small()

    def want(_):
        start.wait()
        return made(tmp_path, build)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(want, range(8)))
    assert len(calls) == 1
    assert sorted(cached for _, cached in results) == [False] + [True] * 7
    assert len({done.path for done, _ in results}) == 1
    assert os.listdir(tmp_path) == [results[0][0].path.name]


def test_processes_that_want_the_same_artefact_build_it_once(tmp_path):
    code = (
        "import pathlib, sys, time; from tfrecords.artifacts.make import make\n"
        "from tfrecords.artifacts.manifest import Manifest\n"
        "class Small(Manifest): KIND = 'dataset'\n"
        "def build(work):\n"
        "    time.sleep(0.3); (work / 'a').write_text('one'); return Small()\n"
        f"print(make(pathlib.Path(sys.argv[1]), 'tiny', Small, '{FINGERPRINT}', build)[1])"
    )
    root = Path(artifact.__file__).parents[2]
    command = [sys.executable, "-c", code, str(tmp_path)]
    started = [subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert sorted(process.communicate()[0].strip() for process in started) == ["False", "True", "True"]
    assert os.listdir(tmp_path) == [f"tiny-{FINGERPRINT}"]


# --- write_whole --------------------------------------------------------------------------------------------


def test_write_whole_makes_the_folder_and_writes_the_text_as_it_is(tmp_path):
    path = tmp_path / "new" / "file.csv"
    write_whole(path, "a\r\nb\nü\n")
    assert path.read_bytes() == "a\r\nb\nü\n".encode()
    assert os.listdir(path.parent) == ["file.csv"]


def test_write_whole_keeps_the_old_text_where_the_new_one_fails(tmp_path):
    path = tmp_path / "file"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "new \ud800")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_readers_see_an_old_or_a_new_text_while_several_write(tmp_path):
    path = tmp_path / "file"
    texts = [letter * 50_000 for letter in "abcd"]
    write_whole(path, texts[0])

    def write(text):
        for _ in range(15):
            write_whole(path, text)

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, text) for text in texts]
        while not all(writer.done() for writer in writers):
            assert path.read_text() in texts
        for writer in writers:
            writer.result()
    assert os.listdir(tmp_path) == ["file"]
