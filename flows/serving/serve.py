"""`aoi serve`: a Prefect server, the MLflow UI and the deployments, for as long as it runs."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from flows import interrupts
from flows.addresses import PROXIES, admitted, bracketed, direct, is_loopback, reachable
from flows.home import Home
from flows.serving.inbox import SETTLE_SECONDS, open_inbox
from flows.serving.servers import (
    ask,
    check_no_runner,
    check_stores,
    prefect_home,
    run_variables,
    runs_already,
    servers_of,
)
from model.registry.store import Store, experiments_address, nameless, store_of
from tfrecords import system
from tfrecords.errors import MISSED, AoiError, refuse

START_SECONDS = 120
STOP_SECONDS = 15


@dataclass(frozen=True)
class Asked:
    """What the runner is told of the deployments.

    data: folder that they use where none is given; crons: texts DEPLOYMENT=CRON; inbox: folder of lots, where there
    is one; settle: seconds without change after which a lot is finished.
    """

    data: str | None = None
    crons: Sequence[str] = ()
    inbox: str | None = None
    settle: float = SETTLE_SECONDS

    def check(self, home: Home) -> None:
        """Raises: AoiError for a cron or an inbox that is none."""
        if self.crons:
            from flows.serving.runner import read_crons  # Prefect: two seconds

            read_crons(self.crons)
        if self.inbox:
            open_inbox(home, self.inbox, self.settle)

    def words(self) -> list[str]:
        """The same as words of the runner's command line."""
        words = [f"--cron={cron}" for cron in self.crons]
        if self.data:
            words.append(f"--data={os.path.abspath(self.data)}")
        if self.inbox:
            words += [f"--inbox={os.path.abspath(self.inbox)}", f"--settle={self.settle}"]
        return words


def serve(home: Home, asked: Asked, host: str, prefect_port: int, mlflow_port: int) -> int:
    """Starts what does not answer yet, serves the deployments until SIGINT or SIGTERM, stops what it started.

    Raises: AoiError for an address that can't be used or that something else holds, and for what is asked and can't
        be done, before anything is started; for a part that does not come up or ends early.
    """
    try:
        return _serve(home, asked, host, prefect_port, mlflow_port)
    except KeyboardInterrupt:
        print("stopped", flush=True)
        return 0


def _serve(home: Home, asked: Asked, host: str, prefect_port: int, mlflow_port: int) -> int:
    asked.check(home)
    store = store_of(home.root, "")
    check_stores(store, os.environ)
    servers = servers_of(home, store, host, prefect_port, mlflow_port)
    missing = [server for server in servers if not runs_already(server, home, store)]
    check_no_runner(home)
    prefect, mlflow = servers[0].address, servers[1].address if servers[1:] else nameless(store.uri)
    logs = home.root / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    environment = environment_of(home, host, prefect, mlflow, mlflow_port, os.environ)
    runner = ["flows.serving.runner", str(home.root), *asked.words()]
    if not is_loopback(host):
        print(f"warning: {host} opens both servers, without a password, to whoever reaches this machine")
    parts: dict[str, subprocess.Popen[bytes]] = {}
    # Deferred, or a part could be started and not be known yet, or a second Ctrl-C could leave one behind.
    with interrupts.deferred() as check, ExitStack() as stack:
        stack.callback(_stop, parts)
        for server in missing:
            log = logs / f"{server.name}.log"
            parts[server.name] = start(server.command, {**environment, **server.environment}, log)
        for server in missing:
            up = partial(answers, server.address + server.health)
            wait(server.name, up, parts[server.name], logs / f"{server.name}.log", check)
        began = datetime.now(UTC)
        parts["runner"] = start(runner, environment, logs / "runner.log")
        wait("runner", partial(polled, prefect, began), parts["runner"], logs / "runner.log", check)
        print(welcome(prefect, mlflow, _tables(store, mlflow), logs, host, os.environ), flush=True)
        while True:
            for name, process in parts.items():
                if process.poll() is not None:
                    raise _ended(name, process, logs / f"{name}.log")
            time.sleep(0.5)
            check()


