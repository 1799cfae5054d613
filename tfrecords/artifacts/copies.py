"""Copies of finished artefacts outside HOME, for people and programs that take them from there."""

import shutil
from pathlib import Path

from tfrecords.artifacts.artifact import Artifact
from tfrecords.artifacts.manifest import MANIFEST
from tfrecords.errors import refuse
from tfrecords.system import locked, rename, sync


def check_target(target: Path) -> None:
    """Raises: AoiError where a copy would take the place of something that is none."""
    if target.is_file() or (target.is_dir() and any(target.iterdir()) and not (target / MANIFEST).is_file()):
        raise refuse(target, "it holds something else", "Name a folder that is not there, or that an earlier copy made")


def put_copy(artifact: Artifact, target: Path) -> None:
    """A copy of an artefact as the folder `target`, which appears whole and takes the place of an earlier copy.

    Raises: AoiError, see `check_target`; OSError where nothing can be written there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside, gone = (target.with_name(f".{target.name}.{ending}") for ending in ("tmp", "gone"))
    with locked(target.with_name(f".{target.name}.lock")):
        check_target(target)
        for left in (aside, gone):  # by a copy that was killed
            shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(artifact.path, aside)
        for path in [*aside.rglob("*"), aside]:
            sync(path)
        if target.exists():
            rename(target, gone)
        rename(aside, target)
        shutil.rmtree(gone, ignore_errors=True)
