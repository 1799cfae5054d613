"""Decisions: calibrated confidence, thresholds for stated bounds, and what they cost. Numbers checked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.decisions.operating import (
    calibrate,
    choose,
    decide,
    expected_calibration_error,
    fit_temperature,
    interval,
    outcome,
)
from model.manifests import OperatingPoint
from model.settings import Decision

NORMAL = 0

ACCEPT, REJECT, REVIEW = Decision


def two(normal):
    """Softmax outputs of two classes from P(normal)."""
    normal = np.asarray(normal, float)
    return np.stack([normal, 1 - normal], axis=1)


def test_temperature_one_changes_nothing_and_no_temperature_changes_a_label():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([0.3] * 4, 200)
    np.testing.assert_allclose(calibrate(probabilities, 1.0), probabilities, atol=1e-9)
    for temperature in (0.25, 4.0):
        scaled = calibrate(probabilities, temperature)
        np.testing.assert_allclose(scaled.sum(axis=1), 1)
        np.testing.assert_array_equal(scaled.argmax(axis=1), probabilities.argmax(axis=1))


def test_answers_too_sure_are_cooled_until_they_are_honest():
    rng = np.random.default_rng(1)
    labels = (rng.random(4000) < 0.5).astype(int)
    right = rng.random(4000) < 0.8
    said = np.where(right, labels, 1 - labels)
    probabilities = np.where(said[:, None] == np.arange(2), 0.99, 0.01)
    temperature = fit_temperature(probabilities, labels)
    assert temperature > 2
    before = expected_calibration_error(probabilities, labels)
    after = expected_calibration_error(calibrate(probabilities, temperature), labels)
    assert before == pytest.approx(0.99 - right.mean(), abs=1e-6)
    assert after < 0.01


def test_the_interval_is_the_textbook_one():
    # Clopper-Pearson at 95 %: 0 of 100 gives (0, 1 - 0.025 ** (1 / 100)); 1 of 10 gives (0.0025, 0.4450).
    assert interval(0, 100) == (0.0, pytest.approx(1 - 0.025 ** (1 / 100)))
    assert interval(1, 10) == (pytest.approx(0.002529, abs=1e-5), pytest.approx(0.445016, abs=1e-5))
    assert interval(5, 5)[1] == 1.0
    assert interval(0, 0) == (0.0, 1.0)


def test_parts_are_accepted_rejected_or_reviewed_by_the_thresholds():
    point = OperatingPoint(temperature=1.0, normal=NORMAL, accept_at=0.9, reject_at=0.2)
    assert decide(two([0.95, 0.91, 0.5, 0.19, 0.1]), point).tolist() == [ACCEPT, ACCEPT, REVIEW, REJECT, REJECT]
    no_normal = OperatingPoint(temperature=1.0, normal=None, accept_at=0.9, reject_at=0.0)
    assert decide(two([0.95, 0.5, 0.05]), no_normal).tolist() == [REJECT, REVIEW, REJECT]
    assert decide(np.zeros((0, 2)), point).tolist() == []


def test_what_looks_more_like_a_defect_is_never_accepted_however_wide_the_bound():
    labels = np.array([0] * 50 + [1] * 50)
    point = choose(two(np.linspace(0.99, 0.01, 100)), labels, NORMAL, max_escape_rate=0.9, max_overkill_rate=0.9)
    assert point.accept_at >= 0.5 >= point.reject_at


@given(
    seed=st.integers(0, 10_000),
    escape=st.sampled_from([0.0, 0.01, 0.1]),
    overkill=st.sampled_from([0.0, 0.05]),
    normal=st.sampled_from([NORMAL, None]),
)
@settings(max_examples=60)
def test_on_the_fold_itself_no_bound_is_exceeded(seed, escape, overkill, normal):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 120)
    sure = rng.dirichlet([0.5] * 3, 120)
    probabilities = 0.5 * sure + 0.5 * np.eye(3)[np.where(rng.random(120) < 0.8, labels, rng.integers(0, 3, 120))]
    point = choose(probabilities, labels, normal, escape, overkill)
    decisions = decide(probabilities, point)
    made = outcome(decisions, labels, probabilities.argmax(axis=1), normal)
    if normal is None:
        assert made["misnamed_rate"] <= escape
    else:
        assert made["escape_rate"] <= escape
        assert made["overkill_rate"] <= overkill
    assert made["reviewed"] == np.sum(decisions == REVIEW)


def test_the_outcome_counts_escapes_overkill_and_review():
    labels = np.array([0, 0, 0, 1, 2, 2])
    decisions = np.array([ACCEPT, REJECT, REVIEW, ACCEPT, REJECT, REVIEW])
    made = outcome(decisions, labels, labels, NORMAL)
    assert (made["escape_rate"], made["overkill_rate"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert (made["reviewed"], made["review_rate"]) == (2, pytest.approx(1 / 3))
