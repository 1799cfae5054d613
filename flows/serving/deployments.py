"""The stages as Prefect flows, and the flow `aoi` that chains them. Deployments load their flows from here."""

import inspect
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from prefect import Flow, flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Completed

from flows.home import Home, Ref, open_home
from flows.progress import LOG_SECONDS, Meter
from flows.serving.sharing import FLOW, shared
from flows.settings import Settings
from flows.stages import load_stages
from flows.stages.chain import chain
from flows.stages.stage import Job, Options, Stage, options_of
from flows.summary import audit_rows, confusion_rows, report
from model.manifests import MeasurementManifest
from tfrecords.system import end_with_parent

FULL = "full"
HOME = os.environ.get("AOI_HOME", "aoi-home")
DEFAULTS = Settings()
RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"  # of a process that a runner or a worker started for a run
LEAVE_SECONDS = 15.0
MEASURED = MeasurementManifest.KIND  # what evaluate makes of a labelled lot


def _stage_flow(name: str, stage: Stage) -> Flow[..., Any]:
    """The flow of one stage; its parameters are the stage's options, settings, force and home."""

    def run(home: str, force: bool, settings: Settings = DEFAULTS, **given: Any) -> Ref | State[Ref]:
        """A stage with its progress in the run's log. One that is found done ends as Cached, which is Completed."""
        logger = get_run_logger()
        place = open_home(home)
        meter = Meter(name, logger.info, LOG_SECONDS)
        ref = stage.run(Job(place, settings, force, meter, partial(shared, place, force)), **given)
        logger.info("%s %s: %s", name, "was there" if ref.cached else "done", place.root / ref.folder)
        if ref.note:
            logger.warning(ref.note)
        if not flow_run.parent_flow_run_id:
            _publish(place, {MEASURED if ref.kind == MEASURED else name: ref})
        if ref.cached:
            return Completed(name="Cached", message=f"{ref.folder} was there", data=ref)
        return ref

    return _flow(name, run, stage.run, stage.options(), stage.has_settings)


def _full_flow(stage_flows: dict[str, Flow[..., Any]]) -> Flow[..., Any]:
    """The whole chain as a flow. A stage that is done already is taken from HOME."""

    def run(home: str, force: bool, settings: Settings, **given: Any) -> dict[str, Any]:
        place = open_home(home)

        def stage(name: str, **options: Any) -> Ref:
            ref: Ref = stage_flows[name](settings=settings, force=force, home=home, **options)
            return ref

        # The chain's own heartbeat tells of its stages too, and each of theirs would hold it up by a second at its end.
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            refs = chain(stage, Job(place, settings, force), **given)
        _publish(place, refs)
        return {name: vars(ref) for name, ref in refs.items()}

    options = dict(options_of(chain))
    parameter, option = options["data"]
    options["data"] = (parameter.replace(default=None, annotation=str | None), option)  # a form may leave it blank
    return _flow(FULL, run, chain, options)


def _flow(
    name: str, run: Callable[..., Any], described: Callable[..., Any], options: Options, has_settings: bool = True
) -> Flow[..., Any]:
    """`run` as a flow whose signature has the options by name, as Prefect's forms and commands read it."""

    def parameter(key: str, default: Any, kind: Any) -> inspect.Parameter:
        return inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)

    own = [parameter(key, given.default, given.annotation) for key, (given, _) in options.items()]
    if has_settings:
        own.append(parameter("settings", DEFAULTS, Settings))
    own += [parameter("force", False, bool), parameter("home", HOME, str)]

    def call(**given: Any) -> Any:
        if _has_own_process():
            # Nobody would stop this run, or tell that it is lost, once the worker that started it is gone.
            end_with_parent(LEAVE_SECONDS)
        return run(**given)

    def run_name() -> str:
        # One that another run offered to the workers of its pool keeps the name that it was given.
        return str(flow_run.name) if _has_own_process() and flow_run.parent_flow_run_id else name

    call.__name__ = call.__qualname__ = name
    call.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
    meanings = "\n".join(f"    {key}: {option.help}" for key, (_, option) in options.items())
    call.__doc__ = f"{inspect.getdoc(described)}\n\nArgs:\n{meanings}\n"
    flow_name = FLOW if name == FULL else f"{FLOW}-{name}"
    return flow(name=flow_name, flow_run_name=run_name, persist_result=True)(call)


def _has_own_process() -> bool:
    """Whether a runner or a worker started this process for this run, and not for one that this run is a part of."""
    return os.environ.get(RUN_VARIABLE) == flow_run.id


def _publish(home: Home, refs: dict[str, Ref]) -> None:
    """One report per run, and the findings of the audit and the confusion matrix as tables that the UI can sort."""
    create_markdown_artifact(report(home, refs), key="aoi-run", description="What the run made, and where")
    if dataset := refs.get("ingest"):
        rows = audit_rows(home, dataset)
        create_table_artifact(rows, key="aoi-audit", description="What the audit found (first 100)")
    if evaluation := refs.get("evaluate"):
        rows = confusion_rows(home, evaluation)
        create_table_artifact(rows, key="aoi-confusion", description="Rows true, columns predicted")


_STAGES = {name: _stage_flow(name, stage) for name, stage in load_stages().items()}
DEPLOYED: dict[str, Flow[..., Any]] = {FULL: _full_flow(_STAGES), **_STAGES}
# Flows that work on the data which `aoi serve` was started with, where a run names no other.
ON_SERVED_DATA = {FULL} | {
    name for name, stage in load_stages().items() if (data := stage.options().get("data")) and data[1].given
}


def __getattr__(name: str) -> Flow[..., Any]:
    """Each flow under its name, as the entry points of deployments name it: flows.serving.deployments.train."""
    try:
        return DEPLOYED[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
