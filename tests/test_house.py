"""The house in order: who may import whom, and papers that name what there is."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from flows.cli import main
from flows.settings import describe, load_settings, parse_grid, read_grid

ROOT = Path(__file__).resolve().parents[1]
MAY_USE = {
    "benchmarks": {"benchmarks", "flows", "pipeline", "model", "tfrecords"},
    "flows": {"flows", "pipeline", "model", "tfrecords"},
    "pipeline": {"pipeline", "tfrecords"},
    "model": {"model", "tfrecords"},
    "tfrecords": {"tfrecords"},
}
ONLY_IN = {
    "prefect": r"flows/(deployments|runner)\.py",
    "apache_beam": r"pipeline/.+\.py",
    "mlflow": r"model/(registry/tracking|inference/pyfunc)\.py",  # pyfunc.py is what MLflow imports
    "tensorflow": r"(model/.+|tfrecords/records/(reader|augmentation)|benchmarks/\w+)\.py",
    "keras": r"(model|benchmarks)/.+\.py",
}
FILES = sorted(path.relative_to(ROOT).as_posix() for package in MAY_USE for path in (ROOT / package).rglob("*.py"))


def imported(file):
    """Top-level names of all that a file imports, inside functions too."""
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports by a relative name"
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("file", FILES)
def test_imports_run_one_way(file):
    names = set(imported(file))
    assert names & set(MAY_USE) <= MAY_USE[file.partition("/")[0]]
    for library, place in ONLY_IN.items():
        assert library not in names or re.fullmatch(place, file), f"{file} imports {library}"


# What some systems have not. mypy for the platforms win32 and darwin knows the rest.
NOT_EVERYWHERE = re.compile(
    r"(fcntl|grp|msvcrt|pty|pwd|resource|termios|tty|winreg)\b"
    r"|os\.(fork|get(e?[ug]id|pgid|pgrp|ppid|sid)|killpg|mkfifo|register_at_fork|sched_\w+|set\w+|statvfs|sysconf|uname"
    r"|wait\w*)\b"
    r"|signal\.(SIG(?!INT|TERM|_)[A-Z]|alarm|pthread_|setitimer|CTRL_)"
    r"|(preexec_fn|start_new_session)\b"
    r"|/(bin|dev|etc|proc|sys|tmp|usr|var)\b"
)


def foreign(file):
    """What a file names that some systems have not, with its line: modules, functions, arguments, places."""
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        match node:
            case ast.Import():
                names = [name.name for name in node.names]
            case ast.ImportFrom():
                names = [f"{node.module}.{name.name}" for name in node.names]
            case ast.Attribute():
                names = [ast.unparse(node)]
            case ast.keyword(arg=str(name)) | ast.Constant(value=str(name)):
                names = [name]
            case _:
                continue
        yield from (f"{file}:{node.lineno}: {name}" for name in names if NOT_EVERYWHERE.match(name))


@pytest.mark.parametrize("file", [file for file in FILES if not file.startswith("benchmarks/")])
def test_one_module_alone_uses_what_some_systems_have_not(file):
    assert file == "tfrecords/system.py" or list(foreign(file)) == []


def test_what_some_systems_have_not_is_seen_where_it_is_used():
    seen = " ".join(foreign("tfrecords/system.py"))
    assert all(name in seen for name in ("os.killpg", "signal.SIGKILL", "start_new_session"))
    foreigners = ("fcntl", "fcntl.flock", "os.fork", "os.getppid", "signal.SIGHUP", "/proc/self/status", "pwd.getpwnam")
    natives = (
        "os.replace",
        "os.dup2",
        "os.getpid",
        "os.kill",
        "signal.SIGINT",
        "signal.SIG_IGN",
        "signal.Signals",
        "/",
    )
    assert [name for name in (*foreigners, *natives) if NOT_EVERYWHERE.match(name)] == list(foreigners)


def test_every_package_but_the_benchmarks_is_installed():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert sorted(packages) == sorted(f"{package}*" for package in set(MAY_USE) - {"benchmarks"})


@pytest.fixture
def usage(capsys):
    """A function that gives the help of a command, or of all."""

    def told(*words):
        with pytest.raises(SystemExit):
            main([*words, "--help"])
        return capsys.readouterr().out

    return told


@pytest.mark.parametrize("paper", ["README.md", "Makefile", "docs/study.md"])
def test_every_command_and_option_that_a_paper_names_is_there(paper, usage):
    text = (ROOT / paper).read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"(?:^|[`/\s])aoi (run|[a-z]+)((?: [^`#\n]*)?)", text, re.M)
    assert commands
    known = usage()
    for command, rest in commands:
        assert f"\n    {command} " in known, f"aoi {command}"
        words = re.sub(r'"[^"]*"', "", rest)
        for option in re.findall(r"(?<!\S)--[a-z-]+", words):
            assert option in usage(command), f"aoi {command} {option}"


def test_every_file_that_the_study_names_is_there_and_its_grids_are_grids():
    named = re.findall(r"\]\(([^)]+)\)", (ROOT / "docs" / "study.md").read_text(encoding="utf-8"))
    assert all((ROOT / "docs" / name).is_file() for name in named)
    grids = [ROOT / "docs" / name for name in named if name.endswith(".toml")]
    assert sorted(grids) == sorted((ROOT / "docs" / "study").glob("*.toml"))
    for grid in grids:
        assert len(parse_grid(read_grid(str(grid)), load_settings(), str(grid))) > 1


def test_every_make_target_and_file_that_the_readme_names_is_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:^|`)make (\w+)", text, re.M)) <= targets
    for file in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
        assert (ROOT / file).is_file(), file


def test_every_setting_that_the_readme_names_is_one():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    sections = "|".join(sorted({name.partition(".")[0] for name, *_ in describe()}))
    named = set(re.findall(rf"`(?:--set )?((?:{sections})\.[a-z_]+)(?=[`= ])", text))
    assert named
    assert named <= {name for name, *_ in describe()} | {"train.csv", "predict.csv"}


def test_every_setting_says_what_it_is():
    for name, default, kind, meaning in describe():
        assert default, name
        assert kind, name
        assert meaning, name
