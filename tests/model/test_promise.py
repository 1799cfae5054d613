"""A promise that holds: thresholds whose true rates, known in simulations, are below the bound as often as stated."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from model.decisions.halves import chooses
from model.decisions.operating import calibrate, decide, outcome
from model.decisions.promise import Evidence, choose, evidence, needed, unproven, upper
from model.decisions.wording import promise_lines, void_line
from model.manifests import Drift, Promise, Promised
from model.settings import Decision, EvaluateSettings

NORMAL = 0
EVALUATIONS = 2000


def two(normal):
    """Softmax outputs of two classes from P(normal)."""
    normal = np.asarray(normal, float)
    return np.stack([normal, 1 - normal], axis=1)


def chosen(probabilities, labels, normal=NORMAL, all_prove=False, **bounds):
    """Evidence, operating point and promises where every other picture chooses."""
    chose = np.arange(len(labels)) % 2 == 0
    found = evidence(probabilities, labels, chose, np.arange(len(labels)) % 5 if all_prove else None)
    return SimpleNamespace(
        found=found, **dict(zip(("point", "told"), choose(found, normal, given_by(bounds)), strict=True))
    )


def given_by(bounds):
    names = {"escape": "max_escape_rate", "overkill": "max_overkill_rate", "confidence": "confidence"}
    return EvaluateSettings(**{names[key]: value for key, value in bounds.items()})


# --- By hand --------------------------------------------------------------------------------------------------


def test_one_percent_with_95_takes_299_defects_of_which_none_escapes():
    assert needed(0, 0.01, 0.95) == 299
    assert upper(0, 299, 0.95) == pytest.approx(1 - 0.05 ** (1 / 299))
    assert upper(0, 299, 0.95) < 0.01 < upper(0, 298, 0.95)
    assert needed(1, 0.01, 0.95) == 473
    assert needed(0, 0.0, 0.95) is None
    assert (upper(0, 0, 0.95), upper(3, 3, 0.95)) == (1, 1)


def separable(good, defects):
    """As many pictures that prove, all right; as many others choose."""
    labels = np.repeat([NORMAL, 1], [2 * good, 2 * defects])
    return two(np.where(labels == NORMAL, 0.9, 0.1)), labels


@pytest.mark.parametrize(
    ("defects", "met", "missing"), [(299, True, 0), (298, False, 1), (100, False, 199), (0, False, 299)]
)
def test_where_the_bound_can_t_be_proven_the_lowest_that_can_is_told_and_what_is_missing(defects, met, missing):
    made = chosen(*separable(20, defects))
    promise = made.told.promise
    assert (promise.of, promise.bound, promise.confidence) == ("escape", 0.01, 0.95)
    assert (promise.pictures, promise.met, promise.missing) == (defects, met, missing)
    assert promise.proven == pytest.approx(0.01 if met else 1 - 0.05 ** (1 / defects) if defects else 1.0)
    assert made.told.promise_overkill.proven == pytest.approx(1 - 0.05 ** (1 / 20))
    assert made.told.promise_overkill.missing == 299 - 20


def test_a_bound_that_can_t_be_proven_has_the_threshold_of_the_lowest_that_can():
    labels = np.repeat([NORMAL, 1], 100)
    probabilities = two(np.concatenate([np.full(100, 0.99), np.linspace(0.01, 0.7, 100)]))
    strict, lowest = (chosen(probabilities, labels, escape=bound) for bound in (0.001, 0.06))
    assert (strict.told.promise.met, lowest.told.promise.met) == (False, True)
    assert strict.point.accept_at == lowest.point.accept_at
    assert np.sum(strict.found.scaled[strict.found.labels == 1, NORMAL] >= strict.point.accept_at) == 0


def test_without_a_normal_class_the_promise_is_about_wrong_names_that_nobody_reviews():
    made = chosen(*separable(150, 150), normal=None)
    assert made.told.promise.model_dump() == {
        **{"of": "misnamed", "bound": 0.01, "proven": 0.01, "confidence": 0.95, "pictures": 300, "met": True},
        "missing": 0,
    }
    assert made.told.promise_overkill is None
    assert (decide(made.found.scaled, made.point) == Decision.REJECT).all()


def test_where_all_pictures_chose_the_epoch_nothing_is_promised():
    promise = unproven(chosen(*separable(300, 300)).told).promise
    assert (promise.proven, promise.pictures, promise.met, promise.missing) == (1.0, 0, False, 299)


def test_what_looks_more_like_a_defect_is_never_accepted_however_wide_the_bound():
    labels = np.repeat([NORMAL, 1], 50)
    point = chosen(two(np.linspace(0.99, 0.01, 100)), labels, escape=0.9, overkill=0.9).point
    assert point.accept_at >= 0.5 >= point.reject_at


@pytest.mark.parametrize("normal", [NORMAL, None])
@pytest.mark.parametrize("pictures", [0, 1, 2])
def test_next_to_no_pictures_prove_next_to_nothing(normal, pictures):
    made = chosen(np.full((pictures, 2), 0.5), np.zeros(pictures, int), normal)
    assert not made.told.promise.met
    assert made.told.promise.proven >= 0.95


# --- For any answers ------------------------------------------------------------------------------------------


@st.composite
def answers(draw):
    """(probabilities, labels, normal class) of a network that is right four times in five."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    count = draw(st.sampled_from([30, 400, 1500]))
    labels = rng.integers(0, 3, count)
    said = np.where(rng.random(count) < draw(st.sampled_from([0.8, 0.99])), labels, rng.integers(0, 3, count))
    probabilities = 0.5 * rng.dirichlet([0.5] * 3, count) + 0.5 * np.eye(3)[said]
    return probabilities, labels, draw(st.sampled_from([NORMAL, None]))


