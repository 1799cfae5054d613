"""`aoi serve` as a user runs it: it comes up, runs what is asked of it, keeps what is set, leaves nothing behind."""

import os
import re
import shutil
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from serving import BIN, RUN_SECONDS, UP_SECONDS, Serve, directly

from flows.addresses import is_here

NIGHTLY = {"cron": "30 6 * * *", "timezone": "Asia/Taipei"}
BY_PEOPLE = {"paused": True, "tags": ["line-7"], "description": "the night run", "concurrency_limit": 1}
SECOND_HOST = "::1" if is_here("::1") else "127.0.0.1"


def processes_of(home):
    """Command lines of all processes that carry HOME in their words or their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words, surroundings = ((entry / name).read_bytes() for name in ("cmdline", "environ"))
        except OSError:
            continue  # it ended meanwhile, or is not ours
        if str(home).encode() in words + surroundings and int(entry.name) != os.getpid():
            found.append(words.replace(b"\0", b" ").decode())
    return found


@pytest.fixture(scope="module")
def told(tmp_path_factory, free_ports, copy_home, made):
    """Two lives of `aoi serve` on one HOME, which has a champion, and what was seen in each."""
    root = tmp_path_factory.mktemp("serve")
    data, other = root / "data", root / "other"
    subprocess.run([BIN / "aoi", "sample", data, "--train", "120", "--test", "6"], check=True, capture_output=True)
    shutil.copytree(data, other)
    home, (*ports, other_prefect, other_mlflow) = copy_home(root / "home").root, free_ports(4)
    prefect_port, mlflow_port = ports
    options = ["--prefect-port", prefect_port, "--mlflow-port", mlflow_port]
    inbox = root / "inbox"
    shutil.copytree(made[0] / "test_images", inbox / "lot-1")
    (inbox / "lot-1" / ".done").touch()
    told = SimpleNamespace(home=home, ports=ports, data=data, other=other, moved=root / "moved", inbox=inbox)
    lives = []
    try:
        asked = ["--data", data, "--inbox", inbox, "--cron", "aoi/train=0 3 * * *"]
        lives.append(first := Serve(home, root / "first.log", *asked, *options))
        told.printed = first.log.read_text()
        told.pages = [directly(f"http://127.0.0.1:{port}") for port in ports]
        told.settings = first.ask("/admin/settings")
        told.watched = first.prefect("deployment run aoi/ingest --watch")
        told.again = {
            name: subprocess.run(
                [BIN / "aoi", "serve", "--home", where, *map(str, there)],
                capture_output=True,
                text=True,
                timeout=UP_SECONDS,
            )
            for name, where, there in (
                ("same home", home, ["--prefect-port", other_prefect, "--mlflow-port", other_mlflow]),
                ("same ports", root / "new", options),
            )
        }

        # As people do: by command, or in the browser, which uses the same API.
        # Its second run is far: pausing a schedule removes runs, and one that the runner is just starting is an error.
        soon = (datetime.now(UTC) + timedelta(seconds=8)).isoformat(timespec="seconds")
        first.prefect(f"deployment schedule create aoi/ingest --interval 60 --anchor-date {soon}")
        told.scheduled = scheduled_run(first)
        ingest, full = first.deployment("ingest"), first.deployment("full")
        first.ask(f"/deployments/{ingest['id']}/schedules/{ingest['schedules'][0]['id']}", {"active": False}, "PATCH")
        first.ask(f"/deployments/{full['id']}/schedules", [{"schedule": NIGHTLY, "parameters": {"force": True}}])
        first.ask(f"/deployments/{full['id']}", BY_PEOPLE, "PATCH")
        first.ask(f"/deployments/{ingest['id']}", {"parameters": {"data": str(other), "beam": ""}}, "PATCH")
        wait_until_idle(first)
        told.lots = lots(first)
        told.left = left_running(first, "predict")
        told.before = {name: first.deployment(name) for name in ("full", "ingest", "train")}
        told.processes = processes_of(home)
        told.end = first.end(signal.SIGINT)
        told.left_over = processes_of(home)

        asked = ["--data", told.moved, "--inbox", inbox, "--host", SECOND_HOST]
        lives.append(second := Serve(home, root / "second.log", *asked, *options))
        told.second = second.log.read_text()
        told.after = {name: second.deployment(name) for name in ("full", "ingest", "train")}
        told.left_state = second.ask(f"/flow_runs/{told.left}")["state"]
        told.second_watched = second.prefect("deployment run aoi/ingest --watch")
        told.lots_after = lots(second)
        told.second_end = second.end(signal.SIGTERM)
        told.finally_left_over = processes_of(home)
        told.logs = {log.name: log.read_text() for log in (home / "logs").iterdir()}
    finally:
        for life in lives:
            if life.process.poll() is None:
                life.end(signal.SIGTERM)
    return told


def scheduled_run(serve):
    """A run that a schedule started, once it has ended."""
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline:
        for run in serve.ask("/flow_runs/filter", {"sort": "EXPECTED_START_TIME_ASC"}):
            if run["auto_scheduled"] and run["state_type"] in ("COMPLETED", "FAILED", "CRASHED"):
                return run
        time.sleep(0.5)
    pytest.fail(f"no scheduled run ended in {RUN_SECONDS} s: {(serve.home / 'logs' / 'prefect.log').read_text()}")


def lots(serve):
    """(tags, state) of the runs of the inbox's lots."""
    runs = serve.ask("/flow_runs/filter", {"flow_runs": {"tags": {"all_": ["inbox"]}}})
    return [(sorted(run["tags"]), run["state_name"]) for run in runs]


