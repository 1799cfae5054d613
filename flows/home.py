"""HOME: the one folder that holds all that is made, and what was made last."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tfrecords.artifacts.artifact import MANIFEST, Artifact, read
from tfrecords.artifacts.files import write_whole
from tfrecords.artifacts.make import find, newest
from tfrecords.errors import AoiError, refuse

FOLDERS = {
    "dataset": "datasets",
    "audit": "audits",
    "model": "models",
    "evaluation": "evaluations",
    "prediction": "predictions",
    "export": "exports",
    "sweep": "sweeps",
}


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

    def folder(self, kind: str) -> Path:
        """Where artefacts of a kind lie."""
        return self.root / FOLDERS[kind]

    def ref(self, artifact: Artifact, cached: bool) -> Ref:
        path = artifact.path.resolve()
        root = self.root.resolve()
        folder = path.relative_to(root) if path.is_relative_to(root) else path
        return Ref(artifact.manifest["kind"], folder.as_posix(), artifact.fingerprint, cached)

    def open(self, ref: Ref) -> Artifact:
        """The artefact of a reference, or what replaced it. Raises: AoiError where it is gone or damaged."""
        path = self.root / ref.folder
        return find(path.parent, ref.kind, ref.fingerprint) or read(path, ref.kind)

    def remember(self, what: str, value: dict[str, Any]) -> None:
        """Notes what was used last under a name, such as "model"."""
        write_whole(self.root / "latest" / f"{what}.json", json.dumps(value, indent=1) + "\n")

    def recall(self, what: str) -> dict[str, Any] | None:
        """What `remember` noted; None where nothing was."""
        try:
            return json.loads((self.root / "latest" / f"{what}.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    def finished(self, artifact: Artifact, cached: bool, *names: str) -> Ref:
        """Notes an artefact as the latest of its kind (or under other names) and gives its reference."""
        ref = self.ref(artifact, cached)
        for name in names or (ref.kind,):
            self.remember(name, asdict(ref))
        return ref

    def choose(self, kind: str, named: str | None, latest: str, remedy: str) -> Artifact:
        """The artefact that is named (a folder, or a name or part of it in HOME), else the latest one.

        Raises: AoiError where there is none, more than one, or it is damaged.
        """
        if named is None:
            noted = self.recall(latest)
            if noted is None:
                raise refuse(self.root, f"no finished {latest} yet", remedy)
            return self.open(Ref(**noted))
        for path in (self.root / named, Path(named)):
            if (path / MANIFEST).is_file():
                return read(path, kind)
        found = [path for path in self.committed(kind) if named in path.name]
        if len(found) != 1:
            names = ", ".join(path.name for path in found or self.committed(kind)) or "none"
            seen = f"{len(found)} of the {kind}s in {self.folder(kind)} have {named!r} in their name"
            raise refuse(f"--{kind}", seen, f"Name one of: {names}")
        return read(found[0], kind)

    def by_fingerprint(self, kind: str, fingerprint: str) -> Artifact:
        """The artefact with a fingerprint. Raises: AoiError where it is gone or damaged."""
        return self.choose(kind, fingerprint, kind, "")

    def evaluation_of(self, fingerprint: str) -> Artifact | None:
        """The latest evaluation of the model with a fingerprint; None where there is none any more."""
        noted = self.recall(f"evaluation-{fingerprint}")
        try:
            return self.open(Ref(**noted)) if noted else None
        except AoiError:
            return None

    def committed(self, kind: str) -> list[Path]:
        """Folders of finished artefacts of a kind, sorted."""
        return newest(self.folder(kind))


def data_name(data: str) -> str:
    """Name of a set of data, from its folder: letters, digits, '-' and '_' alone."""
    last = Path(data).resolve().name if "://" not in data else data.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9_]+", "-", last).strip("-") or "data"


def name_of(artifact: Artifact) -> str:
    """Name of the data behind an artefact, from its folder's name (NAME-FINGERPRINT, NAME-SPLIT-FINGERPRINT)."""
    name = artifact.path.name.rpartition("-")[0]
    split = artifact.manifest.get("split")
    return name.removesuffix(f"-{split}") if split else name
