"""The command line: `aoi`. Parsing and printing; the work is in flows.stages and flows.serve."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from tfrecords.errors import AoiError

EPILOG = "Any setting: --set NAME=VALUE; `aoi settings` lists them. HOME: --home, else $AOI_HOME, else ./aoi-home."

HOME_HELP = "folder of all that is made (default $AOI_HOME or ./aoi-home)"

DATA_HELP = "folder with train.csv, train_images(.zip), test.csv, test_images(.zip)"
BEAM_HELP = 'Beam\'s own options, as one string: "--direct_running_mode=multi_processing --direct_num_workers=2"'


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit code: 0 done, 1 a bound missed or a crash, 2 refused input, 130 Ctrl-C."""
    quiet_libraries()
    signal.signal(signal.SIGTERM, _interrupt)  # as a scheduler stops a job: like Ctrl-C, not in mid-air
    arguments = _parser().parse_args(_beam_joined(sys.argv[1:] if argv is None else argv))
    try:
        return arguments.command(arguments)
    except AoiError as error:
        _clear()
        print(f"aoi: {error}", file=sys.stderr)
        if report := _report_problems(arguments, error):
            print(f"aoi: the full list is in {report}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `aoi settings | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # a full disk, a folder that may not be written
        _clear()
        print(f"aoi: {error}. Mend it and run the same command: what is finished is kept", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, ImportError) as error:
        if not _stopped(error):
            raise
        _clear()
        print("aoi: stopped; the same command goes on from what is finished", file=sys.stderr)
        return 130


def _stopped(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind it: in the middle of a native library's import it comes out as an ImportError."""
    return error is not None and (
        isinstance(error, KeyboardInterrupt) or _stopped(error.__cause__ or error.__context__)
    )


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


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
    logging.getLogger().setLevel(logging.ERROR)
    for ours in ("flows", "model", "pipeline", "tfrecords"):
        logging.getLogger(ours).setLevel(logging.WARNING)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aoi",
        description="Names the defect on inspection pictures: ingest, train, evaluate, predict.",
        epilog=EPILOG,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, command, summary: str, home: bool = True) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=summary, epilog=EPILOG, allow_abbrev=False)
        added.set_defaults(command=command, home=None)
        if home:
            added.add_argument("--home", metavar="DIR", help=HOME_HELP)
        return added

    def add_stage(name: str, summary: str) -> None:
        stage = add(name, {"run": _run, "sweep": _sweep}.get(name, _stage), summary)
        stage.set_defaults(stage=name)
        stage.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], help="a setting; repeatable")
        stage.add_argument("--config", metavar="FILE.toml", help="settings in sections, such as [train]")
        stage.add_argument("--force", action="store_true", help="make it again, even if it is there")
        _add_options(stage, name)

    sample = add("sample", _sample, "write a look-alike set of AIdea's pictures", home=False)
    sample.add_argument("out", metavar="OUT", type=Path, help="folder to write; must not exist, or be empty")
    sample.add_argument("--train", metavar="N", type=int, default=600, help="labelled pictures (default 600)")
    sample.add_argument("--test", metavar="N", type=int, default=150, help="pictures without labels (default 150)")
    sample.add_argument(
        "--seed", metavar="S", type=int, default=0, help="the same seed gives the same bytes (default 0)"
    )

    for name, summary in (
        ("run", "the whole chain: pictures in, submission out"),
        ("ingest", "pictures to a dataset of TFRecords"),
        ("train", "a dataset to a model"),
        ("evaluate", "a model to its figures of merit"),
        ("predict", "test pictures to a submission"),
        ("crossval", "a model for every fold, and all of them as one"),
        ("export", "a model for machines without Keras, checked against it"),
        ("sweep", "a model for every combination of settings, and a table of them"),
    ):
        add_stage(name, summary)

    serve = add("serve", _serve, "a Prefect server, the MLflow UI and the deployments aoi/...")
    serve.add_argument("--data", metavar="DIR", help="folder that the deployments use where none is given")
    serve.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine alone)"
    )
    serve.add_argument("--prefect-port", metavar="N", type=int, default=4200, help="default 4200")
    serve.add_argument("--mlflow-port", metavar="N", type=int, default=5000, help="default 5000")

    add("rollback", _rollback, "make the champion before the present one champion again")
    add("settings", _settings, "list every setting with default, unit and meaning", home=False)
    add("verify", _verify, "read everything finished in HOME and compare it with its manifests")
    return parser


