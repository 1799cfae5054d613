"""Breaks the stages in every way that a machine can, and checks that what they made stays whole.

    make faults                                      everything: a quarter to half an hour on two cores
    .venv/bin/python tests/faults/faults.py --quick  at named moments alone, as in the test suite: some minutes
    .venv/bin/python tests/faults/faults.py --only "kill ingest"

TensorFlow takes seconds to import. So one process imports everything and runs nothing; it forks a child for each
attempt, which runs one command of `aoi` on a copy of a HOME. Ends with a table; exit code 1 if a check failed.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import importlib
import io
import itertools
import json
import os
import random
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.request
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["AOI_WEIGHTS"] = "none"  # nothing is downloaded
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ.pop("MLFLOW_TRACKING_URI", None)
warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork.*")

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
EPOCHS = 2
SETTINGS = (
    "preprocess.image_size_px=32",
    "train.alpha=0.25",
    f"train.epochs={EPOCHS}",
    "train.learning_rate=0.003",
    "evaluate.minimum_accuracy=0",
    "ingest.shards=4",
)
MADE = {  # by stage: kinds of artefacts, and notes under latest/
    "ingest": (("dataset", "audit"), ("data", "dataset", "audit")),
    "train": (("model",), ("model",)),
    "evaluate": (("evaluation",), ("evaluation", "passed", "champion")),
    "predict": (("prediction",), ("prediction",)),
}
STAGES = tuple(MADE)
LATE = "train, all epochs done"  # a HOME in which the training was killed when it began to write its results
# What a stage does in HOME, in its own order: an event and a pattern of its path. A quick run strikes just before.
COMMIT = (r"open \.manifest\.json\.", r"os.rename /\.work-\w+$", r"os.remove /\.lock-\w+$")
SHARDS = (r"open /\.train-00000-of", r"open /\.train-00002-of", r"open /\.\.train-00003-of.*tfrecord\.json")
MOMENTS = {
    "ingest": (
        *(*SHARDS, r"open \.rows\.csv", *COMMIT),
        *(r"open latest/\.data\.json", r"open audit\.png", r"open latest/\.dataset\.json"),
    ),
    LATE: (r"open model\.tflite", r"open curves\.png", *COMMIT, r"open latest/\.model\.json"),
    "evaluate": (r"open predictions\.csv", *COMMIT, r"open latest/\.champion-tiny\.json"),
    "predict": (r"open predictions\.csv", *COMMIT, r"open latest/\.prediction\.json", r"open home/\.submission\.csv"),
}
REPLACING = (r"os.rename /\.work-\w+$", r"os.rename /tiny-train-\w+(\.\d+)?$", r"os.remove ^rows\.csv$")
LIMIT = 240  # seconds that no undisturbed stage takes
STOP = 10  # seconds within which a command that was stopped at a random moment must be gone


@dataclass
class Outcome:
    """What a scenario saw. problems: what must not be; notes: what is worth knowing, counted."""

    kind: str
    times: int = 0
    same: int = 0  # completions that gave the reference's bytes
    completed: int = 0
    problems: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def check(self, holds: bool, problem: str, log: Path | None = None) -> bool:
        if not holds:
            lines = log.read_text(errors="replace").strip().splitlines() if log else []
            shown = lines if len(lines) < 16 else [*lines[:8], "...", *lines[-8:]]
            self.problems.append(" | ".join([problem, *(line.strip()[:300] for line in shown)]))
        return holds


@dataclass
class Lab:
    """A scratch folder with the data, a HOME with everything made from it, and what an undisturbed stage does."""

    scratch: Path
    data: Path
    home: Path
    seed: int
    seconds: dict[str, float] = field(default_factory=dict)
    changes: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    late: Path | None = None

    def place(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.scratch)) / "home"

    def before(self, stage: str, to: Path, lot: bool = True) -> Path:
        """Copies HOME as it stood before a stage. lot: with the test set's dataset."""
        if stage == LATE:
            return shutil.copytree(self.late, to)
        shutil.copytree(self.home, to, ignore=shutil.ignore_patterns("*.tmp"))
        for later in STAGES[STAGES.index(stage) :]:
            for kind in MADE[later][0]:
                shutil.rmtree(to / kinds()[kind].FOLDER, ignore_errors=True)
            for note in (to / "latest").iterdir():
                if note.stem.partition("-")[0] in MADE[later][1]:
                    note.unlink()
        (to / "submission.csv").unlink(missing_ok=True)
        if stage in ("ingest", "train"):
            shutil.rmtree(to / "mlartifacts", ignore_errors=True)
            (to / "mlflow.db").unlink(missing_ok=True)
        if not lot:
            for folder in (to / kinds()["dataset"].FOLDER).glob("*-test-*"):
                shutil.rmtree(folder)
        return to

    def command(self, stage: str, home: Path, *more: str) -> list[str]:
        stage = "train" if stage == LATE else stage
        data = ["--data", str(self.data)] if stage in ("ingest", "run") else []
        chosen = itertools.chain.from_iterable(("--set", setting) for setting in SETTINGS)
        return [stage, "--home", str(home), *data, *chosen, *more]


# ---------------------------------------------------------------------------------------------- children


def warm() -> None:
    """Imports all that the stages import, and runs none of it."""
    for module in (
        "apache_beam.runners.portability.fn_api_runner.fn_runner",
        "keras",
        "matplotlib.backends.backend_agg",
        "matplotlib.figure",
        "mlflow.pyfunc",
        "mlflow.store.tracking.sqlalchemy_store",
        *(
            ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for package in ("tfrecords", "pipeline", "model", "flows")
            for path in (ROOT / package).rglob("[!_]*.py")
            if path.stem not in ("deployments", "runner")  # they import Prefect, which no stage needs
        ),
    ):
        importlib.import_module(module)
    from tensorflow.python.eager import context

    assert not context.context()._initialized, "TensorFlow has run something: its threads would not survive a fork"


def fork(work: Callable[[], int | None], log: Path) -> int:
    """Runs a function in a child that leads a session of its own, its output in `log`. Returns the child's id."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        code = work() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def start(command: list[str], log: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Runs a command of `aoi` in a forked child, after `prepare` there."""

    def work() -> int:
        from flows.__main__ import main

        prepare()
        return main(command)

    return fork(work, log)


