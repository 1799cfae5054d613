"""The command line: what it prints, how it ends, and that a refusal changes nothing."""

import csv
import hashlib
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.cli import main
from flows.home import Home
from flows.settings import describe
from flows.stages import train
from flows.summary import report
from model.decisions.wording import promise_lines, void_line
from model.manifests import EvaluationManifest, PredictionManifest
from tfrecords.dataset import DatasetManifest

# As the whole run of the shared fixture was made.
QUICK = {"preprocess.image_size_px": 32, "train.alpha": 0.25, "train.epochs": 2, "train.learning_rate": 0.003}
MAKERS = ("apache_beam", "cv2", "keras", "mlflow", "pandas", "prefect", "sklearn", "tensorflow")


@pytest.fixture
def aoi(capsys):
    """A function that runs a command in this process: (exit code, standard output, standard error)."""
    handler, levels = signal.getsignal(signal.SIGTERM), {name: logging.getLogger(name).level for name in ("", "mlflow")}

    def run(*words):
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:  # argparse
            code = end.code
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return SimpleNamespace(code=code, out=out, err=err)

    yield run
    signal.signal(signal.SIGTERM, handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def chosen(**more):
    return [word for name, value in {**QUICK, **more}.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture(scope="module")
def home(copy_home, tmp_path_factory):
    return copy_home(tmp_path_factory.mktemp("cli") / "home")


def content(folder):
    """Every file below a folder with its hash."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# --- The whole chain and single stages ----------------------------------------------------------------------


def test_a_second_run_finds_everything_and_ends_in_a_summary(aoi, home, made):
    data, _, _, refs = made
    given = aoi("run", "--data", data, "--home", home.root, *chosen())
    assert given.code == 0
    found = re.findall(r"^(\w+) +was there: (\S+)$", given.err, re.M)
    assert found == [(name, ref.folder) for name, ref in refs.items()]
    accuracy = home.open(refs["evaluate"], EvaluationManifest).manifest.metrics["accuracy"]
    assert "normal class       none (evaluate.normal_class)" in given.out
    for words in (f"accuracy           {accuracy:.4f}", "MobileNet, alpha 0.25, 32 px, 2 epochs", "submission.csv"):
        assert words in given.out
    assert "models:/aoi-tiny@champion" in given.out
    promise, *_ = promise_lines(home.open(refs["evaluate"], EvaluationManifest).manifest.operating)
    prediction = home.open(refs["predict"], PredictionManifest).manifest
    told = void_line(prediction.drift) or promise
    assert f"  promise: {told}\n" in given.out
    assert f"Promise: {told}." in report(home, refs)
    assert f"Promise: {promise}." in report(home, {"evaluate": refs["evaluate"]})


def test_a_run_that_finds_everything_loads_nothing_that_makes_it(home, made):
    data = made[0]
    words = ["run", "--data", str(data), "--home", str(home.root), *chosen()]
    code = (
        f"import sys\nfrom flows.__main__ import main\nprint(main({words}), "
        f"[name for name in {MAKERS} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_a_lot_is_any_folder_or_zip_of_pictures_and_its_answers_are_in_their_order(packed, aoi, home, made, tmp_path):
    lot = shutil.copytree(made[0] / "test_images", tmp_path / "lot")
    if packed:
        lot = shutil.make_archive(str(lot), "zip", tmp_path, "lot")
    given = aoi("predict", "--data", lot, "--home", home.root, *chosen())
    assert given.code == 0
    assert ("test, taken leniently: a folder around all pictures, taken off (9: lot/)" in given.err) == packed
    answers = (home.root / "submission.csv").read_text().split()
    assert [line.partition(",")[0] for line in answers] == ["ID", *sorted(os.listdir(made[0] / "test_images"))]


def test_what_was_taken_leniently_is_told_kept_and_changes_no_dataset(aoi, home, made, tmp_path):
    data = shutil.copytree(made[0], tmp_path / made[0].name)
    plain = Home(home.root).open(made[3]["ingest"], DatasetManifest)
    text = (data / "train.csv").read_text(encoding="utf-8").replace(",", ";").replace("ID", "Id")
    (data / "train.csv").write_bytes(text.encode("utf-16"))
    given = aoi("ingest", "--data", data, "--home", home.root, *chosen())
    assert f"was there: {made[3]['ingest'].folder}" in given.err
    told = re.findall(r"train, taken leniently: (.*) \((\d+): ", given.err)
    kinds = ["an encoding other than UTF-8", "semicolons between the fields", "another name of the column ID"]
    assert told == [(kind, "1") for kind in kinds]
    other = aoi("ingest", "--data", data, "--home", tmp_path / "home", *chosen())
    assert other.code == 0
    made_anew = Home(tmp_path / "home").open(made[3]["ingest"], DatasetManifest)
    assert [lenience.kind for lenience in made_anew.manifest.leniences] == kinds
    assert plain.manifest.leniences == ()
    assert made_anew.digest == plain.digest


@pytest.mark.parametrize("stage", ["ingest", "train", "evaluate", "predict"])
def test_a_stage_alone_works_on_what_was_used_last_and_prints_its_folder(stage, aoi, home, made):
    refs = made[3]
    given = aoi(stage, "--home", home.root, *chosen())
    assert given.code == 0
    assert str(home.root / refs[stage].folder) in given.out
    assert f"was there: {refs[stage].folder}" in given.err


@pytest.mark.parametrize(
    ("stage", "option", "upstream"),
    [
        ("train", "--dataset", "ingest"),
        ("evaluate", "--model", "train"),
        ("evaluate", "--dataset", "ingest"),
        ("predict", "--model", "train"),
    ],
)
def test_an_upstream_can_be_named(stage, option, upstream, aoi, home, made):
    refs = made[3]
    given = aoi(stage, "--home", home.root, option, refs[upstream].fingerprint[:7], *chosen())
    assert given.code == 0
    assert str(home.root / refs[stage].folder) in given.out
    unknown = aoi(stage, "--home", home.root, option, "no-such-name", *chosen())
    assert unknown.code == 2
    assert Path(refs[upstream].folder).name in unknown.err  # it names those that there are


def test_force_makes_it_again(aoi, home, made):
    given = aoi("predict", "--home", home.root, "--data", made[0], "--force", *chosen())
    assert given.code == 0
    assert re.search(r"^predict +done in \d", given.err, re.M)


def test_home_comes_from_the_environment_where_it_is_not_given(aoi, home, made, monkeypatch):
    monkeypatch.setenv("AOI_HOME", str(home.root))
    assert str(home.root) in aoi("train", *chosen()).out


def test_a_model_under_the_bound_ends_with_1_and_is_not_used(aoi, copy_home, made, tmp_path):
    home = copy_home(tmp_path / "home")
    before = (home.root / "latest" / "champion-tiny.json").read_bytes()
    given = aoi("evaluate", "--home", home.root, *chosen(**{"evaluate.minimum_accuracy": 1}))
    assert given.code == 1
    assert "is under evaluate.minimum_accuracy 1" in given.err
    assert (home.root / "latest" / "champion-tiny.json").read_bytes() == before


@pytest.mark.parametrize("within", ["our code", "the import of a native library"])
def test_ctrl_c_ends_with_130_and_says_how_to_go_on(aoi, home, made, monkeypatch, within):
    def stop(*_, **__):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as stopped:
            if within == "our code":
                raise
            raise ImportError("initialization failed") from stopped

    monkeypatch.setattr(train, "STAGE", replace(train.STAGE, run=stop))
    given = aoi("run", "--data", made[0], "--home", home.root, *chosen())
    assert given.code == 130
    assert "the same command goes on" in given.err


# --- Refusals -----------------------------------------------------------------------------------------------


def edit(path, old, new):
    text = path.read_bytes()
    assert old in text
    path.write_bytes(text.replace(old, new, 1))


def cut(path):
    path.write_bytes(path.read_bytes()[:300])


# What is done to a good set, and what the message must say: where, what, and what to do.
SPOILED = {
    "the folder is not there": (lambda data: shutil.rmtree(data), ["no such folder", "train.csv"]),
    "no train.csv": (lambda data: (data / "train.csv").unlink(), ["train.csv", "ID,Label"]),
    "no pictures": (lambda data: shutil.rmtree(data / "test_images"), ["test_images", "zip"]),
    "no test split": (
        lambda data: [(data / "test.csv").unlink(), shutil.rmtree(data / "test_images")],
        ["test.csv, test_images/", "aoi ingest, aoi train and aoi evaluate, which need none"],
    ),
    "not utf-8": (lambda data: edit(data / "train.csv", b"_003", b"_\xff3"), ["train.csv, row 5", "UTF-8"]),
    "header": (lambda data: edit(data / "train.csv", b"Label", b"Value"), ["train.csv, row 1", "ID,Label"]),
    "label out of range": (
        lambda data: edit(data / "train.csv", b"_002.png,2", b"_002.png,7"),
        ["train.csv, row 4", "'7'", "0 to 2"],
    ),
    "label in words": (
        lambda data: edit(data / "train.csv", b"_002.png,2", b"_002.png,stripes"),
        ["train.csv, row 4", "'stripes'", "0 to 2"],
    ),
    "no label": (lambda data: edit(data / "train.csv", b"_002.png,2", b"_002.png,"), ["train.csv, row 4", "no label"]),
    "path out of the folder": (
        lambda data: edit(data / "train.csv", b"train_002.png", b"../train_002.png"),
        ["train.csv, row 4", "leaves the folder"],
    ),
    "twice": (
        lambda data: edit(data / "train.csv", b"train_002.png", b"train_001.png"),
        ["train.csv, row 4", "row 3 already"],
    ),
    "row without a picture": (
        lambda data: (data / "train_images" / "train_002.png").unlink(),
        ["train.csv, row 4", "no picture train_002.png", "take the row out"],
    ),
    "picture without a row": (
        lambda data: shutil.copy(data / "train_images" / "train_002.png", data / "train_images" / "more.png"),
        ["more.png", "no row names this picture"],
    ),
    "cut picture": (lambda data: cut(data / "train_images" / "train_002.png"), ["train_002.png", "cut off", "row 4"]),
    "a class without pictures": (
        lambda data: (data / "classes.txt").write_text("plain\nrows\ncolumns\ndots\n"),
        ["no picture of class 3 (dots)", "classes.txt"],
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_bad_input_is_refused_with_where_what_and_a_remedy_and_home_stays_as_it_was(case, aoi, home, data):
    spoil, told = SPOILED[case]
    spoil(data)
    before = content(home.root)
    given = aoi("run", "--data", data, "--home", home.root, *chosen())
    assert given.code == 2
    assert given.out == ""
    for words in told:
        assert words in given.err
    assert given.err.splitlines()[-1].startswith(("aoi: ", "  "))
    assert content(home.root) == before


WRONG = {
    "unknown setting": (["--set", "train.epoch=3"], ["train.epoch is no setting", "train.epochs"]),
    "setting out of range": (["--set", "train.epochs=0"], ["train.epochs is 0", "greater than or equal to 1"]),
    "no setting at all": (["--set", "fast"], ["'fast' is no NAME=VALUE"]),
    "no settings file": (["--config", "nowhere.toml"], ["nowhere.toml", "can't be read"]),
    "weights out of reach": (["--set", "train.weights=gone.weights.h5"], ["gone.weights.h5", "AOI_WEIGHTS"]),
    "fold out of reach": (["--set", "train.fold=5"], ["train.fold: 5", "Set 0 to 4"]),
    "label out of reach": (["--set", "predict.unreadable_label=3"], ["predict.unreadable_label: 3", "Set 0 to 2"]),
    "lossy Beam": (["--beam", "--direct_running_mode=multi_threading"], ["multi_threading", "loses records"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_option_is_refused_with_what_is_right_and_home_stays_as_it_was(case, aoi, home, made):
    options, told = WRONG[case]
    before = content(home.root)
    given = aoi("run", "--data", made[0], "--home", home.root, *chosen(), *options)
    assert given.code == 2
    for words in told:
        assert words in given.err
    assert content(home.root) == before


@pytest.mark.parametrize(
    "words", [("--set", "train.epochs=1"), ("--set", "x=1"), ("--config", "demo.toml"), ("--format", "onnx")]
)
def test_export_refuses_what_would_change_nothing(words, aoi, home):
    before = content(home.root)
    given = aoi("export", "--home", home.root, *words)
    assert given.code == 2
    assert "usage: aoi" in given.err
    assert words[0] in given.err
    assert content(home.root) == before


@pytest.mark.parametrize("how", ["option", "variable"])
def test_a_home_at_a_url_is_refused_and_no_folder_of_that_name_appears(how, aoi, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AOI_HOME", "s3://bucket/home")
    given = aoi("ingest", "--data", data, *(["--home", "s3://bucket/home"] if how == "option" else []))
    assert given.code == 2
    assert "s3://bucket/home: it is a URL" in given.err
    assert "--home" in given.err
    assert not list(tmp_path.glob("s3*"))


def test_nothing_is_made_in_a_home_that_was_not_there(aoi, data, tmp_path):
    (data / "train.csv").unlink()
    assert aoi("run", "--data", data, "--home", tmp_path / "home", *chosen()).code == 2
    assert not (tmp_path / "home").exists()


def test_a_model_refuses_a_dataset_of_other_classes(aoi, home, data, made):
    (data / "classes.txt").write_text("plain\nrows\nstripes\n")
    other = aoi("ingest", "--data", data, "--home", home.root, *chosen()).out.split()[-1]
    named = ["--home", home.root, "--model", made[3]["train"].folder]
    before = content(home.root)
    for words in (["evaluate", "--dataset", other], ["predict", "--data", data]):
        given = aoi(*words, *named, *chosen())
        assert given.code == 2
        assert "its classes are plain, rows, stripes; the model's are plain, rows, columns" in given.err
    assert content(home.root) == before


def test_a_model_refuses_a_dataset_of_other_preprocessing_and_makes_a_lot_of_its_own(aoi, home, data, made):
    options = chosen(**{"preprocess.equalize": "none"})
    other = aoi("ingest", "--data", data, "--home", home.root, *options).out.split()[-1]
    named = ["--home", home.root, "--model", made[3]["train"].folder]
    given = aoi("evaluate", "--dataset", other, *named, *options)
    assert given.code == 2
    assert "preprocess.equalize is none, not clahe" in given.err
    assert aoi("predict", "--data", data, *named, *options).code == 0


def test_more_problems_than_fit_a_screen_are_all_in_a_file(aoi, data, tmp_path):
    for index in range(12):
        (data / "train_images" / f"train_{index:03d}.png").unlink()
    given = aoi("ingest", "--data", data, "--home", tmp_path / "home", *chosen())
    assert given.code == 2
    assert "12 problems:" in given.err
    assert "... and 2 more" in given.err
    assert str(tmp_path / "home" / "problems.csv") in given.err
    with open(tmp_path / "home" / "problems.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert list(rows[0]) == ["file", "row", "seen", "remedy"]


@pytest.mark.parametrize(
    "words", [[], ["paint"], ["run"], ["run", "--data"], ["train", "--data", "x"], ["serve", "--prefect-port", "x"]]
)
def test_a_command_that_is_none_is_refused_with_its_usage(words, aoi):
    given = aoi(*words)
    assert given.code == 2
    assert "usage: aoi" in given.err


# --- The rest -----------------------------------------------------------------------------------------------

HEAVY = (*MAKERS, "numpy", "pydantic")


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom flows.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as end: code = end.code\n"
        f"print(code, [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "0 []"
    for command in (
        "run",
        "ingest",
        "train",
        "evaluate",
        "predict",
        "serve",
        "deploy",
        "crossval",
        "export",
        "sweep",
        "rollback",
        "sample",
        "settings",
        "verify",
    ):
        assert f"\n    {command} " in done.stdout


def test_settings_lists_every_setting(aoi):
    given = aoi("settings")
    assert given.code == 0
    assert [line.split()[0] for line in given.out.splitlines()] == [name for name, *_ in describe()]


@pytest.mark.parametrize("buffered", [["-u"], []], ids=["while it prints", "when it has printed"])
def test_a_pipe_that_closes_early_is_no_crash(buffered):
    code = "from flows.cli import main; import sys; sys.exit(main(['settings']))"
    command = [sys.executable, *buffered, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_sample_writes_a_set_that_ingest_takes_and_never_over_another(aoi, tmp_path):
    given = aoi("sample", tmp_path / "look-alike", "--train", 60, "--test", 2)
    assert given.code == 0
    assert f"aoi run --data {tmp_path / 'look-alike'}" in given.out
    assert aoi("ingest", "--data", tmp_path / "look-alike", "--home", tmp_path / "home", *chosen()).code == 0
    before = content(tmp_path / "look-alike")
    again = aoi("sample", tmp_path / "look-alike", "--train", 60, "--test", 2)
    assert again.code == 2
    assert "not empty" in again.err
    assert content(tmp_path / "look-alike") == before


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_without_the_thresholds_of_its_evaluation_a_model_does_not_answer(aoi, copy_home, made, data, tmp_path, damage):
    """Every part would be for review, without a word."""
    home = copy_home(tmp_path / "home")
    file = home.root / made[3]["evaluate"].folder / "operating.json"
    file.write_text("{") if damage == "cut" else file.unlink()
    given = aoi("predict", "--data", data, "--home", home.root, "--force", *chosen())
    assert given.code == 2
    assert "operating.json" in given.err
    assert "aoi evaluate --force" in given.err


def test_verify_tells_of_a_champion_and_of_a_home_that_are_not_there(aoi, copy_home, made, tmp_path):
    home = copy_home(tmp_path / "home")
    shutil.rmtree(home.root / made[3]["train"].folder)
    given = aoi("verify", "--home", home.root)
    assert given.code == 2
    assert "this model, which HOME notes, is gone" in given.err
    given = aoi("verify", "--home", tmp_path / "nowhere")
    assert (given.code, "there is no such folder" in given.err) == (2, True)


@pytest.mark.parametrize(("name", "text"), [("model", '{"fingerprint": 3}'), ("model", '{"kin'), ("data", "[]")])
def test_a_note_that_another_program_changed_is_refused_by_its_name(aoi, copy_home, tmp_path, name, text):
    home = copy_home(tmp_path / "home")
    (home.root / "latest" / f"{name}.json").write_text(text)
    given = aoi("evaluate" if name == "model" else "predict", "--home", home.root)
    assert given.code == 2
    assert f"{name}.json: no note of aoi's" in given.err


def test_a_setting_that_the_dataset_was_not_made_with_is_told_for_training_overlooks_it(
    aoi, copy_home, tmp_path, caplog
):
    home = copy_home(tmp_path / "home")
    assert aoi("train", "--home", home.root, *chosen()).code == 0
    assert "other settings" not in caplog.text
    assert aoi("train", "--home", home.root, *chosen(), "--set", "preprocess.image_size_px=96").code == 0
    assert (
        "the dataset was made with other settings: preprocess.image_size_px=96 (32). They need aoi ingest"
        in caplog.text
    )


def test_verify_reads_every_byte_and_names_the_file_that_changed(aoi, copy_home, made, tmp_path):
    home = copy_home(tmp_path / "home")
    given = aoi("verify", "--home", home.root)
    assert given.code == 0
    assert "every byte as it was committed" in given.out
    path = home.root / made[3]["train"].folder / "model.keras"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    given = aoi("verify", "--home", home.root)
    assert given.code == 2
    assert f"aoi: {path}: its bytes are not those that were committed" in given.err


def test_a_home_that_is_a_file_is_refused_before_any_work(aoi, data, tmp_path):
    (tmp_path / "home").write_text("a file where the folder should be")
    given = aoi("ingest", "--data", data, "--home", tmp_path / "home", *chosen())
    assert given.code == 2
    assert f"--home: {tmp_path / 'home'} is a file" in given.err


def test_a_home_that_can_t_be_written_is_told_without_a_traceback(aoi, data, tmp_path):
    (tmp_path / "file").write_text("a file where a folder should be")
    given = aoi("ingest", "--data", data, "--home", tmp_path / "file" / "home", *chosen())
    assert given.code == 1
    assert str(tmp_path / "file" / "home") in given.err


def test_the_version_is_told(aoi):
    given = aoi("--version")
    assert (given.code, given.out) == (0, f"aoi {version('aoi')}\n")


def test_the_installed_command_is_this_one():
    script = Path(sys.executable).parent / "aoi"
    done = subprocess.run([script, "settings"], capture_output=True, text=True, timeout=60, env=dict(os.environ))
    assert done.returncode == 0
    assert "train.epochs" in done.stdout
