"""Calibrated confidence, decisions by an operating point, and what they cost where the labels are known.

All on the validation fold, which the network did not train on. `model.decisions.promise` chooses the operating point.
"""

from typing import Any

import numpy as np

from model.manifests import OperatingPoint
from model.settings import Decision

ECE_BINS = 15
CONFIDENCE = 0.95


def calibrate(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Softmax outputs (N, C) at another temperature: above 1 less sure, below 1 surer; the labels stay.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    logits = np.log(np.clip(probabilities, 1e-12, 1)) / temperature
    scaled = np.exp(logits - logits.max(axis=1, keepdims=True))
    return scaled / scaled.sum(axis=1, keepdims=True)


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature, 0.25 to 4, of least negative log-likelihood; 1 without pictures. (N, C) and int (N,) in.

    Every label is smoothed by one picture's worth over the classes: on a fold without mistakes the likelihood
    alone would ask for ever surer answers.
    """
    from scipy.optimize import minimize_scalar  # half a second, which decisions do without

    count, classes = probabilities.shape
    if not count:
        return 1.0
    target = np.full((count, classes), 1 / (count + 1) / classes)
    target[np.arange(count), labels] += count / (count + 1)

    def loss(log_temperature: float) -> float:
        scaled = calibrate(probabilities, float(np.exp(log_temperature)))
        return float(-np.mean(np.sum(target * np.log(np.clip(scaled, 1e-12, 1)), axis=1)))

    bound = float(np.log(4))
    return float(np.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x))


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean distance of confidence and accuracy over 15 equal bins of confidence, 0..1; Guo et al., as above."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    error = 0.0
    for index in np.unique(bins):
        inside = bins == index
        error += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    return float(error)


def interval(events: int, trials: int) -> tuple[float, float]:
    """Clopper-Pearson interval of a rate at 95 % (Biometrika, 1934). No trials: (0, 1)."""
    from scipy.stats import beta

    tail = (1 - CONFIDENCE) / 2
    low = float(beta.ppf(tail, events, trials - events + 1)) if events else 0.0
    high = float(beta.ppf(1 - tail, events + 1, trials - events)) if events < trials else 1.0
    return low, high


def decide(probabilities: np.ndarray, point: OperatingPoint, unknown: np.ndarray | None = None) -> np.ndarray:
    """accept, reject, review or unknown for each row of softmax outputs (N, C): str (N,).

    unknown: which pictures are unlike all that is known, bool (N,); None: it is not known of any.
    """
    decided = _decide(probabilities, point)
    return decided if unknown is None else np.where(unknown, Decision.UNKNOWN, decided)


def _decide(probabilities: np.ndarray, point: OperatingPoint) -> np.ndarray:
    scaled = calibrate(probabilities, point.temperature) if len(probabilities) else probabilities
    if point.normal is None:
        return np.where(scaled.max(axis=1, initial=0) >= point.accept_at, Decision.REJECT, Decision.REVIEW)
    score = scaled[:, point.normal]
    return np.where(
        score >= point.accept_at, Decision.ACCEPT, np.where(score <= point.reject_at, Decision.REJECT, Decision.REVIEW)
    )


def outcome(decisions: np.ndarray, labels: np.ndarray, predicted: np.ndarray, normal: int | None) -> dict[str, Any]:
    """What the decisions would have meant for parts whose labels are known: rates, their intervals, review work.

    Unknown parts go to a person, so they count as reviewed.
    """
    people = np.isin(decisions, [Decision.REVIEW, Decision.UNKNOWN])
    reviewed = {"review_rate": float(np.mean(people)), "reviewed": int(np.sum(people))}
    if normal is None:
        decided = ~people
        misnamed = int(np.sum(decided & (predicted != labels)))
        return {**rate("misnamed", misnamed, int(decided.sum())), **reviewed}
    good = labels == normal
    escaped = int(np.sum(~good & (decisions == Decision.ACCEPT)))
    overkilled = int(np.sum(good & (decisions == Decision.REJECT)))
    return {
        **rate("escape", escaped, int((~good).sum())),
        **rate("overkill", overkilled, int(good.sum())),
        **reviewed,
    }


def curve(
    scaled: np.ndarray, labels: np.ndarray, normal: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What every threshold would cost, from calibrated probabilities (N, C): (thresholds, cost, escapes, trials).

    With a normal class: cost is the share of good parts not accepted, escapes the number of the defects (trials) that
    are accepted. Without: cost is the share of parts to review, escapes the number of the others (trials) that are
    misnamed.
    """
    score = scaled.max(axis=1, initial=0) if normal is None else scaled[:, normal]
    bad = scaled.argmax(axis=1) != labels if normal is None else labels != normal
    thresholds = np.unique(np.concatenate([[0.0], score, [1.0]]))
    above = score[None, :] >= thresholds[:, None]
    escapes = (above & bad).sum(axis=1)
    if normal is None:
        return thresholds, 1 - above.sum(axis=1) / max(1, len(score)), escapes, above.sum(axis=1)
    cost = 1 - (above & ~bad).sum(axis=1) / max(1, (~bad).sum())
    return thresholds, cost, escapes, np.full(len(thresholds), bad.sum())


def rate(name: str, events: int, trials: int) -> dict[str, Any]:
    """A rate with its interval, as operating.json has them."""
    low, high = interval(events, trials)
    return {f"{name}_rate": events / trials if trials else 0.0, f"{name}_low": low, f"{name}_high": high}