def wait(child: int, limit: float = LIMIT) -> int | None:
    """Exit code of a child, negative for a signal; None if it had to be killed after `limit` seconds."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def witness(act: Callable[[int, str, str], None], home: Path) -> None:
    """From now on calls act(number, what, path) before every change that Python code makes to a file in HOME."""
    prefix, numbers = str(home), itertools.count()

    def hook(event: str, given: tuple) -> None:
        if event == "open":
            path, mode, flags = given
            if not (set(mode or "") & set("wax+") or (flags or 0) & (os.O_WRONLY | os.O_RDWR)):
                return
        elif event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"):
            path = given[0]
        else:
            return
        if isinstance(path, int):
            return
        text = os.fsdecode(path)
        # rmtree names its entries relative to an open folder.
        if text.startswith(prefix) or not text.startswith("/"):
            act(next(numbers), event, text)

    sys.addaudithook(hook)


def kill_before(number: int, home: Path) -> Callable[[], None]:
    """For `start`: SIGKILL to itself before its change with this number."""

    def act(at: int, what: str, path: str) -> None:
        if at == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda: witness(act, home)


def strike(number: int, moment: str, home: Path) -> Callable[[], None]:
    """For `start`: a signal to itself when it comes to a moment such as "open card.json", see MOMENTS."""
    event, _, pattern = moment.partition(" ")
    left = [number]

    def act(at: int, what: str, path: str) -> None:
        if left and what == event and re.search(pattern, path):
            signal.raise_signal(left.pop())

    return lambda: witness(act, home)


def record(home: Path, into: Path) -> Callable[[], None]:
    """For `start`: writes every change as a line to `into`."""

    def prepare() -> None:
        handle = os.open(into, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        witness(lambda number, what, path: os.write(handle, f"{what}\t{path}\n".encode()), home)

    return prepare


# ------------------------------------------------------------------------------------------------ checks


def kinds() -> dict[str, Any]:
    """Type of the manifest of every kind of artefact."""
    from flows.stages import load_stages

    return {kind.KIND: kind for stage in load_stages().values() for kind in stage.makes}


def survey(home: Path) -> list[str]:
    """What a reader of HOME would trip over."""
    from flows.home import Home, Ref
    from tfrecords.artifacts.artifact import read, verify
    from tfrecords.errors import AoiError

    problems = []
    place = Home(home)
    for kind in kinds().values():
        for path in place.folder(kind).glob("[!.]*"):
            try:
                verify(read(path, kind))
            except AoiError as error:
                problems.append(f"reader: {error}")
    for path in (home / "latest").glob("*.json"):
        try:
            noted = json.loads(path.read_text())
            if "kind" in noted:
                verify(place.open(Ref(**noted), kinds()[noted["kind"]]))
        except (AoiError, ValueError) as error:
            problems.append(f"{path.name}: {error}")
    return problems


def digests(home: Path, stage: str) -> dict[str, list[str]]:
    """Digests of what a stage made, by kind; of predict the submission's bytes too."""
    from flows.home import Home
    from tfrecords.artifacts.artifact import read

    stage = "train" if stage == LATE else stage
    place = Home(home)
    found = {}
    for name in MADE[stage][0]:
        kind = kinds()[name]
        found[name] = sorted(read(path, kind).digest for path in place.committed(kind))
    if stage == "predict":
        found["submission"] = [(home / "submission.csv").read_bytes().hex()]
    return found


def leftovers(home: Path) -> list[str]:
    return [
        path.relative_to(home).as_posix()
        for pattern in ("**/.work-*", "**/.lock-*", "**/.gone-*", "**/*.tmp")
        for path in home.glob(pattern)
        if "prefect/" not in path.as_posix()
    ]


def finished_shards(home: Path) -> dict[str, tuple[int, int]]:
    """(inode, time of change) of the shards in work folders that are finished: reported, or sealed by a manifest."""
    return {
        shard.name: (shard.stat().st_ino, shard.stat().st_mtime_ns)
        for shard in home.glob("datasets/.work-*/*.tfrecord")
        if (shard.parent / f".{shard.name}.json").exists() or (shard.parent / "manifest.json").exists()
    }


def check_mlflow(home: Path, outcome: Outcome, epochs: int = EPOCHS) -> None:
    """Every epoch's metrics are there once, in one finished run."""
    with contextlib.closing(sqlite3.connect(home / "mlflow.db")) as database:
        runs = dict(database.execute("SELECT run_uuid, status FROM runs").fetchall())
        finished = [run for run, status in runs.items() if status == "FINISHED"]
        if not outcome.check(len(finished) == 1, f"runs in MLflow: {sorted(runs.values())}"):
            return
        rows = database.execute(
            "SELECT key, step, count(*) FROM metrics WHERE run_uuid = ? AND step > 0 GROUP BY key, step", finished
        ).fetchall()
        versions = database.execute("SELECT count(*) FROM model_versions").fetchone()[0]
    keys = {key for key, _, _ in rows}
    outcome.check(len(keys) >= 5, f"MLflow: of every epoch there is only {sorted(keys)}")
    for key in keys:
        seen = sorted((step, count) for name, step, count in rows if name == key)
        outcome.check(seen == [(step, 1) for step in range(1, epochs + 1)], f"MLflow: {key} has (step, times) {seen}")
    outcome.check(versions == 1, f"MLflow: {versions} registered versions of one model")
    outcome.notes["runs begun that never got to their first note"] += len(runs) - 1


def complete(lab: Lab, outcome: Outcome, stage: str, home: Path, *more: str) -> bool:
    """Runs the stage to its end; its result must be the reference's."""
    log = home.parent / "complete.log"
    log.unlink(missing_ok=True)
    code = wait(start(lab.command(stage, home, *more), log))
    outcome.completed += 1
    if not outcome.check(code == 0, f"{stage}: the next run ended with {code}", log):
        return False
    if problems := survey(home):
        return outcome.check(False, f"{stage}, completed: {problems}")
    if outcome.check(digests(home, stage) == digests(lab.home, stage), f"{stage}: other bytes than undisturbed"):
        outcome.same += 1
    for path in leftovers(home):
        name = "a left-over " + Path(path).name.split("-")[0] if ".tmp" not in path else "a left-over .tmp"
        outcome.notes[name] += 1
    return True


# ------------------------------------------------------------------------------------------------- kills


def commit_points(changes: list[tuple[str, str]]) -> list[int]:
    """Numbers of the changes around the commits: from some before a manifest is written, to some after the rename."""
    points: set[int] = set()
    begins = None
    for number, (what, path) in enumerate(changes):
        if ".manifest.json." in path and what == "open":
            begins = number
        if begins is not None and what == "os.rename" and "/.work-" in path and path.rpartition("/")[2][0] == ".":
            points |= set(range(begins - 4, number + 7)) if ".work-" in path.rpartition("/")[2] else set()
    return sorted(point for point in points if 0 <= point < len(changes))


def kill(lab: Lab, kind: str, stage: str, aimed: bool, kills: int, seed: int) -> Outcome:
    """Kills the stage `kills` times, checking after each, then lets it complete.

    aimed: at a change around a commit, chosen by chance; otherwise at a random moment.
    """
    outcome, rng = Outcome(kind), random.Random(seed)
    span, points = lab.seconds[stage], commit_points(lab.changes[stage])

    def fresh() -> Path:
        return lab.before(stage, lab.place("kill"), lot=rng.random() < 0.5 or stage != "predict")

    home, shards = fresh(), {}
    for attempt in range(5 * kills):
        if outcome.times == kills:
            break
        log = home.parent / f"kill-{attempt}.log"
        command = lab.command(stage, home)
        if aimed:
            number = rng.choice(points)
            where = f"before change {number} ({' '.join(lab.changes[stage][number])[-60:]})"
            code = wait(start(command, log, kill_before(number, home)))
        else:
            delay = rng.uniform(0, span)
            where = f"after {delay:.2f} s"
            child = start(command, log)
            time.sleep(delay)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            code = wait(child)
        if code == 0:  # done before; what is done can't be interrupted
            span = min(span, delay) if not aimed else span
            home, shards = fresh(), {}
            continue
        if not outcome.check(code == -signal.SIGKILL, f"{stage}: ended with {code} instead of the kill {where}", log):
            return outcome
        outcome.times += 1
        if problems := survey(home):
            outcome.check(False, f"{stage}, killed {where}: {problems}")
        if stage == "ingest":
            shards |= finished_shards(home)
    return complete_struck(lab, outcome, stage, home, shards)


