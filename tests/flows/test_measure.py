"""`aoi evaluate --data`: a finished model on a labelled lot, and nothing else changes."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import CLASSES, picture, png

from flows.cli import main
from flows.home import Home
from flows.settings import load_settings
from flows.stages.evaluate import evaluate
from flows.stages.stage import Job
from flows.summary import report
from model.manifests import MeasurementManifest
from tfrecords.errors import AoiError

COUNT = 9


@pytest.fixture
def job(made, copy_home, tmp_path) -> Job:
    return Job(copy_home(tmp_path / "home"), made[2])


def pictures(folder: Path, name=lambda label, number: f"{CLASSES[label]}/{number}.png") -> None:
    for number in range(COUNT):
        path = folder / name(number % 3, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(picture(number % 3, 5000 + number)))


def per_class(root: Path) -> Path:
    pictures(root / "lot")
    return root / "lot"


def in_test_per_class(root: Path) -> Path:
    pictures(root / "lot" / "test")
    return root / "lot"


def by_csv(root: Path, split: str = "test", labels=lambda number: str(number % 3)) -> Path:
    pictures(root / "lot" / f"{split}_images", lambda label, number: f"{number}.png")
    rows = [("ID", "Label"), *((f"{number}.png", labels(number)) for number in range(COUNT))]
    (root / "lot" / f"{split}.csv").write_text("\n".join(map(",".join, rows)))
    return root / "lot"


def by_train_csv(root: Path) -> Path:
    return by_csv(root, "train")


def by_names(root: Path) -> Path:
    return by_csv(root, labels=lambda number: CLASSES[number % 3])


def in_another_order(root: Path) -> Path:
    """Numbers that count in the order of the lot's own classes.txt."""
    by_csv(root, labels=lambda number: str(2 - number % 3))
    (root / "lot" / "classes.txt").write_text("\n".join(reversed(CLASSES)))
    return root / "lot"


LOTS = (per_class, in_test_per_class, by_csv, by_train_csv, by_names, in_another_order)


def snapshot(home: Home) -> dict[str, bytes]:
    """What says who is champion, how models were evaluated, and the answers that were handed in."""
    places = ("latest/champion*", "latest/evaluation*", "latest/challenger*", "evaluations/*/manifest.json", "*.csv")
    return {str(path): path.read_bytes() for place in places for path in sorted(home.root.glob(place))}


