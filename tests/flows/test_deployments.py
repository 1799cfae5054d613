"""The Prefect flows, on a server of the test's own: what runs, what is found, and what a run leaves to look at."""

import asyncio
import json
import shutil
from contextlib import closing
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterName,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterTags,
)
from prefect.client.schemas.schedules import CronSchedule
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ParameterTypeError, SignatureMismatchError
from prefect.logging import disable_run_logger
from prefect.states import Completed, Failed, Pending, Running
from prefect.testing.utilities import prefect_test_harness

from flows.home import Home, Ref
from flows.serving import deployments
from flows.serving.deployments import DEPLOYED
from flows.serving.inbox import open_inbox
from flows.serving.runner import _deployment, deploy, schedule, start_lot
from flows.serving.servers import only_runner
from flows.serving.sharing import shared
from flows.settings import Settings, load_settings
from flows.stages.crossval import _of_fold
from flows.stages.stage import Training
from model.manifests import EvaluationManifest, ExportManifest, PredictionManifest
from tfrecords.dataset import DatasetManifest
from tfrecords.errors import AoiError

STAGES = ["ingest", "train", "evaluate", "predict"]
SMALL = load_settings(overrides=["preprocess.image_size_px=32"])


@pytest.fixture(scope="session")
def server():
    """A Prefect server with an empty database."""
    with prefect_test_harness(server_startup_timeout=600):
        yield


def artifacts_of(state):
    """What a flow run left to look at, by key."""
    mine = state.state_details.flow_run_id
    with get_client(sync_client=True) as client:
        return {artifact.key: artifact for artifact in client.read_artifacts() if artifact.flow_run_id == mine}


def run(flow, **given):
    """(final state, {stage: state of its flow run, in the order that they began})."""
    state = flow(**given, return_state=True)
    mine = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        stages = sorted(client.read_flow_runs(flow_run_filter=mine), key=lambda stage: stage.start_time)
    return state, {stage.name: stage.state for stage in stages}


@pytest.fixture(scope="session")
def told(server, made, tmp_path_factory):
    """The full flow three times: with weights that are none, with the mistake mended, and again."""
    data, _, settings, _ = made
    root = tmp_path_factory.mktemp("deployments")
    # As many kernels as a MobileNet of alpha 0.25, with its first and last, so that only the training finds out.
    with h5py.File(root / "other.weights.h5", "w") as file:
        for place in range(27):
            file[f"kernel-{place}"] = np.zeros({0: (3, 3, 3, 8), 26: (1, 1, 256, 256)}.get(place, (1, 1, 8, 8)))
    wrong = settings.model_copy(
        update={"train": settings.train.model_copy(update={"weights": str(root / "other.weights.h5")})}
    )
    given = {"data": str(data), "home": str(root / "home")}
    runs = [run(deployments.full, **given, settings=chosen) for chosen in (wrong, settings, settings)]
    return SimpleNamespace(home=Home(root / "home"), failed=runs[0], mended=runs[1], again=runs[2])


# --- The full flow ------------------------------------------------------------------------------------------


def test_a_refusal_fails_the_stage_and_the_flow_with_what_to_do(told):
    state, stages = told.failed
    assert state.is_failed()
    assert {stage: stage_state.type.value for stage, stage_state in stages.items()} == {
        "ingest": "COMPLETED",
        "train": "FAILED",
    }
    with pytest.raises(AoiError, match=r"not the weights of mobilenet.*Give the file that belongs to train\.backbone"):
        state.result()


def test_after_the_mistake_is_mended_the_flow_goes_on_from_there_and_ingests_nothing_again(told):
    state, stages = told.mended
    assert state.is_completed()
    assert list(stages) == STAGES
    assert [stage.name for stage in stages.values()] == ["Cached", "Completed", "Completed", "Completed"]


def test_the_second_time_every_stage_is_found_and_counts_as_completed(told):
    state, stages = told.again
    assert state.is_completed()
    assert list(stages) == STAGES
    assert {(stage.name, stage.type.value) for stage in stages.values()} == {("Cached", "COMPLETED")}


def test_the_flow_gives_references_that_lead_to_what_it_made(told, made):
    result = told.again[0].result()
    assert list(result) == STAGES
    for stage, ref in result.items():
        assert (told.home.root / ref["folder"] / "manifest.json").is_file()
        assert ref["cached"] is True
        assert ref["fingerprint"] == made[3][stage].fingerprint  # the same as without Prefect
    assert (told.home.root / "submission.csv").is_file()


