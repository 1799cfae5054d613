"""The process that `aoi serve` starts to run what is asked of the deployments: python -m flows.runner HOME [DATA]."""

import asyncio
import logging
import signal
import sys
from contextlib import suppress
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter
from prefect.client.schemas.objects import StateType
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.runner import Runner
from prefect.states import Crashed
from prefect.types.entrypoint import EntrypointType
from prefect.utilities.schema_tools import validate

from flows.deployments import DEPLOYED, FLOW
from flows.home import open_home
from flows.servers import only_runner
from tfrecords.errors import AoiError

REGISTERED = "deployments"  # what HOME notes: description and parameters as they were registered last
UNFINISHED = {"state": {"type": {"any_": [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]}}}
LEFT = "aoi serve ended while it ran; a retry goes on from what is finished"

log = logging.getLogger(__name__)


def main(home: str, data: str | None = None) -> None:
    """Registers aoi/full, aoi/ingest, ... and runs them on request and on schedule, until SIGTERM.

    What people set on a deployment stays: schedules, parameters, description, tags, limits, whether it is paused.
    Runs that an earlier runner left unfinished become Crashed: nobody runs them any more.

    data: folder that they use where none is given; none: the one used last in HOME.

    Raises: AoiError where HOME has a runner already.
    """
    place = open_home(home)
    with only_runner(place):
        deployments = [_deployment(name, home, data) for name in DEPLOYED]
        before = place.recall(REGISTERED) or {}
        ours = {each.name: {"description": each.description, "parameters": each.parameters} for each in deployments}
        with get_client(sync_client=True) as client:
            _end_what_was_left(client)
            for deployment in deployments:
                _keep_what_people_set(deployment, client, before.get(deployment.name, {}))
        # Prefect's `serve` would pause every deployment at the end, and run any number of them at once.
        runner = Runner(pause_on_shutdown=False)
        for deployment in deployments:
            runner.add_deployment(deployment)
        place.remember(REGISTERED, ours)
        # Prefect's own handler leaves at once: then nobody waits for the flow runs, which say that they were stopped.
        runner.handle_sigterm = lambda *_: signal.raise_signal(signal.SIGINT)  # type: ignore[method-assign]
        with suppress(KeyboardInterrupt):
            asyncio.run(runner.start())


def _end_what_was_left(client: SyncPrefectClient) -> None:
    ours = FlowFilter(name=FlowFilterName(any_=[FLOW, *(flow.name for flow in DEPLOYED.values())]))
    for run in client.read_flow_runs(flow_filter=ours, flow_run_filter=FlowRunFilter.model_validate(UNFINISHED)):
        client.set_flow_run_state(run.id, Crashed(message=LEFT), force=True)


def _deployment(name: str, home: str, data: str | None) -> RunnerDeployment:
    flow = DEPLOYED[name]
    parameters = {"home": home}
    if data and "data" in flow.parameters.properties:
        parameters["data"] = data
    # One flow name over all, so that every stage is aoi/STAGE; by module, since files move with the package.
    named = flow.with_options(name=FLOW)
    by_module = EntrypointType.MODULE_PATH
    return RunnerDeployment.from_flow(named, name, parameters=parameters, entrypoint_type=by_module)


def _keep_what_people_set(deployment: RunnerDeployment, client: SyncPrefectClient, before: dict[str, Any]) -> None:
    """Prepares a deployment to be registered over the one that the server has, if it has it."""
    try:
        found = client.read_deployment_by_name(deployment.full_name)
    except ObjectNotFound:
        return
    # Without a note, as in HOMEs of earlier versions, home and data are taken for those of the last start.
    started_with = {name: value for name, value in found.parameters.items() if name in ("home", "data")}
    parameters = merged(deployment.parameters, before.get("parameters", started_with), found.parameters)
    schema = deployment._parameter_openapi_schema.model_dump(exclude_unset=True)
    unfit = [name for name, value in parameters.items() if validate({name: value}, schema, ignore_required=True)]
    if unfit:  # the server would refuse the whole deployment
        log.warning("%s: parameters that this version does not know are dropped: %s", deployment.full_name, unfit)
    fit = {name: value for name, value in parameters.items() if name not in unfit}
    deployment.parameters = {**fit, "home": deployment.parameters["home"]}
    if found.description != before.get("description", found.description):
        deployment.description = found.description
    # Of an existing deployment Prefect replaces what counts as set here, schedules and tags with empty lists too.
    deployment.model_fields_set.intersection_update({"parameters", "description", "entrypoint", "version"})


def merged(ours: dict[str, Any], before: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Parameters to register: those that people changed or removed since `before` as found, all others as ours."""
    changed = {name for name in before.keys() | found.keys() if before.get(name) != found.get(name)}
    kept = {name: value for name, value in found.items() if name in changed}
    return {name: value for name, value in ours.items() if name not in changed} | kept


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except AoiError as error:
        print(f"aoi: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
