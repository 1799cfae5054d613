"""Engines by name: their options, their workers, and that none of them is silent or left behind."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from apache_beam.runners.runner import PipelineResult, PipelineRunner, PipelineState
from apache_beam.runners.worker.data_plane import GrpcClientDataChannel
from tiny import png, write_data

from pipeline import jobserver
from pipeline.inputs.inputs import read_inputs
from pipeline.inputs.rows import Row, Rows
from pipeline.job import beam, engines, front, shard, work
from pipeline.job.beam import Runner, read_options, run_shards
from pipeline.job.front import Front
from pipeline.job.ingest import ingest
from pipeline.job.shard import ShardPlan
from pipeline.job.work import do_planned, plan_path, read_plan, stop_plan, write_plan
from pipeline.job.worker import provisions
from pipeline.settings import IngestSettings
from tfrecords.errors import MISSED, REFUSED, AoiError
from tfrecords.progress import silent
from tfrecords.settings import PreprocessSettings


@pytest.fixture
def plans(tmp_path):
    """Two shards of nothing."""
    return [ShardPlan(str(tmp_path), f"{name}.tfrecord", "", Rows.of([]), (), PreprocessSettings(), 1) for name in "ab"]


# --- Names and options --------------------------------------------------------------------------------------


@pytest.fixture
def job_server():
    """The address of a port at which somebody listens."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("name", ["flink", "spark"])
def test_an_engine_with_a_job_server_is_reached_by_beams_portable_runner(name, job_server):
    options, found = engines.expand(["--runner", name, f"--job_endpoint={job_server}", "--parallelism=3"])
    assert found == name
    assert options[:3] == ["--runner=PortableRunner", f"--job_endpoint={job_server}", "--parallelism=3"]
    assert "--environment_type=LOOPBACK" in options


def test_workers_elsewhere_are_as_the_options_say(job_server):
    given = ["--runner=flink", f"--job_endpoint={job_server}", "--environment_type=EXTERNAL"]
    options, _ = engines.expand([*given, "--environment_config=localhost:50000"])
    assert [option for option in options if option.startswith("--environment_")] == [
        "--environment_type=EXTERNAL",
        "--environment_config=localhost:50000",
    ]


def test_a_job_server_that_is_not_there_is_told_with_what_starts_it(free_ports):
    (port,) = free_ports(1)
    with pytest.raises(AoiError, match=r"no job server answers.*python -m pipeline\.jobserver spark") as refused:
        engines.expand(["--runner=spark", f"--job_endpoint=localhost:{port}"])
    assert refused.value.exit_code == MISSED


def test_dask_that_is_not_installed_is_told_with_what_installs_it(monkeypatch):
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AoiError, match=r"Dask is not installed.*\.\[dask\]"):
        engines.expand(["--runner=dask"])


@pytest.mark.parametrize(
    ("given", "added"),
    [([], ["--dask_partition_size=1"]), (["--dask_npartitions=4"], []), (["--dask_partition_size", "8"], [])],
)
def test_dask_spreads_every_part_of_a_job_unless_told_otherwise(given, added):
    options, name = engines.expand(["--runner=dask", *given])
    assert (options[1:], name) == ([*given, *added], "dask")


@pytest.mark.parametrize("options", [[], ["--runner=DirectRunner"], ["--runner=FlinkRunner", "--flink_master=x:1"]])
def test_beams_own_names_stay_as_they_are(options):
    assert engines.expand(options) == (options, "")


@pytest.mark.parametrize("option", engines.SECRETS)
@pytest.mark.parametrize("written", ["{}=geheim", "{} geheim"])
def test_a_secret_among_the_options_is_refused_and_not_repeated(option, written):
    with pytest.raises(AoiError, match=r"a secret.*environment, as AWS_") as refused:
        read_options(written.format(option))
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize("option", ["--direct_num_worker=8", "--foo", "--runer=dask"])
def test_an_option_that_beam_does_not_know_is_refused_on_this_machine(option):
    with pytest.raises(AoiError, match=rf"Beam knows no {option.partition('=')[0]}\b"):
        beam.open_runner([option, "--direct_num_workers=2"])


