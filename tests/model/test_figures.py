"""Figures: legible for any class names and readable for any number of classes, always below 4,000 px."""

import csv
import re
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from model.card import Card
from model.evaluation import gradcam, label_issues
from model.evaluation.predictions import Predictions
from model.figures import confusion_matrix, parallel, picture_sheet, tradeoff, training_curves
from model.inference.classifier import prediction_table
from model.manifests import Promise
from pipeline.inputs.classes import read_classes
from tfrecords.errors import AoiError
from tfrecords.lettering import CAPTION_COLUMNS, names_in_figures
from tfrecords.settings import PreprocessSettings

pytestmark = pytest.mark.filterwarnings("error")
MOST_PX = 4000
MARKS = ("$x_1$", r"50 % \frac{a}{b}", r"$\frac{", "_hidden #1", "'quoted' \"name\"", "a,b;c|d&e", "~^{}<>")
SCRIPTS = ("größer", "刮傷（深）", "얼룩", "ชำรุด", "خدش", "שריטה", "e\u0301\u0302", "\u0301alone", "\U00013000", "🔥")


def size(path):
    return cv2.imread(str(path)).shape[:2]


@pytest.fixture
def seen():
    """A function: what a model predicted for so many pictures of so many classes, some of it wrong."""

    def make(classes, pictures):
        rng = np.random.default_rng(classes)
        labels = np.arange(pictures) % classes
        probabilities = rng.dirichlet(np.full(classes, 0.5), pictures) + np.eye(classes)[labels] * 0.3
        images = [rng.integers(0, 256, (16, 16, 1), np.uint8) for _ in range(pictures)]
        probabilities = (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)
        return Predictions(
            [f"{at}.png" for at in range(pictures)],
            labels,
            np.zeros(pictures),
            images,
            probabilities,
            np.zeros(pictures),
        )

    return make


@pytest.fixture
def sheet(monkeypatch):
    """A function: what draw_gradcam gives for predictions, with a heat map of ones: (captions, title)."""
    monkeypatch.setattr(gradcam, "read_card", lambda model: Card((), PreprocessSettings(), {"network": 0}))
    monkeypatch.setattr(gradcam, "load", lambda path: None)
    monkeypatch.setattr(gradcam, "gradcam", lambda network, image, label: np.ones(image.shape[:2]))

    def draw(seen, classes, path):
        given = {}

        def note(pictures, captions, title, *rest, **named):
            given.update(captions=captions, title=title)
            picture_sheet(pictures, captions, title, *rest, **named)

        monkeypatch.setattr(gradcam.figures, "picture_sheet", note)
        gradcam.draw_gradcam(Path(), seen, classes, path)
        return given["captions"], given["title"]

    return draw


# --- Names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [MARKS, SCRIPTS], ids=["marks", "scripts"])
@pytest.mark.parametrize("installed", [(), (("cjk.ttf", "刮傷（深）얼룩"),)], ids=["no font", "a font"])
def test_any_names_are_drawn_without_a_warning(names, installed, fonts, seen, sheet, tmp_path):
    fonts(*installed)
    predicted = seen(len(names), 40)
    confusion_matrix(np.eye(len(names), dtype=int), names, "a title", tmp_path / "confusion.png")
    label_issues.write_label_issues(predicted, names, tmp_path)
    sheet(predicted, names, tmp_path / "gradcam.png")
    for path in tmp_path.glob("*.png"):
        assert max(size(path)) < MOST_PX


def test_a_name_is_drawn_in_the_font_that_has_it(fonts, tmp_path):
    def drawn(*names):
        confusion_matrix(np.eye(2, dtype=int), names, "a title", tmp_path / "confusion.png")
        return cv2.imread(str(tmp_path / "confusion.png"))

    assert (drawn("normal", "刮") == drawn("normal", "傷")).all()  # "label 1"
    fonts(("cjk.ttf", "刮"))
    assert (drawn("normal", "刮") != drawn("normal", "label 1")).any()


def test_pictures_are_shown_in_their_colors_and_gray_ones_in_gray(tmp_path):
    def drawn(picture):
        picture_sheet([picture], [""], "", tmp_path / "sheet.png", columns=1)
        return {tuple(color) for color in cv2.imread(str(tmp_path / "sheet.png"))[..., ::-1].reshape(-1, 3).tolist()}

    assert (220, 30, 60) in drawn(np.full((16, 16, 3), (220, 30, 60), np.uint8))
    assert (0, 0, 0) in drawn(np.zeros((16, 16, 1), np.uint8))


@pytest.mark.parametrize("count", [1, 6, 8])
def test_captions_are_whole(count, tmp_path):
    caption = "train_00900.png\ntrue: slag inclusion\nsaid: iron sheet ash (1.00)"
    picture_sheet([np.zeros((16, 16, 1), np.uint8)] * count, [caption] * count, "title", tmp_path / "sheet.png")
    assert (cv2.imread(str(tmp_path / "sheet.png"))[-3:] == 255).all()


def test_heat_lies_over_a_picture_in_its_colors():
    color = np.full((8, 8, 3), (220, 30, 60), np.uint8)
    none, half = np.zeros((8, 8), np.float32), np.pad(np.ones((8, 4), np.float32), ((0, 0), (0, 4)))
    np.testing.assert_array_equal(gradcam.overlay(color, none), color)
    np.testing.assert_array_equal(gradcam.overlay(color[..., 1:2], none), np.full((8, 8, 3), 30))
    shown = gradcam.overlay(color, half)
    np.testing.assert_array_equal(shown[:, 4:], color[:, 4:])
    assert (shown[:, :4] != color[:, :4]).any()


