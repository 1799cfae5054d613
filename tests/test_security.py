"""What SECURITY.md promises: data stays in its folder, no shell, no pickle, local servers, pinned packages."""

import ast
import csv
import os
import re
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import flows.serving.serve
from flows.cli import _parser
from flows.home import Home
from pipeline.inputs.inputs import check_inputs, read_inputs
from tfrecords.errors import AoiError

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("flows", "model", "pipeline", "tfrecords")
SOURCES = {
    path: ast.parse(path.read_text(encoding="utf-8")) for name in PACKAGES for path in (ROOT / name).rglob("*.py")
}
PICKLES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn", "eval", "exec"}
SUBPROCESS = {
    "subprocess.Popen",
    "subprocess.run",
    "subprocess.call",
    "subprocess.check_call",
    "subprocess.check_output",
}


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """(file and line, name as written, call) of every call in our packages."""
    for path, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", ast.unparse(node.func), node


def imported() -> Iterator[tuple[str, str]]:
    """(file, module) of every import in our packages."""
    for path, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from ((str(path.relative_to(ROOT)), alias.name) for alias in node.names)
            if isinstance(node, ast.ImportFrom):
                yield str(path.relative_to(ROOT)), node.module or ""


# --- Data stays where it is ---------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", ["../secret.png", "sub/../../secret.png", "{root}/secret.png", "..\\secret.png"])
def test_an_id_in_a_csv_cannot_leave_the_folder_of_the_pictures(data, leave, monkeypatch):
    secret = data / "secret.png"
    secret.write_bytes((data / "test_images" / "test_000.png").read_bytes())
    with open(data / "test.csv", "a") as file:
        file.write(leave.format(root=data) + ",\r\n")
    opened = []
    monkeypatch.setattr("pipeline.inputs.files.read_bytes", lambda path: opened.append(path) or Path(path).read_bytes())
    with pytest.raises(AoiError, match="leaves the folder of the pictures"):
        read_inputs(str(data), "test", 5)
    assert str(secret) not in opened


@pytest.mark.parametrize("leave", ["../secret.png", "/secret.png", "test_images/../../secret.png"])
def test_reading_a_zip_writes_nothing_whatever_its_names_are(data, leave):
    before = sorted(data.parent.rglob("*"))
    with zipfile.ZipFile(data / "test_images.zip", "w") as archive:
        for path in (data / "test_images").iterdir():
            archive.write(path, path.name)
        archive.writestr(leave, b"x")
    for path in (data / "test_images").iterdir():
        path.unlink()
    (data / "test_images").rmdir()
    with pytest.raises(AoiError, match="no row names this picture"):
        check_inputs(str(data), "test", 5)
    pictures = {path for path in before if path.parent.name == "test_images"}
    kept = {path for path in before if path not in pictures and path.name != "test_images"}
    assert set(data.parent.rglob("*")) == kept | {data / "test_images.zip"}


# --- No shell, no pickle ------------------------------------------------------------------------------------


def test_no_shell_is_run_and_no_text_as_code():
    found = [f"{place}: {name}" for place, name, _ in calls() if name in SHELLS or name.startswith("os.exec")]
    for place, name, call in calls():
        shell = any(keyword.arg == "shell" for keyword in call.keywords)
        text = bool(call.args) and isinstance(call.args[0], ast.Constant | ast.JoinedStr | ast.BinOp)
        if shell or (name in SUBPROCESS and (text or not call.args)):
            found.append(f"{place}: {name}")
    assert found == []


def test_no_package_of_ours_imports_pickle_or_its_kin():
    assert [(path, module) for path, module in imported() if module.split(".")[0] in PICKLES] == []
    allowed = [place for place, _, call in calls() if any(keyword.arg == "allow_pickle" for keyword in call.keywords)]
    assert allowed == []


def test_models_are_loaded_in_keras_safe_mode_alone():
    loads = [(place, call) for place, name, call in calls() if name.split(".")[-1] == "load_model"]
    assert loads
    for place, call in loads:
        safe = [keyword.value for keyword in call.keywords if keyword.arg == "safe_mode"]
        assert [ast.unparse(value) for value in safe] == ["True"], place
    assert [place for place, name, _ in calls() if "unsafe" in name] == []


def test_a_model_file_that_brings_code_along_is_refused(tmp_path):
    import keras

    from model.network.files import load

    path, ran = tmp_path / "model.keras", tmp_path / "ran"
    code = keras.layers.Lambda(lambda values, ran=str(ran): (os.makedirs(ran, exist_ok=True), values)[1])
    layers = [keras.layers.Input((3,)), code]
    keras.Sequential(layers).save(path)
    ran.rmdir()
    with pytest.raises(AoiError, match="not a model that can be loaded"):
        load(path)
    assert not ran.exists()


