"""Deployments, registered for one of two that run them: the process that `aoi serve` starts, or a work pool's workers.

python -m flows.serving.runner HOME ... is that process.
"""

import argparse
import asyncio
import logging
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from httpx import HTTPError
from prefect.client.orchestration import PrefectClient, SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.runner import Runner
from prefect.settings import get_current_settings
from prefect.states import Crashed
from prefect.types.entrypoint import EntrypointType
from prefect.utilities.schema_tools import validate
from prefect.workers.process import ProcessWorker
from pydantic import ValidationError
from tzlocal import get_localzone_name

from flows.home import Home, data_name, open_home
from flows.serving.deployments import DEPLOYED, ON_SERVED_DATA
from flows.serving.inbox import SETTLE_SECONDS, Inbox, Lot, open_inbox
from flows.serving.servers import check_no_runner, only_runner, run_variables
from flows.serving.sharing import FLOW
from model.registry.store import hidden
from tfrecords.artifacts.files import hash_json
from tfrecords.errors import MISSED, AoiError, Problem, refuse

REGISTERED = "deployments"  # what HOME notes of the last registration, see `_as_ours`
ON_POOL = "pool-deployments"  # the same of `aoi deploy`
UNFINISHED = {"state": {"type": {"any_": [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]}}}
LEFT = "aoi serve ended while it ran; a retry goes on from what is finished"
LOST_SECONDS = 90  # three signs of life; told at most 5 s later
LOST = "no sign of life for 90 s: its worker ended, or its machine; a retry goes on from what is finished"
BY_CRON = "aoi serve --cron "  # how the names (slugs) of schedules begin that came from there
INBOX = "inbox"  # tag of the runs of an inbox's lots
LOOK_SECONDS = 1.0

log = logging.getLogger(__name__)


def main(home: str, data: str | None, crons: Sequence[str], inbox: str | None, settle: float) -> None:
    """Registers aoi/full, aoi/ingest, ... and runs them on request and on schedule, until SIGTERM.

    What people set on a deployment stays: schedules, parameters, description, tags, limits, whether it is paused.
    Runs that an earlier runner left unfinished become Crashed: nobody runs them any more.

    data: folder that they use where none is given; none: the one used last in HOME. crons: see `read_crons`. inbox:
    folder whose lots are predicted, where there is one; settle: seconds, see `Inbox`.

    Raises: AoiError where HOME has a runner already, or for what can't be done.
    """
    place = open_home(home)
    schedules = read_crons(crons)
    lots = open_inbox(place, inbox, settle) if inbox else None
    with only_runner(place):
        deployments = [_deployment(name, home, data) for name in DEPLOYED]
        before = place.recall(REGISTERED) or {}
        ours = _as_ours(deployments)
        with get_client(sync_client=True) as client:
            _end_what_was_left(client)
            for deployment in deployments:
                _keep_what_people_set(deployment, client, before.get(deployment.name, {}))
        # Prefect's `serve` would pause every deployment at the end, and run any number of them at once.
        runner = Runner(pause_on_shutdown=False)
        for deployment in deployments:
            runner.add_deployment(deployment)
        place.remember(REGISTERED, ours)
        with get_client(sync_client=True) as client:
            for name, wanted in schedules.items():
                schedule(client, name, wanted)
        # Prefect's own handler leaves at once: then nobody waits for the flow runs, which say that they were stopped.
        runner.handle_sigterm = lambda *_: signal.raise_signal(signal.SIGINT)  # type: ignore[method-assign]
        with suppress(KeyboardInterrupt):
            asyncio.run(_run(runner, lots))


async def _run(runner: Runner, lots: Inbox | None) -> None:
    async with asyncio.TaskGroup() as tasks:
        watch = tasks.create_task(_start_lots(lots)) if lots else None
        await runner.start()
        if watch:
            watch.cancel()


async def _start_lots(lots: Inbox) -> None:
    """Starts aoi/predict for each finished lot, for ever. What fails is tried again."""
    told = ""
    async with get_client() as client:
        while True:
            try:
                for lot in await asyncio.to_thread(lots.finished, time.monotonic()):
                    await start_lot(client, lots, lot)
                told = ""
            except (HTTPError, OSError) as error:  # the server or the mount is away
                if str(error) != told:
                    told = str(error)
                    log.warning("%s: no lot is started until this passes: %s", lots.folder, error)
            await asyncio.sleep(LOOK_SECONDS)


