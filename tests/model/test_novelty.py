""" "I don't know this": parts unlike all that the networks learned from."""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from tiny import CLASSES, picture, png

from flows.stages.export import make_export
from flows.stages.predict import predict
from flows.stages.stage import Job
from model.decisions.novelty import NOVELTY_FILE, Density, Detector, Novelty, density_of, learn
from model.decisions.operating import decide, outcome
from model.decisions.promise import promise_unknown
from model.evaluation.novelty import Labelled, summarize, withhold_each, write_withheld
from model.inference.answers import Answering
from model.inference.classifier import open_classifier
from model.inference.formats import Outputs
from model.inference.pyfunc import PictureModel
from model.manifests import EvaluationManifest, ModelManifest, OperatingPoint
from model.settings import Decision, EvaluateSettings, PredictSettings, Runtime

FEATURES, TEXTURE, KINDS = 12, 6, 3
NOWHERE = Density(np.zeros((1, 1), np.float32), np.zeros((0, 1), np.float32), np.zeros(0, np.float32))


@dataclass(frozen=True)
class World:
    """Made-up features of classes of pictures, more of them than a network knows."""

    rng: np.random.Generator

    def pictures(self, count: int, kinds: int = KINDS) -> tuple[Outputs, np.ndarray]:
        labels = self.rng.integers(0, kinds, count)
        features = 3 * np.eye(FEATURES)[labels] + self.rng.gamma(1.0, 0.5, (count, FEATURES))
        texture = 2 * np.eye(TEXTURE)[labels] + self.rng.gamma(1.0, 0.5, (count, TEXTURE))
        logits = features[:, :KINDS]
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return Outputs(odds / odds.sum(axis=1, keepdims=True), features, texture), labels

    def detector(self, calibrating: int) -> Detector:
        learned, labels = self.pictures(60)
        kernel, bias = np.eye(FEATURES, KINDS), np.zeros(KINDS)
        return learn(kernel, bias, learned, labels, self.pictures(20)[0], self.pictures(calibrating)[0])


def usual(*counts):
    """Networks that so many pictures calibrate each, with scores 1, 2, 3 ..."""
    numbers = [np.arange(1.0, count + 1) for count in counts]
    return Novelty(tuple(Detector(np.zeros((1, 2)), np.zeros(2), NOWHERE, NOWHERE, np.ones(3), n) for n in numbers))


# --- What novelty promises ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("networks", "calibrating", "bound"), [(1, 99, 0.01), (1, 150, 0.01), (1, 40, 0.1), (1, 12, 0.01), (3, 40, 0.05)]
)
def test_on_average_no_more_known_parts_are_called_unknown_than_is_promised(networks, calibrating, bound):
    world, unknown, lots, lot = World(np.random.default_rng(7)), 0, 150, 40
    for _ in range(lots):
        novelty = Novelty(tuple(world.detector(calibrating) for _ in range(networks)))
        seen = world.pictures(lot)[0]
        unknown += int(novelty.unknown(novelty.of([seen] * networks), bound).sum())
    proven = promise_unknown(novelty, bound).proven
    # Parts of one lot share their calibration, so chance is that of the lots: an exact bound over-disperses.
    deviation = np.sqrt(proven / lots * (1 / lot + 1 / calibrating))
    assert unknown / (lots * lot) <= proven + 3 * deviation
    assert unknown or bound == 0.01  # else equality would say nothing


def test_the_p_values_of_known_parts_are_spread_evenly(seed=3):
    world = World(np.random.default_rng(seed))
    values = []
    for _ in range(200):
        novelty = Novelty((world.detector(30),))
        values.append(float(novelty.of([world.pictures(1)[0]])[0]))
    for share in (0.25, 0.5, 0.75):
        assert binom.cdf(np.sum(np.array(values) >= 1 - share), 200, share) > 0.001
        assert binom.sf(np.sum(np.array(values) >= 1 - share) - 1, 200, share) > 0.001


def test_parts_of_a_class_that_was_never_labelled_are_newer_than_known_ones():
    world = World(np.random.default_rng(1))
    novelty = Novelty((world.detector(100),))
    seen, labels = world.pictures(400, kinds=KINDS + 1)
    found = novelty.of([seen])
    assert np.median(found[labels == KINDS]) > 0.95
    assert np.median(found[labels < KINDS]) < 0.7


counts = st.lists(st.integers(1, 400), min_size=1, max_size=5)


@given(counts, st.floats(0.001, 0.5), st.integers(0, 2000))
def test_a_part_is_unknown_exactly_where_its_p_value_is_within_the_bound_or_none_can_be_lower(numbers, bound, below):
    novelty, total = usual(*numbers), sum(numbers)
    value = min(below, total) / (total + len(numbers))
    p, lowest = 1 - value, len(numbers) / (total + len(numbers))
    expected = p <= max(bound, lowest) + 1e-9
    assert novelty.unknown(np.array([value]), bound)[0] == expected
    assert novelty.unknown(np.array([round(value, 6)]), bound)[0] == expected  # as predictions.csv has it