def _add_options(stage: argparse.ArgumentParser, name: str) -> None:
    """What a stage is told beside its settings."""
    if name == "sweep":
        grid_help = "settings in sections, such as [train]; those whose value is a list are combined"
        stage.add_argument("grid", metavar="GRID.toml", help=grid_help)
    if name in ("run", "ingest", "predict", "sweep"):
        required = name == "run"
        latest = "" if required else " (default: used last)"
        stage.add_argument("--data", metavar="DIR", required=required, help=DATA_HELP + latest)
    if name in ("run", "ingest", "predict"):
        stage.add_argument("--beam", metavar="OPTIONS", default="", help=BEAM_HELP)
    if name in ("train", "evaluate", "crossval"):
        default = "the one that the model was trained on" if name == "evaluate" else "the latest"
        stage.add_argument("--dataset", metavar="NAME", help=f"a dataset's folder or name (default: {default})")
    if name in ("evaluate", "predict", "export"):
        default = "the latest" if name == "evaluate" else "the champion"
        stage.add_argument("--model", metavar="NAME", help=f"a model's folder or name (default: {default})")
    if name == "predict":
        stage.add_argument(
            "--runtime", metavar="NAME", help="litert, litert-int8 or keras: short for --set predict.runtime=NAME"
        )
    if name == "export":
        stage.add_argument("--format", choices=["litert"], default="litert", help="of the file (default litert)")
        stage.add_argument("--precision", choices=["float", "int8"], default="float", help="default float")


def _home(arguments: argparse.Namespace):
    from flows.home import Home

    return Home(Path(arguments.home or os.environ.get("AOI_HOME") or "aoi-home").absolute())


def _sample(arguments: argparse.Namespace) -> int:
    from flows.progress import terminal_meter
    from pipeline.sample import write_sample
    from tfrecords.errors import refuse

    meter = terminal_meter("sample")
    try:
        write_sample(
            arguments.out,
            arguments.train,
            arguments.test,
            arguments.seed,
            lambda done, total: meter(done, total, "drawn"),
        )
    except FileExistsError:
        raise refuse(arguments.out, "the folder is not empty", "Name another one, or remove it first")
    except ValueError as error:
        raise refuse("--train and --test", str(error), "Ask for more pictures")
    _clear()
    print(f"{arguments.train:,} labelled and {arguments.test:,} other pictures in {arguments.out}")
    print(f"next: aoi run --data {arguments.out}")
    return 0


def _stage(arguments: argparse.Namespace) -> int:
    from flows.settings import load_settings
    from flows.stages import STAGES

    overrides = [*arguments.set]
    if getattr(arguments, "runtime", None):
        overrides.append(f"predict.runtime={arguments.runtime}")
    settings = load_settings(arguments.config, overrides)
    parameters = {"model": "model_name"}
    given = {
        parameters.get(option, option): getattr(arguments, option)
        for option in ("data", "beam", "dataset", "model", "precision")
        if hasattr(arguments, option)
    }
    home = _home(arguments)
    ref = _watched(arguments.stage, STAGES[arguments.stage], home, settings, force=arguments.force, **given)
    if arguments.stage == "predict":
        print(f"submission  {home.root / 'submission.csv'}")
    print(f"{ref.kind:<11} {home.root / ref.folder}")
    return 0


def _sweep(arguments: argparse.Namespace) -> int:
    from flows.settings import load_grid, load_settings
    from flows.stages import STAGES
    from flows.summary import sweep_table

    points = load_grid(arguments.grid, load_settings(arguments.config), arguments.set)
    home = _home(arguments)
    ref = _watched("sweep", STAGES["sweep"], home, points, data=arguments.data, force=arguments.force)
    print(sweep_table(home, ref))
    print(f"{ref.kind:<11} {home.root / ref.folder}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from flows.settings import load_settings
    from flows.stages import STAGES, chain
    from flows.summary import summary

    settings = load_settings(arguments.config, arguments.set)
    home = _home(arguments)

    def run(stage: str, **given):
        return _watched(stage, STAGES[stage], home, settings, force=arguments.force, **given)

    refs = chain(run, home, settings, arguments.data, arguments.beam)
    print(summary(home, refs))
    return 0


def _watched(name: str, stage, home, settings, **given):
    """Runs a stage with its progress on stderr, and one line when it is done."""
    from flows.progress import duration, terminal_meter

    began = monotonic()
    ref = stage(home, settings, progress=terminal_meter(name), **given)
    _clear()
    how = "was there" if ref.cached else f"done in {duration(monotonic() - began)}"
    print(f"{name:<9} {how}: {ref.folder}", file=sys.stderr)
    if ref.note:
        for line in ref.note.splitlines():
            print(f"{'':<9} {line}", file=sys.stderr)
    return ref


def _serve(arguments: argparse.Namespace) -> int:
    from flows.serve import serve

    return serve(_home(arguments), arguments.data, arguments.host, arguments.prefect_port, arguments.mlflow_port)


def _settings(arguments: argparse.Namespace) -> int:
    from flows.settings import describe

    rows = list(describe())
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]))
    return 0


def _rollback(arguments: argparse.Namespace) -> int:
    from flows.stages import rollback

    home = _home(arguments)
    print(f"champion    {home.root / rollback(home).folder}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from flows.home import FOLDERS
    from tfrecords.artifacts.artifact import read, verify

    home = _home(arguments)
    problems, count = [], 0
    for kind in FOLDERS:
        for path in home.committed(kind):
            count += 1
            try:
                verify(read(path, kind))
            except AoiError as error:
                problems += error.problems
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