async def start_lot(client: PrefectClient, lots: Inbox, lot: Lot) -> None:
    """Asks for the prediction of a lot, which another asking for the same does not start again, and notes it."""
    deployment = await client.read_deployment_by_name(f"{FLOW}/predict")
    await client.create_flow_run_from_deployment(
        deployment.id,
        parameters={"data": str(lot.path), "out": str(lot.results)},
        tags=[INBOX, lot.name],
        idempotency_key=lot.key,
    )
    await asyncio.to_thread(lots.note, lot)
    log.info("%s: started", lot.path)


def read_crons(texts: Sequence[str]) -> dict[str, list[str]]:
    """Deployments, such as aoi/full, each with the crons that texts DEPLOYMENT=CRON name; "" as a cron adds none.

    Raises: AoiError for all texts at once that name no deployment or no cron.
    """
    known = [f"{FLOW}/{name}" for name in DEPLOYED]
    example = "Write it as --cron 'aoi/full=0 2 * * *': minute, hour, day of the month, month, day of the week"
    found: dict[str, list[str]] = {}
    problems = []
    for text in texts:
        name, equals, cron = (part.strip() for part in text.partition("="))
        if not equals:
            problems.append(Problem("--cron", f"{text!r} is no DEPLOYMENT=CRON", example))
        elif name not in known:
            problems.append(Problem("--cron", f"{name!r} is no deployment", f"Known: {', '.join(known)}"))
        elif cron and not _is_cron(cron):
            problems.append(Problem("--cron", f"{cron!r} is no cron of {name}", example))
        else:
            found.setdefault(name, []).extend([cron] if cron else [])
    if problems:
        raise AoiError(problems)
    return {name: list(dict.fromkeys(crons)) for name, crons in found.items()}


def _is_cron(text: str) -> bool:
    # With six fields it would tell seconds too, and a slip of the pen start a run each second.
    try:
        CronSchedule(cron=text)
    except ValidationError:
        return False
    return len(text.split()) == 5 or text.startswith("@")


def schedule(client: SyncPrefectClient, name: str, crons: Sequence[str]) -> None:
    """Gives a deployment these crons, at this machine's time, in place of those that `schedule` gave it before.

    One that it has already stays as people changed or paused it, and so does all that people made themselves.
    """
    deployment = client.read_deployment_by_name(name).id
    wanted = {f"{BY_CRON}{cron}": cron for cron in crons}
    for found in client.read_deployment_schedules(deployment):
        slug = found.slug or ""
        if slug.startswith(BY_CRON) and wanted.pop(slug, None) is None:
            client.delete_deployment_schedule(deployment, found.id)
    for slug, cron in wanted.items():
        when = CronSchedule(cron=cron, timezone=get_localzone_name())
        client.create_deployment_schedules(deployment, [DeploymentScheduleCreate(schedule=when, slug=slug)])


def deploy(home: Home, data: str | None, pool: str, at_once: int | None) -> str:
    """Registers aoi/full, aoi/ingest, ... on a work pool, made where it is not there. What people set stays.

    Workers import the flows from the installed package: nothing is stored or fetched. Runs of one HOME share a queue
    of the pool. Those that send no sign of life for LOST_SECONDS become Crashed.

    data: folder that they use where none is given; at_once: most runs of this HOME at the same time; none: as it is
    set already, else 1. Returns: name of the queue.

    Raises: AoiError where no server is named or answers, or `aoi serve` runs the deployments of HOME.
    """
    check_no_runner(home)
    before = home.recall(ON_POOL) or {}
    with _server() as client:
        template = ProcessWorker.get_default_base_job_template()
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=pool, type=ProcessWorker.type, base_job_template=template))
        queue = _queue(client, home, pool, at_once)
        deployments = [_deployment(name, str(home.root), data, pool, queue) for name in DEPLOYED]
        ours = _as_ours(deployments)
        for each in deployments:
            _keep_what_people_set(each, client, before.get(each.name, {}))
            each.apply()
        _end_what_is_lost(client, queue, [client.read_deployment_by_name(each.full_name).id for each in deployments])
    home.remember(ON_POOL, ours)
    return queue


