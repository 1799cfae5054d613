"""Every command that README and the docs show is run as it stands there, or listed with the reason why not."""

import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from contextlib import ExitStack, chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest
from serving import BIN, DOWN_SECONDS, RUN_SECONDS, UP_SECONDS, Serve, wait_for

from flows.cli import main
from flows.stages import SUMMARIES, load_stage
from tfrecords import system

ROOT = Path(__file__).resolve().parents[1]
PAPERS = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
PAPERS.remove("docs/performance.md")  # a report that `make bench` writes

# Paper and command to the reason why it is not run here.
NOT_RUN = {
    r".*: make demo": "makes an environment and trains for minutes",
    r".*: make (lint|test)": "this test is a part of it",
    r".*: python3 -m venv .*": "makes an environment",
    r".*: \.venv/bin/pip install .*": "downloads packages",
    r".*: \.venv/bin/pre-commit install .*": "changes the Git hooks of this checkout",
    r"docs/offline\.md: pip download .*": "downloads packages",
    r"docs/serve\.md: aoi serve .* --(cron|inbox) .*": "one is up already; test_serve.py runs these",
    r"docs/serve\.md: export \w+=postgresql.*": "needs PostgreSQL; tests/scale/servers.py runs one",
    r"docs/scale\.md: (?s:.*)": "needs clusters and buckets; `make scale-full` tries what one machine can",
    r"docs/study\.md: (?s:.*)": "half an hour or more, on NEU's pictures",
}
# How a block begins that shows what is printed, or what lies in a folder.
NO_COMMANDS = r"  MobileNet, alpha|inspection\.example|\{.model.: |aidea/  train\.csv|train\.csv \+ pictures|restart-"
COMMAND = re.compile(r"(\.venv/bin/\S+|aoi|aoi-worker|dask|make|prefect|mlflow|python3?|pip|curl|export|for) ")
# Trains in seconds. Where a command or its grid sets one of these itself, that counts.
QUICK = {"preprocess.image_size_px": 32, "train.recipe": "frozen", "train.alpha": 0.25}


class Command(NamedTuple):
    """What a paper shows: a line for the shell, a file (toml) or a program (python)."""

    paper: str
    kind: str
    text: str

    def __str__(self):
        return f"{self.paper}: {self.text}"

    def name(self):
        return str(self) if self.kind == "shell" else f"{self.paper}: {self.kind}"


