"""Thresholds with a promise: the true rate of escapes, overkill or wrong names lies below a bound with a confidence.

Thresholds are tested in an order that is fixed beforehand, the most cautious first, each by the exact binomial test of
"the rate is above the bound". The last one before the first that fails is taken. So the chance that its true rate is
above the bound is at most 1 - confidence, however many thresholds are tested. Source: Angelopoulos et al., Learn then
Test, 2021 (fixed-sequence testing).
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import betaincc
from scipy.stats import beta, binom

from model.decisions.novelty import Novelty
from model.decisions.operating import calibrate, fit_temperature
from model.manifests import OperatingPoint, Promise, Promised, PromiseUnknown
from model.settings import EvaluateSettings

STEPS = 100  # thresholds of confidence that are tested where there is no normal class: equal shares of the pictures
USUAL = 0.95  # confidence by which the first of them is picked, whatever is set: so more confidence is more caution
MOST = 10**9  # pictures; what takes more can't be proven


@dataclass(frozen=True)
class Evidence:
    """What the proof is made from.

    temperature: of the operating point; scaled: calibrated probabilities float (N, C) of the pictures that prove, by
    choices that they had no part in; labels: theirs, int (N,). guide, guided: calibrated probabilities float (M, C) of
    the pictures that fix the order of the tests, and their labels; None where they prove as well.
    """

    temperature: float
    scaled: np.ndarray
    labels: np.ndarray
    guide: np.ndarray
    guided: np.ndarray | None


def evidence(
    probabilities: np.ndarray, labels: np.ndarray, chose: np.ndarray, folds: np.ndarray | None = None
) -> Evidence:
    """Divides pictures into those that choose and those that prove.

    probabilities: float (N, C), as the network gives them; labels: int (N,); chose: bool (N,), the half that chose the
    epoch and chooses the temperature. folds: int (N,), of a cross-validation: then all choose the temperature and all
    prove, each fold at the temperature that the others choose. The probabilities of the half that chose the epoch are
    of the epoch that the other half would choose.
    """
    if folds is None:
        temperature = fit_temperature(probabilities[chose], labels[chose])
        scaled = calibrate(probabilities, temperature)
        return Evidence(temperature, scaled[~chose], labels[~chose], scaled[chose], labels[chose])
    scaled = np.empty(probabilities.shape)
    for fold in np.unique(folds):
        own = folds == fold
        scaled[own] = calibrate(probabilities[own], fit_temperature(probabilities[~own], labels[~own]))
    return Evidence(fit_temperature(probabilities, labels), scaled, labels, scaled, None)


def choose(found: Evidence, normal: int | None, settings: EvaluateSettings) -> tuple[OperatingPoint, Promised]:
    """The least cautious thresholds whose bounds can be proven, and what is promised about them.

    They never cross one half: what the network thinks more likely a defect is not accepted, whatever the bound.
    Where a bound can't be proven, the threshold is that of the lowest bound that can. Each promise holds by itself.

    With a normal class escapes are counted among the defects and overkill among the good parts. Both only grow with a
    less cautious threshold, so every threshold is tested. Without one, wrong names are counted among the parts that
    nobody reviews, and `STEPS` thresholds are tested.
    """
    if normal is None:
        accept_at, promise = _misnamed(found, settings)
        point = OperatingPoint(
            temperature=found.temperature,
            normal=None,
            accept_at=accept_at,
            reject_at=0.0,
            max_false_unknown=settings.max_false_unknown,
        )
        return point, Promised(promise=promise)
    good, score = found.labels == normal, found.scaled[:, normal]
    accept_at, escape = _nested("escape", score[~good], settings.max_escape_rate, settings.confidence)
    negative, overkill = _nested("overkill", -score[good], settings.max_overkill_rate, settings.confidence)
    point = OperatingPoint(
        temperature=found.temperature,
        normal=normal,
        accept_at=max(0.5, accept_at),
        reject_at=min(0.5, -negative),
        max_false_unknown=settings.max_false_unknown,
    )
    return point, Promised(promise=escape, promise_overkill=overkill)


def unproven(promised: Promised) -> Promised:
    """The same where all pictures chose the model's epoch: nothing is proven by any."""

    def emptied(promise: Promise | None) -> Promise | None:
        return promise and _promise(promise.of, promise.bound, promise.confidence, met=False, events=0, pictures=0)

    return Promised(promise=emptied(promised.promise), promise_overkill=emptied(promised.promise_overkill))


def upper(events: np.ndarray | int, trials: np.ndarray | int, confidence: float) -> np.ndarray:
    """One-sided upper bound of a rate, exact (Clopper and Pearson, Biometrika, 1934); 1 where there is no trial."""
    events, trials = np.asarray(events), np.asarray(trials)
    some = events < trials
    return np.where(some, beta.ppf(confidence, events + 1, np.where(some, trials - events, 1)), 1.0)