@given(answers(), st.booleans())
@settings(max_examples=40)
def test_thresholds_are_monotone_in_bound_and_in_confidence(given_answers, all_prove):
    probabilities, labels, normal = given_answers

    def points(grid):
        made = [chosen(probabilities, labels, normal, all_prove, **bounds) for bounds in grid]
        return [(one.point.accept_at, -one.point.reject_at, one.told.promise.proven) for one in made]

    wider = points([{"escape": bound, "overkill": bound} for bound in (0.0, 0.005, 0.01, 0.03, 0.1, 0.3, 0.9)])
    surer = points([{"escape": 0.05, "overkill": 0.05, "confidence": c} for c in (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)])
    accept, reject, _ = np.transpose(wider)
    assert (np.diff(accept) <= 0).all()
    assert (np.diff(reject) <= 0).all()
    accept, reject, proven = np.transpose(surer)
    assert (np.diff(accept) >= 0).all()
    assert (np.diff(reject) >= 0).all()
    assert (np.diff(proven) >= 0).all()


@given(answers(), st.booleans(), st.sampled_from([0.0, 0.01, 0.1]))
@settings(max_examples=40)
def test_among_the_pictures_that_prove_the_rate_is_below_what_they_prove(given_answers, all_prove, bound):
    probabilities, labels, normal = given_answers
    made = chosen(probabilities, labels, normal, all_prove, escape=bound, overkill=bound)
    scaled = made.found.scaled
    decisions = decide(scaled, made.point.model_copy(update={"temperature": 1.0}))
    measured = outcome(decisions, made.found.labels, scaled.argmax(axis=1), normal)
    for promise in made.told.promises:
        assert measured[f"{promise.of}_rate"] < promise.proven
        assert promise.met == (promise.proven <= bound)
        assert promise.met == (promise.missing == 0)


def test_copies_of_a_picture_lie_in_the_same_half_and_the_halves_are_alike():
    rng = np.random.default_rng(0)
    contents = [rng.bytes(32).hex() for _ in range(1000)]
    halves = chooses(contents)
    assert (chooses(contents) == halves).all()
    assert 450 < halves.sum() < 550


# --- In words -------------------------------------------------------------------------------------------------


def told(**changes):
    numbers = {"bound": 0.01, "proven": 0.01, "confidence": 0.95, "pictures": 1854, "met": True, "missing": 0}
    return promise_lines(Promised(promise=Promise(of="escape", **numbers | changes)))


def test_a_promise_is_told_with_its_confidence_and_the_number_of_pictures_behind_it():
    assert told() == ["at most 1 % of the defects are accepted (95 % confidence, 1,854 labelled defects)"]
    assert told(proven=0.015979, pictures=186, met=False, missing=113) == [
        "at most 1.6 % of the defects are accepted (95 % confidence, 186 labelled defects; "
        "1 % takes 113 more without a mistake)"
    ]
    (none,) = told(bound=0.0, proven=1.0, pictures=0, met=False, missing=None)
    assert none.startswith("nothing is proven of how many of the defects are accepted")
    assert none.endswith("no number of them proves 0 %)")
    assert promise_lines(Promised()) == []  # of an earlier version