def complete_struck(lab: Lab, outcome: Outcome, stage: str, home: Path, shards: dict[str, tuple[int, int]]) -> Outcome:
    """Lets a stage complete that was ended before its time. shards: what was finished then, which must stay."""
    if not complete(lab, outcome, stage, home):
        return outcome
    for path in home.glob("datasets/[!.]*/*.tfrecord"):
        told = (path.stat().st_ino, path.stat().st_mtime_ns)
        outcome.check(shards.get(path.name, told) == told, f"{path.name} was finished and was converted again")
    if shards:
        outcome.notes["finished shards kept"] += len(shards)
    if stage in ("train", LATE):
        check_mlflow(home, outcome)
    shutil.rmtree(home.parent)
    return outcome


def at_moments(lab: Lab, kind: str, stage: str, number: int) -> Outcome:
    """A signal at each of a stage's MOMENTS, one after the other in the same HOME; then lets it complete."""
    outcome, shards = Outcome(kind), {}
    home = lab.before(stage, lab.place("moment"), lot=stage != "predict")
    for moment in MOMENTS[stage]:
        if number == signal.SIGINT and moment in SHARDS[1:]:  # of other threads, which go on until the process ends
            continue
        log = home.parent / f"{outcome.times}.log"
        child = start(lab.command(stage, home), log, strike(number, moment, home))
        code = wait(child)
        where = f"{stage}, struck at {moment!r}"
        if number == signal.SIGINT:
            check_stopped(outcome, where, child, code, log)
        else:
            outcome.times += 1
        wanted = 130 if number == signal.SIGINT else -number
        if not outcome.check(code == wanted, f"{where}: ended with {code} instead of {wanted}", log):
            return outcome
        if problems := survey(home):
            outcome.check(False, f"{where}: {problems}")
        if stage == "ingest":
            shards |= finished_shards(home)
    return complete_struck(lab, outcome, stage, home, shards)


def kill_replacing(lab: Lab, kind: str, seed: int, kills: int = 0) -> Outcome:
    """Kills `ingest --force` while it replaces a dataset by one of other content under the same fingerprint.

    kills: so many, at changes around the commit chosen by chance; 0: one at each moment of REPLACING.
    """
    outcome, rng = Outcome(kind), random.Random(seed)
    home = shutil.copytree(lab.home, lab.place("replace"))
    old = digests(home, "ingest")["dataset"]

    def other(name: str) -> None:
        import pipeline.job.ingest

        pipeline.job.ingest.version = lambda package: name

    def open_latest() -> str:
        from flows.home import Home
        from tfrecords.dataset import DatasetManifest

        place = Home(home)
        latest = place.latest(DatasetManifest, "")
        return place.named(DatasetManifest, latest.fingerprint).digest

    command = lab.command("ingest", home, "--force")
    if kills:
        numbers = [rng.choice(lab.changes["replace"]) for _ in range(kills)]
        points = [(f"change {number}", kill_before(number, home)) for number in numbers]
    else:
        points = [(moment, strike(signal.SIGKILL, moment, home)) for moment in REPLACING]
    for attempt, (point, kill_there) in enumerate(points):
        log = home.parent / f"replace-{attempt}.log"

        def prepare(attempt: int = attempt, kill_there: Callable[[], None] = kill_there) -> None:
            other(f"another {attempt}")
            kill_there()

        code = wait(start(command, log, prepare))
        if code == 0 and kills:
            outcome.notes["done before the kill"] += 1
            continue
        if not outcome.check(code == -signal.SIGKILL, f"replace: ended with {code}", log):
            return outcome
        outcome.times += 1
        if problems := survey(home):
            outcome.check(False, f"killed before {point}: {problems}")
        try:
            open_latest()
        except Exception as error:
            outcome.check(False, f"killed before {point}, the dataset can't be chosen: {error}")
    log = home.parent / "replace.log"
    outcome.completed += 1
    if outcome.check(wait(start(command, log, lambda: other("the last"))) == 0, "replace: the next run fails", log):
        new = digests(home, "ingest")["dataset"]
        outcome.check(not survey(home), f"replaced: {survey(home)}")
        if outcome.check(len(new) == len(old) and not set(new) & set(old), f"replaced {old}, found {new}"):
            outcome.same += 1
    for path in leftovers(home):
        outcome.notes[f"left over: {Path(path).name[:6]}"] += 1
    shutil.rmtree(home.parent)
    return outcome


# ------------------------------------------------------------------------------------------ the hot folder


def kill_watch(lab: Lab, kind: str, kills: int, across: bool, seed: int) -> Outcome:
    """Kills `aoi watch --sort` `kills` times while pictures come in every way, then lets it answer all of them.

    Half of the kills strike at a random moment, half before a random one of its changes to files. across: the
    OUTBOX lies on another disk than the INBOX.
    """
    outcome, rng = Outcome(kind), random.Random(seed)
    place = lab.place("watch").parent
    elsewhere = Path("/dev/shm") if across else place
    if across and (not elsewhere.is_dir() or elsewhere.stat().st_dev == place.stat().st_dev):
        outcome.notes["skipped: there is no other disk"] += 1
        return outcome
    out = Path(tempfile.mkdtemp(prefix="aoi-faults-out-", dir=elsewhere))
    inbox, log = place / "in", place / "log"
    inbox.mkdir()
    sys.path.insert(0, str(ROOT / "tests"))
    from tiny import picture, png

    sent: dict[str, bytes] = {}
    ended = threading.Event()

    def send() -> None:
        """Pictures until the end: renamed in, copied slowly, or their space reserved first; some names come again."""
        number = 0
        while not ended.wait(rng.uniform(0, 0.02)):
            name = f"{rng.choice(['', 'lot/'])}{number % 500}.png"
            data, path = png(picture(number % 3, 10_000 + number)), inbox / name
            if path.exists():  # of 500 pictures ago: it has not been answered yet
                continue
            path.parent.mkdir(exist_ok=True)
            way = rng.choice(["rename", "copy", "reserve"])
            if way == "rename":
                (place / "aside").write_bytes(data)
                os.rename(place / "aside", path)
            else:
                with open(path, "wb", buffering=0) as file:
                    if way == "reserve":
                        file.truncate(len(data))
                    for at in range(0, len(data), 500):
                        file.write(data[at : at + 500])
                        time.sleep(0.001)
            sent[f"{name} {hashlib.sha256(data).hexdigest()}"] = data
            number += 1

    def rows() -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO((out / "decisions.csv").read_text())))

    command = ["watch", str(inbox), "--out", str(out), "--sort", "--home", str(lab.home)]
    feeding = threading.Thread(target=send)
    feeding.start()
    try:
        while outcome.times < kills:
            if rng.random() < 0.5:
                child = start(command, log, kill_before(rng.randrange(200), Path("/")))
            else:
                child = start(command, log)
                time.sleep(rng.uniform(0, 1.5))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            code = wait(child, 30)
            if code is None:  # it was killed for having less to do than that change
                code = -signal.SIGKILL
            if not outcome.check(code == -signal.SIGKILL, f"watch ended with {code} instead of the kill", log):
                return outcome
            outcome.times += 1
        ended.set()
        feeding.join()
        child = start(command, log)
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline and any(path.is_file() for path in inbox.rglob("*")):
            time.sleep(0.1)
        os.kill(child, signal.SIGTERM)
        outcome.completed += 1
        outcome.check(wait(child) == 0, "watch did not end well", log)
        told = [f"{row['ID']} {row['sha256']}" for row in rows()]
        outcome.check(len(told) == len(set(told)), f"{len(told) - len(set(told))} pictures were answered twice")
        outcome.check(set(told) >= set(sent), f"{len(set(sent) - set(told))} of {len(sent)} pictures were lost")
        outcome.check(set(told) <= set(sent), f"{len(set(told) - set(sent))} pictures that nobody sent")
        there = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in out.glob("*/**/*") if path.is_file())
        outcome.check(
            there == sorted(hashlib.sha256(data).hexdigest() for data in sent.values()), "other pictures in the OUTBOX"
        )
        outcome.check(not list(inbox.rglob("*.png")), "pictures are left in the INBOX")
        outcome.notes["pictures"] += len(sent)
        if not outcome.problems:
            outcome.same += 1
    finally:
        ended.set()
        feeding.join()
        shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(place)
    return outcome