def needed(events: int, bound: float, confidence: float) -> int | None:
    """How many trials prove the bound if so many events are among them; None where no number does."""
    low, high = events, events + 1
    while not _proves(events, high, bound, confidence):
        low, high = high, 2 * high
        if high > MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _proves(events, middle, bound, confidence) else (middle, high)
    return high


def _proves(events: int, trials: int, bound: float, confidence: float) -> bool:
    # The binomial distribution's cdf, without what scipy.stats does around it, which takes a hundred times as long.
    return events < trials and bool(betaincc(events + 1, trials - events, bound) <= 1 - confidence)


def _nested(of: str, scores: np.ndarray, bound: float, confidence: float) -> tuple[float, Promise]:
    """The least threshold for which it is proven that at most a share `bound` of all scores reaches it.

    Every threshold between two scores is tested, from infinity down: the more scores reach it, the less is proven.
    """
    trials = len(scores)
    # The most events that prove it: one below the first number that does not.
    allowed = int(binom.ppf(1 - confidence, trials, bound)) - 1 if trials else -1
    ordered, events = np.sort(scores)[::-1], max(0, allowed)
    threshold = float(np.nextafter(ordered[events], np.inf)) if events < trials else -np.inf
    return threshold, _promise(of, bound, confidence, allowed >= 0, 0, trials)


def _misnamed(found: Evidence, settings: EvaluateSettings) -> tuple[float, Promise]:
    """The least tested confidence above which it is proven that at most the bound of the answers is wrong."""
    sure, wrong = found.scaled.max(axis=1, initial=0), found.scaled.argmax(axis=1) != found.labels
    bound, confidence = settings.max_escape_rate, settings.confidence
    taken, met = None, False
    for threshold in _sequence(found.guide, found.guided, len(sure)):
        decided = sure >= threshold
        counted = int(np.sum(wrong & decided)), int(decided.sum())
        met = _proves(*counted, bound, confidence)
        if met or taken is None:
            taken = float(threshold), met, *counted
        if not met:
            break
    assert taken is not None  # the sequence has a first threshold
    threshold, met, events, trials = taken
    return threshold, _promise("misnamed", bound, confidence, met, events, trials)


def _sequence(guide: np.ndarray, labels: np.ndarray | None, pictures: int) -> np.ndarray:
    """The confidences to test, falling, to the one that every picture reaches.

    They have equal shares of the guiding pictures between them. The first is the one that would prove the lowest bound
    among `pictures` pictures if as many of them were wrong as of the guiding ones. Where these prove as well, their
    labels must not choose, and their confidence tells how many are wrong.
    """
    if not len(guide):
        return np.zeros(1)
    sure = guide.max(axis=1)
    order = np.argsort(-sure, kind="stable")
    wrong = 1 - sure if labels is None else (guide.argmax(axis=1) != labels).astype(float)
    shares = np.arange(1, STEPS + 1) / STEPS
    places = np.ceil(shares * len(sure)).astype(int) - 1
    thresholds = np.append(sure[order][places[:-1]], 0.0)
    decided = np.maximum(1.0, shares * pictures)
    mistakes = decided * (np.cumsum(wrong[order]) / np.arange(1, len(sure) + 1))[places]
    guessed = beta.ppf(USUAL, mistakes + 1, np.maximum(decided - mistakes, 1e-9))
    return thresholds[int(np.argmin(guessed)) :]


def _promise(of: str, bound: float, confidence: float, met: bool, events: int, pictures: int) -> Promise:
    """What is promised from `pictures` among which there are `events` (of a bound that is not met)."""
    enough = None if met else needed(events, bound, confidence)
    return Promise(
        of=of,
        bound=bound,
        proven=bound if met else float(upper(events, pictures, confidence)),
        confidence=confidence,
        pictures=pictures,
        met=met,
        missing=0 if met else None if enough is None else enough - pictures,
    )


def promise_unknown(novelty: Novelty, max_false_unknown: float) -> PromiseUnknown | None:
    """What is promised of the share of known parts that are called unknown; None where none is.

    The p-value of a picture like the calibrating ones is at most any share in at most this share of cases (split
    conformal prediction); the mean of several in at most twice this share (Vovk and Wang, Combining p-values via
    averaging, Biometrika, 2020).
    """
    if not max_false_unknown:
        return None
    pictures, networks = novelty.calibrating, len(novelty.detectors)
    lowest = max(max_false_unknown, networks / (pictures + networks))
    enough = int(np.ceil(1 / max_false_unknown - 1e-9)) - 1
    met = networks == 1 and lowest == max_false_unknown
    return PromiseUnknown(
        bound=max_false_unknown,
        proven=min(1.0, lowest * min(2, networks)),
        pictures=pictures,
        met=met,
        missing=0 if met else None if networks > 1 else enough - pictures,
    )