def test_marks_stand_as_they_are(fonts, tmp_path):
    def drawn(text):
        picture_sheet([np.zeros((16, 16, 1), np.uint8)], [text], "", tmp_path / "sheet.png")
        return cv2.imread(str(tmp_path / "sheet.png"))

    assert (drawn("$a$") != drawn("a")).any()


def test_same_names_same_bytes_whatever_was_drawn_before(fonts, tmp_path):
    fonts(("cjk.ttf", "刮傷"))
    for name, names in (("one", ["刮", "b"]), ("between", ["$", "傷"]), ("two", ["刮", "b"])):
        confusion_matrix(np.eye(2, dtype=int), names, "a title", tmp_path / f"{name}.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


printable = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=40)


@settings(max_examples=15)
@given(st.lists(printable, min_size=2, max_size=4))
@example(["NA", "01", "1.0", "None"])
@example(["\u0301a", ",", '"', " - "])
def test_any_printable_names_are_read_written_and_drawn(names):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfrecords.lettering.installed_fonts", tuple)
        (Path(folder) / "classes.txt").write_text("\n".join(names), encoding="utf-8", newline="")
        try:
            classes = read_classes(folder).names
        except AoiError as error:
            told = [problem.seen for problem in error.problems]
            assert all(re.search(r"looks like|twice|nothing that prints|class name\(s\)", seen) for seen in told)
            assume(False)
        path = Path(folder) / "predictions.csv"
        prediction_table(np.eye(len(classes), dtype=np.float32), classes).to_csv(path, index=False)
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert tuple(rows[0])[2:] == classes
        assert tuple(row["name"] for row in rows) == classes
        again = pd.read_csv(path, dtype=str, keep_default_na=False)
        assert tuple(again.columns[2:]) == tuple(again["name"]) == classes
        shown, note = names_in_figures(classes, CAPTION_COLUMNS)
        picture_sheet([np.zeros((8, 8, 1), np.uint8)] * 2, shown[:2], "", Path(folder) / "sheet.png", note=note)
        confusion_matrix(np.eye(len(classes), dtype=int), classes, "", Path(folder) / "confusion.png")


# --- Many ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 200])
def test_a_confusion_matrix_of_any_number_of_classes_stays_below_its_size(classes, tmp_path):
    path = tmp_path / "confusion.png"
    confusion_matrix(np.eye(classes, dtype=int) * 100, [f"class {at}" for at in range(classes)], "a title", path)
    assert max(size(path)) < MOST_PX


def test_a_grad_cam_sheet_of_many_classes_shows_those_with_the_most_mistakes_and_says_so(seen, sheet, tmp_path):
    classes = [f"class {label}" for label in range(200)]
    predicted = seen(200, 400)
    captions, title = sheet(predicted, classes, tmp_path / "gradcam.png")
    assert "30 of 200 classes: those with the largest share of mistakes" in title
    assert max(size(tmp_path / "gradcam.png")) < MOST_PX
    wrong = predicted.probabilities.argmax(axis=1) != predicted.labels
    share = {label: wrong[predicted.labels == label].mean() for label in range(200)}
    shown = [int(caption.split("true: class ")[1].split()[0]) for caption in captions[:60:2]]
    assert shown == sorted(set(shown))
    assert min(share[label] for label in shown) >= max(share[label] for label in share if label not in shown)


def test_a_grad_cam_sheet_of_few_classes_shows_them_all(seen, sheet, tmp_path):
    captions, title = sheet(seen(30, 60), [f"class {label}" for label in range(30)], tmp_path / "gradcam.png")
    assert " of " not in title
    assert len({caption.split("true: ")[1].split("\n")[0] for caption in captions[:60:2]}) == 30


def test_a_long_id_and_long_names_leave_a_caption_narrow(seen):
    predicted = seen(2, 2)
    named = Predictions(["x" * 200, "y"], *list(vars(predicted).values())[1:])
    names, _ = names_in_figures(["z" * 200, "a"], CAPTION_COLUMNS)
    assert max(map(len, named.caption(0, names).splitlines())) <= 32


@pytest.mark.parametrize("axes", [1, 30])
def test_parallel_coordinates_of_many_axes_and_points_stay_below_their_size(axes, fonts, tmp_path):
    values = {f"preprocess.setting_{axis}": [f"$/a/long/path/{at % 50}" for at in range(60)] for axis in range(axes)}
    title = "60 points; best: " + " ".join(f"{name}={told[0]}" for name, told in values.items())
    parallel(values, {"accuracy": [at / 60 for at in range(60)]}, title, tmp_path / "parallel.png")
    assert max(size(tmp_path / "parallel.png")) < MOST_PX


def test_curves_and_tradeoff_are_drawn_for_one_epoch_and_for_many_and_for_any_choice(tmp_path):
    row = {"loss": 0.5, "accuracy": 0.5, "val_loss": 0.6, "val_accuracy": 0.4}
    for epochs in (1, 300):
        training_curves([{"epoch": at + 1, **row} for at in range(epochs)], 1, tmp_path / "curves.png")
    thresholds = np.linspace(0, 1, 20)
    numbers = {"bound": 0.01, "proven": 0.03, "confidence": 0.95, "pictures": 100, "met": False, "missing": 199}
    for chosen, of in ((0.0, "escape"), (0.5, "misnamed"), (1.1, "escape")):
        promise = Promise(of=of, **numbers)
        proven = 1 - thresholds**2
        tradeoff(thresholds, thresholds, 1 - thresholds, proven, chosen, promise, tmp_path / "tradeoff.png")
    assert max(size(tmp_path / "tradeoff.png")) < MOST_PX


def test_few_pictures_of_a_class_are_no_reason_for_a_warning(seen, tmp_path, fonts):
    label_issues.write_label_issues(seen(20, 40), [f"class {label}" for label in range(20)], tmp_path)