@pytest.mark.parametrize("make", LOTS, ids=lambda make: make.__name__)
def test_a_labelled_lot_is_measured_in_every_layout(make, job, tmp_path):
    before = snapshot(job.home)
    ref = evaluate(job, data=str(make(tmp_path)))
    made = job.home.open(ref, MeasurementManifest)
    metrics = made.manifest.metrics
    with open(made.path / "mistakes.csv", newline="") as file:
        wrong = list(csv.DictReader(file))
    with open(made.path / "confusion.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [sum(int(row[name]) for name in CLASSES) for row in rows] == [3, 3, 3]
    assert sum(int(row[row["true"]]) for row in rows) == COUNT - len(wrong) == round(metrics["accuracy"] * COUNT)
    assert metrics["accuracy_low"] <= metrics["accuracy"] <= metrics["accuracy_high"]
    assert {"balanced_accuracy", "macro_f1"} <= set(metrics)
    assert (made.path / "confusion.png").is_file()
    assert (made.path / "mistakes.png").is_file()
    assert snapshot(job.home) == before


def test_a_run_in_prefect_reports_the_figures(job, tmp_path):
    ref = evaluate(job, data=str(per_class(tmp_path)))
    told = report(job.home, {ref.kind: ref})
    assert f"| accuracy | {job.home.open(ref, MeasurementManifest).manifest.metrics['accuracy']:.4f} |" in told
    assert "MLflow run" in told
    assert "Confusion matrix" in told


def test_labels_change_the_figures_and_not_the_answers(job, tmp_path):
    right = job.home.open(evaluate(job, data=str(by_csv(tmp_path))), MeasurementManifest).manifest.metrics
    by_csv(tmp_path, labels=lambda number: str((number + 1) % 3))
    shifted = job.home.open(evaluate(job, data=str(tmp_path / "lot")), MeasurementManifest).manifest
    assert right["accuracy"] + shifted.metrics["accuracy"] <= 1
    assert right["pictures"] == shifted.metrics["pictures"] == COUNT


def test_escape_and_overkill_are_told_where_there_is_a_class_of_good_parts(job, tmp_path):
    settings = load_settings(overrides=["evaluate.normal_class=0"])
    ref = evaluate(replace(job, settings=settings), data=str(per_class(tmp_path)))
    made = job.home.open(ref, MeasurementManifest).manifest
    assert {"escape_rate", "overkill_rate"} <= set(made.metrics)


def test_pictures_that_the_model_was_trained_on_are_told(made, job, tmp_path):
    for name in ("train.csv", "classes.txt"):
        (tmp_path / "lot").mkdir(exist_ok=True)
        shutil.copy(made[0] / name, tmp_path / "lot" / name)
    shutil.copytree(made[0] / "train_images", tmp_path / "lot" / "train_images")
    ref = evaluate(job, data=str(tmp_path / "lot"))
    assert "60 of the 60 pictures are of the set that the model was trained on" in ref.note


def unknown_folder(root: Path) -> Path:
    pictures(root / "lot", lambda label, number: f"{('plain', 'dots', 'columns')[label]}/{number}.png")
    return root / "lot"


def unknown_label(root: Path) -> Path:
    return by_csv(root, labels=lambda number: "dots" if number == 4 else "plain")


def no_labels(root: Path) -> Path:
    return by_csv(root, labels=lambda number: "")


def no_column(root: Path) -> Path:
    by_csv(root)
    path = root / "lot" / "test.csv"
    path.write_text("\n".join(line.split(",")[0] for line in path.read_text().splitlines()))
    return root / "lot"


def flat(root: Path) -> Path:
    pictures(root / "lot", lambda label, number: f"{number}.png")
    return root / "lot"


def flat_test(root: Path) -> Path:
    pictures(root / "lot" / "test_images", lambda label, number: f"{number}.png")
    return root / "lot"


def other_classes(root: Path) -> Path:
    by_csv(root)
    (root / "lot" / "classes.txt").write_text("good\nbad\n")
    return root / "lot"


@pytest.mark.parametrize(
    ("make", "seen", "remedy"),
    [
        (unknown_folder, "this folder has the name of no class (plain, rows, columns)", "name a model that knows"),
        (unknown_label, "the label 'dots' of 4.png is none of the classes", "(plain, rows, columns)"),
        (no_labels, "the column Label is empty", "a label in every row"),
        (no_column, "without Label", "ID,Label"),
        (flat, "nothing tells the labels", "test/CLASS/"),
        (flat_test, "9 picture(s) lie in no folder of a class", "the folder of its class"),
        (other_classes, "its classes are good, bad; the model's are plain, rows, columns", "Name a model"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_lot_whose_labels_are_not_the_model_s_is_refused_once(make, seen, remedy, job, tmp_path):
    with pytest.raises(AoiError) as error:
        evaluate(job, data=str(make(tmp_path)))
    (problem,) = error.value.problems
    assert error.value.exit_code == 2
    assert seen in problem.seen
    assert remedy in problem.remedy


@pytest.mark.parametrize(
    ("given", "told"), [({"dataset": "x", "data": "y"}, "one of the two"), ({"product": "x"}, "--data")]
)
def test_options_that_do_not_go_together_are_refused(given, told, job):
    with pytest.raises(AoiError, match=told):
        evaluate(job, **given)


def test_the_command_prints_the_figures_the_matrix_and_the_mistakes(job, tmp_path, capsys):
    lot = by_csv(tmp_path, labels=lambda number: str((number + 1) % 3))
    (lot / "test_images" / "8.png").write_bytes(b"no picture")
    assert main(["evaluate", "--data", str(lot), "--home", str(job.home.root)]) == 0
    told = capsys.readouterr().out
    assert "on 8 labelled pictures, 1 unreadable ones left out:" in told
    assert "with 95 % confidence)" in told
    assert "rows true, columns predicted:" in told
    assert "mistakes.csv" in told
    assert "measurement" in told.splitlines()[-1]
    shutil.rmtree(lot)
