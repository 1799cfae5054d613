"""The command line: `aoi`. Parsing and printing; the work is in flows.stages and flows.serving.serve."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from flows import interrupts
from flows.addresses import direct_servers
from flows.stages import SUMMARIES, load_stage
from tfrecords.errors import AoiError, Problem

if TYPE_CHECKING:  # pydantic and all that it brings: help does without
    from flows.home import Home, Ref
    from flows.stages.stage import Job, Options, Stage

SETTINGS_HELP = "Any setting: --set NAME=VALUE; `aoi settings` lists them."
HOME_HELP = "folder of all that is made (default $AOI_HOME or ./aoi-home)"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit code: 0 done, 1 a bound missed or a crash, 2 refused input, 130 Ctrl-C."""
    try:
        words = _beam_joined(sys.argv[1:] if argv is None else argv)
        quiet_libraries()
        return _run_parsed(_parser(words).parse_args(words))
    except BaseException as error:
        if not interrupts.is_behind(error):
            raise
        _clear()
        return interrupts.tell()


def _run_parsed(arguments: argparse.Namespace) -> int:
    """Runs the command that was parsed. Returns the exit code; what its user can act on is told without a traceback."""
    if arguments.command is not _serve:  # which tells people what their own environment lacks
        os.environ.update(direct_servers(os.environ))
    try:
        code = arguments.command(arguments)
        print(end="", flush=True)  # a pipe that is closed shows here, not at the end of Python
        return code
    except BrokenPipeError:  # `aoi settings | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (AoiError, OSError) as error:
        if interrupts.is_behind(error):
            raise
        _clear()
        if isinstance(error, OSError):  # a full disk, a folder that may not be written
            remedy = "Make room or give rights there and run the same command: what is finished is kept"
            print(f"aoi: {error}. {remedy}", file=sys.stderr)
            return 1
        print(f"aoi: {error}", file=sys.stderr)
        if report := _report_problems(arguments, error):
            print(f"aoi: the full list is in {report}", file=sys.stderr)
        return error.exit_code


def _beam_joined(argv: Sequence[str]) -> list[str]:
    """--beam and its value as one word: argparse takes a value that begins with -- for an option of its own."""
    words = list(argv)
    while "--beam" in words[:-1]:
        at = words.index("--beam")
        words[at : at + 2] = [f"--beam={words[at + 1]}"]
    return words


def quiet_libraries() -> None:
    """Leaves the terminal to our own words: of others only errors, of ours warnings too."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # else it reads about every package that is installed
    logging.getLogger().setLevel(logging.ERROR)
    for ours in ("flows", "model", "pipeline", "tfrecords"):
        logging.getLogger(ours).setLevel(logging.WARNING)


class _Version(argparse.Action):
    """Tells the version, which takes a while to look up: no other command waits for that."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"aoi {version('aoi')}")
        parser.exit()


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of a command line. Only the stage that is named has its options, for to load a stage takes time."""
    parser = argparse.ArgumentParser(
        prog="aoi",
        description="Names the defect on inspection pictures: ingest, train, evaluate, predict.",
        epilog=f"{SETTINGS_HELP} HOME: --home, else $AOI_HOME, else ./aoi-home.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="tell the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, command: Callable[..., int], summary: str, home: bool = True) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        added.set_defaults(command=command, home=None)
        if home:
            added.add_argument("--home", metavar="DIR", help=HOME_HELP)
        return added

    sample = add("sample", _sample, "write a look-alike set of AIdea's pictures", home=False)
    sample.add_argument("out", metavar="OUT", type=Path, help="folder to write; must not exist, or be empty")
    sample.add_argument("--train", metavar="N", type=int, default=600, help="labelled pictures (default 600)")
    sample.add_argument("--test", metavar="N", type=int, default=150, help="pictures without labels (default 150)")
    sample.add_argument(
        "--seed", metavar="S", type=int, default=0, help="the same seed gives the same bytes (default 0)"
    )

    run = add("run", _run, "the whole chain: pictures in, submission out")
    if "run" in argv:
        from flows.stages.chain import chain
        from flows.stages.stage import options_of

        _add_options(run, options_of(chain))
        _add_settings(run)
    for name, summary in SUMMARIES.items():
        added = add(name, _stage, summary)
        if name in argv:
            stage = load_stage(name)
            added.set_defaults(name=name, stage=stage)
            _add_options(added, stage.options())
            for option, setting in stage.shortcuts.items():
                added.add_argument(f"--{option}", metavar="NAME", help=f"short for --set {setting}=NAME")
            _add_settings(added, stage.has_settings)

    serve = add("serve", _serve, "a Prefect server, the MLflow UI and the deployments aoi/...")
    serve.add_argument("--data", metavar="DIR", help="folder that the deployments use where none is given")
    serve.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine alone)"
    )
    serve.add_argument("--prefect-port", metavar="N", type=int, default=4200, help="default 4200")
    serve.add_argument("--mlflow-port", metavar="N", type=int, default=5000, help="default 5000")
    serve.add_argument(
        "--cron",
        metavar="DEPLOYMENT=CRON",
        action="append",
        default=[],
        help="when a deployment runs: 'aoi/full=0 2 * * *'; repeatable; in place of what --cron told of it before",
    )
    serve.add_argument("--inbox", metavar="DIR", help="folder in which each finished lot, a folder, is predicted once")
    serve.add_argument(
        "--settle",
        metavar="SECONDS",
        type=float,
        default=30.0,
        help="a lot without .done is finished when nothing in it has changed for so long (default 30)",
    )

    deploy = add("deploy", _deploy, "the deployments aoi/... for the workers of a Prefect work pool")
    deploy.add_argument(
        "--pool", metavar="NAME", required=True, help="the pool; made, for processes, if it is not there"
    )
    deploy.add_argument("--data", metavar="DIR", help="folder that the deployments use where none is given")
    deploy.add_argument(
        "--at-once", metavar="N", type=int, help="most runs of this HOME at the same time (default: as it was, first 1)"
    )

    api = add("api", _api, "answers over HTTP, one picture or several at a time")
    _add_model(api)
    api.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine alone)")
    api.add_argument("--port", metavar="N", type=int, default=8000, help="default 8000")
    _add_settings(api, makes=False)

    watch = add("watch", _watch, "answer each picture that appears in a folder, once")
    watch.add_argument("inbox", metavar="INBOX", type=Path, help="the folder; folders in it count too")
    watch.add_argument(
        "--out", metavar="OUTBOX", type=Path, required=True, help="folder of decisions.csv, one process at a time"
    )
    watch.add_argument("--sort", action="store_true", help="move each picture into OUTBOX/accept, reject, and so on")
    _add_model(watch)
    _add_settings(watch, makes=False)

    rollback = add("rollback", _rollback, "make the champion before the present one champion again")
    rollback.add_argument("--product", metavar="NAME", help="whose champion (default: the only product of HOME)")
    add("settings", _settings, "list every setting with default, unit and meaning", home=False)
    add("verify", _verify, "read everything finished in HOME and compare it with its manifests")
    return parser


def _add_options(parser: argparse.ArgumentParser, options: "Options") -> None:
    """What a stage can be told beside its settings; a word of its own for what it can't do without."""
    for name, (parameter, option) in options.items():
        if option.read:
            parser.add_argument(name, metavar=option.metavar, help=option.help)
        elif option.choices:
            words = [*map(str, option.choices)]
            parser.add_argument(f"--{name}", choices=words, default=parameter.default, help=option.help)
        else:
            required = parameter.default is parameter.empty
            default = None if required else parameter.default
            kind = int if parameter.annotation is int else str
            parser.add_argument(
                f"--{name}", type=kind, metavar=option.metavar, required=required, default=default, help=option.help
            )