# ------------------------------------------------------------------------------------------- disk faults


@contextlib.contextmanager
def small_disk(lab: Lab, size_mb: int = 64) -> Iterator[Path]:
    """A tmpfs to be filled; the HOME is `home` in it."""
    place = Path(tempfile.mkdtemp(prefix="disk-", dir=lab.scratch))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", place], check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=False, capture_output=True)


def mountable(lab: Lab) -> str:
    """Why no small disk can be mounted here; '' where it can."""
    if os.geteuid() != 0:
        return "skipped: needs root"
    try:
        with small_disk(lab, 1):
            return ""
    except (subprocess.CalledProcessError, FileNotFoundError):
        return "skipped: no tmpfs can be mounted"


def used(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def disk_full(lab: Lab, kind: str, stage: str, part: float) -> Outcome:
    """The stage with room for a part of what it writes, then with enough."""
    outcome = Outcome(kind, times=1)
    if why := mountable(lab):
        return Outcome(kind, notes={why: 1})
    with small_disk(lab) as disk:
        home = lab.before(stage, disk / "home", lot=stage != "predict")
        # Small files for pointers and locks, and the work of the stage; SQLite's journal comes on top.
        need = max(used(lab.home) - used(home), 64 << 10)
        state = os.statvfs(disk)
        room = int(need * part) // 4096 * 4096
        with open(disk / "ballast", "wb") as ballast:
            ballast.write(bytes(max(0, state.f_bavail * state.f_frsize - room)))
        log = lab.place("full").parent / "full.log"
        code = wait(start(lab.command(stage, home), log))
        text = log.read_text(errors="replace")
        if code == 0:
            outcome.notes["it was enough"] += 1
        else:
            outcome.check(code == 1, f"disk full at {part:.0%}: {stage} ended with {code}", log)
            told = any(word in text for word in ("No space left", "disk is full", "disk I/O error", "unable to open"))
            outcome.check(told and "Traceback" not in text, f"disk full at {part:.0%}: {stage} says", log)
        if problems := survey(home):
            outcome.check(False, f"disk full at {part:.0%}, {stage}: {problems}")
        (disk / "ballast").unlink()
        complete(lab, outcome, stage, home)
    return outcome


def read_only(lab: Lab, kind: str, stage: str, moment: float) -> Outcome:
    """HOME turns read-only at a moment (0: before, 1: when the stage would be done)."""
    outcome = Outcome(kind, times=1)
    if why := mountable(lab):
        return Outcome(kind, notes={why: 1})
    with small_disk(lab) as disk:
        home = lab.before(stage, disk / "home", lot=stage != "predict")
        log = lab.place("ro").parent / "ro.log"

        def lock() -> bool:
            return subprocess.run(["mount", "-o", "remount,ro", disk], capture_output=True).returncode == 0

        if moment == 0:
            lock()
        child = start(lab.command(stage, home), log)
        time.sleep(moment * lab.seconds[stage])
        while moment and not lock():  # busy as long as a file is open for writing
            if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                break
        code = wait(child)
        if code == 0:
            outcome.notes["done before"] += 1
        else:
            outcome.check(code == 1, f"read-only: {stage} ended with {code}", log)
            text = log.read_text(errors="replace")
            told = "Read-only" in text or "readonly" in text or "read-only" in text or "unable to open" in text
            outcome.check(told and "Traceback" not in text, f"read-only: {stage} says", log)
        lock()
        if problems := survey(home):  # readers need to write nothing
            outcome.check(False, f"read-only, {stage}: {problems}")
        log.unlink()
        code = wait(start(["verify", "--home", str(home)], log))
        outcome.check(code == 0, f"read-only: aoi verify ended with {code}", log)
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True, capture_output=True)
        complete(lab, outcome, stage, home)
    return outcome


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def one_byte(lab: Lab, kind: str, seed: int, every: bool) -> Outcome:
    """One bit of a committed file flips: `aoi verify` and every reader name the file; --force mends it."""
    from flows.home import Home

    outcome, rng = Outcome(kind), random.Random(seed)
    home = shutil.copytree(lab.home, lab.place("byte"))
    log = home.parent / "byte.log"

    def named(path: Path, command: list[str]) -> None:
        log.unlink(missing_ok=True)
        code = wait(start(command, log))
        text = log.read_text(errors="replace")
        outcome.check(
            code == 2 and str(path) in text and "Traceback" not in text, f"{path.name}: {command[0]}: {code}", log
        )

    readers = {"dataset": ("train", "evaluate"), "model": ("evaluate", "predict")}
    place = Home(home)
    for name, artefact_kind in kinds().items():
        for folder in place.committed(artefact_kind):
            files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
            for path in files if every else rng.sample(files, 1):
                whole = path.read_bytes()
                flip(path, rng.randrange(len(whole)))
                outcome.times += 1
                named(path, ["verify", "--home", str(home)])
                stages = readers.get(name, ())
                if "-test-" in folder.name:
                    # A lot's own manifest is no input: a damaged one is made again.
                    stages = () if path.name == "manifest.json" else ("predict",)
                for stage in stages:
                    named(path, lab.command(stage, home, "--force"))
                path.write_bytes(whole)
    for artefact_kind, folder in [(kind, folder) for kind in kinds().values() for folder in place.committed(kind)][
        :: 1 if every else 3
    ]:
        missed = missed_flips(folder, artefact_kind)
        outcome.times += 1
        outcome.check(not missed, f"{folder.name}/manifest.json: readers accept a changed byte {missed[:5]}")
    outcome.check(not survey(home), "not as before")
    shard = next(home.glob("datasets/*-train-*/*.tfrecord"))
    flip(shard, 100)
    complete(lab, outcome, "ingest", home, "--force")
    return outcome


