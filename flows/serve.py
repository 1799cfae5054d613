"""`aoi serve`: a Prefect server, the MLflow UI and the deployments, for as long as it runs."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from flows import interrupts
from flows.home import Home
from model.registry.store import store_of
from tfrecords import system
from tfrecords.errors import MISSED, refuse

START_SECONDS = 120
STOP_SECONDS = 15
LOCAL = ("127.0.0.1", "localhost", "::1")


def serve(home: Home, data: str | None, host: str, prefect_port: int, mlflow_port: int) -> int:
    """Starts what does not answer yet, serves the deployments until SIGINT or SIGTERM, stops what it started.

    Raises: AoiError for a part that does not come up or ends early.
    """
    logs = home.root / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    prefect, mlflow = f"http://{host}:{prefect_port}", f"http://{host}:{mlflow_port}"
    store = store_of(home.root, "")
    prefect_command = ["prefect", "server", "start", "--host", host, "--port", str(prefect_port)]
    mlflow_command = ["mlflow", "server", "--host", host, "--port", str(mlflow_port), "--workers", "1"]
    mlflow_command += ["--backend-store-uri", store.uri]
    if store.artifacts:
        mlflow_command += ["--default-artifact-root", store.artifacts]
    servers = {
        "prefect": (f"{prefect}/api/health", prefect_command),
        "mlflow": (f"{mlflow}/health", mlflow_command),
    }
    runner_command = ["flows.runner", str(home.root), *([os.path.abspath(data)] if data else [])]
    environment = {
        **os.environ,
        "AOI_HOME": str(home.root),
        "AOI_MLFLOW_UI": mlflow,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its eight helpers serve features for language models
        "PREFECT_API_URL": f"{prefect}/api",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",  # seconds until a request is seen; 10 by default
        "PREFECT_HOME": str(home.root / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOCAL_STORAGE_PATH": str(home.root / "prefect" / "results"),
    }
    if host not in LOCAL:
        print(f"warning: {host} opens both servers, without a password, to whoever reaches this machine")
    try:
        parts: dict[str, subprocess.Popen] = {}
        # Deferred, or a part could be started and not be known yet, or a second Ctrl-C could leave one behind.
        with interrupts.deferred() as check, ExitStack() as stack:
            stack.callback(_stop, parts)
            for name, (health, command) in servers.items():
                if not answers(health):
                    parts[name] = start(command, environment, logs / f"{name}.log")
            for name, process in parts.items():
                wait(name, servers[name][0], process, logs / f"{name}.log", check)
            parts["runner"] = start(runner_command, environment, logs / "runner.log")
            wait("runner", f"{prefect}/api/deployments/name/aoi/predict", parts["runner"], logs / "runner.log", check)
            print(f"Prefect  {prefect}\nMLflow   {mlflow}\nlogs     {logs}\n\nIn another terminal:")
            print(f"  export PREFECT_API_URL={prefect}/api\n  prefect deployment run aoi/full --watch", flush=True)
            while True:
                for name, process in parts.items():
                    if process.poll() is not None:
                        raise _ended(name, process, logs / f"{name}.log")
                time.sleep(0.5)
                check()
    except KeyboardInterrupt:
        print("stopped", flush=True)
        return 0


def answers(url: str) -> bool:
    """Whether a server is up."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def start(module: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen:
    """Runs a Python module beside this process, to be stopped with all its children."""
    return system.start([sys.executable, "-m", *module], environment, log)


def _stop(parts: Mapping[str, subprocess.Popen]) -> None:
    """Ends every part with all its children, the runner first."""
    # One after the other: a runner whose server is gone already waits for it in vain.
    for process in reversed(list(parts.values())):
        system.stop(process, STOP_SECONDS)


def wait(name: str, url: str, process: subprocess.Popen, log: Path, check: Callable[[], None] = lambda: None) -> None:
    """Returns once a started part answers. Raises: AoiError where it ends, or does not answer in time.

    check: called meanwhile; raises what ends the wait.
    """
    deadline = time.monotonic() + START_SECONDS
    while not answers(url):
        if process.poll() is not None:
            raise _ended(name, process, log)
        if time.monotonic() > deadline:
            raise refuse(name, f"no answer from {url} in {START_SECONDS} s", f"See {log}", exit_code=MISSED)
        time.sleep(0.2)
        check()


def _ended(name: str, process: subprocess.Popen, log: Path):
    seen = f"it ended with exit code {process.returncode}"
    return refuse(name, seen, f"See {log}; is its port taken by something else?", exit_code=MISSED)
