"""What every artefact's manifest.json says; each kind of artefact adds its own facts."""

from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
CHECKSUM = "checksum"  # manifest entry: hash of all the others
RECORD = "mlflow"  # manifest entry on how and where it was made, clock and files with a clock; no part of its content
LENIENCES = "leniences"  # manifest entry on how the input was written, which the content does not depend on
LOCATION = "location"  # manifest entry: where files lie that are not in the artefact's folder
ASIDE = (RECORD, CHECKSUM, LENIENCES, LOCATION)  # entries that are no part of the content


class Facts(BaseModel):
    """Base of everything in a manifest: frozen; entries that a later version adds are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)  # most stand within others alone


class FileEntry(Facts):
    """A file in the artefact's folder. file: its name there; bytes: its size; sha256: of its content, in hex."""

    file: str
    bytes: int
    sha256: str


class MadeFrom(Facts):
    """Another artefact that this one was made from: what named it, and the hash of its content."""

    fingerprint: str
    digest: str


class RunRecord(Facts):
    """The MLflow run that recorded the making.

    version: that the registered model got, "" where none is known; seconds: that it took; files: those of the artefact
    that show seconds, so that its content does not depend on them.
    """

    experiment_id: str
    run_id: str
    version: str = ""
    seconds: float = 0.0
    files: tuple[FileEntry, ...] = ()


class Manifest(Facts):
    """Base of the manifests. KIND: of the artefact; FOLDER: of HOME, where artefacts of this kind lie; MADE_BY: the
    command that makes them, for remedies.

    fingerprint: hash of what decides the artefact; files: all but those that a kind lists itself (see `listed`);
    checksum: of all other entries. These are set when the artefact is committed.
    """

    KIND: ClassVar[str]
    FOLDER: ClassVar[str]
    MADE_BY: ClassVar[str] = ""

    fingerprint: str = ""
    files: tuple[FileEntry, ...] = ()

    def listed(self) -> tuple[FileEntry, ...]:
        """Files that the artefact consists of and `files` does not name."""
        return ()

    def place(self, folder: Path, entry: FileEntry) -> Path:
        """Where a file of the artefact in `folder` lies on this machine."""
        return folder / entry.file

    def is_copy(self, entry: FileEntry) -> bool:
        """Whether what lies at its place is a copy of a file in an object store. A copy may be missing."""
        return False

    def to_json(self) -> dict[str, Any]:
        """The manifest as JSON has it, without its checksum. Facts that are None are left out."""
        facts = self.model_dump(mode="json", exclude_none=True)
        files, fingerprint = facts.pop("files"), facts.pop("fingerprint")
        head = {"schema_version": SCHEMA_VERSION, "kind": self.KIND, "fingerprint": fingerprint}
        return head | facts | {"files": files}


class RecordedManifest(Manifest):
    """Of artefacts whose making an MLflow run recorded."""

    mlflow: RunRecord

    def listed(self) -> tuple[FileEntry, ...]:
        return self.mlflow.files
