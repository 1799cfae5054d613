"""Finding and making artefacts: built aside, committed by one rename.

An artefact's folder name ends in the fingerprint of what made it, so the same request finds it again.
"""

import contextlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tfrecords.artifacts.artifact import Artifact, M, checksum, encoded, entry_of, read, verify
from tfrecords.artifacts.files import write_whole
from tfrecords.artifacts.manifest import CHECKSUM, LOCATION, MANIFEST, RECORD
from tfrecords.errors import REFUSED, AoiError
from tfrecords.system import locked, rename, sync

GENERATION = re.compile(r"\.\d+$")  # of a folder whose artefact was made again


def find(root: Path, kind: type[M], fingerprint: str) -> Artifact[M] | None:
    """The newest intact artefact under `root` with this fingerprint; None where there is none."""
    for _, path in reversed(_generations(root, fingerprint)):
        with contextlib.suppress(AoiError):
            return read(path, kind)
    return None


def newest(root: Path) -> list[Path]:
    """Folders of all finished artefacts under `root`, sorted: of several generations the last."""
    last: dict[str, tuple[int, Path]] = {}
    for path in root.glob("[!.]*"):
        if path.is_dir():
            name, _, generation = path.name.rpartition(".") if GENERATION.search(path.name) else (path.name, "", "1")
            last[name] = max((int(generation), path), last.get(name, (0, path)))
    return sorted(path for _, path in last.values())


def make(
    root: Path,
    name: str,
    kind: type[M],
    fingerprint: str,
    build: Callable[[Path], M],
    force: bool = False,
) -> tuple[Artifact[M], bool]:
    """The artefact with this fingerprint: found, or built aside and committed by one rename.

    A build that was killed goes on in the same work folder, so `build` must accept what an earlier try left
    there; one that was killed once its manifest stood is not called again. Two processes that want the same
    artefact take turns; the second finds it made.

    Args:
        root: folder of all artefacts of this kind; the result is root/NAME-FINGERPRINT.
        kind: the type of the manifest.
        build: fills the work folder and returns the manifest. The files are listed and hashed here, but for those
            that the manifest lists itself (see `Manifest.listed`); names that begin with a dot are its notes for a
            later try and go at the commit.
        force: build even if there is one. An equal result, recorded equally, keeps the one that was there, if
            it is intact.

    Returns:
        the artefact, and whether it was there before.

    Raises:
        AoiError: whatever `build` raises; where it refused its input, the work folder is gone then.
    """
    if not force and len(_generations(root, fingerprint)) == 1 and (found := find(root, kind, fingerprint)):
        return found, True
    new = [folder for folder in (root, root.parent) if not folder.exists()]
    root.mkdir(parents=True, exist_ok=True)
    try:
        with locked(root / f".lock-{fingerprint}"):
            return _make(root, name, kind, fingerprint, build, force)
    except AoiError:
        for folder in new:  # made for nothing, if nothing came into it meanwhile
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _make(
    root: Path, name: str, kind: type[M], fingerprint: str, build: Callable[[Path], M], force: bool
) -> tuple[Artifact[M], bool]:
    """`make` for the one process that has the lock."""
    shutil.rmtree(root / f".gone-{fingerprint}", ignore_errors=True)  # a try was killed while it removed it
    found = find(root, kind, fingerprint)
    if found and not force:
        _remove_others(root, fingerprint, found.path)
        return found, True
    work = root / f".work-{fingerprint}"
    work.mkdir(exist_ok=True)
    if not (made := _sealed(work, kind)):
        try:
            manifest = build(work)
        except AoiError as error:
            if error.exit_code == REFUSED:
                _remove(work, fingerprint)
            raise
        made = _seal(work, manifest, fingerprint)
    if found and _says_the_same(found, made) and _is_intact(found):
        _remove(work, fingerprint)
        return found, False
    return replace(made, path=_commit(root, name, fingerprint, work)), False


def _seal(work: Path, manifest: M, fingerprint: str) -> Artifact[M]:
    """Writes the manifest, when all that it lists is on the disk: from then on the work is whole."""
    own = {entry.file for entry in manifest.listed()}
    paths = {file.relative_to(work): file for file in sorted(work.rglob("*")) if file.is_file()}
    kept = {path.as_posix(): file for path, file in paths.items() if not path.parts[0].startswith(".")}
    kept.pop(MANIFEST, None)  # of a try whose files were changed since
    for file in kept.values():
        sync(file)
    files = tuple(entry_of(work, path) for path in kept if path not in own)
    whole = manifest.model_copy(update={"fingerprint": fingerprint, "files": files})
    # As a reader gets it: what JSON changes, such as tuples, must not change the checksum.
    entries = json.loads(json.dumps(whole.to_json()))
    entries[CHECKSUM] = checksum(entries)
    write_whole(work / MANIFEST, encoded(entries).decode())
    return Artifact(work, whole, entries)


def _sealed(work: Path, kind: type[M]) -> Artifact[M] | None:
    """The artefact that lies whole in a work folder, its commit cut short; None where it must still be built."""
    with contextlib.suppress(AoiError):
        made = read(work, kind)
        verify(made)
        return made
    return None


def _commit(root: Path, name: str, fingerprint: str, work: Path) -> Path:
    """Notes go, one rename to the next generation's name; then older generations go."""
    for note in work.glob(".*"):
        shutil.rmtree(note) if note.is_dir() else note.unlink(missing_ok=True)
    older = _generations(root, fingerprint)
    generation = older[-1][0] + 1 if older else 1
    final = root / (f"{name}-{fingerprint}" if generation == 1 else f"{name}-{fingerprint}.{generation}")
    rename(work, final)
    sync(root)
    _remove_others(root, fingerprint, final)
    return final


def _remove_others(root: Path, fingerprint: str, kept: Path) -> None:
    for _, path in _generations(root, fingerprint):
        if path != kept:
            _remove(path, fingerprint)


def _remove(folder: Path, fingerprint: str) -> None:
    """Takes a folder away whole, by one rename, before its files go one by one."""
    gone = folder.with_name(f".gone-{fingerprint}")
    rename(folder, gone)
    shutil.rmtree(gone)


def _generations(root: Path, fingerprint: str) -> list[tuple[int, Path]]:
    """Folders of this fingerprint, oldest first: NAME-FINGERPRINT, NAME-FINGERPRINT.2, ..."""
    name = re.compile(rf".+-{fingerprint}(?:\.(\d+))?")
    paths = root.glob(f"[!.]*-{fingerprint}*")
    return sorted((int(match[1] or 1), path) for path in paths if (match := name.fullmatch(path.name)))


def _says_the_same(found: Artifact, made: Artifact) -> bool:
    """Whether content, record and location are equal. An equal model that another MLflow run recorded takes the place
    of the first, whose run may be lost."""
    aside = (RECORD, LOCATION)
    return found.digest == made.digest and all(found.json.get(each) == made.json.get(each) for each in aside)


def _is_intact(artifact: Artifact) -> bool:
    try:
        verify(artifact)
    except AoiError:
        return False
    return True
