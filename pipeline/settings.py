"""What can be set about ingest."""

from pydantic import Field

from tfrecords.settings import StageSettings


class IngestSettings(StageSettings):
    """How pictures become a dataset."""

    folds: int = Field(5, ge=2, le=100, description="stratified folds; one of them validates")
    shards: int = Field(0, ge=0, le=99999, description="number of shard files; 0: from shard_size_mb")
    shard_size_mb: int = Field(8, ge=1, le=1024, description="size of a shard to aim at, in MiB")
    max_rejects: int = Field(0, ge=0, description="unusable training pictures that are tolerated")
