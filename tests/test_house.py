"""The house in order: who may import whom, and papers that name what there is."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from flows.cli import main
from flows.settings import describe, load_settings, parse_grid, read_grid
from flows.stages import SUMMARIES

ROOT = Path(__file__).resolve().parents[1]
MAY_USE = {
    "benchmarks": {"benchmarks", "flows", "pipeline", "model", "tfrecords"},
    "flows": {"flows", "pipeline", "model", "tfrecords"},
    "pipeline": {"pipeline", "tfrecords"},
    "model": {"model", "tfrecords"},
    "tfrecords": {"tfrecords"},
}
ONLY_IN = {
    "prefect": r"flows/serving/(deployments|runner|sharing)\.py",
    "apache_beam": r"pipeline/.+\.py",
    "mlflow": r"model/(registry/tracking|inference/pyfunc)\.py",  # pyfunc.py is what MLflow imports
    "tensorflow": r"(model/.+|tfrecords/records/(reader|augmentation)|benchmarks/\w+)\.py",
    "keras": r"(model|benchmarks)/.+\.py",
    "cv2": r"tfrecords/pictures/opencv\.py|benchmarks/\w+\.py",
}
PAPERS = sorted(path.relative_to(ROOT).as_posix() for where in ("*.md", "docs/*.md") for path in ROOT.glob(where))
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
def test_two_modules_alone_use_what_some_systems_have_not(file):
    assert file in ("tfrecords/cores.py", "tfrecords/system.py") or list(foreign(file)) == []


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


# Not the papers that tell of commands as they were.
@pytest.mark.parametrize("paper", sorted({*PAPERS, "Makefile"} - {"CHANGELOG.md", "docs/performance.md"}))
def test_every_command_and_option_that_a_paper_names_is_there(paper, usage):
    text = (ROOT / paper).read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"(?:^|[`/\s])aoi (run|[a-z]+)((?: [^`#\n]*)?)", text, re.M)
    known = usage()
    for command, rest in commands:
        assert f"\n    {command} " in known, f"aoi {command}"
        words = re.sub(r'"[^"]*"', "", rest)
        for option in re.findall(r"(?<!\S)--[a-z-]+", words):
            assert option in usage(command), f"aoi {command} {option}"
    assert set(re.findall(r"\baoi/(\w+)", text)) <= {"full", *SUMMARIES}


def test_every_grid_of_the_study_is_named_and_is_a_grid():
    named = re.findall(r"\]\(([^)]+\.toml)\)", (ROOT / "docs" / "study.md").read_text(encoding="utf-8"))
    grids = [ROOT / "docs" / name for name in named]
    assert sorted(grids) == sorted((ROOT / "docs" / "study").glob("*.toml"))
    for grid in grids:
        assert len(parse_grid(read_grid(str(grid)), load_settings(), str(grid))) > 1


def headings(path):
    """What a link may name behind # in a paper, as code forges make it from the headings."""
    found = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in found}


@pytest.mark.parametrize("paper", PAPERS)
def test_every_file_and_heading_that_a_paper_links_is_there(paper):
    text = (ROOT / paper).read_text(encoding="utf-8")
    for file, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        path = (ROOT / paper).parent / file if file else ROOT / paper
        assert path.is_file(), file
        assert not heading or heading in headings(path), f"{file}#{heading}"


@pytest.mark.parametrize("paper", PAPERS)
def test_every_make_target_and_every_file_of_the_code_that_a_paper_names_is_there(paper):
    text = (ROOT / paper).read_text(encoding="utf-8")
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.M)) <= targets
    for path in re.findall(rf"(?<![\w/])((?:{'|'.join(MAY_USE)}|docs|tests)/[\w/]*(?:\.\w+)?)(?=[`\s])", text):
        assert "NAME" in path or (ROOT / path).exists(), path


@pytest.mark.parametrize("paper", PAPERS)
def test_every_setting_that_a_paper_names_is_one(paper):
    text = (ROOT / paper).read_text(encoding="utf-8")
    known = {name for name, *_ in describe()}
    sections = "|".join(sorted({name.partition(".")[0] for name in known}))
    named = set(re.findall(rf"(?<![\w/])((?:{sections})\.[a-z_]+)(?=[`= ])", text))
    assert named <= known | {"train.csv"}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) < 1300


def test_the_architecture_names_every_room():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = {f"{path.parent.relative_to(ROOT).as_posix()}/" for path in ROOT.glob("*/*/__init__.py")}
    rooms = {room for room in rooms if room.partition("/")[0] in MAY_USE}
    assert rooms
    assert rooms == set(re.findall(r"^\| `(\w+/\w+/)`", text, re.M))


def test_every_setting_says_what_it_is():
    for name, default, kind, meaning in describe():
        assert default, name
        assert kind, name
        assert meaning, name
