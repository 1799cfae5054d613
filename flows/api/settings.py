"""What can be set about the API."""

from pydantic import Field

from tfrecords.settings import StageSettings


class ApiSettings(StageSettings):
    """What the API takes and keeps."""

    log_decisions: bool = Field(True, description="keep every answer in HOME/api/decisions-*.jsonl")
    log_mb: int = Field(64, ge=1, le=65536, description="size at which the next file of decisions begins, in MiB")
    max_body_mb: int = Field(
        64,
        ge=1,
        le=65536,
        description="largest request, in MiB; all that are read or wait: four times it",
    )
    max_pictures: int = Field(32, ge=1, le=10000, description="pictures per request")
    max_queue: int = Field(64, ge=1, le=100000, description="pictures that wait or are worked on, of all requests")