def _add_model(parser: argparse.ArgumentParser) -> None:
    """Which model answers, of a command that goes on answering."""
    parser.add_argument("--product", metavar="NAME", help="whose champion answers (default: the only product of HOME)")
    parser.add_argument(
        "--model", metavar="NAME", help="a model's folder or name (default: the champion as it changes)"
    )


def _add_settings(parser: argparse.ArgumentParser, has_settings: bool = True, makes: bool = True) -> None:
    if has_settings:
        parser.epilog = SETTINGS_HELP
        parser.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], help="a setting; repeatable")
        parser.add_argument("--config", metavar="FILE.toml", help="settings in sections, such as [train]")
    if makes:
        parser.add_argument("--force", action="store_true", help="make it again, even if it is there")


def _home(arguments: argparse.Namespace) -> "Home":
    from flows.home import Home, open_home

    return Home(open_home(arguments.home or os.environ.get("AOI_HOME") or "aoi-home").root.absolute())


def _sample(arguments: argparse.Namespace) -> int:
    from flows.progress import terminal_meter
    from pipeline.sample import write_sample
    from tfrecords.errors import refuse

    try:
        write_sample(arguments.out, arguments.train, arguments.test, arguments.seed, terminal_meter("sample"))
    except FileExistsError:
        raise refuse(arguments.out, "the folder is not empty", "Name another one, or remove it first")
    except ValueError as error:
        raise refuse("--train and --test", str(error), "Ask for more pictures")
    _clear()
    print(f"{arguments.train:,} labelled and {arguments.test:,} other pictures in {arguments.out}")
    print(f"next: aoi run --data {arguments.out}")
    return 0