def test_a_logged_model_holds_no_pickle(made):
    _, home, _, _ = made
    folders = [path.parent for path in home.root.rglob("MLmodel")]
    assert folders
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                assert path.suffix not in {".pkl", ".pickle", ".joblib", ".cloudpickle", ".dill"}, path.name
                # Protocols 2 to 5 begin with this byte and their number.
                assert not re.match(rb"\x80[\x02-\x05]", path.read_bytes()[:2]), path.name
        assert "cloudpickle" not in (folder / "MLmodel").read_text()


# --- Servers ------------------------------------------------------------------------------------------------


def started(monkeypatch, tmp_path: Path, host: str) -> list[list[str]]:
    """The commands that `aoi serve` starts, none of which runs."""
    commands = []

    def start(module, environment, log):
        commands.append(list(module))
        if module[0] == "flows.serving.runner":
            raise KeyboardInterrupt

    monkeypatch.setattr(flows.serving.serve, "start", start)
    monkeypatch.setattr(flows.serving.serve, "_stop", lambda parts: None)
    monkeypatch.setattr(flows.serving.serve, "wait", lambda *_: None)
    monkeypatch.setattr(flows.serving.serve, "runs_already", lambda *_: False)
    assert flows.serving.serve.serve(Home(tmp_path), flows.serving.serve.Asked(), host, 4200, 5000) == 0
    return commands


def test_both_servers_listen_on_this_machine_alone_unless_told_otherwise(monkeypatch, tmp_path, capsys):
    host = _parser(["serve"]).parse_args(["serve"]).host
    assert host == "127.0.0.1"
    servers = [command for command in started(monkeypatch, tmp_path, host) if command[0] != "flows.serving.runner"]
    assert [command[0] for command in servers] == ["prefect", "mlflow"]
    assert [command[command.index("--host") + 1] for command in servers] == [host, host]
    assert "warning" not in capsys.readouterr().out


def test_another_address_is_warned_of(monkeypatch, tmp_path, capsys):
    started(monkeypatch, tmp_path, "0.0.0.0")
    assert "0.0.0.0 opens both servers, without a password" in capsys.readouterr().out


# --- Packages -----------------------------------------------------------------------------------------------


def requirements() -> list[str]:
    """requirements.txt, a string for each package with its hashes."""
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return "\n".join(lines).replace("\\\n", " ").splitlines()


PINNED = re.compile(r"([a-z0-9-]+)==([^ ;]+)( ;[^\\]*?)?((?:\s+--hash=sha256:[0-9a-f]{64})+)\s*")


def test_every_package_is_pinned_with_hashes_and_comes_from_no_named_host():
    assert len(requirements()) > 100
    assert [line[:80] for line in requirements() if not PINNED.fullmatch(line)] == []
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host| @ ", text)


def test_the_lock_is_whole_so_that_it_installs_without_resolving():
    found, asked = {}, [Requirement("aoi[test]")]
    while asked:
        wanted = asked.pop()
        for extra in (wanted.extras or {""}) - found.setdefault(wanted.name, set()):
            found[wanted.name].add(extra)
            needs = [Requirement(line) for line in distribution(wanted.name).requires or []]
            asked += [need for need in needs if not need.marker or need.marker.evaluate({"extra": extra})]
        assert wanted.specifier.contains(distribution(wanted.name).version, prereleases=True), str(wanted)
    assert len(found) > 100


def test_no_package_has_a_version_with_a_known_hole():
    """known_vulnerable.csv: package, the first version without the hole, its advisory."""
    pins = [PINNED.fullmatch(line).groups()[:2] for line in requirements()]
    with open(ROOT / "tests" / "known_vulnerable.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert all(re.fullmatch(r"CVE-\d{4}-\d{4,}|GHSA(-[0-9a-z]{4}){3}", row["advisory"]) for row in table)
    names = {name for name, _ in pins}
    assert [row["package"] for row in table if row["package"] not in names] == []
    holes = [
        (name, version, row["advisory"])
        for name, version in pins
        for row in table
        if row["package"] == name and Version(version) < Version(row["fixed_in"])
    ]
    assert holes == []


def test_nothing_here_names_a_home_or_a_password():
    told = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", told)) <= {"127.0.0.1", "0.0.0.0"}
    assert os.fspath(Path.home()) not in told