def blocks(paper):
    """(language, text) of every fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / paper).read_text(encoding="utf-8"), re.M | re.S)


def lines(block):
    """The commands of a block: continued lines and loops joined, comments dropped."""
    text = re.sub(r"\\\n\s*", "", block)
    text = re.sub(r"(^|\s\s)#.*$", "", text, flags=re.M)
    return [line.strip() for line in re.findall(r"^for .*?^done$|^[^\n]+$", text, re.M | re.S) if line.strip()]


def commands(paper):
    """All that a paper shows to be typed in, in its order."""
    found = []
    for language, text in blocks(paper):
        if language:
            found.append(Command(paper, language, text))
        elif not re.match(NO_COMMANDS, text):
            found += [Command(paper, "shell", line) for line in lines(text)]
    return found


COMMANDS = [command for paper in PAPERS for command in commands(paper)]


def is_listed(command):
    return any(re.fullmatch(pattern, str(command)) for pattern in NOT_RUN)


def run_here():
    """The commands that are run: a line of two papers once, but a variable for each, which is a terminal of its own."""
    once = {}
    for command in COMMANDS:
        if not is_listed(command):
            once.setdefault(str(command) if command.text.startswith("export ") else command.text, command)
    return list(once.values())


RUN = run_here()


@pytest.mark.parametrize(
    ("block", "found"),
    [
        ("aoi verify   # compare\n# alone\n\n", ["aoi verify"]),
        ("aoi run --data x#y # z\n", ["aoi run --data x#y # z"]),
        ("curl a \\\n  -d b\n", ["curl a -d b"]),
        ("for a in b; do\n  aoi run $a\ndone\naoi verify\n", ["for a in b; do\n  aoi run $a\ndone", "aoi verify"]),
    ],
)
def test_the_commands_of_a_block(block, found):
    assert lines(block) == found


@pytest.mark.parametrize("command", COMMANDS, ids=Command.name)
def test_every_block_shows_commands_or_a_file_or_a_program_or_is_known_to_show_none(command):
    if command.kind == "shell":
        assert COMMAND.match(command.text), f"{command}: a command? Name its first word in COMMAND or NO_COMMANDS"
    else:
        assert command.kind in ("toml", "python")


@pytest.mark.parametrize("pattern", NOT_RUN)
def test_whatever_is_listed_is_shown_by_a_paper(pattern):
    assert any(re.fullmatch(pattern, str(command)) for command in COMMANDS)
    assert NOT_RUN[pattern]


class Desk:
    """A folder in which a person types in what the papers say, one after the other."""

    def __init__(self, folder, ports, closing):
        self.home, self.closing, self.ports = folder / "aoi-home", closing, ports
        self.folder, self.serve, self.exported = folder, None, {}

    # --- What the reader of a paper puts in place of its names ------------------------------------------------

    def filled_in(self, text):
        """A text with what is here in place of what the papers name."""

        def here(match):
            return next(value for name, value in self.PLACES.items() if re.fullmatch(name, match[0]))(self)

        return re.sub("|".join(self.PLACES), here, text)

    def a_model(self):
        """The model made last, by a part of its name."""
        return max((self.home / "models").glob("aidea-*"), key=lambda path: path.stat().st_mtime).name[:-4]

    def a_failed_run(self):
        """A run that failed, for its folder was not there; now it is."""
        late, ingest = self.folder / "late", self.serve.deployment("ingest")["id"]
        asked = self.serve.ask(f"/deployments/{ingest}/create_flow_run", {"parameters": {"data": str(late)}})
        self.failed = asked["id"]
        assert self.end_of(self.failed) == "FAILED"
        shutil.copytree("aidea", late)
        return self.failed

    PLACES = {  # noqa: RUF012
        r"\bneu-1cba\b|\bMODEL\b": a_model,
        r"\bneu\b": lambda desk: "aidea",
        r"\bRUN\b": a_failed_run,
        r"/data/lot7\b": lambda desk: str(desk.folder / "lot7"),
        r"/path/to/mobilenet\.weights\.h5": lambda desk: str(desk.folder / "mobilenet.weights.h5"),
        r"\b4200\b": lambda desk: str(desk.ports[0]),
        r"\b5000\b": lambda desk: str(desk.ports[1]),
        r"\b5001\b": lambda desk: str(desk.ports[2]),
        r"\b8000\b": lambda desk: str(desk.ports[3]),
        # The environment at hand, which takes seconds; `make elsewhere` lets uv make one.
        r"--env-manager uv\b": lambda desk: "--env-manager local",
    }

    # --- Typing it in --------------------------------------------------------------------------------------------

    def run(self, command):
        """(exit code, what was printed) of a command."""
        text = self.filled_in(command.text)
        if command.kind == "toml":
            Path("grid.toml").write_text(text)  # the name is in the command that follows
            return 0, ""
        if command.kind == "python":
            return self.shell(shlex.join([sys.executable, "-c", text]))
        words = shlex.split(text.removeprefix(".venv/bin/"))
        match words:
            case ["export", variable]:
                self.exported.update([variable.split("=", 1)])
                return 0, ""
            case ["aoi", "serve", *options]:
                ports = ["--prefect-port", self.ports[0], "--mlflow-port", self.ports[1]]
                self.serve = Serve(self.home, self.folder / "serve.log", *options, *ports)
                self.closing.callback(self.serve.end, signal.SIGTERM)
                return 0, self.serve.log.read_text()
            case ["aoi", "api"]:
                return self.start([*words, "--port", str(self.ports[3])], r"at +http")
            case ["aoi", "watch", *_]:
                return self.start(words, "1 answered")
            case ["aoi", *given]:
                return self.aoi(given)
            case ["prefect", "deployment", "run", *given]:
                return self.shell(shlex.join(["prefect", "deployment", "run", *quick_run(given)]))
            case ["prefect", "flow-run", "retry", _]:
                return self.retry(text)
            case ["prefect", "deployment", "schedule", "create", name, *_]:
                code, printed = self.shell(text)
                made = self.serve.deployment(name.removeprefix("aoi/"))
                for schedule in made["schedules"]:  # it would run with the defaults
                    self.serve.ask(f"/deployments/{made['id']}/schedules/{schedule['id']}", method="DELETE")
                return code, f"{printed}{made['schedules']}"
            case ["mlflow", "models", "serve", *_]:
                return self.start(words, "Application startup complete")
        return self.shell(text)

    def aoi(self, words):
        """A command of ours, in this process, which has imported TensorFlow."""
        name = words[0]
        if name == "run" or (name in SUMMARIES and load_stage(name).has_settings):
            given = {
                f"{section}.{key}" for file in words if file.endswith(".toml") for section, key in settings_of(file)
            }
            words += [
                word
                for setting, value in QUICK.items()
                if setting not in given and f"{setting}=" not in shlex.join(words)
                for word in ("--set", f"{setting}={value}")
            ]
        printed = StringIO()
        with mock.patch.dict(os.environ, self.exported), redirect_stdout(printed), redirect_stderr(printed):
            code = main(words)
        return code, printed.getvalue()

    def shell(self, text):
        """A command as a shell runs it, beside `aoi serve` if that is up."""
        done = subprocess.run(
            ["bash", "-c", text],
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=RUN_SECONDS,
        )
        return done.returncode, done.stdout

    def environment(self):
        ours = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "MLFLOW_DISABLE_TELEMETRY": "true"}
        return (self.serve.variables if self.serve else os.environ) | ours | self.exported

    def start(self, words, up):
        """A server that stays up. up: what it prints then."""
        log = self.folder / f"{'-'.join(words[:2])}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                words, env=self.environment(), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.closing.callback(system.stop, process, DOWN_SECONDS)
        wait_for(up, UP_SECONDS, process, log)
        return 0, log.read_text()

    def retry(self, text):
        code, printed = self.shell(text)
        return code, f"{printed}{self.end_of(self.failed)}"

    def end_of(self, run):
        """How a run ends."""
        deadline = time.monotonic() + RUN_SECONDS
        while time.monotonic() < deadline:
            state = self.serve.ask(f"/flow_runs/{run}")["state"]["type"]
            if state in ("COMPLETED", "FAILED", "CRASHED"):
                return state
            time.sleep(0.5)
        pytest.fail(f"run {run} did not end in {RUN_SECONDS} s")


def settings_of(file):
    """(section, key) of every setting in a grid or settings file."""
    return [(section, key) for section, keys in tomllib.loads(Path(file).read_text()).items() for key in keys]


def quick_run(words):
    """The words of a `prefect deployment run` with QUICK settings under its own, that waits for the run's end."""
    settings = {}
    for name, value in QUICK.items():
        section, _, key = name.partition(".")
        settings.setdefault(section, {})[key] = value
    kept = []
    for word in words:
        if word.startswith("settings="):
            for section, inside in json.loads(word.removeprefix("settings=")).items():
                settings.setdefault(section, {}).update(inside)
            kept.pop()  # -p
        elif word != "--watch":
            kept.append(word)
    return [*kept, "-p", f"settings={json.dumps(settings)}", "--watch"]


