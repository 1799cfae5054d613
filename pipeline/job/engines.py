"""The engines that `--beam "--runner=NAME"` knows by a short name, and what only they can tell of a job."""

import importlib.util
import re
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from tfrecords.errors import MISSED, install, refuse

JOB_SERVER = "localhost:8099"
# Beam's own names: its DaskRunner has none, and its FlinkRunner and SparkRunner want a jar that they download.
RUNNERS = {
    "dask": "apache_beam.runners.dask.dask_runner.DaskRunner",
    "flink": "PortableRunner",
    "spark": "PortableRunner",
}
HERE = ("DirectRunner", "FnApiRunner")  # Beam's on this machine
# Options that hold a secret: they would be seen in lists of processes and in logs.
SECRETS = {
    "--s3_access_key_id": "AWS_ACCESS_KEY_ID",
    "--s3_secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "--s3_session_token": "AWS_SESSION_TOKEN",
}
ANSWER_SECONDS = 5.0  # that an engine has to answer a question
MESSAGES = "wait_until_finish_read"  # Beam's name of the thread that reads a job server's messages
# Beam's threads that a job server cuts off at the end of a job. If it does so before, the result of the job tells it.
READERS = (MESSAGES, "read_grpc_client_inputs")
# Of what Flink says of a worker that died, and the job server of a JobManager that died.
MEANINGS = {"CANCELLED: client cancelled": "a worker went away", "Connection refused": "the engine can't be reached"}
# Of a Java stack: at org.x.Do$1.run(Do.java:5), ... 2 more
FRAME = re.compile(r"^\s*(at )?[\w.$<>/]+\((\w+\.\w+:\d+|Native Method|Unknown Source)\)$|^\s*\.\.\. \d+ more$", re.M)
JOB = re.compile(r"^Pipeline \S+ failed in state \w+: ")
NAMES = re.compile(r"^([\w.$]+\.\w+(Exception|Error): )+")  # of errors, before what they say


def refuse_secrets(options: Sequence[str]) -> None:
    """Raises AoiError for an option that holds a secret."""
    for option in options:
        if (name := option.partition("=")[0]) in SECRETS:
            seen = f"{name}, a secret that lists of processes and logs would show"
            raise refuse("--beam", seen, f"Set it in the environment, as {SECRETS[name]}")


def expand(options: Sequence[str]) -> tuple[list[str], str]:
    """Beam's options for those that were given, and the short name of the engine in them, or ''.

    Raises: AoiError for an engine whose package or job server is not there.
    """
    given = list(options)
    name = _value(given, "--runner") or ""
    if name not in RUNNERS:
        return given, ""
    at = next(at for at, option in enumerate(given) if option.partition("=")[0] == "--runner")
    given[at : at + 1 + (given[at] == "--runner")] = [f"--runner={RUNNERS[name]}"]
    if name == "dask":
        if importlib.util.find_spec("distributed") is None:
            remedy = f"Install it here and on every worker: {install('dask')}"
            raise refuse("--beam", "--runner=dask, and Dask is not installed", remedy)
        if _value(given, "--dask_npartitions") is None and _value(given, "--dask_partition_size") is None:
            given.append("--dask_partition_size=1")  # else one worker gets the first 128 parts of the job
        return given, name
    endpoint = _value(given, "--job_endpoint")
    if endpoint is None:
        endpoint = JOB_SERVER
        given.append(f"--job_endpoint={endpoint}")
    if not any(option.startswith("--environment_") for option in given):
        given.append("--environment_type=LOOPBACK")  # workers in this process: what one machine needs
    given.append("--experiments=disable_logging_submission_environment")  # it would run pip, which may not be there
    _refuse_silent(name, endpoint)
    return given, name


def is_named(options: Sequence[str]) -> bool:
    """Whether the options name an engine, and not this machine."""
    return _value(options, "--runner") not in (None, *HERE)


def _value(options: Sequence[str], name: str) -> str | None:
    """What the options say for one, as --name=value or --name value."""
    for at, option in enumerate(options):
        head, equals, value = option.partition("=")
        if head == name:
            return value if equals else (options[at + 1] if at + 1 < len(options) else "")
    return None


def _refuse_silent(name: str, endpoint: str) -> None:
    """Raises AoiError where nothing listens at a job server's address; Beam would wait for minutes."""
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host, int(port)), ANSWER_SECONDS).close()
    except (OSError, ValueError) as error:
        seen = f"no job server answers at {endpoint} ({error})"
        raise refuse("--beam", seen, f"Start it: python -m pipeline.jobserver {name}", exit_code=MISSED)


def returns_at_once(runner: Any) -> bool:
    """Whether a runner hands the job over and returns while it runs. Some of these set signal handlers meanwhile, which
    only the main thread may."""
    from apache_beam.runners.portability.portable_runner import PortableRunner

    return isinstance(runner, PortableRunner) or type(runner).__name__ == "DaskRunner"


def cause_of_silence(result: Any) -> str:
    """What the engine knows of a job that gets no further; result: Beam's PipelineResult."""
    if client := getattr(result, "client", None):
        told = client.scheduler_info(n_workers=-1)
        workers = told["workers"]
        if not workers:
            return f"the scheduler has no worker; start one with: dask worker {told['address']}"
        busy = sum(1 for tasks in client.processing().values() if tasks)
        return f"the scheduler has {len(workers)} worker(s), {busy} of them at work"
    hint = "a cluster without a free slot or worker waits in silence, which its own web page shows"
    return f"the job server says {result.state}; {hint}"


def check_done(result: Any) -> None:
    """Raises RuntimeError for a job that Dask's runner takes for done, and that went with its scheduler."""
    if any(future.status != "finished" for future in getattr(result, "futures", ())):
        raise RuntimeError("the scheduler went away")


def cause(error: Any) -> str:
    """Why a job failed, in a line, as its engine tells it; error: any exception."""
    if callable(getattr(error, "details", None)):  # gRPC's: its text is a block whose last line is a bracket
        is_gone = error.code().name == "UNAVAILABLE"
        return f"the job server {'went away' if is_gone else 'failed'}: {error.details()}"
    told = JOB.sub("", FRAME.sub("", str(error)).strip()) or type(error).__name__
    is_last = "Traceback" in told or not NAMES.match(told)  # Python says the cause last, Java first
    line = NAMES.sub("", told.splitlines()[-1 if is_last else 0])[:300]
    return next((f"{meaning}: {line}" for begin, meaning in MEANINGS.items() if line.startswith(begin)), line)


def end_reader() -> None:
    """Waits for the thread that reads messages: of a job server that is gone it would print a traceback."""
    for thread in threading.enumerate():
        if thread.name == MESSAGES:
            thread.join(1)


def cancel(result: Any) -> None:
    """Ends a job on its engine; a question that is not answered, too."""
    with suppress(Exception):
        result.cancel()
    close(result)


def close(result: Any) -> None:
    """Lets go of the engine."""
    if client := getattr(result, "client", None):
        with suppress(Exception):
            client.close(timeout=ANSWER_SECONDS)
