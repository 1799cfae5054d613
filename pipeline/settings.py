"""What can be set about ingest."""

from pydantic import Field

from tfrecords.settings import LayoutSettings


class IngestSettings(LayoutSettings):
    """How pictures become a dataset."""

    max_rejects: int = Field(0, ge=0, description="unusable training pictures that are tolerated")

    @property
    def layout(self) -> LayoutSettings:
        """What of it decides the dataset."""
        return LayoutSettings(**self.model_dump(exclude={"max_rejects"}))