# --- One stage alone ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_alone_takes_what_was_used_last(stage, told, made):
    state = DEPLOYED[stage](home=str(told.home.root), settings=made[2], return_state=True)
    assert (state.name, state.type.value) == ("Cached", "COMPLETED")
    assert state.result().fingerprint == made[3][stage].fingerprint


def test_a_stage_can_be_forced_and_told_its_upstream(told, made):
    model = made[3]["train"].fingerprint
    state = deployments.predict(
        home=str(told.home.root), settings=made[2], model=model[:8], force=True, return_state=True
    )
    assert state.name == "Completed"
    assert state.result().cached is False


def test_a_stage_without_upstream_fails_with_what_to_run_first(server, tmp_path):
    state = deployments.train(home=str(tmp_path / "new"), return_state=True)
    assert state.is_failed()
    with pytest.raises(AoiError, match="no finished dataset yet"):
        state.result()


def test_a_sweep_takes_its_grid_as_nested_values_and_reports_a_table(told, made):
    given = {"home": str(told.home.root), "data": str(made[0]), "settings": made[2]}
    state = deployments.sweep(grid={"train": {"fold": [0]}}, **given, return_state=True)
    assert state.is_completed()
    model = made[3]["train"].fingerprint
    assert state.result().kind == "sweep"
    report = artifacts_of(state)["aoi-run"].data
    assert f"| * best | {model[:8]} |" in report  # the model of the full run, not another one
    assert "sweep/parallel.png" in report
    state = deployments.sweep(grid={"train": {"fold": [0, "x"]}}, **given, return_state=True)
    with pytest.raises(AoiError, match=r"grid: train\.fold is 'x'"):
        state.result()


def test_a_clean_set_after_a_dirty_one_shows_no_findings(server, data, tmp_path):
    clean = shutil.copytree(data, tmp_path / "clean")
    shutil.copy(data / "train_images" / "train_001.png", data / "train_images" / "train_004.png")
    shown = []
    for folder in (data, clean):
        given = {"data": str(folder), "home": str(tmp_path / "home"), "settings": SMALL}
        table = artifacts_of(deployments.ingest(**given, return_state=True))["aoi-audit"].data
        shown.append([row["finding"] for row in json.loads(table)])
    assert shown == [["identical"], ["none"]]


def test_predict_and_export_take_a_product(told, made, tmp_path):
    home, model = str(told.home.root), made[3]["train"].fingerprint
    given = {"home": home, "data": str(made[0]), "settings": made[2]}
    state = deployments.predict(**given, product="tiny", out=str(tmp_path / "lot-1"), return_state=True)
    assert state.is_completed()
    made_there, copied = told.home.root / state.result().folder, tmp_path / "lot-1"
    assert {each.name: each.read_bytes() for each in copied.iterdir()} == {
        each.name: each.read_bytes() for each in made_there.iterdir()
    }
    assert told.home.open(state.result(), PredictionManifest).manifest.model.fingerprint == model
    state = deployments.export(home=home, product="tiny", return_state=True)
    assert told.home.open(state.result(), ExportManifest).manifest.model.fingerprint == model
    for flow, more in ((deployments.predict, given), (deployments.export, {"home": home})):
        state = flow(**more, product="neu", return_state=True)
        with pytest.raises(AoiError, match=r"'neu' is no product in .* Name one of: tiny"):
            state.result()


# --- What `aoi serve` registers -----------------------------------------------------------------------------


def test_schedules_of_the_command_line_take_the_place_of_its_earlier_ones_and_no_others(server, tmp_path):
    _deployment("export", str(tmp_path), None).apply()

    def schedules():
        found = client.read_deployment_by_name("aoi/export").schedules
        return sorted((each.schedule.cron, each.active) for each in found)

    with get_client(sync_client=True) as client:
        made = client.read_deployment_by_name("aoi/export").id
        client.create_deployment_schedules(made, [(CronSchedule(cron="30 6 * * *", timezone="Asia/Taipei"), True)])
        own = ("30 6 * * *", True)
        for _ in range(2):
            schedule(client, "aoi/export", ["0 2 * * *", "0 14 * * *"])
            assert schedules() == [("0 14 * * *", True), ("0 2 * * *", True), own]
        (paused,) = (each.id for each in client.read_deployment_schedules(made) if each.schedule.cron == "0 2 * * *")
        client.update_deployment_schedule(made, paused, active=False)
        schedule(client, "aoi/export", ["0 2 * * *"])
        assert schedules() == [("0 2 * * *", False), own]
        schedule(client, "aoi/export", [])
        assert schedules() == [own]