@given(counts, st.floats(0.001, 0.5))
def test_what_is_promised_is_what_so_many_pictures_prove(numbers, bound):
    promise, total = promise_unknown(usual(*numbers), bound), sum(numbers)
    assert promise.pictures == total
    assert promise.met == (promise.proven <= bound)
    if len(numbers) == 1 and not promise.met:
        assert promise.proven == 1 / (total + 1)
        assert promise_unknown(usual(total + promise.missing), bound).met
        assert not promise_unknown(usual(total + promise.missing - 1), bound).met


def test_a_bound_of_nothing_calls_no_part_unknown_and_promises_nothing():
    assert not usual(500).unknown(np.ones(1) * 500 / 501, 0.0).any()
    assert promise_unknown(usual(500), 0.0) is None


def test_without_a_picture_to_calibrate_no_part_is_unknown():
    assert not usual(0).unknown(np.zeros(1), 0.01).any()


def test_a_score_is_the_same_alone_and_among_others():
    world = World(np.random.default_rng(5))
    detector, (seen, _) = world.detector(50), world.pictures(70)
    alone = [detector.score(seen.at(np.array([place])))[0] for place in range(70)]
    np.testing.assert_array_equal(detector.score(seen), alone)


def test_a_distance_is_that_of_mahalanobis_to_the_nearest_class():
    rng = np.random.default_rng(2)
    vectors, labels = rng.normal(size=(50, 8)) + 3 * np.eye(8)[np.arange(50) % 2], np.arange(50) % 2
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    means = np.stack([unit[labels == label].mean(axis=0) for label in (0, 1)])
    left = unit - means[labels]
    covariance = left.T @ left / 50
    shrunk = 0.9 * covariance + 0.1 * np.trace(covariance) / 8 * np.eye(8)
    apart = unit[:, None] - means
    expected = np.einsum("ncf,fg,ncg->nc", apart, np.linalg.inv(shrunk), apart).min(axis=1)
    ours = density_of(vectors, labels).distance(vectors)
    np.testing.assert_allclose(ours - ours[0], np.log(expected / expected[0]), atol=1e-4)


# --- What becomes of unknown parts --------------------------------------------------------------------------


def test_an_unknown_part_goes_to_a_person_whatever_its_probabilities_say():
    probabilities, labels = np.array([[0.99, 0.01], [0.99, 0.01], [0.01, 0.99]]), np.array([0, 1, 1])
    point = OperatingPoint(temperature=1.0, normal=0, accept_at=0.9, reject_at=0.1)
    plain, careful = (decide(probabilities, point, unknown) for unknown in (None, np.array([False, True, False])))
    assert plain.tolist() == ["accept", "accept", "reject"]
    assert careful.tolist() == ["accept", "unknown", "reject"]
    before, after = (outcome(each, labels, probabilities.argmax(axis=1), 0) for each in (plain, careful))
    assert (before["escape_rate"], after["escape_rate"]) == (0.5, 0.0)
    assert (before["reviewed"], after["reviewed"]) == (0, 1)


# --- The whole way ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(copy_home, tmp_path_factory):
    return copy_home(tmp_path_factory.mktemp("novelty") / "home")


@pytest.fixture(scope="module")
def model(home, made):
    return home.open(made[3]["train"], ModelManifest)


