"""The model in MLflow on a machine that has neither this project nor its training packages."""

import ast
import asyncio
import base64
import csv
import io
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import httpx
import numpy as np
import pytest

from model.registry.served import requirements
from model.registry.store import CHAMPION, store_of
from model.registry.tracking import connect

OURS = ("flows", "pipeline", "model", "tfrecords", "benchmarks")
TRAINING = ("tensorflow", "keras", "apache_beam", "prefect", "matplotlib", "sklearn")
# Loads a model, asks it, and prints {answers: CSV, modules: {name: file}}. Arguments: the model, pictures.
LOAD = """
import json, sys
from pathlib import Path
import mlflow
model, *pictures = sys.argv[1:]
answers = mlflow.pyfunc.load_model(model).predict([Path(picture).read_bytes() for picture in pictures])
files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
print(json.dumps({"answers": answers.to_csv(index=False), "modules": files}))
"""
# This project's own packages can't be imported from where they are installed.
HIDE = f"""
import importlib.util, sys
sys.meta_path = [finder for finder in sys.meta_path if "__editable__" not in str(getattr(finder, "__module__", finder))]
sys.path = [place for place in sys.path if not (__import__("pathlib").Path(place) / "tfrecords").exists()]
assert not any(map(importlib.util.find_spec, {OURS}))
"""


@pytest.fixture(scope="module")
def model(made) -> Path:
    """The files of the champion, as MLflow has them."""
    store = store_of(made[1].root, "tiny")
    client = connect(store)
    run = client.get_run(client.get_model_version_by_alias(store.model, CHAMPION).run_id)
    (logged,) = run.outputs.model_outputs
    return Path(client.get_logged_model(logged.model_id).artifact_location.removeprefix("file://"))


@pytest.fixture(scope="module")
def expected(made) -> list[dict[str, str]]:
    """The rows of predictions.csv."""
    _, home, _, refs = made
    with open(home.root / refs["predict"].folder / "predictions.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def pictures(made, expected) -> list[Path]:
    return [made[0] / "test_images" / row["ID"] for row in expected]


def assert_equal(answers, expected):
    """Answers, rows of text or numbers, are those of predictions.csv."""
    assert [answer["name"] for answer in answers] == [row["name"] for row in expected]
    assert [int(answer["label"]) for answer in answers] == [int(row["label"]) for row in expected]
    names = [name for name in answers[0] if name not in ("label", "name")]
    ours, theirs = ([[float(row[name]) for name in names] for row in rows] for rows in (answers, expected))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def load_elsewhere(python, code, model, pictures, folder):
    """What a process in another folder prints that has `python` and no PYTHONPATH."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MLFLOW", "VIRTUAL"))
    }
    done = subprocess.run(
        [python, "-I", "-B", "-c", code, model, *pictures],
        cwd=folder,
        env=environment | {"MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def elsewhere(model, pictures, tmp_path_factory):
    return load_elsewhere(sys.executable, HIDE + LOAD, model, pictures, tmp_path_factory.mktemp("elsewhere"))


def test_it_brings_its_code_and_answers_as_predict_does(elsewhere, model, expected):
    assert_equal(list(csv.DictReader(io.StringIO(elsewhere["answers"]))), expected)
    own = {name: file for name, file in elsewhere["modules"].items() if name.partition(".")[0] in OURS}
    assert own
    assert all(Path(file).is_relative_to(model / "code") for file in own.values())


def test_it_loads_without_the_packages_of_training(elsewhere):
    assert not {name.partition(".")[0] for name in elsewhere["modules"]}.intersection(TRAINING)


def test_its_requirements_name_all_that_its_code_imports_and_nothing_of_training(elsewhere, model):
    named = {line.partition("==")[0] for line in (model / "requirements.txt").read_text().split()}
    assert named == {line.partition("==")[0] for line in requirements()}
    provides = packages_distributions() | {"pydantic_core": ["pydantic"]}  # which asks for the one version it fits
    for name, file in elsewhere["modules"].items():
        if name.partition(".")[0] in OURS:
            for imported in set(imports(Path(file))) - {*sys.stdlib_module_names, *OURS, *TRAINING}:
                assert named.intersection(provides[imported]), f"{name} imports {imported}"
    assert not any(line.startswith(("tensorflow", "keras", "apache-beam", "prefect")) for line in named)


def imports(file):
    """Packages that a module imports, inside functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        if isinstance(node, ast.ImportFrom):
            yield node.module.partition(".")[0]


def test_it_brings_no_compiled_files(model):
    assert {file.suffix for file in (model / "code").rglob("*") if file.is_file()} <= {".py", ".typed"}


def test_it_answers_in_an_environment_made_from_its_own_requirements(model, pictures, expected, tmp_path):
    uv = shutil.which("uv")
    if not uv:
        pytest.skip("uv is not installed")
    python = tmp_path / "bare" / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "bare"], check=True)
    install = [uv, "pip", "install", "--quiet", "--python", python, "-r", model / "requirements.txt"]
    made = subprocess.run(install, capture_output=True, text=True)
    if made.returncode and ("error sending request" in made.stderr or "network" in made.stderr.lower()):
        pytest.skip(f"no package registry answers: {made.stderr[-200:]}")
    assert made.returncode == 0, made.stderr
    answered = load_elsewhere(python, LOAD, model, pictures, tmp_path)
    assert_equal(list(csv.DictReader(io.StringIO(answered["answers"]))), expected)


