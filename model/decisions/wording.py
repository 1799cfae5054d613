"""Promises in words, for reports."""

from collections.abc import Mapping
from math import ceil, floor, log10

from model.decisions.drift import warning
from model.manifests import Drift, Promise, Promised, PromiseUnknown

SUBJECTS = {  # what is promised, and the pictures that prove it
    "escape": ("of the defects are accepted", "defects"),
    "overkill": ("of the good parts are rejected", "good parts"),
    "misnamed": ("of the parts that nobody reviews are misnamed", "parts"),
}


def promise_lines(promised: Promised) -> list[str]:
    """A line per promise; none for an evaluation of an earlier version, which promises nothing."""
    lines = [_line(promise) for promise in promised.promises]
    unknown = promised.promise_unknown
    return [*lines, _unknown_line(unknown)] if unknown else lines


def _line(promise: Promise) -> str:
    what, pictures = SUBJECTS[promise.of]
    proof = f"{_percent(promise.confidence)} confidence, {promise.pictures:,} labelled {pictures}"
    if promise.pictures:
        said = f"at most {_percent(promise.proven)} {what} ({proof}"
    else:
        said = f"nothing is proven of how many {what} ({proof}"
    if promise.met:
        return f"{said})"
    if promise.missing is None:
        return f"{said}; no number of them proves {_percent(promise.bound)})"
    return f"{said}; {_percent(promise.bound)} takes {promise.missing:,} more without a mistake)"


def _unknown_line(promise: PromiseUnknown) -> str:
    if not promise.pictures:
        return "no part is called unknown (no validation picture is left to calibrate novelty)"
    said = f"on average at most {_percent(promise.proven)} of the parts of known classes are called unknown"
    calibrated = f"{promise.pictures:,} validation pictures"
    if promise.missing:
        return f"{said} ({calibrated}; {_percent(promise.bound)} takes {promise.missing:,} more)"
    return f"{said} ({calibrated})"


def void_line(drift: Mapping[str, Drift]) -> str:
    """That the promises do not hold for a lot that drifted; '' where the lot looks as usual."""
    drifted = warning(drift)
    return f"void for this lot, which is not like the pictures that prove them: {drifted}" if drifted else ""


def _percent(share: float) -> str:
    """Three digits, rounded up: no promise says more than is proven."""
    if not share:
        return "0 %"
    step = 10.0 ** (floor(log10(100 * share)) - 2)
    return f"{ceil(100 * share / step - 1e-6) * step:.6g} %"
