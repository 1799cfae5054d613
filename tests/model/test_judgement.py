"""Which model rules, what a rare picture counts, and whether a lot looks as usual."""

import csv

import numpy as np
import pytest

from model.decisions import drift
from model.registry.champion import Judged, judge
from model.training.best_epoch import best_epoch, scores
from model.training.class_weights import class_weights
from tfrecords.artifacts.artifact import Artifact
from tfrecords.artifacts.manifest import Manifest


@pytest.fixture
def judged(tmp_path):
    """A function: what is judged, from {picture: right}. contents: of pictures that are not what their name says."""

    def make(name, answers, contents=None):
        folder = tmp_path / name
        folder.mkdir()
        tables = {
            "predictions.csv": [["ID", "true_label", "label"], *([id, 1, int(right)] for id, right in answers.items())],
            "rows.csv": [["id", "sha256"], *([id, (contents or {}).get(id, f"of {id}")] for id in answers)],
        }
        for file_name, lines in tables.items():
            with open(folder / file_name, "w", newline="") as file:
                csv.writer(file).writerows(lines)
        both = Artifact(folder, Manifest(), {})
        return Judged(both, both)

    return make


JUDGED = {  # right answers of challenger and champion on 20 common pictures -> promoted
    "the same answers": ([1] * 20, [1] * 20, True),
    "better": ([1] * 20, [0] * 6 + [1] * 14, True),
    "four lost, as chance has it once in sixteen": ([0] * 4 + [1] * 16, [1] * 20, True),
    "five lost, as chance has it once in thirty-two": ([0] * 5 + [1] * 15, [1] * 20, False),
    "six lost and one gained": ([0] * 6 + [1] * 14, [1] * 6 + [0] + [1] * 13, True),
}


@pytest.mark.parametrize("case", JUDGED)
def test_a_challenger_rules_unless_it_is_significantly_worse(case, judged):
    ours, theirs, promoted = JUDGED[case]
    pictures = [f"{place:02}.png" for place in range(20)]
    made = [judged(name, dict(zip(pictures, right, strict=True))) for name, right in (("a", ours), ("b", theirs))]
    verdict = judge(*made)
    assert verdict.promoted is promoted
    assert "20 common pictures" in verdict.why


def test_without_a_champion_or_a_common_picture_the_newer_model_rules_and_says_so(judged):
    alone = judged("a", {"a.png": 0})
    assert judge(alone, None).promoted
    verdict = judge(alone, judged("b", {"b.png": 1}))
    assert verdict.promoted
    assert "can't be compared" in verdict.why


def test_pictures_are_common_by_their_content_and_not_by_their_name(judged):
    pictures = [f"{place:02}.png" for place in range(20)]
    champion = judged("champion", dict.fromkeys(pictures, 1))
    others = judged("others", dict.fromkeys(pictures, 0), {picture: f"not {picture}" for picture in pictures})
    assert "no picture is new to both models" in judge(others, champion).why
    renamed = {f"new-{picture}": f"of {picture}" for picture in pictures}
    verdict = judge(judged("renamed", dict.fromkeys(renamed, 0), renamed), champion)
    assert not verdict.promoted
    assert "20 common pictures" in verdict.why


def test_copies_of_a_picture_are_one_picture_and_right_only_where_all_are(judged):
    copies = {"a.png": "x", "b.png": "x", "c.png": "x"}
    champion = judged("champion", dict.fromkeys(copies, 1), copies)
    verdict = judge(judged("challenger", {"a.png": 1, "b.png": 0, "c.png": 1}, copies), champion)
    assert "of 1 common pictures it alone names 0 right, the champion alone 1" in verdict.why


@pytest.mark.parametrize("whose", ["the champion's", "this model's"])
def test_without_its_dataset_a_model_can_t_be_compared_and_the_newer_one_rules(whose, judged):
    ours, theirs = judged("a", {"a.png": 0}), judged("b", {"a.png": 1})
    if whose == "this model's":
        verdict = judge(ours._replace(dataset=None), theirs)
    else:
        verdict = judge(ours, theirs._replace(dataset=None))
    assert verdict.promoted
    assert f"{whose} dataset is gone" in verdict.why