def test_models_of_version_0_1_still_load_where_this_project_is_installed(
    model, pictures, expected, tmp_path, monkeypatch
):
    import mlflow

    monkeypatch.setattr(sys, "path", list(sys.path))
    old = shutil.copytree(model, tmp_path / "old", ignore=shutil.ignore_patterns("code"))
    text = (
        (old / "MLmodel").read_text().replace("model.inference.pyfunc", "model.serving").replace("    code: code\n", "")
    )
    (old / "MLmodel").write_text(text)
    answers = mlflow.pyfunc.load_model(str(old)).predict([picture.read_bytes() for picture in pictures])
    assert_equal(answers.to_dict("records"), expected)


# --- Over HTTP ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ask(model):
    """A function that posts a body to the application that `mlflow models serve` runs."""
    import mlflow
    from mlflow.pyfunc import scoring_server

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        patch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
        server = httpx.ASGITransport(scoring_server.init(mlflow.pyfunc.load_model(str(model))))

        async def post(body):
            async with httpx.AsyncClient(transport=server, base_url="http://served") as client:
                headers = {"Content-Type": "application/json"}
                return await client.post("/invocations", content=json.dumps(body), headers=headers)

        yield lambda body: asyncio.run(post(body))


FORMS = {
    "dataframe_split": lambda texts: {"columns": ["png"], "data": [[text] for text in texts]},
    "dataframe_records": lambda texts: [{"png": text} for text in texts],
    "inputs": lambda texts: texts,
    "instances": lambda texts: texts,
}


@pytest.mark.parametrize("form", FORMS)
def test_base64_is_answered_in_every_form_that_mlflow_takes(form, ask, pictures, expected):
    texts = [base64.b64encode(picture.read_bytes()).decode() for picture in pictures]
    answer = ask({form: FORMS[form](texts)})
    assert answer.status_code == 200, answer.text
    assert_equal(answer.json()["predictions"], expected)


@pytest.mark.parametrize("form", ["inputs", "instances"])
def test_base64_with_line_breaks_is_answered_too(form, ask, pictures, expected):
    texts = [base64.encodebytes(picture.read_bytes()).decode() for picture in pictures]
    assert_equal(ask({form: texts}).json()["predictions"], expected)


def test_the_example_of_the_model_is_a_request_that_works(ask, model):
    example = json.loads((model / "serving_input_example.json").read_text())
    assert ask(example).status_code == 200


BAD = {
    "a picture that is cut off": (
        lambda data: base64.b64encode(data[:100]).decode(),
        "the PNG is cut off after 100 bytes",
    ),
    "another file": (lambda data: base64.b64encode(b"\xff" * 9).decode(), "the file is not a"),
    "an empty file": (lambda data: "", "the file is empty"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", BAD)
def test_an_unreadable_picture_is_refused_in_one_sentence(kind, form, ask, pictures):
    spoil, seen = BAD[kind]
    whole = pictures[0].read_bytes()
    answer = ask({form: FORMS[form]([base64.b64encode(whole).decode(), spoil(whole)])})
    assert answer.status_code == 400
    assert answer.json().keys() == {"error_code", "message"}
    assert answer.json()["message"].startswith(f"picture 1: {seen}")


@pytest.mark.parametrize("form", ["inputs", "instances"])
@pytest.mark.parametrize("text", ["hello, world", "AAA=A"])
def test_text_that_is_no_base64_is_refused_in_one_sentence(text, form, ask):
    answer = ask({form: [text]})
    assert answer.status_code == 400
    assert answer.json()["message"] == "picture 0: neither a picture file nor base64 text"