def test_an_option_without_its_marks_is_refused():
    with pytest.raises(AoiError, match="'runner=dask' does not begin with --"):
        read_options("runner=dask")


def test_a_runner_that_beam_does_not_know_is_refused():
    with pytest.raises(AoiError, match="there is no runner NoRunner"):
        beam.open_runner(["--runner=NoRunner"])


# --- Silence, failure and Ctrl-C ----------------------------------------------------------------------------


class Engine(PipelineRunner):
    """An engine that takes a job and does nothing, as a cluster without a worker."""

    def __init__(self, error=None):
        super().__init__()
        self.error, self.cancelled, self.thread = error, threading.Event(), None

    def run_pipeline(self, pipeline, options):
        self.thread = threading.current_thread()
        return Nothing(self)

    def runner(self):
        return Runner(self, (), 1, remote=True)


class Nothing(PipelineResult):
    def __init__(self, engine):
        super().__init__(PipelineState.PENDING)
        self.engine = engine

    def wait_until_finish(self, duration=None):
        if self.engine.error:
            raise self.engine.error
        self.engine.cancelled.wait()

    def cancel(self):
        self.engine.cancelled.set()


def test_an_engine_that_does_nothing_is_told_of_and_its_job_ended(plans, monkeypatch, caplog):
    monkeypatch.setattr(beam, "QUIET_SECONDS", 0.5)
    monkeypatch.setattr(beam, "LOOK_SECONDS", 0.1)
    engine = Engine()
    with (
        caplog.at_level(logging.WARNING, "pipeline"),
        pytest.raises(AoiError, match=r"no picture was converted for \d+ s: the job server says PENDING") as stalled,
    ):
        run_shards(plans, engine.runner(), silent, stall_seconds=2)
    assert stalled.value.exit_code == MISSED
    assert "finished shards are kept" in stalled.value.problems[0].remedy
    assert "the job server says PENDING" in caplog.text
    assert engine.cancelled.is_set()
    assert all(is_stopped(plan) for plan in plans)


def is_stopped(plan):
    """Whether a worker that gets the plan does nothing."""
    return work.do_planned(plan_path(plan)) == "" and not plan.is_done()


def test_what_is_written_to_an_unfinished_shard_is_no_silence(plans, tmp_path, monkeypatch):
    monkeypatch.setattr(beam, "LOOK_SECONDS", 0.0)
    silence = beam._Silence(tmp_path, stall_seconds=0.2)
    growing = tmp_path / ".a.tfrecord.1.tmp"
    for size in range(8):
        growing.write_bytes(b"x" * size)
        silence.check(0, None)
        time.sleep(0.05)
    with pytest.raises(AoiError, match="the workers on this machine wrote nothing"):
        time.sleep(0.3)
        silence.check(0, None)


def test_ctrl_c_cancels_the_job(plans):
    engine = Engine()
    with pytest.raises(KeyboardInterrupt):
        run_shards(plans, engine.runner(), interrupt_after_first_call(), stall_seconds=60)
    assert engine.cancelled.is_set()
    assert all(is_stopped(plan) for plan in plans)


def interrupt_after_first_call():
    calls = iter([False, True])

    def progress(*_):
        if next(calls):
            raise KeyboardInterrupt

    return progress


def test_an_engine_that_hangs_when_it_is_cancelled_holds_nobody_up(plans, monkeypatch):
    monkeypatch.setattr(beam, "CANCEL_SECONDS", 0.3)
    monkeypatch.setattr(Nothing, "cancel", lambda self: time.sleep(30))
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_shards(plans, Engine().runner(), interrupt_after_first_call(), stall_seconds=60)
    assert time.monotonic() - began < 10


def test_a_job_is_handed_over_in_the_thread_of_the_caller_where_signal_handlers_can_be_set(plans):
    engine = Engine(RuntimeError("no such worker"))
    with pytest.raises(AoiError, match="no such worker"):
        run_shards(plans, engine.runner(), silent, stall_seconds=60)
    assert engine.thread is threading.current_thread()
    assert engine.cancelled.is_set()