def environment_of(
    home: Home, host: str, prefect: str, mlflow: str, mlflow_port: int, given: Mapping[str, str]
) -> dict[str, str]:
    """The variables under which the servers, the runner and its flow runs live.

    prefect, mlflow: addresses of the servers; given: variables of `aoi serve` itself.
    """
    return {
        "PREFECT_UI_API_URL": "/api",  # where the page itself came from, under whatever name
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # Beside the database, so that who holds which place of a limit is known after a restart too.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        **given,
        **direct(given, [reachable(host)]),
        **admitted(host, mlflow_port, given),
        **run_variables(home),
        "AOI_MLFLOW_UI": mlflow,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its eight helpers serve features for language models
        "PREFECT_API_URL": f"{prefect}/api",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",  # seconds until a request is seen; 10 by default
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",  # until a new schedule acts; 60 by default
        "PREFECT_HOME": str(prefect_home(home)),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }


def _tables(store: Store, mlflow: str) -> dict[str, str]:
    """Address of each experiment's table of runs, by the experiment's name; until there is one, of their list."""
    from model.registry.tracking import runs_addresses

    return runs_addresses(store, mlflow) or {"all": experiments_address(mlflow)}


def welcome(
    prefect: str, mlflow: str, tables: Mapping[str, str], logs: Path, host: str, environment: Mapping[str, str]
) -> str:
    """What people need once all is up: the addresses, and how another terminal asks for a run.

    tables: address of the table of runs by the name of its data.
    """
    lines = [f"Prefect  {prefect}", f"MLflow   {mlflow}", f"logs     {logs}"]
    lines += [f"runs     {name}: {address}" for name, address in tables.items()]
    if host != reachable(host):
        own = bracketed(reachable(host))
        lines.insert(2, f"         from other machines: a name or address of this one in place of {own}")
    lines += ["", "In another terminal:", f"  export PREFECT_API_URL={prefect}/api"]
    known, needed = environment.get("no_proxy") or environment.get("NO_PROXY"), direct(environment, [reachable(host)])
    if known != needed["no_proxy"] and any(name.lower() in PROXIES for name in environment):
        lines.append(f"  export no_proxy={needed['no_proxy']}")
    return "\n".join([*lines, "  prefect deployment run aoi/full --watch"])


def answers(url: str) -> bool:
    """Whether a server of this machine is up."""
    answer = ask(url)
    return answer is not None and answer.status == 200


def polled(prefect: str, since: datetime) -> bool:
    """Whether a runner has asked for work since then, so that what is asked of a deployment now is run."""
    answer = ask(f"{prefect}/api/deployments/name/aoi/predict")
    deployment = answer.json() if answer else None
    asked = deployment.get("last_polled") if isinstance(deployment, dict) else None
    return asked is not None and datetime.fromisoformat(asked) > since


def start(module: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Runs a Python module beside this process, to be stopped with all its children."""
    return system.start([sys.executable, "-m", *module], environment, log)


def _stop(parts: Mapping[str, subprocess.Popen[bytes]]) -> None:
    """Ends every part with all its children, the runner first."""
    # One after the other: a runner whose server is gone already waits for it in vain.
    for process in reversed(list(parts.values())):
        system.stop(process, STOP_SECONDS)


def wait(
    name: str,
    is_up: Callable[[], bool],
    process: subprocess.Popen[bytes],
    log: Path,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Returns once a started part is up. Raises: AoiError where it ends, or is not up in time.

    check: called meanwhile; raises what ends the wait.
    """
    deadline = time.monotonic() + START_SECONDS
    while not is_up():
        if process.poll() is not None:
            raise _ended(name, process, log)
        if time.monotonic() > deadline:
            raise refuse(name, f"not up within {START_SECONDS} s", f"See {log}", exit_code=MISSED)
        time.sleep(0.2)
        check()


def _ended(name: str, process: subprocess.Popen[bytes], log: Path) -> AoiError:
    return refuse(name, f"it ended with exit code {process.returncode}", f"See {log}", exit_code=MISSED)
