"""What can be set about ingest."""

from pydantic import Field

from tfrecords.settings import LayoutSettings


class IngestSettings(LayoutSettings):
    """How pictures become a dataset."""

    max_rejects: int = Field(0, ge=0, description="unusable training pictures that are tolerated")
    stall_seconds: int = Field(
        600, ge=10, description="seconds without a converted picture after which the Beam job is ended"
    )

    @property
    def layout(self) -> LayoutSettings:
        """What of it decides the dataset."""
        return LayoutSettings(**self.model_dump(exclude={"max_rejects", "stall_seconds"}))
