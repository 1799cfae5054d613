"""The stages as Prefect flows, and the flow `aoi` that chains them. Deployments load their flows from here."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Completed, State

from flows import stages
from flows.home import Home, Ref
from flows.progress import LOG_SECONDS, Meter
from flows.settings import GridPoint, Settings, parse_grid
from flows.summary import audit_rows, confusion_rows, report

FLOW = "aoi"
HOME = os.environ.get("AOI_HOME", "aoi-home")
DEFAULTS = Settings()


@flow(name=f"{FLOW}-ingest", flow_run_name="ingest", persist_result=True)
def ingest(
    data: str | None = None,
    settings: Settings = DEFAULTS,
    beam: str = "",
    force: bool = False,
    home: str = HOME,
) -> Any:
    """Pictures to a dataset. data: a folder in AIdea's layout; none: the one used last."""
    return _run("ingest", home, settings, data=data, beam=beam, force=force)


@flow(name=f"{FLOW}-train", flow_run_name="train", persist_result=True)
def train(dataset: str | None = None, settings: Settings = DEFAULTS, force: bool = False, home: str = HOME) -> Any:
    """A dataset to a model. dataset: its folder or part of its name; none: the latest."""
    return _run("train", home, settings, dataset=dataset, force=force)


@flow(name=f"{FLOW}-evaluate", flow_run_name="evaluate", persist_result=True)
def evaluate(
    model: str | None = None,
    dataset: str | None = None,
    settings: Settings = DEFAULTS,
    force: bool = False,
    home: str = HOME,
) -> Any:
    """A model to its figures. model: none: the latest; dataset: none: the one it was trained on."""
    return _run("evaluate", home, settings, model_name=model, dataset=dataset, force=force)


@flow(name=f"{FLOW}-predict", flow_run_name="predict", persist_result=True)
def predict(
    model: str | None = None,
    data: str | None = None,
    settings: Settings = DEFAULTS,
    beam: str = "",
    force: bool = False,
    home: str = HOME,
) -> Any:
    """Test pictures to HOME/submission.csv. model: none: the latest that passed evaluation."""
    return _run("predict", home, settings, model_name=model, data=data, beam=beam, force=force)


@flow(name=f"{FLOW}-crossval", flow_run_name="crossval", persist_result=True)
def crossval(dataset: str | None = None, settings: Settings = DEFAULTS, force: bool = False, home: str = HOME) -> Any:
    """A model for every fold of a dataset, and all of them as one. dataset: none: the latest."""
    return _run("crossval", home, settings, dataset=dataset, force=force)


@flow(name=f"{FLOW}-sweep", flow_run_name="sweep", persist_result=True)
def sweep(
    grid: dict[str, dict[str, Any]],
    data: str | None = None,
    settings: Settings = DEFAULTS,
    force: bool = False,
    home: str = HOME,
) -> Any:
    """A model for every combination of settings, and a table of them. Changes no champion.

    grid: sections as in settings, over them, in which a list stands for several values, such as
    {"train": {"alpha": [0.25, 0.5], "epochs": 12}}; data: none: the one used last.
    """
    return _run("sweep", home, parse_grid(grid, settings, "grid"), data=data, force=force)


@flow(name=FLOW, flow_run_name="full", persist_result=True)
def full(
    data: str | None = None,
    settings: Settings = DEFAULTS,
    beam: str = "",
    force: bool = False,
    home: str = HOME,
) -> dict[str, Any]:
    """The whole chain: ingest, train, evaluate, predict. A stage that is done already is taken from HOME."""
    subflows = {"ingest": ingest, "train": train, "evaluate": evaluate, "predict": predict}

    def run(stage: str, model_name: str | None = None, **given: Any) -> Ref:
        if model_name:
            given["model"] = model_name
        return subflows[stage](settings=settings, force=force, home=home, **given)

    place = Home(Path(home))
    # The chain's own heartbeat tells of its stages too, and each of theirs would hold it up by a second at its end.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        refs = stages.chain(run, place, settings, data, beam)
    _publish(place, refs)
    return {name: vars(ref) for name, ref in refs.items()}


DEPLOYED = {
    "full": full,
    "ingest": ingest,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "crossval": crossval,
    "sweep": sweep,
}


def _run(stage: str, home: str, settings: Settings | Sequence[GridPoint], **given: Any) -> Ref | State:
    """One stage with its progress in the run's log. A stage found done ends as Cached, which is Completed."""
    logger = get_run_logger()
    place = Home(Path(home))
    ref = stages.STAGES[stage](place, settings, progress=Meter(stage, logger.info, LOG_SECONDS), **given)
    logger.info("%s %s: %s", stage, "was there" if ref.cached else "done", place.root / ref.folder)
    if ref.note:
        logger.warning(ref.note)
    if not flow_run.parent_flow_run_id:
        _publish(place, {stage: ref})
    if ref.cached:
        return Completed(name="Cached", message=f"{ref.folder} was there", data=ref)
    return ref


def _publish(home: Home, refs: dict[str, Ref]) -> None:
    """One report a run, and the confusion matrix as a table that the UI can sort."""
    create_markdown_artifact(report(home, refs), key="aoi-run", description="What the run made, and where")
    if "ingest" in refs:
        create_table_artifact(audit_rows(home), key="aoi-audit", description="What the audit found (first 100)")
    if evaluation := refs.get("evaluate"):
        rows = confusion_rows(home, evaluation)
        create_table_artifact(rows, key="aoi-confusion", description="Rows true, columns predicted")