@contextmanager
def _server() -> Iterator[SyncPrefectClient]:
    """A client of the server that the environment names. Raises: AoiError where there is none, or it fails."""
    address = get_current_settings().api.url
    if not address:
        remedy = "Name the server: export PREFECT_API_URL=http://HOST:4200/api"
        raise refuse("PREFECT_API_URL", "no Prefect server is named", remedy)
    with get_client(sync_client=True) as client:
        if error := client.api_healthcheck():
            remedy = "Start it, or name another one; PREFECT_API_AUTH_STRING tells who asks"
            raise refuse("PREFECT_API_URL", f"{hidden(address)} does not answer ({error})", remedy, exit_code=MISSED)
        yield client


def _queue(client: SyncPrefectClient, home: Home, pool: str, at_once: int | None) -> str:
    """Name of HOME's queue in a pool, which lets so many runs go at once."""
    name = f"{data_name(str(home.root))}-{hash_json(str(home.root))[:6]}"
    try:
        found = client.create_work_queue(name, concurrency_limit=at_once or 1, work_pool_name=pool)
    except ObjectAlreadyExists:
        found = client.read_work_queue_by_name(name, work_pool_name=pool)
        if at_once:
            client.update_work_queue(found.id, concurrency_limit=at_once)
    return name


def _end_what_is_lost(client: SyncPrefectClient, queue: str, deployments: Sequence[UUID]) -> None:
    """Has the server end runs of these deployments that have sent no sign of life for LOST_SECONDS."""
    signs = "prefect.flow-run."
    wanted = AutomationCore(
        name=f"aoi: lost runs of {queue}",
        trigger=EventTrigger(
            match={"prefect.resource.id": f"{signs}*"},
            match_related={
                "prefect.resource.role": "deployment",
                "prefect.resource.id": [f"prefect.deployment.{each}" for each in deployments],
            },
            after={f"{signs}{sign}" for sign in ("Pending", "Running", "Retrying", "heartbeat")},
            expect={f"{signs}*"},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=LOST_SECONDS),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=LOST)],
    )
    for found in client.read_automations_by_name(wanted.name):
        client.delete_automation(found.id)
    client.create_automation(wanted)


def _end_what_was_left(client: SyncPrefectClient) -> None:
    """Ends runs that an earlier runner left unfinished: nobody runs them any more."""
    ours = FlowFilter(name=FlowFilterName(any_=[FLOW, *(flow.name for flow in DEPLOYED.values())]))
    for run in client.read_flow_runs(flow_filter=ours, flow_run_filter=FlowRunFilter.model_validate(UNFINISHED)):
        client.set_flow_run_state(run.id, Crashed(message=LEFT), force=True)


def _deployment(
    name: str, home: str, data: str | None, pool: str | None = None, queue: str | None = None
) -> RunnerDeployment:
    flow = DEPLOYED[name]
    parameters = {"home": home}
    if data and name in ON_SERVED_DATA:
        parameters["data"] = data
    # One flow name over all, so that every stage is aoi/STAGE; by module, since files move with the package.
    named = flow.with_options(name=FLOW)
    by_module = EntrypointType.MODULE_PATH
    variables = {"env": run_variables(Home(Path(home)))} if pool else None
    return RunnerDeployment.from_flow(
        named,
        name,
        parameters=parameters,
        entrypoint_type=by_module,
        work_pool_name=pool,
        work_queue_name=queue,
        job_variables=variables,
    )


def _as_ours(deployments: Sequence[RunnerDeployment]) -> dict[str, Any]:
    """What HOME notes of deployments before people's changes are put into them, by name."""
    return {each.name: {"description": each.description, "parameters": each.parameters} for each in deployments}


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
    ours = {"parameters", "description", "entrypoint", "version"}
    if deployment.work_pool_name:
        env = {**found.job_variables.get("env", {}), **deployment.job_variables["env"]}
        deployment.job_variables = {**found.job_variables, "env": env}
        ours |= {"work_pool_name", "work_queue_name", "job_variables"}
    deployment.model_fields_set.intersection_update(ours)


def merged(ours: dict[str, Any], before: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Parameters to register: those that people changed or removed since `before` as found, all others as ours."""
    changed = {name for name in before.keys() | found.keys() if before.get(name) != found.get(name)}
    kept = {name: value for name, value in found.items() if name in changed}
    return {name: value for name, value in ours.items() if name not in changed} | kept


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home")
    parser.add_argument("--data")
    parser.add_argument("--cron", dest="crons", action="append", default=[])
    parser.add_argument("--inbox")
    parser.add_argument("--settle", type=float, default=SETTLE_SECONDS)
    try:
        main(**vars(parser.parse_args()))
    except AoiError as error:
        print(f"aoi: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
