"""HOME: the one folder that holds all that is made, and what was made last."""

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

from model.manifests import Evaluation, EvaluationManifest
from tfrecords.artifacts.artifact import Artifact, M, read
from tfrecords.artifacts.files import hash_json, write_whole
from tfrecords.artifacts.make import find, newest
from tfrecords.artifacts.manifest import MANIFEST, Manifest
from tfrecords.errors import refuse

NOTE_GONE = "Take this file away, and name what you want, or run the stage again"


@dataclass(frozen=True)
class Ref:
    """What a stage hands to the next: which artefact, and whether it was there before.

    folder: relative to HOME, so that HOME may move; note: what its reader should know.
    """

    kind: str
    folder: str
    fingerprint: str
    cached: bool
    note: str = ""


@dataclass(frozen=True)
class Home:
    """Places under HOME."""

    root: Path

    def folder(self, kind: type[Manifest]) -> Path:
        """Where artefacts of a kind lie."""
        return self.root / kind.FOLDER

    def ref(self, artifact: Artifact, cached: bool) -> Ref:
        """The reference of an artefact, wherever it lies."""
        path = artifact.path.resolve()
        root = self.root.resolve()
        folder = path.relative_to(root) if path.is_relative_to(root) else path
        return Ref(artifact.manifest.KIND, folder.as_posix(), artifact.fingerprint, cached)

    def open(self, ref: Ref, kind: type[M]) -> Artifact[M]:
        """The artefact of a reference, or what replaced it. Raises: AoiError where it is gone or damaged."""
        path = self.root / ref.folder
        if found := find(path.parent, kind, ref.fingerprint):
            return found
        if not (path / MANIFEST).exists():
            remedy = f"Put it back, make it again ({kind.MADE_BY}), or name another one"
            raise refuse(path, f"this {kind.KIND}, which HOME notes, is gone", remedy)
        return read(path, kind)

    def remember(self, what: str, value: dict[str, Any]) -> None:
        """Notes what was used last under a name, such as "model"; what is noted already is not written again."""
        if self.recall(what) != value:
            write_whole(self.root / "latest" / f"{what}.json", json.dumps(value, indent=1) + "\n")

    def recall(self, what: str) -> dict[str, Any] | None:
        """What `remember` noted; None where nothing was. Raises: AoiError for a note that another program changed."""
        path = self.root / "latest" / f"{what}.json"
        try:
            noted: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise refuse(path, f"no note of aoi's ({error})", NOTE_GONE)
        if not isinstance(noted, dict):
            raise refuse(path, "no note of aoi's", NOTE_GONE)
        return noted

    def noted(self, what: str) -> Ref | None:
        """The artefact that `finished` noted; None where none was. Raises: AoiError, see `recall`."""
        noted = self.recall(what)
        try:
            return Ref(**noted) if noted else None
        except TypeError:
            raise refuse(self.root / "latest" / f"{what}.json", "no note of aoi's", NOTE_GONE)

    def finished(self, artifact: Artifact, cached: bool, *names: str) -> Ref:
        """Notes an artefact as the latest of its kind (or under other names) and gives its reference."""
        ref = self.ref(artifact, cached)
        for name in names or (ref.kind,):
            self.remember(name, asdict(ref))
        return ref

    def latest(self, kind: type[M], remedy: str) -> Artifact[M]:
        """The artefact of a kind that was made or found last. Raises: AoiError where there is none."""
        noted = self.noted(kind.KIND)
        if noted is None:
            raise refuse(self.root, f"no finished {kind.KIND} yet", remedy)
        return self.open(noted, kind)

    def named(self, kind: type[M], name: str) -> Artifact[M]:
        """The artefact that is named: a folder, or a name or part of it in HOME.

        Raises: AoiError where there is none, more than one, or it is damaged.
        """
        for path in (self.root / name, Path(name)):
            if (path / MANIFEST).is_file():
                return read(path, kind)
        found = [path for path in self.committed(kind) if name in path.name]
        if len(found) != 1:
            names = ", ".join(path.name for path in found or self.committed(kind)) or "none"
            seen = f"{len(found)} of the {kind.KIND}s in {self.folder(kind)} have {name!r} in their name"
            raise refuse(f"--{kind.KIND}", seen, f"Name one of: {names}")
        return read(found[0], kind)

    def choose(self, kind: type[M], name: str | None, remedy: str) -> Artifact[M]:
        """The artefact that is named, else the latest one. Raises: AoiError, see `named` and `latest`."""
        return self.latest(kind, remedy) if name is None else self.named(kind, name)

    def find(self, kind: type[M], fingerprint: str) -> Artifact[M] | None:
        """The artefact with a fingerprint; None where it is gone or damaged."""
        return find(self.folder(kind), kind, fingerprint)

    def evaluation_of(self, fingerprint: str) -> Evaluation | None:
        """The latest evaluation of the model with a fingerprint; None where there is none any more.

        Raises: AoiError where it is damaged: without it, every part would be for review.
        """
        noted = self.noted(f"evaluation-{fingerprint}")
        if not noted or not ((self.root / noted.folder).exists() or self.find(EvaluationManifest, noted.fingerprint)):
            return None
        return self.open(noted, EvaluationManifest)

    def committed(self, kind: type[Manifest]) -> list[Path]:
        """Folders of finished artefacts of a kind, sorted."""
        return newest(self.folder(kind))


def open_home(place: str) -> Home:
    """HOME at a place that a person named. Raises: AoiError for a URL."""
    if os.path.exists(place) and not os.path.isdir(place):
        raise refuse("--home", f"{place} is a file, and HOME is a folder", "Name a folder, or a new name")
    if "://" in place:
        seen = "it is a URL, and HOME is a folder of this machine or a shared mount: locks and MLflow's store need one"
        remedy = "Name a folder with --home; at a URL may lie the pictures (--data) and the shards (ingest.location)"
        raise refuse(place, seen, remedy)
    return Home(Path(place))


def data_name(data: str) -> str:
    """Name of a set of data, from its folder: letters, digits, '-' and '_' alone.

    Where letters or digits are lost, as of Chinese names, a short hash of the whole name keeps two sets apart.
    """
    last = Path(data).resolve().name if "://" not in data else data.rstrip("/").rpartition("/")[2]
    last = normalize("NFC", last)
    name = re.sub(r"[^A-Za-z0-9_]+", "-", last).strip("-") or "data"
    lost = any(c.isalnum() and not c.isascii() for c in last)
    return f"{name}-{hash_json(last)[:6]}" if lost else name


def name_of(artifact: Artifact) -> str:
    """Name of the data behind an artefact, from its folder's name (NAME-FINGERPRINT, NAME-SPLIT-FINGERPRINT)."""
    name = artifact.path.name.rpartition("-")[0]
    split = getattr(artifact.manifest, "split", None)
    return name.removesuffix(f"-{split}") if split else name