def test_a_promise_is_void_for_a_lot_that_drifted():
    usual, other = Drift(psi=0.01, limit=0.2, drifted=False), Drift(psi=0.91, limit=0.2, drifted=True)
    assert void_line({"contrast": usual}) == ""
    assert void_line({"contrast": usual, "brightness": other}).startswith("void for this lot")
    assert void_line({"brightness": other}).endswith("brightness (PSI 0.91)")


# --- Simulated evaluations of known truth ----------------------------------------------------------------------
#
# Two classes. The logit of P(normal) is normally distributed around + or - SEPARATION, so every true rate is known.
# EPOCHS networks of equal worth are trained, whose answers differ by chance alone: whoever chooses the best of them on
# the pictures that prove deceives himself the most.

SEPARATION, DEVIATION, EPOCHS, DEFECTS = 2.0, 1.1, 6, 0.7


def simulate(rng, pictures, normal, bound, folds=1, honest=True):
    """(promise, true rate) of each promise of one evaluation.

    folds: 1 for a model of its own, more for a cross-validation. honest: pictures that choose do not prove.
    """
    parts = []
    for fold in range(folds):
        labels = (rng.random(pictures) < DEFECTS).astype(int)
        sign = np.where(labels == NORMAL, 1, -1)
        logits = sign * SEPARATION + DEVIATION * rng.standard_normal((EPOCHS, pictures))
        chose = rng.random(pictures) < 0.5
        halves = (chose, ~chose) if honest else (np.full(pictures, True),) * 2
        loss = np.exp(-sign * logits)  # the surest mistakes count the most
        kept, other = (loss[:, half].sum(axis=1).argmin() for half in halves)
        crossed = folds > 1
        parts.append((np.where(chose & crossed, logits[other], logits[kept]), labels, chose, np.full(pictures, fold)))
    logits, labels, chose, fold_of = (np.concatenate(each) for each in zip(*parts, strict=True))
    found = evidence(two(1 / (1 + np.exp(-logits))), labels, chose, fold_of if folds > 1 else None)
    if folds == 1 and not honest:
        scaled = calibrate(two(1 / (1 + np.exp(-logits))), found.temperature)
        found = Evidence(found.temperature, scaled, labels, scaled)
    point, told = choose(found, normal, EvaluateSettings(max_escape_rate=bound, max_overkill_rate=bound))

    def beyond(threshold, mean):
        """Share of logits around a mean that a threshold of calibrated probability accepts."""
        if threshold >= 1 or threshold <= 0:
            return float(threshold <= 0)
        return norm.sf((point.temperature * np.log(threshold / (1 - threshold)) - mean) / DEVIATION)

    if normal is None:
        at = max(0.5, point.accept_at)
        wrong, right = beyond(at, -SEPARATION), beyond(at, SEPARATION)
        rates = [wrong / (wrong + right) if wrong else 0.0]
    else:
        rates = [beyond(point.accept_at, -SEPARATION), 1 - beyond(point.reject_at, SEPARATION)]
    return list(zip(told.promises, rates, strict=True))


SIMULATED = {
    "a model": {"pictures": 450, "normal": NORMAL, "bound": 0.02},
    "a cross-validation": {"pictures": 150, "normal": NORMAL, "bound": 0.01, "folds": 4},
    "a model, no normal class": {"pictures": 500, "normal": None, "bound": 0.02},
    "a cross-validation, no normal class": {"pictures": 150, "normal": None, "bound": 0.01, "folds": 4},
}


def broken(evaluations, seed=0, **world):
    """How many of the evaluations break each promise, that of its bound or the lowest provable one."""
    rng = np.random.default_rng(seed)
    made = [simulate(rng, **world) for _ in range(evaluations)]
    return np.sum([[rate > promise.proven for promise, rate in told] for told in made], axis=0)


@pytest.mark.parametrize("case", SIMULATED)
def test_of_2000_evaluations_5_percent_break_a_promise_of_95_within_binomial_error(case):
    assert max(broken(EVALUATIONS, **SIMULATED[case])) <= binom.ppf(0.999, EVALUATIONS, 0.05)


def test_the_simulation_tells_a_promise_that_choosing_pictures_prove():
    _, overkill = broken(200, **SIMULATED["a cross-validation"], honest=False)
    assert overkill > binom.ppf(0.999, 200, 0.05)