class Gone(RuntimeError):
    """As gRPC says it: its text is a block, of which the last line is a bracket."""

    def __str__(self):
        return '<_MultiThreadedRendezvous of RPC that terminated with:\n\tdetails = "Socket closed"\n>'

    def details(self):
        return "Socket closed"

    def code(self):
        return grpc.StatusCode.UNAVAILABLE


def test_a_job_server_that_goes_away_is_told_in_words_and_by_no_traceback(plans, monkeypatch, capfd):
    def wait_as_beam_does(self, duration=None):
        def read_messages():
            raise Gone

        threading.Thread(target=read_messages, name=engines.MESSAGES).start()
        raise Gone

    monkeypatch.setattr(Nothing, "wait_until_finish", wait_as_beam_does)
    with pytest.raises(AoiError, match=r"could not be converted \(the job server went away: Socket closed\)") as gone:
        run_shards(plans, Engine().runner(), silent, stall_seconds=60)
    assert gone.value.exit_code == MISSED
    assert "Traceback" not in capfd.readouterr().err


def test_a_job_server_that_hangs_up_on_a_worker_at_the_end_of_a_job_is_no_fault(plans, monkeypatch, capfd):
    """Flink does so now and then, before the worker in this process has closed its side."""

    def hang_up(outputs):
        yield from ()
        raise Gone

    def wait_as_beam_does(self, duration=None):
        channel = GrpcClientDataChannel(SimpleNamespace(Data=hang_up))
        assert channel._reads_finished.wait(10)
        for plan in plans:
            do_planned(plan_path(plan))
        return PipelineState.DONE

    monkeypatch.setattr(Nothing, "wait_until_finish", wait_as_beam_does)
    run_shards(plans, Engine().runner(), silent, stall_seconds=60)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "told",
    [
        "Pipeline BeamApp-root-1_2-3 failed in state FAILED: java.io.IOException: error=2, No such file",
        "java.util.concurrent.ExecutionException: java.io.IOException: error=2, No such file",
        "java.io.IOException: error=2, No such file\nCalled at:\n\njava.base/java.lang.Thread.run(Thread.java:8)",
        'RuntimeError: Error from SDK harness: Traceback (most recent call last):\n  File "a.py", line 1\n    work()\n'
        "OSError: error=2, No such file\n\n\tat org.beam.Do$1.close(Do.java:5)\n\t... 2 more",
        "OSError in work():\nerror=2, No such file",
    ],
)
def test_of_an_engines_words_the_cause_is_told(told):
    assert engines.cause(RuntimeError(told)).removeprefix("OSError: ") == "error=2, No such file"


@pytest.mark.parametrize(
    ("told", "meaning"),
    [
        (
            "org.grpc.StatusRuntimeException: CANCELLED: client cancelled",
            "a worker went away: CANCELLED: client cancelled",
        ),
        ("java.net.ConnectException: Connection refused", "the engine can't be reached: Connection refused"),
    ],
)
def test_what_is_gone_is_told_with_what_says_so(told, meaning):
    assert engines.cause(RuntimeError(f"Pipeline A_1 failed in state FAILED: {told}")) == meaning


def test_a_job_that_went_with_its_scheduler_is_not_taken_for_done(plans, monkeypatch):
    """Dask's runner returns as if it were, once the client has given up all that it waits for."""
    lost = [SimpleNamespace(status="finished"), SimpleNamespace(status="cancelled")]
    monkeypatch.setattr(Nothing, "futures", lost, raising=False)
    monkeypatch.setattr(Nothing, "wait_until_finish", lambda self: PipelineState.DONE)
    with pytest.raises(AoiError, match="the scheduler went away") as gone:
        run_shards(plans, Engine().runner(), silent, stall_seconds=60)
    assert gone.value.exit_code == MISSED


# --- Workers ------------------------------------------------------------------------------------------------


def test_a_worker_with_another_version_refuses_the_shard_and_names_both(plans, monkeypatch):
    path = write_plan(plans[0])
    assert read_plan(path) == plans[0]
    monkeypatch.setattr(work, "versions", lambda: {"aoi": "0.0.1"})
    with pytest.raises(AoiError, match=r"this worker has aoi 0\.0\.1, and the job was started by \d") as refused:
        work.do_planned(path)
    assert refused.value.exit_code == REFUSED