def test_a_lot_is_asked_for_once_even_where_that_was_not_noted(server, tmp_path):
    _deployment("predict", str(tmp_path / "home"), None).apply()
    (tmp_path / "inbox" / "lot-1").mkdir(parents=True)
    (tmp_path / "inbox" / "lot-1" / ".done").touch()
    inbox = open_inbox(Home(tmp_path / "home"), str(tmp_path / "inbox"), 30)
    (lot,) = inbox.finished(0)

    async def start() -> None:
        async with get_client() as client:
            await start_lot(client, inbox, lot)

    for _ in range(2):
        asyncio.run(start())
    with get_client(sync_client=True) as client:
        tagged = FlowRunFilter(tags=FlowRunFilterTags(all_=["lot-1"]))
        (run,) = client.read_flow_runs(flow_run_filter=tagged)
    assert run.parameters == {
        "home": str(tmp_path / "home"),
        "data": str(lot.path),
        "out": str(tmp_path / "inbox" / "results" / "lot-1"),
    }
    assert set(run.tags) == {"inbox", "lot-1"}
    assert inbox.finished(0) == []


def test_deployments_on_a_pool_share_a_queue_and_what_people_set_stays(server, tmp_path):
    home, other = Home(tmp_path / "home"), Home(tmp_path / "other" / "home")
    queue = deploy(home, "/lot7", "line", None)
    with get_client(sync_client=True) as client:
        assert client.read_work_pool("line").type == "process"
        for name in DEPLOYED:
            made = client.read_deployment_by_name(f"aoi/{name}")
            assert (made.work_pool_name, made.work_queue_name, made.entrypoint) == (
                "line",
                queue,
                f"flows.serving.deployments.{name}",
            )
            assert not made.pull_steps
            assert made.parameters["home"] == str(home.root)
            assert made.job_variables["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
        assert client.read_work_queue_by_name(queue, "line").concurrency_limit == 1
        full = client.read_deployment_by_name("aoi/full")
        client.create_deployment_schedules(full.id, [(CronSchedule(cron="30 6 * * *"), True)])
        own = {"env": {"MLFLOW_TRACKING_URI": "https://mlflow.site"}, "stream_output": False}
        client.update_deployment(
            full.id, DeploymentUpdate(job_variables=own, parameters={**full.parameters, "force": True})
        )
        assert deploy(home, "/lot8", "line", 3) == deploy(home, "/lot8", "line", None) == queue
        assert client.read_work_queue_by_name(queue, "line").concurrency_limit == 3
        after = client.read_deployment_by_name("aoi/full")
        assert [each.schedule.cron for each in after.schedules if not each.slug] == ["30 6 * * *"]
        assert after.parameters == {"home": str(home.root), "data": "/lot8", "force": True}
        assert after.job_variables["stream_output"] is False
        assert {"MLFLOW_TRACKING_URI", "AOI_HOME"} <= set(after.job_variables["env"])
        (lost,) = client.read_automations_by_name(f"aoi: lost runs of {queue}")
        assert f"prefect.deployment.{full.id}" in lost.trigger.match_related["prefect.resource.id"]
    assert deploy(other, None, "line", None) != queue


def test_a_home_that_is_served_is_not_deployed_too(server, tmp_path):
    home = Home(tmp_path / "home")
    with only_runner(home), pytest.raises(AoiError, match="another aoi serve runs the deployments"):
        deploy(home, None, "line", None)


@pytest.fixture
def on_pool(server, made, copy_home, tmp_path, monkeypatch):
    """(HOME, trainings of its dataset, the first of them there) within a run on a pool that lets others go."""
    _, _, settings, refs = made
    home = copy_home(tmp_path / "home")
    dataset = home.open(refs["ingest"], DatasetManifest)
    trainings = [Training(f"fold {fold}", _of_fold(settings, fold), dataset) for fold in range(5)]
    deploy(home, None, "line", 2)
    with get_client(sync_client=True) as client:
        own = client.create_flow_run_from_deployment(client.read_deployment_by_name("aoi/crossval").id)
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(own.id))
    with disable_run_logger():
        yield home, trainings


def offered(home):
    """The latest run of each training, by the training's name."""
    with get_client(sync_client=True) as client:
        named = FlowRunFilter(name=FlowRunFilterName(like_="fold "))
        runs = client.read_flow_runs(flow_run_filter=named, sort=FlowRunSort.EXPECTED_START_TIME_ASC)
    return {run.name: run for run in runs if run.parameters["home"] == str(home.root)}


