"""The stages as plain functions, one per file, and the list of them.

The command line, the Prefect flows and the process that runs deployments are made from this list: a new stage is a
file here, with a STAGE in it, and a line below.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flows.stages.stage import Stage  # pydantic, OpenCV and all; help and completion do without

SUMMARIES = {
    "ingest": "pictures to a dataset of TFRecords",
    "train": "a dataset to a model",
    "evaluate": "a model to its metrics",
    "predict": "test pictures to a submission",
    "crossval": "a model for every fold, and all of them as one",
    "export": "a model for machines without Keras, checked against it",
    "sweep": "a model for every combination of settings, and a table of them",
}


def load_stage(name: str) -> "Stage":
    """The stage with a name of SUMMARIES, from the file of that name."""
    stage: Stage = import_module(f"flows.stages.{name}").STAGE
    return stage


def load_stages() -> dict[str, "Stage"]:
    """All stages under their names."""
    return {name: load_stage(name) for name in SUMMARIES}