def test_rare_pictures_count_more_and_the_mean_weight_stays_one():
    counts = [90, 9, 1]
    assert class_weights(counts, "none") == [1, 1, 1]
    balanced = class_weights(counts, "balanced")
    assert [weight * count for weight, count in zip(balanced, counts, strict=True)] == pytest.approx([100 / 3] * 3)
    root = class_weights(counts, "sqrt")
    assert root[2] / root[0] == pytest.approx(90**0.5)
    for weights in (balanced, root):
        assert sum(weight * count for weight, count in zip(weights, counts, strict=True)) == pytest.approx(100)
    assert class_weights([5, 0], "balanced")[1] == 0


@pytest.fixture(scope="module")
def usual():
    rng = np.random.default_rng(0)
    return drift.describe({"brightness": rng.normal(128, 10, 1000)}, rng.integers(0, 3, 400), 3)


def test_a_lot_like_the_training_pictures_is_not_flagged(usual):
    rng = np.random.default_rng(1)
    for size in (5, 50, 500):
        found = drift.compare(usual, {"brightness": rng.normal(128, 10, size)}, rng.integers(0, 3, size))
        assert drift.warning(found) == ""


def test_a_darker_lot_and_a_lot_of_one_class_are_flagged_by_name(usual):
    rng = np.random.default_rng(2)
    found = drift.compare(usual, {"brightness": rng.normal(100, 10, 200)}, np.zeros(200, int))
    assert found["brightness"].drifted
    assert found["predicted class"].drifted
    assert drift.warning(found).startswith("brightness (PSI ")


def test_an_empty_lot_has_nothing_to_compare(usual):
    assert drift.compare(usual, {"brightness": np.zeros(0)}, np.zeros(0, int)) == {}


def test_each_picture_of_a_lot_is_answered_by_one_network_and_the_networks_take_turns():
    answers = np.arange(24).reshape(3, 4, 2)  # of three networks about four pictures
    for first, networks in ((0, [0, 1, 2, 0]), (64, [1, 2, 0, 1])):
        expected = [answers[network, place] for place, network in enumerate(networks)]
        np.testing.assert_array_equal(drift.in_turn(answers, first), expected)


# --- Which epoch is kept  ----------------------------------------------------------------------------------------


def test_a_network_that_overlooks_the_rare_class_is_accurate_and_not_balanced():
    labels = np.array([0] * 9 + [1])
    blind = np.tile(np.float32([0.8, 0.2]), (10, 1))
    given = scores(blind, labels)
    assert given["accuracy"] == pytest.approx(0.9)
    assert given["balanced_accuracy"] == pytest.approx(0.5)
    assert given["loss"] == pytest.approx(-(9 * np.log(0.8) + np.log(0.2)) / 10, rel=1e-6)


def test_being_too_sure_costs_nothing_once_it_is_calibrated():
    labels = np.array([0] * 9 + [1])
    modest = np.tile(np.float32([0.9, 0.1]), (10, 1))
    sure = modest**3 / (modest**3).sum(axis=1, keepdims=True)
    plain, calibrated = (
        [scores(given, labels)[key] for given in (modest, sure)] for key in ("loss", "calibrated_loss")
    )
    assert plain[1] > plain[0] + 0.1
    assert calibrated[1] == pytest.approx(calibrated[0], abs=1e-4)


def test_the_standard_error_is_that_of_as_many_pictures():
    labels = np.repeat([0, 1], [200, 50])
    even = scores(np.tile(np.float32([0.5, 0.5]), (250, 1)), labels)  # class 0 wins a tie: recalls 1 and 0
    assert even["balanced_error"] == pytest.approx(np.sqrt(201 / 202**2 / 200 + 51 / 52**2 / 50) / 2)


KEPT = {  # (accuracy, balanced accuracy, its error, calibrated loss) of the epochs -> the one that is kept
    "the rare class is seen": ([(0.97, 0.5, 0.02, 0.1), (0.95, 0.9, 0.02, 0.3)], 2),
    "one picture does not decide": ([(1.0, 1.0, 0.008, 0.007), (0.997, 0.996, 0.008, 0.004)], 2),
    "more than chance decides": ([(1.0, 1.0, 0.008, 0.007), (0.99, 0.98, 0.008, 0.004)], 1),
}


@pytest.mark.parametrize("case", KEPT)
def test_the_epoch_that_is_kept(case):
    epochs, best = KEPT[case]
    names = ("val_accuracy", "val_balanced_accuracy", "val_balanced_error", "val_calibrated_loss")
    assert best_epoch([{"epoch": n + 1, **dict(zip(names, row, strict=True))} for n, row in enumerate(epochs)]) == best