@pytest.fixture(scope="module")
def lot(tmp_path_factory):
    """Parts of the known classes, and two of quite another kind."""
    folder = tmp_path_factory.mktemp("lot") / "tiny"
    folder.mkdir()
    for label in range(len(CLASSES)):
        for seed in (900, 901):
            (folder / f"{CLASSES[label]}-{seed}.png").write_bytes(png(picture(label, seed)))
    ramp = np.tile(np.linspace(0, 255, 48), (48, 1)).astype(np.uint8)
    (folder / "ramp.png").write_bytes(png(ramp))
    (folder / "blocks.png").write_bytes(png(255 * (np.indices((48, 48)).sum(axis=0) // 12 % 2).astype(np.uint8)))
    return folder


@pytest.fixture(scope="module")
def predicted(home, made, lot):
    """(predictions.csv, review.csv) of a runtime."""

    def ask(runtime=Runtime.LITERT):
        settings = made[2].model_copy(update={"predict": PredictSettings(runtime=runtime)})
        folder = home.root / predict(Job(home, settings), data=str(lot)).folder
        return tuple(pd.read_csv(folder / name) for name in ("predictions.csv", "review.csv"))

    return ask


def test_a_part_of_another_kind_is_unknown_and_comes_first_in_the_review(predicted):
    table, review = predicted()
    table = table.set_index("ID")
    strange, known = table.loc[["ramp.png", "blocks.png"]], table.drop(index=["ramp.png", "blocks.png"])
    assert (strange["decision"] == "unknown").all()
    assert known["novelty"].min() < strange["novelty"].min()
    unknown = table.index[table["decision"] == "unknown"]
    assert set(review["ID"][: len(unknown)]) == set(unknown)
    assert set(review["decision"]) <= {"unknown", "review"}


@pytest.mark.parametrize("runtime", ["litert", "litert-int8"])
def test_every_way_to_ask_a_model_gives_the_novelty_of_predictions_csv(home, made, model, lot, predicted, runtime):
    table, _ = predicted(Runtime(runtime))
    folder = model.path
    if runtime == "litert-int8":
        folder = make_export(Job(home, made[2]), model, "int8")[0].path
    files = [(lot / name).read_bytes() for name in table["ID"]]
    point = home.open(made[3]["evaluate"], EvaluationManifest).manifest.operating.point
    answers = [Answering(folder, point).answer(file) for file in files]
    np.testing.assert_allclose([answer.novelty for answer in answers], table["novelty"], atol=1e-6)
    assert [str(answer.decision) for answer in answers] == table["decision"].tolist()
    served = PictureModel(open_classifier(folder)).predict(pd.DataFrame({"picture": files}))
    np.testing.assert_allclose(served["novelty"], table["novelty"], atol=1e-6)


def test_keras_sees_the_same_novelty(predicted):
    ours, theirs = predicted()[0], predicted(Runtime.KERAS)[0]
    np.testing.assert_allclose(ours["novelty"], theirs["novelty"], atol=0.34)  # of 5 calibrating pictures: two places


def test_an_export_in_8_bits_is_calibrated_by_its_own_answers(home, made, model):
    exported = {precision: make_export(Job(home, made[2]), model, precision)[0] for precision in ("float", "int8")}
    files = {name: (made_.path / f"model{NOVELTY_FILE}").read_bytes() for name, made_ in exported.items()}
    assert files["float"] == (model.path / f"model{NOVELTY_FILE}").read_bytes()
    ours, theirs = (np.load(BytesIO(each)) for each in files.values())
    assert ours["usual"].shape == theirs["usual"].shape
    assert not np.array_equal(ours["usual"], theirs["usual"])
    np.testing.assert_array_equal(ours["scales"], theirs["scales"])


def test_a_model_of_an_earlier_version_answers_as_before_and_knows_no_novelty(model, tmp_path, lot):
    for file in model.path.iterdir():
        if not file.name.endswith(NOVELTY_FILE):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    data = (lot / "ramp.png").read_bytes()
    point = OperatingPoint(temperature=1.0, accept_at=0.0, reject_at=0.0, max_false_unknown=0.5)
    answer = Answering(tmp_path, point).answer(data)
    assert (answer.novelty, answer.decision) == (None, "reject")
    assert "novelty" not in open_classifier(tmp_path).classify([data])


# --- A class that nobody labelled ---------------------------------------------------------------------------


def test_evaluation_tells_how_each_class_would_have_fared_had_nobody_labelled_it(home, made):
    evaluation = home.open(made[3]["evaluate"], EvaluationManifest)
    table = pd.read_csv(evaluation.path / "novelty.csv")
    assert table["name"].tolist() == list(CLASSES)
    assert table[list(Decision)].sum(axis=1).to_numpy() == pytest.approx(1)
    assert (evaluation.path / "novelty.png").read_bytes().startswith(b"\x89PNG")
    metrics = evaluation.manifest.metrics
    assert metrics["novelty_auroc"] == pytest.approx(table["auroc"].mean(), abs=1e-6)
    assert metrics["novelty_to_people"] == pytest.approx((table["unknown"] + table["review"]).mean(), abs=1e-6)
    operating = evaluation.manifest.operating
    assert operating.promise_unknown.bound == operating.point.max_false_unknown == 0.01
    assert 0 <= operating.model_extra["false_unknown_rate"] <= 1


def test_a_withheld_class_that_is_far_from_the_others_is_found_and_the_class_of_good_parts_is_not_withheld(tmp_path):
    world = World(np.random.default_rng(4))
    known, held_out = (Labelled(*world.pictures(count)) for count in (300, 600))
    chose = np.arange(600) % 2 == 0
    table = withhold_each(known, held_out, chose, ("good", "one", "other"), 0, EvaluateSettings())
    assert table["name"].tolist() == ["one", "other"]
    assert table["auroc"].min() > 0.9
    assert table["pictures"].tolist() == np.bincount(held_out.labels)[1:].tolist()
    assert summarize(table)["novelty_auroc"] == pytest.approx(table["auroc"].mean())
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_withheld(table, tmp_path / name)
    assert (tmp_path / "one" / "novelty.png").read_bytes() == (tmp_path / "two" / "novelty.png").read_bytes()


def test_of_two_classes_none_can_be_withheld():
    world = World(np.random.default_rng(4))
    known, held_out = (Labelled(*world.pictures(100, kinds=2)) for _ in range(2))
    table = withhold_each(known, held_out, np.arange(100) < 50, ("good", "bad"), None, EvaluateSettings())
    assert not len(table)
    assert summarize(table) == {}
