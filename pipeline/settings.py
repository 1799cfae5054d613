"""What can be set about ingest."""

import re

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from pipeline.store import holds_secret
from tfrecords.errors import SECRET
from tfrecords.settings import LayoutSettings

PLACE = "Input should be a folder or a URL such as s3://bucket/folder"
IN_STORE = re.compile(r"(s3|gs)://[^/]+")


class IngestSettings(LayoutSettings):
    """How pictures become a dataset."""

    max_rejects: int = Field(0, ge=0, le=10**9, description="unusable training pictures that are tolerated")
    stall_seconds: int = Field(
        600, ge=10, le=10**9, description="seconds without a converted picture after which the Beam job is ended"
    )
    location: str | None = Field(
        None, description="folder or URL that shards are written to, in place of the dataset's folder in HOME"
    )

    @field_validator("location")
    @classmethod
    def _holds_no_secret(cls, location: str | None) -> str | None:
        if location and holds_secret(location):
            raise PydanticCustomError(SECRET, f"{PLACE} alone")
        if location and re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", location) and not IN_STORE.match(location):
            raise PydanticCustomError("location", PLACE)
        return location or None

    @property
    def layout(self) -> LayoutSettings:
        """What of it decides the dataset."""
        return LayoutSettings(**self.model_dump(include=set(LayoutSettings.model_fields)))