def missed_flips(folder: Path, kind: Any) -> list[tuple[int, str]]:
    """Places in the manifest where `read` does not notice that the lowest bit of the byte was flipped."""
    from tfrecords.artifacts.artifact import read
    from tfrecords.errors import AoiError

    path, missed = folder / "manifest.json", []
    whole = path.read_bytes()
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1
        path.write_bytes(changed)
        try:
            read(folder, kind)
        except AoiError as error:
            if str(path) in str(error):
                continue
        except Exception as error:
            missed.append((at, repr(error)[:80]))
            continue
        missed.append((at, bytes(changed[max(0, at - 20) : at + 5]).decode(errors="replace")))
    path.write_bytes(whole)
    return missed


# ----------------------------------------------------------------------------------------- other faults


def together(lab: Lab, kind: str, stage: str, seeds: tuple[int, int] = (0, 0)) -> Outcome:
    """The same stage twice at the same time into one HOME. seeds: of the two trainings; equal: the very same."""
    outcome = Outcome(kind, times=1)
    home = lab.before(stage, lab.place("two"))
    logs = [home.parent / f"two-{number}.log" for number in range(2)]
    more = [["--set", f"train.seed={seed}"] if seed else [] for seed in seeds]
    children = [start(lab.command(stage, home, *extra), log) for log, extra in zip(logs, more, strict=True)]
    for child, log in zip(children, logs, strict=True):
        code = wait(child)
        outcome.check(code == 0, f"two {stage}s at once: one ended with {code}", log)
    outcome.check(not survey(home), f"two {stage}s: {survey(home)}")
    if seeds[0] == seeds[1]:
        complete(lab, outcome, stage, home)
        if stage == "train":
            check_mlflow(home, outcome)
    else:
        found, wanted = digests(home, stage), digests(lab.home, stage)
        if outcome.check(len(found["model"]) == 2 and wanted["model"][0] in found["model"], f"models: {found}"):
            outcome.same += 1
        outcome.completed += 1
    return outcome


def clock_back(lab: Lab, kind: str, stage: str, after: int) -> Outcome:
    """The clock goes back by a year: before the stage, or in it, after so many looks at it."""
    outcome = Outcome(kind, times=1)
    home = lab.before(stage, lab.place("clock"), lot=stage != "predict")

    def prepare() -> None:
        real, real_ns, looks = time.time, time.time_ns, itertools.count()
        year = 365 * 24 * 3600
        time.time = lambda: real() - (year if next(looks) >= after else 0)
        time.time_ns = lambda: real_ns() - (year * 10**9 if next(looks) >= after else 0)

    log = home.parent / "clock.log"
    code = wait(start(lab.command(stage, home), log, prepare))
    outcome.check(code == 0, f"clock set back: {stage} ended with {code}", log)
    complete(lab, outcome, stage, home)
    if stage in ("train", LATE):
        check_mlflow(home, outcome)
    return outcome


def moved(lab: Lab, kind: str, stage: str) -> Outcome:
    """HOME lies elsewhere than when it was written; its model still loads by its name in MLflow."""
    outcome = Outcome(kind, times=1)
    first = lab.before(stage, lab.place("moved"), lot=stage != "predict")
    home = first.parent / "elsewhere" / "house"
    home.parent.mkdir()
    os.rename(first, home)
    if not complete(lab, outcome, stage, home):
        return outcome
    log = home.parent / "load.log"

    def load() -> int:
        import mlflow
        import pandas as pd

        from model.registry.store import store_of
        from model.registry.tracking import connect

        store = store_of(home, "tiny")
        connect(store)
        picture = next((lab.data / "test_images").iterdir()).read_bytes()
        table = mlflow.pyfunc.load_model(f"models:/{store.model}/1").predict(pd.DataFrame({"picture": [picture]}))
        return 0 if len(table) == 1 else 1

    outcome.check(wait(fork(load, log)) == 0, "moved: the model in MLflow does not load", log)
    return outcome


def older_schema(lab: Lab, kind: str, train_too: bool) -> Outcome:
    """HOME was written by a version with another schema: refused where it is input, made again where it is output."""
    from tfrecords.artifacts.files import hash_json
    from tfrecords.artifacts.manifest import CHECKSUM

    outcome = Outcome(kind, times=1)
    home = shutil.copytree(lab.home, lab.place("older"))
    for kind_made in kinds().values():
        for path in (home / kind_made.FOLDER).glob("*/manifest.json"):
            manifest = {**json.loads(path.read_text()), "schema_version": 0}
            manifest[CHECKSUM] = hash_json({key: value for key, value in manifest.items() if key != CHECKSUM})
            path.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    log = home.parent / "older.log"
    for stage in ("train", "evaluate", "predict", "verify"):
        log.unlink(missing_ok=True)
        command = lab.command(stage, home) if stage != "verify" else ["verify", "--home", str(home)]
        code = wait(start(command, log))
        text = log.read_text(errors="replace")
        told = "schema version 0" in text and "manifest.json" in text and "Traceback" not in text
        outcome.check(code == 2 and told, f"older schema: {stage} ended with {code}", log)
    for stage in STAGES if train_too else ("ingest",):
        log.unlink(missing_ok=True)
        code = wait(start(lab.command(stage, home), log))
        outcome.check(code == 0, f"older schema: {stage} is not made again, {code}", log)
        if outcome.check(digests(home, stage) == digests(lab.home, stage), f"older schema: {stage}: other bytes"):
            outcome.same += 1
        outcome.completed += 1
    if train_too:
        outcome.check(not survey(home), f"older schema: {survey(home)}")
    return outcome


def ctrl_c(lab: Lab, kind: str, stage: str, seed: int) -> Outcome:
    """SIGINT at a random moment of a stage in a warm child: exit code 130, no traceback, the next run completes."""
    outcome, rng = Outcome(kind), random.Random(seed)
    home = lab.before(stage, lab.place("int"), lot=stage != "predict")
    log = home.parent / "int.log"
    child = start(lab.command(stage, home), log)
    delay = rng.uniform(0.02, lab.seconds[stage])
    time.sleep(delay)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGINT)
    check_stopped(outcome, f"{stage} after {delay:.2f} s", child, wait(child, STOP), log)
    if problems := survey(home):
        outcome.check(False, f"Ctrl-C, {stage} after {delay:.2f} s: {problems}")
    complete(lab, outcome, stage, home)
    return outcome


