"""`aoi serve` as a user runs it: it comes up, runs what is asked of it, and leaves nothing behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
UP_SECONDS, RUN_SECONDS, DOWN_SECONDS = 240, 180, 30


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


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


def wait_for(what, seconds, process, log):
    """The match of a regular expression in a log that a process is writing."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if match := re.search(what, log.read_text()):
            return match
        time.sleep(0.2)
    pytest.fail(f"{what!r} not in {log.read_text()!r}; exit code {process.poll()}")


def test_serve_comes_up_runs_a_deployment_and_goes_without_a_trace(data, tmp_path):
    home, log = tmp_path / "home", tmp_path / "serve.log"
    prefect_port, mlflow_port = free_ports(2)
    command = [BIN / "aoi", "serve", "--home", home, "--data", data]
    command += ["--prefect-port", str(prefect_port), "--mlflow-port", str(mlflow_port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        api = wait_for(r"export PREFECT_API_URL=(\S+)", UP_SECONDS, process, log)[1]
        assert api == f"http://127.0.0.1:{prefect_port}/api"
        for address in (f"http://127.0.0.1:{prefect_port}", f"http://127.0.0.1:{mlflow_port}"):
            assert address in log.read_text()
            with urllib.request.urlopen(address, timeout=30) as page:
                assert b"<html" in page.read().lower()
        run = subprocess.run(
            [BIN / "prefect", "deployment", "run", "aoi/ingest", "--watch"],
            env={**os.environ, "PREFECT_API_URL": api, "PREFECT_HOME": str(tmp_path / "client")},
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        assert "finished successfully" in run.stdout
        (dataset,) = (home / "datasets").glob("data-train-*")
        assert (dataset / "manifest.json").is_file()
        assert len(processes_of(home)) > 2
        process.send_signal(signal.SIGINT)
        assert process.wait(DOWN_SECONDS) == 0
        assert "Traceback" not in log.read_text()
        assert processes_of(home) == []
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(2 * DOWN_SECONDS)


def test_a_port_that_something_else_holds_is_told_and_nothing_stays(tmp_path):
    (mlflow_port,) = free_ports(1)
    home = tmp_path / "home"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        prefect_port = taken.getsockname()[1]
        command = [BIN / "aoi", "serve", "--home", home]
        command += ["--prefect-port", str(prefect_port), "--mlflow-port", str(mlflow_port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=UP_SECONDS)
    assert done.returncode == 1
    assert "is its port taken by something else?" in done.stderr
    assert "Traceback" not in done.stderr
    assert processes_of(home) == []
