"""The trainings of one run on a work pool, shared with the other workers of the pool."""

from collections.abc import Generator, Mapping, Sequence
from time import sleep
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Cancelled, Cancelling

from flows.home import Home
from flows.stages.stage import Training, one_by_one
from flows.stages.train import find_model

FLOW = "aoi"  # name of the flow of every deployment
TAKEN_BACK = "no worker had begun it: the run that asked for it makes it"
LOOK_SECONDS = 5.0


def shared(home: Home, force: bool, trainings: Sequence[Training]) -> Generator[int]:
    """The order in which this run makes its trainings (see `flows.stages.stage.Job`).

    On a work pool whose queue lets other runs go at the same time, every training but the first is offered to the
    workers, as a run of aoi/train below this run. This run makes the first one, then takes back and makes one that no
    worker has begun, and so on; at the end it waits for those that other workers have begun. So it ends whether or not
    another worker comes. A training that fails elsewhere is made here. If this run ends early, its offers are
    cancelled.

    force: this run makes all of them, since it would make again what another worker made.
    """
    if force or not _others_may_run():
        yield from one_by_one(trainings)
        return
    missing = [at for at, (_, settings, data) in enumerate(trainings) if not find_model(home, settings.train, data)]
    runs: dict[int, UUID] = {}
    try:
        for place in missing[1:]:
            runs[place] = _start(home, trainings[place])
        yield from [place for place in range(len(trainings)) if place not in runs]
        while runs:
            place, how = _next(runs)
            del runs[place]
            get_run_logger().info("%s: %s", trainings[place].name, how)
            yield place
    finally:
        if runs:
            with get_client(sync_client=True) as client:
                for run in runs.values():
                    client.set_flow_run_state(run, Cancelling())


def _others_may_run() -> bool:
    """Whether this is a run on a work pool whose queue lets more than one run go at the same time."""
    if flow_run.id is None:
        return False
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(UUID(flow_run.id))
        if not run.work_pool_name or not run.work_queue_name:
            return False
        limit = client.read_work_queue_by_name(run.work_queue_name, run.work_pool_name).concurrency_limit
    return limit is None or limit > 1


def _start(home: Home, training: Training) -> UUID:
    """Offers a training to the workers, as a run below this one. Returns: the run's number."""
    given = {"home": str(home.root), "dataset": str(training.dataset.path)}
    # Of the dataset, which is there already, they say nothing.
    parameters = {**given, "settings": training.settings.model_dump(mode="json", exclude={"preprocess"})}
    run = run_deployment(f"{FLOW}/train", parameters=parameters, flow_run_name=training.name, timeout=0)
    assert isinstance(run, FlowRun)
    return run.id


def _next(runs: Mapping[int, UUID]) -> tuple[int, str]:
    """Waits for the next training that no worker has begun, or that one has ended. Returns: its place, and which."""
    with get_client(sync_client=True) as client:
        while True:
            states = {place: client.read_flow_run(run).state for place, run in runs.items()}
            for place, state in states.items():
                if state and state.is_final():
                    return place, f"{state.name} on another worker"
            for place, state in reversed(states.items()):  # workers begin with the first
                if state and state.is_scheduled():
                    client.set_flow_run_state(runs[place], Cancelled(message=TAKEN_BACK))
                    return place, "made here"
            sleep(LOOK_SECONDS)
