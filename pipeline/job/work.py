"""Parts of a job, each done by a worker by itself, and the files by which they travel there.

A job that held a million rows itself would take the memory of several copies of them, and engines bound the size of a
job (Dataflow: 10 MB).
"""

import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from pipeline import store
from pipeline.inputs.rows import Rows
from pipeline.job.look import LookPlan
from pipeline.job.shard import ShardPlan
from tfrecords.artifacts.files import appearing
from tfrecords.errors import REFUSED, refuse
from tfrecords.settings import PreprocessSettings
from tfrecords.system import keep_freed_memory

KINDS: dict[str, Any] = {kind.__name__: kind for kind in (ShardPlan, LookPlan)}


class Plan(Protocol):
    """Everything that a worker needs for a part of a job: a frozen dataclass of what JSON can hold, but for its rows
    and settings. file: its name, unlike all others' in the folder."""

    @property
    def folder(self) -> str: ...
    @property
    def file(self) -> str: ...
    @property
    def rows(self) -> Rows: ...
    @property
    def options(self) -> tuple[str, ...]: ...
    @property
    def report_path(self) -> str:
        """A file in the folder that is there once the part is done."""

    def is_done(self) -> bool: ...

    def do(self, check: Callable[[], None] = lambda: None) -> str:
        """Does it, where it is not done; check: called every few pictures, and what it raises ends the work."""


def plan_path(plan: Plan) -> str:
    """Where `write_plan` puts it."""
    return os.path.join(plan.folder, f".{plan.file}.plan.json")


def write_plan(plan: Plan) -> str:
    """Puts the plan into its folder. Returns: where it lies, for `do_planned`."""
    path = plan_path(plan)
    plain: dict[str, Any] = {field.name: getattr(plan, field.name) for field in fields(plan)}  # type: ignore[arg-type]
    plain |= {"rows": plan.rows.plain(), "preprocess": plain["preprocess"].model_dump()}
    plain |= {"kind": type(plan).__name__, "versions": versions()}
    with appearing(Path(path)) as file:
        file.write(json.dumps(plain).encode())
    return path


def read_plan(path: str) -> Plan:
    """The plan as `write_plan` got it. Raises: AoiError where it is by other versions of the packages."""
    with open(path, "rb") as file:
        plain = json.load(file)
    theirs, ours = plain.pop("versions"), versions()
    for package in ours:
        if theirs.get(package) != ours[package]:
            seen = f"this worker has {package} {ours[package]}, and the job was started by {theirs.get(package)}"
            raise refuse(socket.gethostname(), seen, "Install the same versions on every worker", exit_code=REFUSED)
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
    plain |= {"rows": Rows.from_plain(plain["rows"]), "preprocess": PreprocessSettings(**plain["preprocess"])}
    plan: Plan = KINDS[plain.pop("kind")](**plain)
    return plan


@cache
def versions() -> dict[str, str]:
    """What must be the same on every worker, for the same bytes: packages with their versions."""
    return {package: version(package) for package in ("aoi", "apache-beam", "numpy", "opencv-python-headless")}


class Stopped(Exception):
    """The job of a plan was stopped."""


def stop_plan(plan: Plan) -> None:
    """From now on no worker does more of the plan, also where the engine goes on with the job."""
    with suppress(OSError):  # it may be gone already
        os.truncate(plan_path(plan), 0)


def do_planned(path: str) -> str:
    """Does what is planned at `path`, as long as the plan lies there and is not stopped. Of one that is stopped the
    engine is told that it is done: of a failure it would try again."""

    def check() -> None:
        size = 0
        with suppress(FileNotFoundError):  # the job is over, and its folder has another name
            size = os.path.getsize(path)
        if not size:
            raise Stopped(path)

    try:
        if os.path.exists(path):  # if not, this machine may not see the folder at all, which has to be told
            check()
        plan = read_plan(path)
        store.use(plan.options)
        keep_freed_memory()
        return plan.do(check)
    except Stopped:
        return ""