def check_stopped(outcome: Outcome, where: str, session: int, code: int | None, log: Path) -> None:
    if code == 0:
        outcome.notes["done before Ctrl-C"] += 1
    else:
        outcome.times += 1
        text = log.read_text(errors="replace")
        outcome.check(code == 130, f"Ctrl-C, {where}: ended with {code}", log)
        outcome.check("Traceback" not in text, f"Ctrl-C, {where}: a traceback", log)
    deadline = time.monotonic() + STOP
    while (left := in_session(session)) and time.monotonic() < deadline:
        time.sleep(0.1)
    outcome.check(not left, f"Ctrl-C, {where}: processes left {left}")


def in_session(session: int) -> list[str]:
    """Command lines of the processes of a session that still run."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            state = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(state[3]) == session and state[0] != "Z":
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:80])
    return found


def ctrl_c_cold(lab: Lab, kind: str, stage: str, more: tuple[str, ...], seed: int) -> Outcome:
    """Ctrl-C on `aoi` as a terminal gives it: SIGINT to every process of the job."""
    outcome, rng = Outcome(kind), random.Random(seed)
    home = lab.before("ingest" if stage == "run" else stage, lab.place("cold"))
    log = home.parent / "cold.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [BIN / "aoi", *lab.command(stage, home, *more)], stdout=output, stderr=output, start_new_session=True
        )
    delay = rng.uniform(0.5, 15 if stage != "ingest" else 6)
    time.sleep(delay)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        code = process.wait(STOP)
    except subprocess.TimeoutExpired:
        code = None
    check_stopped(outcome, f"aoi {stage} after {delay:.1f} s", process.pid, code, log)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if problems := survey(home):
        outcome.check(False, f"Ctrl-C, aoi {stage}: {problems}")
    for each in STAGES if stage == "run" else (stage,):
        complete(lab, outcome, each, home)
    return outcome


# ---------------------------------------------------------------------------------------------- servers


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def until(holds: Callable[[], Any], limit: float = 120) -> Any:
    """Waits for a function to give something true; gives it, or None after `limit` seconds."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(0.05)
    return None


def server(command: list[str], log: Path, health: str, **environment: str) -> subprocess.Popen:
    """A server in a session of its own, as soon as it answers."""
    with open(log, "ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, **environment},
        )
    if not until(lambda: answers(health) or process.poll() is not None) or process.poll() is not None:
        raise RuntimeError(f"{command[:2]} does not come up: {log.read_text(errors='replace')[-500:]}")
    return process