def bring(run, *states):
    with get_client(sync_client=True) as client:
        for state in states:
            client.set_flow_run_state(run.id, state)


def test_a_run_makes_the_trainings_that_no_other_worker_began_and_waits_for_those_that_one_did(on_pool):
    home, trainings = on_pool
    order = shared(home, False, trainings)
    assert next(order) == 0  # it is there
    assert next(order) == 1  # begun here at once
    runs = offered(home)
    assert sorted(runs) == ["fold 2", "fold 3", "fold 4"]
    assert runs["fold 3"].parameters["settings"]["train"]["fold"] == 3
    assert runs["fold 3"].parameters["dataset"] == str(trainings[3].dataset.path)
    told = deployments.train.validate_parameters(runs["fold 3"].parameters)["settings"]
    assert told.train == trainings[3].settings.train  # of the dataset, which is there, nothing
    bring(runs["fold 2"], Pending(), Running())
    bring(runs["fold 3"], Pending(), Running(), Completed())
    assert next(order) == 3
    assert next(order) == 4
    assert offered(home)["fold 4"].state.is_cancelled()
    bring(runs["fold 2"], Failed(message="its disk is full"))
    assert list(order) == [2]


def test_a_run_that_ends_early_ends_the_trainings_that_it_offered(on_pool):
    home, trainings = on_pool
    with closing(shared(home, False, trainings)) as order:
        assert [next(order), next(order)] == [0, 1]
        bring(offered(home)["fold 2"], Pending(), Running())
    states = {name: run.state.type.value for name, run in offered(home).items()}
    assert states == {"fold 2": "CANCELLING", "fold 3": "CANCELLED", "fold 4": "CANCELLED"}


def test_a_run_that_none_may_go_beside_or_that_makes_all_again_offers_nothing(on_pool):
    home, trainings = on_pool
    assert list(shared(home, True, trainings)) == [0, 1, 2, 3, 4]
    deploy(home, None, "line", 1)
    assert list(shared(home, False, trainings)) == [0, 1, 2, 3, 4]
    assert offered(home) == {}


# --- Parameters ---------------------------------------------------------------------------------------------


def test_there_is_a_flow_for_the_chain_and_one_for_each_stage():
    assert sorted(DEPLOYED) == sorted(["full", "crossval", "export", "sweep", *STAGES])


@pytest.mark.parametrize("name", DEPLOYED)
@pytest.mark.parametrize(
    "parameters",
    [
        {"settings": {"train": {"epochs": 0}}},
        {"settings": {"train": {"epochs": "many"}}},
        {"settings": {"train": {"epoch": 3}}},
        {"settings": {"training": {}}},
        {"settings": 3},
        {"force": "perhaps"},
        {"home": None},
        {"paint": "red"},
    ],
)
def test_nonsense_is_refused_before_the_run(name, parameters):
    flow = DEPLOYED[name]
    needed = {"grid": {"train": {"seed": [0, 1]}}} if name == "sweep" else {}
    unknown = set(parameters) - set(flow.parameters.properties)  # settings too, where they would change nothing
    with pytest.raises(SignatureMismatchError if unknown else ParameterTypeError):
        flow.validate_parameters(needed | parameters)


def test_settings_come_as_the_json_that_a_form_or_a_command_sends():
    given = deployments.full.validate_parameters({"settings": {"train": {"epochs": 2, "learning_rate": 1}}})
    assert given["settings"] == Settings.model_validate({"train": {"epochs": 2, "learning_rate": 1.0}})


def test_the_form_knows_every_setting_with_its_meaning():
    schema = deployments.full.parameters.model_dump()
    assert set(schema["properties"]) == {"data", "settings", "beam", "force", "home"}
    epochs = schema["definitions"]["TrainSettings"]["properties"]["epochs"]
    assert epochs["description"].startswith("passes over the training pictures")
    assert epochs["anyOf"][0]["minimum"] == 1


# --- What a run leaves --------------------------------------------------------------------------------------


def test_a_run_leaves_a_report_with_figures_and_the_confusion_matrix(told):
    artifacts = artifacts_of(told.again[0])
    assert {"aoi-run", "aoi-confusion"} <= set(artifacts)
    report = artifacts["aoi-run"].data
    metrics = told.home.open(Ref(**told.again[0].result()["evaluate"]), EvaluationManifest).manifest.metrics
    assert f"| accuracy | {metrics['accuracy']:.4f} |" in report
    assert "MLflow run" in report
    assert str(told.home.root / "submission.csv") in report
    assert '"true": "plain"' in artifacts["aoi-confusion"].data