def _stage(arguments: argparse.Namespace) -> int:
    from flows.settings import Settings, load_settings, override
    from flows.stages.stage import Job

    stage, given = arguments.stage, {}
    for name, (_, option) in stage.options().items():
        value = getattr(arguments, name)
        given[name] = option.read(value) if option.read else value
    settings = Settings()
    if stage.has_settings:
        shortcuts = {setting: getattr(arguments, option) for option, setting in stage.shortcuts.items()}
        overrides = [*arguments.set, *(f"{setting}={value}" for setting, value in shortcuts.items() if value)]
        if stage.overridden:
            given[stage.overridden] = override(given[stage.overridden], overrides)
            overrides = []
        settings = load_settings(arguments.config, overrides)
    home = _home(arguments)
    ref = _watched(arguments.name, stage, Job(home, settings, arguments.force), given)
    if stage.show and (text := stage.show(home, ref)):
        print(text)
    print(f"{ref.kind:<11} {home.root / ref.folder}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from flows.settings import load_settings
    from flows.stages.chain import chain
    from flows.stages.stage import Job
    from flows.summary import summary

    job = Job(_home(arguments), load_settings(arguments.config, arguments.set), arguments.force)
    refs = chain(
        lambda name, **given: _watched(name, load_stage(name), job, given), job, arguments.data, arguments.beam
    )
    print(summary(job.home, refs))
    return 0


def _watched(name: str, stage: "Stage", job: "Job", given: Mapping[str, Any]) -> "Ref":
    """Runs a stage with its progress on stderr, and one line when it is done."""
    from flows.progress import duration, terminal_meter

    began = monotonic()
    ref = stage.run(replace(job, progress=terminal_meter(name)), **given)
    _clear()
    how = "was there" if ref.cached else f"done in {duration(monotonic() - began)}"
    print(f"{name:<9} {how}: {ref.folder}", file=sys.stderr)
    for line in ref.note.splitlines():
        print(f"{'':<9} {line}", file=sys.stderr)
    return ref


def _serve(arguments: argparse.Namespace) -> int:
    from flows.serving.serve import Asked, serve
    from pipeline.store import is_remote

    if arguments.data and not is_remote(arguments.data) and not os.path.exists(arguments.data):
        print(f"aoi serve: {arguments.data} is not there yet: runs fail until it is", file=sys.stderr)
    asked = Asked(arguments.data, arguments.cron, arguments.inbox, arguments.settle)
    return serve(_home(arguments), asked, arguments.host, arguments.prefect_port, arguments.mlflow_port)


def _deploy(arguments: argparse.Namespace) -> int:
    from flows.serving.servers import NO_TELEMETRY
    from tfrecords.errors import refuse

    os.environ.update(NO_TELEMETRY)
    if arguments.at_once is not None and arguments.at_once < 1:
        raise refuse("--at-once", f"{arguments.at_once} runs can't run", "Give a number from 1")
    from flows.serving.runner import deploy

    home, data = _home(arguments), arguments.data
    queue = deploy(home, data and os.path.abspath(data), arguments.pool, arguments.at_once)
    print(f"deployments of {home.root} are on pool {arguments.pool}, queue {queue}")
    print(f"next, wherever HOME has this path: prefect worker start --pool {arguments.pool}")
    return 0


def _api(arguments: argparse.Namespace) -> int:
    from flows.api.server import api
    from flows.settings import load_settings

    settings = load_settings(arguments.config, arguments.set)
    return api(_home(arguments), arguments.product, arguments.model, arguments.host, arguments.port, settings)


def _watch(arguments: argparse.Namespace) -> int:
    from flows.settings import load_settings
    from flows.watch.watch import watch

    settings = load_settings(arguments.config, arguments.set)
    home = _home(arguments)
    return watch(home, arguments.inbox, arguments.out, arguments.sort, arguments.product, arguments.model, settings)


def _settings(arguments: argparse.Namespace) -> int:
    from flows.settings import describe

    rows = list(describe())
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]))
    return 0


def _rollback(arguments: argparse.Namespace) -> int:
    from flows.products import rollback

    home = _home(arguments)
    ref, product = rollback(home, arguments.product)
    print(f"champion    {home.root / ref.folder}, of {product}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from flows.stages import load_stages
    from model.manifests import ModelManifest
    from model.registry.store import CHAMPION
    from pipeline.location import check_stored
    from tfrecords.artifacts.artifact import read, verify
    from tfrecords.dataset import DatasetManifest
    from tfrecords.errors import refuse

    home = _home(arguments)
    if not home.root.is_dir():
        raise refuse(home.root, "there is no such folder", "Name HOME with --home")
    problems: list[Problem] = []
    count = 0
    for kind in dict.fromkeys(kind for stage in load_stages().values() for kind in stage.makes):
        for path in home.committed(kind):
            count += 1
            try:
                verify(read(path, kind))
                if kind is DatasetManifest:
                    check_stored(read(path, DatasetManifest))
            except AoiError as error:
                problems += error.problems
    for note in sorted((home.root / "latest").glob(f"{CHAMPION}-*.json")):
        try:
            if champion := home.noted(note.stem):
                home.open(champion, ModelManifest)
        except AoiError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise AoiError(problems)
    print(f"{count} finished artefacts in {home.root}: every byte as it was committed")
    return 0


def _report_problems(arguments: argparse.Namespace, error: AoiError) -> Path | None:
    """Where there are more problems than a screen shows: all of them as HOME/problems.csv."""
    from tfrecords.errors import SHOWN, problems_csv

    if len(error.problems) <= SHOWN or not hasattr(arguments, "home"):
        return None
    from tfrecords.artifacts.files import write_whole

    path = _home(arguments).root / "problems.csv"
    write_whole(path, problems_csv(error.problems))
    return path


def _clear() -> None:
    from flows.progress import clear_line

    clear_line()
