"""The rows of a sweep's table and its figure, without any training."""

import csv

import pytest

from model.evaluation.sweep import Point, label, rows
from model.figures import parallel
from model.manifests import EvaluationManifest, ModelManifest
from tfrecords.artifacts.artifact import Artifact
from tfrecords.artifacts.manifest import Manifest


@pytest.fixture
def point(tmp_path):
    """A function: a point whose model names so many of 40 pictures wrong, the first ones."""
    (tmp_path / "rows.csv").write_text("id,sha256\n" + "".join(f"{place:02}.png,{place}\n" for place in range(40)))
    dataset = Artifact(tmp_path, Manifest(), {})

    def make(name, wrong, parameters=1000, macro_f1=0.5):
        (tmp_path / name).mkdir()
        with open(tmp_path / name / "predictions.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["ID", "true_label", "label"])
            writer.writerows([f"{place:02}.png", 1, 0 if place < wrong else 1] for place in range(40))
        metrics = {"accuracy": 1 - wrong / 40, "balanced_accuracy": 0.5, "macro_f1": macro_f1, "pictures": 40}
        model = ModelManifest.model_construct(fingerprint=name, parameters=parameters)
        evaluation = EvaluationManifest.model_construct(metrics=metrics)
        folders = (Artifact(tmp_path, model, {}), Artifact(tmp_path / name, evaluation, {}))
        return Point({"train.head": name}, dataset, *folders)

    return make


def test_the_best_is_marked_and_what_its_mistakes_tell_from_it(point):
    table = rows([point("bad", 9), point("good", 3), point("near", 5)])
    assert [row["standing"] for row in table] == ["worse", "best", ""]  # two pictures more prove nothing, six do
    assert [row["mistakes"] for row in table] == [9, 3, 5]
    assert table[0] == {
        "train.head": "bad",
        "accuracy": 0.775,
        "balanced_accuracy": 0.5,
        "macro_f1": 0.5,
        "mistakes": 9,
        "pictures": 40,
        "parameters": 1000,
        "standing": "worse",
        "model": "bad",
    }


def test_of_equals_the_one_with_the_better_macro_f1_is_best_then_the_smaller_then_the_first(point):
    def best(*points):
        (found,) = [row["model"] for row in rows(points) if row["standing"] == "best"]
        return found

    assert best(point("a", 2), point("b", 2, macro_f1=0.6)) == "b"
    assert best(point("c", 2), point("d", 2, parameters=10)) == "d"
    assert best(point("e", 2), point("f", 2)) == "e"


def test_a_point_is_named_by_its_values():
    assert label({"train.alpha": 0.5, "preprocess.equalize": "none"}) == "train.alpha=0.5 preprocess.equalize=none"


@pytest.mark.parametrize(
    ("axes", "accuracy"),
    [
        (
            {"train.alpha": [0.5, 0.25, 0.5, 0.25], "train.head": ["gap", "gap", "flatten", "flatten"]},
            [0.7, 0.8, 0.9, 1],
        ),
        ({"train.seed": [3, 1, 2, 0]}, [0.5, 0.5, 0.5, 0.5]),
        ({"train.fold": [0]}, [1.0]),
    ],
)
def test_parallel_coordinates_are_drawn_for_any_points_and_always_the_same(axes, accuracy, tmp_path):
    results = {"accuracy": accuracy, "training_seconds": [float(at) for at in range(len(accuracy))]}
    for name in ("one.png", "two.png"):
        parallel(axes, results, "a title", tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert (tmp_path / "one.png").stat().st_size > 5000
