"""Decisions: calibrated confidence, decisions by thresholds, and what they cost. Numbers checked by hand."""

import numpy as np
import pytest

from model.decisions.operating import (
    calibrate,
    decide,
    expected_calibration_error,
    fit_temperature,
    interval,
    outcome,
)
from model.manifests import OperatingPoint
from model.settings import Decision

NORMAL = 0

ACCEPT, REJECT, REVIEW = Decision.ACCEPT, Decision.REJECT, Decision.REVIEW


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


def test_the_outcome_counts_escapes_overkill_and_review():
    labels = np.array([0, 0, 0, 1, 2, 2])
    decisions = np.array([ACCEPT, REJECT, REVIEW, ACCEPT, REJECT, REVIEW])
    made = outcome(decisions, labels, labels, NORMAL)
    assert (made["escape_rate"], made["overkill_rate"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert (made["reviewed"], made["review_rate"]) == (2, pytest.approx(1 / 3))