def wait_until_idle(serve):
    """Returns once no run is under way, so that none is in the logs as stopped."""
    under_way = {"flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING"]}}}}
    deadline = time.monotonic() + RUN_SECONDS
    while serve.ask("/flow_runs/filter", under_way):
        assert time.monotonic() < deadline
        time.sleep(0.5)


def left_running(serve, name):
    """The run of a deployment that counts as running, and that nobody runs: as after a power cut."""
    later = {"type": "SCHEDULED", "state_details": {"scheduled_time": str(datetime.now(UTC) + timedelta(days=1))}}
    run = serve.ask(f"/deployments/{serve.deployment(name)['id']}/create_flow_run", {"state": later})["id"]
    serve.ask(f"/flow_runs/{run}/set_state", {"state": {"type": "RUNNING"}, "force": True})
    return run


def test_it_comes_up_behind_a_proxy_and_prints_where(told):
    prefect_port, mlflow_port = told.ports
    assert re.search(rf"Prefect +http://127.0.0.1:{prefect_port}$", told.printed, re.M)
    assert re.search(rf"MLflow +http://127.0.0.1:{mlflow_port}$", told.printed, re.M)
    assert f"export PREFECT_API_URL=http://127.0.0.1:{prefect_port}/api\n" in told.printed
    assert "export no_proxy=localhost,::1,127.0.0.1\n" in told.printed
    assert all("<html" in page.lower() for page in told.pages)


def test_it_runs_what_another_terminal_asks_for(told):
    assert "finished successfully" in told.watched
    (dataset,) = (told.home / "datasets").glob("data-train-*")
    assert (dataset / "manifest.json").is_file()


def test_a_schedule_starts_runs(told):
    assert told.scheduled["state_name"] == "Cached", told.scheduled


def test_a_lot_in_the_inbox_is_predicted_once_over_a_restart_too(told):
    assert told.lots == told.lots_after == [(["inbox", "lot-1"], "Completed")]
    assert [path.name for path in (told.inbox / "results").iterdir()] == ["lot-1"]
    made = {path.name for path in (told.inbox / "results" / "lot-1").iterdir()}
    assert made >= {"predictions.csv", "review.csv", "submission.csv"}
    assert (told.inbox / "results" / "lot-1" / "predictions.csv").read_text().count("\n") == 10


def test_a_schedule_of_the_command_line_stays_where_it_is_left_out_later(told):
    assert [each["schedule"]["cron"] for each in told.before["train"]["schedules"]] == ["0 3 * * *"]
    assert told.after["train"]["schedules"] == told.before["train"]["schedules"]


def test_the_servers_tell_nobody_about_their_use(told):
    assert told.settings["server"]["analytics_enabled"] is False


def test_a_second_one_is_refused(told):
    for done, seen in (
        (told.again["same home"], "another aoi serve runs the deployments of this HOME"),
        (told.again["same ports"], "is taken by the Prefect server of another HOME"),
    ):
        assert done.returncode == 2
        assert seen in done.stderr


def test_it_goes_without_a_trace(told):
    assert len(told.processes) > 2
    assert (told.end, told.left_over) == (0, [])
    assert (told.second_end, told.finally_left_over) == (0, [])


def test_schedules_and_settings_of_a_deployment_stay_over_a_restart(told):
    before, after = told.before["full"], told.after["full"]
    assert {name: after[name] for name in BY_PEOPLE if name != "concurrency_limit"} == {
        name: value for name, value in BY_PEOPLE.items() if name != "concurrency_limit"
    }
    assert after["global_concurrency_limit"]["limit"] == BY_PEOPLE["concurrency_limit"]
    assert after["schedules"] == before["schedules"]
    assert [(each["schedule"], each["active"]) for each in after["schedules"]] == [({**NIGHTLY, "day_or": True}, True)]
    assert told.after["ingest"]["schedules"] == told.before["ingest"]["schedules"]
    assert [each["active"] for each in told.after["ingest"]["schedules"]] == [False]
    assert told.after["ingest"]["paused"] is False


def test_parameters_that_people_changed_stay_and_others_follow_the_command_line(told):
    home, data, other = map(str, (told.home, told.data, told.other))
    assert told.before["full"]["parameters"] == {"home": home, "data": data}
    assert told.after["full"]["parameters"] == {"home": home, "data": str(told.moved)}
    assert told.after["ingest"]["parameters"] == {"home": home, "data": other, "beam": ""}


def test_a_run_that_was_left_running_counts_as_crashed(told):
    assert told.left_state["type"] == "CRASHED"
    assert "a retry goes on from what is finished" in told.left_state["message"]


def test_an_ipv6_host_is_one_like_any_other(told):
    assert f"http://[::1]:{told.ports[0]}/api" in told.second or SECOND_HOST == "127.0.0.1"
    assert "finished successfully" in told.second_watched


def test_no_log_has_an_error_that_nobody_sees(told):
    assert set(told.logs) == {"prefect.log", "mlflow.log", "runner.log"}
    for name, text in told.logs.items():
        assert not re.search(r"Traceback|ERROR|CRITICAL|never awaited", text), f"{name}:\n{text}"
    assert "Traceback" not in told.printed + told.second