@pytest.mark.parametrize("end", [lambda plan: stop_plan(plan), lambda plan: os.unlink(plan_path(plan))])
def test_a_worker_stops_once_its_job_is_over_and_tells_no_failure_that_an_engine_would_mend(plans, monkeypatch, end):
    went_on = []

    def write_shard(plan, check):
        check()
        end(plan)
        check()
        went_on.append(plan)

    monkeypatch.setattr(shard, "write_shard", write_shard)
    assert work.do_planned(write_plan(plans[0])) == ""
    assert went_on == []


def test_a_plan_that_was_never_there_is_told(plans):
    """As on a worker that does not see HOME."""
    with pytest.raises(FileNotFoundError):
        work.do_planned(plan_path(plans[0]))


def test_an_engine_tells_a_worker_what_it_is_for():
    from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc, endpoints_pb2

    class Service(beam_provision_api_pb2_grpc.ProvisionServiceServicer):
        def GetProvisionInfo(self, asked, context):
            assert ("worker_id", "7") in context.invocation_metadata()
            info = beam_provision_api_pb2.ProvisionInfo(
                control_endpoint=endpoints_pb2.ApiServiceDescriptor(url="engine:1"),
                logging_endpoint=endpoints_pb2.ApiServiceDescriptor(url="engine:2"),
                runner_capabilities=["a", "b"],
            )
            info.pipeline_options.update({"beam:option:parallelism:v1": 2})
            return beam_provision_api_pb2.GetProvisionInfoResponse(info=info)

    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        beam_provision_api_pb2_grpc.add_ProvisionServiceServicer_to_server(Service(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            told = provisions("7", f"127.0.0.1:{port}")
        finally:
            server.stop(0)
    assert told["WORKER_ID"] == "7"
    assert told["CONTROL_API_SERVICE_DESCRIPTOR"] == 'url: "engine:1"'
    assert told["LOGGING_API_SERVICE_DESCRIPTOR"] == 'url: "engine:2"'
    assert told["RUNNER_CAPABILITIES"] == "a b"
    assert json.loads(told["PIPELINE_OPTIONS"]) == {"beam:option:parallelism:v1": 2}


class Told:
    """A progress that remembers what it was told."""

    def __init__(self):
        self.calls = []

    def __call__(self, *told):
        self.calls.append(told)


@pytest.fixture
def elsewhere(free_ports):
    """Options of Beam: its own job server in this process; workers by EXTERNAL, each started as by PROCESS."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "pipeline.job.worker", f"--port={port}"]
    pool = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert str(port) in pool.stdout.readline()
        options = f"--job_endpoint=embed --environment_type=EXTERNAL --environment_config=localhost:{port}"
        yield f"--runner=PortableRunner {options}"
    finally:
        pool.send_signal(signal.SIGTERM)
        pool.communicate(timeout=30)


def test_a_portable_engine_with_workers_elsewhere_gives_the_same_bytes(elsewhere, tmp_path, monkeypatch):
    """The workers read all of it; one picture can't be read, and ten have 12 bits."""
    data = write_data(tmp_path / "data", train=30, test=0)
    (data / "train_images" / "train_007.png").write_bytes(b"cut")
    for number in range(10, 20):
        deep = np.full((48, 48), 200 * number, np.uint16)
        (data / "train_images" / f"train_{number:03d}.png").write_bytes(png(deep))
    settings, small = IngestSettings(shards=4, max_rejects=1), PreprocessSettings(image_size_px=32)
    monkeypatch.setattr(front, "RANGE", 8)
    made, read = {}, {}
    for place, beam_options in (("here", ""), ("there", elsewhere)):
        root = tmp_path / place
        ahead = Front(read_options(beam_options), root, 60)
        told = Told()
        read[place] = read_inputs(str(data), "train", 5, told, look=ahead.look)
        assert (told.calls[0], told.calls[-1]) == ((0, 30, "hashed"), (30, 30, "hashed"))
        dataset, _ = ingest(read[place], root, "tiny", settings, small, beam=beam_options)
        made[place] = {path.name: path.read_bytes() for path in dataset.path.iterdir()}
        assert dataset.manifest.settings.preprocess.bit_depth == 12
        for here in ("look_here", "measure_here"):
            monkeypatch.setattr(front, here, None)  # from now on nothing is read by the driver
        assert not list(root.glob(".look-*"))
    assert read["here"].rows == read["there"].rows
    assert read["here"].leniences == read["there"].leniences
    assert made["here"] == made["there"]


def test_what_a_killed_job_left_goes_once_no_worker_writes_there(tmp_path, monkeypatch):
    old, new = (tmp_path / f".look-{name}" for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (0, 0))
    monkeypatch.setattr(front, "RANGE", 1)
    rows = Rows.of([Row(name, line, 0, name) for line, name in enumerate("ab")])
    monkeypatch.setattr(front, "open_runner", lambda options: Engine(RuntimeError("no such worker")).runner())
    with pytest.raises(AoiError, match=r"could not be hashed \(no such worker\)"):
        list(Front(["--runner=dask"], tmp_path, 60).look(rows, "", silent))
    assert list(tmp_path.iterdir()) == [new]


@pytest.mark.parametrize("options", [[], ["--runner=DirectRunner"], ["--runner", "FnApiRunner"], ["--runner=dask"]])
def test_what_one_machine_does_and_few_pictures_are_looked_at_here(options, monkeypatch):
    monkeypatch.setattr(front, "look_here", lambda *given: iter(["here"]))
    rows = Rows.of([Row(str(line), line, 0, "") for line in range(3)])
    monkeypatch.setattr(front, "RANGE", 2 if options != ["--runner=dask"] else 3)
    assert list(Front(options, Path(), 60).look(rows, "", silent)) == ["here"]


# --- The job server -----------------------------------------------------------------------------------------


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A PATH on which java and mvn are scripts: Maven's notes what it was asked for and copies a jar or fails."""
    place = tmp_path / "bin"
    place.mkdir()

    def install(name, text):
        (place / name).write_text(f"#!/bin/sh\n{text}\n")
        (place / name).chmod(0o755)

    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    install("java", "exit 0")
    install("mvn", f"cp pom.xml {tmp_path}/asked.xml; mkdir jars; touch jars/one.jar")
    return install


@pytest.mark.parametrize("engine", jobserver.SERVERS)
def test_the_jars_are_fetched_once_by_their_coordinates(engine, programs, tmp_path):
    folder = jobserver.fetch(engine, tmp_path / "jars")
    assert os.listdir(folder) == ["one.jar"]
    assert f"<artifactId>beam-runners-{engine}" in (tmp_path / "asked.xml").read_text()
    programs("mvn", "exit 1")
    assert jobserver.fetch(engine, tmp_path / "jars") == folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_job_server_ends_with_its_command(programs, tmp_path, number):
    programs("java", f"echo $$ > {tmp_path}/pid.tmp; mv {tmp_path}/pid.tmp {tmp_path}/pid; exec sleep 60")
    command = [sys.executable, "-m", "pipeline.jobserver", "flink", "--jars", str(tmp_path / "jars")]
    started = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not (tmp_path / "pid").exists():
        assert started.poll() is None
        time.sleep(0.05)
    started.send_signal(number)
    assert started.wait(30) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_maven_that_fails_leaves_nothing_and_is_told(programs, tmp_path, capsys):
    programs("mvn", "echo '[ERROR] no route'; exit 1")
    assert jobserver.main(["flink", "--jars", str(tmp_path / "jars"), "--fetch"]) == MISSED
    assert "no route" in capsys.readouterr().err
    assert os.listdir(tmp_path / "jars") == []


def test_the_job_server_gets_its_port_and_the_address_of_the_cluster(programs, tmp_path):
    flink = jobserver.command("flink", tmp_path, 1234, "cluster:8081")
    assert flink[-8:] == [
        *("--job-port", "1234", "--artifact-port", "0", "--expansion-port", "-1"),
        *("--flink-master", "cluster:8081"),
    ]
    assert jobserver.command("spark", tmp_path, 8099, None)[-2:] == ["--spark-master-url", "local[2]"]