@pytest.fixture(scope="module")
def told(tmp_path_factory, look_alike, free_ports):
    """(exit code, what was printed) of every command that is run, in the order of the papers."""
    folder = tmp_path_factory.mktemp("papers")
    for name in ("aidea", "another-lot", "lot7"):
        shutil.copytree(look_alike, folder / name)
    lot = folder / "another-lot"  # other pictures than aidea's
    shutil.copytree(lot / "train_images", lot / "test_images", dirs_exist_ok=True)
    (lot / "test.csv").write_bytes(
        (lot / "test.csv").read_bytes() + (lot / "train.csv").read_bytes()[len("ID,Label\r\n") :]
    )
    shutil.copytree(lot / "train_images", folder / "checked-lot" / "test_images")
    shutil.copy(lot / "train.csv", folder / "checked-lot" / "test.csv")
    shutil.copy(folder / "aidea" / "test_images" / "test_000.png", folder / "part.png")
    (folder / "inbox").mkdir()
    shutil.copy(folder / "part.png", folder / "inbox")
    (folder / "mobilenet.weights.h5").touch()
    handler, levels = signal.getsignal(signal.SIGTERM), {name: logging.getLogger(name).level for name in ("", "mlflow")}
    told = {}
    with ExitStack() as closing, chdir(folder), mock.patch.dict(os.environ):
        os.environ.pop("AOI_HOME", None)
        desk = Desk(folder, free_ports(4), closing)
        for paper in PAPERS:
            desk.exported = {}  # each in a terminal of its own
            for command in (each for each in RUN if each.paper == paper):
                try:
                    told[command] = desk.run(command)
                except (Exception, SystemExit, pytest.fail.Exception) as error:
                    told[command] = (repr(error), "")
    signal.signal(signal.SIGTERM, handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    return told


# What a command must print beside ending well.
PRINTED = {
    r"aoi serve .*": r"export PREFECT_API_URL=",
    r"prefect deployment run .*": r"Flow run finished successfully",
    r"prefect flow-run retry .*": r"COMPLETED",
    r"prefect deployment schedule create .* 86400": r"'interval': 86400",
    r"curl .*": r'"label"',
    r"aoi evaluate --data .*": r"(?s)labelled pictures.*accuracy.*rows true",
}


@pytest.mark.parametrize("command", RUN, ids=Command.name)
def test_a_command_of_the_papers_ends_well(command, told):
    code, printed = told[command]
    assert code == 0, printed
    for pattern, seen in PRINTED.items():
        assert not re.fullmatch(pattern, command.text, re.S) or re.search(seen, printed), printed