def end(process: subprocess.Popen, number: int = signal.SIGKILL, limit: float = 30) -> int | None:
    """Signals a whole session; SIGKILL after `limit` seconds. Returns the exit code, None if it had to be killed."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None


def epochs_done(home: Path) -> int:
    """Epochs that an unfinished training has checkpointed."""
    for path in home.glob("models/.work-*/.state.json"):
        with contextlib.suppress(ValueError, OSError):
            return len(json.loads(path.read_text())["history"])
    return 0


def mlflow_away(lab: Lab, kind: str, back: float | None) -> Outcome:
    """The MLflow server dies after the first epoch. back: seconds until it is there again; None: after the stage."""
    outcome = Outcome(kind, times=1)
    home = lab.before("train", lab.place("mlflow"))
    port, folder = free_port(), home.parent
    url = f"http://127.0.0.1:{port}"
    command = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/store"]

    def up() -> subprocess.Popen:
        return server(command, folder / "server.log", f"{url}/health", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")

    def prepare() -> None:
        os.environ["MLFLOW_TRACKING_URI"] = url

    process = up()
    try:
        log = folder / "train.log"
        child = start(lab.command("train", home, "--set", "train.epochs=4"), log, prepare)
        outcome.check(bool(until(lambda: epochs_done(home))), "MLflow away: no first epoch", log)
        end(process)
        if back is not None:
            time.sleep(back)
            process = up()
        code = wait(child)
        text = log.read_text(errors="replace")
        outcome.check("Traceback" not in text, "MLflow away: a traceback", log)
        outcome.check(code == 0 if back is not None else code == 1, f"MLflow away: train ended with {code}", log)
        outcome.notes["went on" if code == 0 else "failed with a message, the next run went on"] += 1
        if code:
            outcome.check(url in text, "MLflow away: the message does not name the server", log)
            kept = epochs_done(home)
            outcome.check(kept == 4, f"MLflow away: {kept} epochs kept")
            if back is None:
                process = up()
            log.unlink()
            code = wait(start(lab.command("train", home, "--set", "train.epochs=4"), log, prepare))
            outcome.check(code == 0, f"MLflow is back: train ended with {code}", log)
        outcome.completed += 1
        outcome.check(not survey(home), f"{survey(home)}")
    finally:
        end(process)
    shutil.copy(folder / "server.db", home / "mlflow.db")
    check_mlflow(home, outcome, epochs=4)
    found = digests(home, "train")["model"]
    if outcome.check(found == undisturbed(lab, "train.epochs=4"), "MLflow away: another model than undisturbed"):
        outcome.same += 1
    return outcome


def undisturbed(lab: Lab, setting: str) -> list[str]:
    """Digest of the model that an undisturbed training with another setting gives."""
    home = lab.before("train", lab.place("undisturbed"))
    code = wait(start(lab.command("train", home, "--set", setting), home.parent / "log"))
    return digests(home, "train")["model"] if code == 0 else []


def prefect(lab: Lab, kind: str) -> Iterator[Outcome]:
    """`aoi serve` on a Prefect server of its own: cancel a run; the server dies in a training and comes back."""
    cancelled = Outcome("cancelled Prefect run")
    home = lab.before("train", lab.place("prefect"))
    folder, port, mlflow_port = home.parent, free_port(), free_port()
    api = f"http://127.0.0.1:{port}/api"
    environment = {"PREFECT_API_URL": api, "PREFECT_HOME": str(home / "prefect")}  # `aoi serve` uses no other one
    command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    settings: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, _, value in (setting.partition("=") for setting in (*SETTINGS, "train.epochs=4")):
        section, _, key = name.partition(".")
        settings[section][key] = json.loads(value)

    def ask(method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"{api}/{path}", method=method, data=json.dumps(body).encode() if body is not None else None
        )
        request.add_header("Content-Type", "application/json")

        def answered() -> Any:
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return [json.loads(answer.read() or b"null")]
            except urllib.error.HTTPError as error:
                if error.code != 503:  # its database is busy; Prefect's own programs ask again then, too
                    raise
                return None

        return until(answered)[0]

    def run_train() -> str:
        deployment = ask("GET", "deployments/name/aoi/train")["id"]
        state = {"type": "SCHEDULED"}
        body = {"parameters": {"home": str(home), "settings": settings}, "state": state}
        return ask("POST", f"deployments/{deployment}/create_flow_run", body)["id"]

    def state(run: str) -> str:
        with contextlib.suppress(OSError):
            return ask("GET", f"flow_runs/{run}")["state"]["type"]
        return ""

    def ended(run: str) -> str:
        return until(lambda: (now := state(run)) in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") and now, 180) or ""

    def of_run(run: str) -> list[str]:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if run.encode() in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:80])
        return found

    def cli(*words: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "prefect", *words],
            env={**os.environ, **environment},
            capture_output=True,
            check=True,
        )

    servers = [server(command, folder / "prefect.log", f"{api}/health", **environment)]
    serve = ["serve", "--home", str(home), "--prefect-port", str(port), "--mlflow-port", str(mlflow_port)]
    with open(folder / "serve.log", "ab") as output:
        serving = subprocess.Popen(
            [BIN / "aoi", *serve], stdout=output, stderr=output, start_new_session=True, env=dict(os.environ)
        )
    log = folder / "serve.log"
    runner_log = home / "logs" / "runner.log"
    try:
        if not cancelled.check(bool(until(lambda: b"In another terminal" in log.read_bytes())), "no serve", log):
            yield cancelled
            return
        run = run_train()
        cancelled.check(bool(until(lambda: epochs_done(home))), "no first epoch", runner_log)
        cancelled.times += 1
        began = time.monotonic()
        cli("flow-run", "cancel", run)
        cancelled.check(ended(run) == "CANCELLED", f"the run is {state(run)}", runner_log)
        gone = until(lambda: not of_run(run), 30) is not None
        cancelled.check(gone, f"processes left: {of_run(run)}")
        cancelled.notes[f"gone after {time.monotonic() - began:.0f} s"] += 1
        kept = epochs_done(home)
        cancelled.notes[f"{kept} epochs kept"] += 1
        cancelled.check(not survey(home), f"{survey(home)}")

        away = Outcome("Prefect server away in a training", times=1)
        run = run_train()
        away.check(bool(until(lambda: state(run) == "RUNNING")), f"the run is {state(run)}", runner_log)
        until(lambda: bool(of_run(run)), 30)
        time.sleep(4)
        end(servers[0])
        time.sleep(8)
        servers[0] = server(command, folder / "prefect.log", f"{api}/health", **environment)
        last = ended(run)
        away.check(serving.poll() is None, f"aoi serve ended with {serving.poll()}", log)
        if last != "COMPLETED":
            away.notes[f"run {last or state(run)}; the next completes"] += 1
            run = run_train()
            last = ended(run)
        away.check(last == "COMPLETED", f"the run is {last or state(run)}", runner_log)
        away.completed += 1
        away.check(not survey(home), f"{survey(home)}")
        wanted = undisturbed(lab, "train.epochs=4")
        if away.check(digests(home, "train")["model"] == wanted, "another model than undisturbed"):
            away.same += 1
            cancelled.same += 1
        cancelled.completed += 1
        check_mlflow(home, away, epochs=4)
        yield cancelled
        yield away

        stop = Outcome("Ctrl-C on aoi serve", times=1)
        stop.check(end(serving, signal.SIGINT, 40) == 0, f"aoi serve ended with {serving.returncode}", log)
        left = [text for text in all_processes() if str(mlflow_port) in text or str(home) in text]
        stop.check(not left, f"processes left: {left}")
        yield stop
    finally:
        end(serving, signal.SIGTERM, 60)
        for process in servers:
            end(process)


def all_processes() -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200])
    return found


# -------------------------------------------------------------------------------------------------- main


def open_lab(scratch: Path, seed: int, quick: bool) -> Lab:
    """Makes the data and the reference, and learns how long each stage takes and what it changes.

    quick: the reference's training is killed once, which gives LATE without a training of its own.
    """
    lab = Lab(scratch, scratch / "tiny", scratch / "reference", seed)
    log = scratch / "reference.log"

    def draw() -> None:
        sys.path.insert(0, str(ROOT / "tests"))
        from tiny import write_data

        write_data(lab.data, train=60, test=9)

    assert wait(fork(draw, log)) == 0, log.read_text()
    for stage in STAGES:
        if quick and stage == "train":
            interrupt_late(lab, lab.home)
            lab.late = shutil.copytree(lab.home, lab.place("late"))
        learn(lab, stage, lab.home, LATE if quick and stage == "train" else stage)
    return lab


def learn(lab: Lab, stage: str, home: Path, name: str) -> None:
    """Runs a stage undisturbed, and notes under a name how long it takes and what it changes."""
    changes, log = home.with_name(f"{name}.changes"), home.with_name(f"{name}.log")
    began = time.monotonic()
    code = wait(start(lab.command(stage, home), log, record(home, changes)))
    assert code == 0, log.read_text(errors="replace")
    lab.seconds[name] = time.monotonic() - began
    lab.changes[name] = read_changes(changes)
    print(f"undisturbed {name}: {lab.seconds[name]:.1f} s, {len(lab.changes[name])} changes", flush=True)


def interrupt_late(lab: Lab, home: Path) -> None:
    """Kills a training when all its epochs are done and it begins to write its results."""
    log = home.with_name("late.log")
    code = wait(start(lab.command("train", home), log, strike(signal.SIGKILL, r"open card\.json", home)))
    assert code == -signal.SIGKILL, f"{code} {log.read_text(errors='replace')}"


def read_changes(path: Path) -> list[tuple[str, str]]:
    return [tuple(line.split("\t", 1)) for line in path.read_text().splitlines()]


def learn_late(lab: Lab) -> None:
    """A HOME whose training has all its epochs and was killed before its results; and what it then does."""
    lab.late = lab.before("train", lab.place("late"))
    interrupt_late(lab, lab.late)
    learn(lab, LATE, lab.before(LATE, lab.place("late")), LATE)


def learn_replace(lab: Lab) -> None:
    """Numbers of the changes at the commits of an `ingest --force` that replaces what is there."""
    home = shutil.copytree(lab.home, lab.place("replace"))

    def prepare() -> None:
        import pipeline.job.ingest

        pipeline.job.ingest.version = lambda package: "another"
        record(home, home.parent / "changes")()

    log = home.parent / "log"
    assert wait(start(lab.command("ingest", home, "--force"), log, prepare)) == 0, log.read_text()
    changes = read_changes(home.parent / "changes")
    lab.changes["replace"] = [
        number + offset
        for number, (what, path) in enumerate(changes)
        if what == "os.rename" and path.rpartition("/")[2].startswith(".work-")
        for offset in range(-2, 12)
        if 0 <= number + offset < len(changes)
    ]


Task = tuple[str, Callable, dict[str, Any]]


def plan(quick: bool, seed: int) -> list[Task]:
    """(kind, scenario, what it is given), the long ones first."""
    rng = random.Random(seed)
    tasks: list[Task] = []

    def add(times: int, kind: str, scenario: Callable, **given: Any) -> None:
        for _ in range(times):
            seeded = (
                {"seed": rng.randrange(1 << 30)}
                if "seed" in scenario.__code__.co_varnames[: scenario.__code__.co_argcount]
                else {}
            )
            tasks.append((kind, scenario, {**given, **seeded}))

    beam = ("--beam", "--direct_running_mode=multi_processing --direct_num_workers=2")
    if not quick:
        add(1, "Prefect", prefect)
        add(1, "MLflow server away, comes back", mlflow_away, back=6.0)
        add(1, "MLflow server away, stays away", mlflow_away, back=None)
        add(5, "kill train", kill, stage="train", aimed=False, kills=4)
        add(1, "older schema", older_schema, train_too=True)
        add(1, "two at once: the same training", together, stage="train")
        add(1, "two at once: trainings of two seeds", together, stage="train", seeds=(0, 1))
        add(2, "Ctrl-C aoi run", ctrl_c_cold, stage="run", more=())
        add(2, "Ctrl-C aoi train", ctrl_c_cold, stage="train", more=())
        add(3, "Ctrl-C aoi ingest, Beam processes", ctrl_c_cold, stage="ingest", more=beam)
        add(1, "disk full: train", disk_full, stage="train", part=0.1)
        add(1, "clock set back", clock_back, stage="train", after=40)
        add(4, "kill watch", kill_watch, kills=40, across=False)
        add(1, "kill watch, OUTBOX on another disk", kill_watch, kills=40, across=True)
        add(4, "kill train, recording it", kill, stage=LATE, aimed=False, kills=3)
        add(12, "kill train's commit", kill, stage=LATE, aimed=True, kills=2)
        add(20, "kill evaluate", kill, stage="evaluate", aimed=False, kills=1)
        add(20, "kill evaluate's commit", kill, stage="evaluate", aimed=True, kills=1)
        add(20, "kill predict", kill, stage="predict", aimed=False, kills=1)
        add(20, "kill predict's commit", kill, stage="predict", aimed=True, kills=1)
        add(40, "kill ingest", kill, stage="ingest", aimed=False, kills=1)
        add(30, "kill ingest's commit", kill, stage="ingest", aimed=True, kills=1)
        add(5, "kill ingest --force, replacing", kill_replacing, kills=4)
    for stage in (LATE, "evaluate", "predict", "ingest"):
        named = f"{'train' if stage == LATE else stage} at each of its moments"
        add(1, f"kill {named}", at_moments, stage=stage, number=signal.SIGKILL)
        if not quick or stage in ("predict", "ingest"):
            add(1, f"Ctrl-C {named}", at_moments, stage=stage, number=signal.SIGINT)
    add(1, "kill ingest --force, replacing", kill_replacing)
    add(1, "one byte changed", one_byte, every=not quick)
    add(1 if quick else 4, "two at once: the same ingest", together, stage="ingest")
    if not quick:
        add(1, "HOME moved", moved, stage="evaluate")
    add(1, "HOME moved", moved, stage="predict")
    if quick:
        add(1, "older schema", older_schema, train_too=False)
        add(1, "disk full: ingest", disk_full, stage="ingest", part=0.0)
        add(1, "disk full: predict", disk_full, stage="predict", part=0.0)
        add(1, "read-only", read_only, stage="ingest", moment=0)
        return tasks
    for part in (0.0, 0.05, 0.3, 0.6, 0.9):
        for stage in ("ingest", LATE, "evaluate", "predict"):
            add(1, f"disk full: {'train' if stage == LATE else stage}", disk_full, stage=stage, part=part)
    for moment in (0, 0.2, 0.5, 0.8):
        for stage in ("ingest", "evaluate", "predict", *([LATE] if moment == 0 else [])):
            add(1, "read-only", read_only, stage=stage, moment=moment)
    for stage in ("ingest", LATE, "evaluate", "predict"):
        add(1, "clock set back", clock_back, stage=stage, after=0)
        add(3 if stage == LATE else 5, "Ctrl-C, warm", ctrl_c, stage=stage)
    return tasks


LAB: Lab | None = None  # of the workers, which are forked when it is ready


def work(task: Task) -> list[Outcome]:
    kind, scenario, given = task
    began = time.monotonic()
    try:
        found = scenario(LAB, kind, **given)
        outcomes = [found] if isinstance(found, Outcome) else list(found)
    except Exception:
        outcomes = [Outcome(kind, problems=[f"the scenario broke off: {traceback.format_exc()[-800:]}"])]
    for outcome in outcomes:
        outcome.notes = dict(outcome.notes)
        verdict = "FAILED" if outcome.problems else "ok"
        print(f"{time.monotonic() - began:6.1f} s  {outcome.kind}: {verdict} {shlex.quote(str(given))}", flush=True)
        for problem in outcome.problems:
            print(f"          {problem}", flush=True)
    return outcomes


def table(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """One row a kind."""
    rows: dict[str, dict[str, Any]] = {}
    for outcome in outcomes:
        row = rows.setdefault(
            outcome.kind,
            {"kind": outcome.kind, "times": 0, "completed": 0, "same": 0, "failed": 0, "notes": {}, "problems": []},
        )
        row["times"] += outcome.times
        row["completed"] += outcome.completed
        row["same"] += outcome.same
        row["failed"] += bool(outcome.problems)
        row["problems"] += outcome.problems
        for note, count in outcome.notes.items():
            row["notes"][note] = row["notes"].get(note, 0) + count
    return list(rows.values())


def main() -> int:
    global LAB
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="at named moments alone, as in the test suite")
    parser.add_argument(
        "--only", metavar="TEXT", nargs="+", default=[""], help="only kinds that begin with one of these"
    )
    parser.add_argument("--most", metavar="N", type=int, help="at most N scenarios of a kind")
    parser.add_argument("--seed", metavar="S", type=int, default=0)
    parser.add_argument("--jobs", metavar="N", type=int, default=os.cpu_count(), help="scenarios at the same time")
    parser.add_argument("--json", metavar="FILE", type=Path, help="the table as JSON too")
    arguments = parser.parse_args()
    began = time.monotonic()
    warm()
    seen: dict[str, int] = defaultdict(int)
    tasks = []
    for task in plan(arguments.quick, arguments.seed):
        seen[task[0]] += 1
        if task[0].startswith(tuple(arguments.only)) and seen[task[0]] <= (arguments.most or 1 << 30):
            tasks.append(task)
    with tempfile.TemporaryDirectory(prefix="aoi-faults-", ignore_cleanup_errors=True) as scratch:
        LAB = open_lab(Path(scratch), arguments.seed, arguments.quick)
        if not LAB.late and any(given.get("stage") == LATE for _, _, given in tasks):
            learn_late(LAB)
        if any(scenario is kill_replacing and given.get("kills") for _, scenario, given in tasks):
            learn_replace(LAB)
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        with ProcessPoolExecutor(arguments.jobs, get_context("fork")) as pool:
            outcomes = [outcome for found in pool.map(work, tasks) for outcome in found]
    rows = table(outcomes)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))
    print(f"\n{'fault':<38} {'times':>5} {'survived':>8}  {'same bytes':>10}  notes")
    for row in rows:
        counted = [(note, count) for note, count in row["notes"].items() if count]
        notes = "; ".join(f"{note} ({count})" if count > 1 else note for note, count in counted)
        survived = f"NOT {row['failed']}" if row["failed"] else "all"
        print(f"{row['kind']:<38} {row['times']:>5} {survived:>8}  {row['same']:>4} of {row['completed']:<3}  {notes}")
    kills = sum(row["times"] for row in rows if row["kind"].startswith("kill"))
    failed = sum(row["failed"] for row in rows)
    print(
        f"\n{kills} kills, {sum(row['times'] for row in rows)} faults in all, {failed} scenarios failed, "
        f"{time.monotonic() - began:.0f} s"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
