"""What the API tells Prometheus."""

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from model.decisions import drift

if TYPE_CHECKING:
    from flows.champion import Served
    from model.inference.answers import Answer

RECENT = 500  # pictures that drift is measured on, the latest
SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SHARES = tuple(round(0.1 * step, 1) for step in range(1, 11))


class Metrics:
    """Counts of one server, since its start."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self._registry}
        self.requests = Counter("aoi_requests", "Requests by path and status", ["path", "status"], **own)
        self.seconds = Histogram("aoi_request_seconds", "Time to answer", ["path"], buckets=SECONDS, **own)
        self._decisions = Counter("aoi_decisions", "Pictures by decision", ["decision"], **own)
        self.unreadable = Counter("aoi_unreadable", "Pictures that could not be read", **own)
        self._novelty = Histogram("aoi_novelty", "Novelty of pictures, 0 to 1", buckets=SHARES, **own)
        self.queue = Gauge("aoi_queue_pictures", "Pictures that wait or are worked on", **own)
        self._model = Gauge("aoi_model", "The model that answers", ["name", "version", "fingerprint"], **own)
        self._psi = Gauge("aoi_drift_psi", f"Drift of the last {RECENT} pictures, by feature", ["feature"], **own)
        self._limit = Gauge("aoi_drift_limit", "Drift above which a feature has drifted", ["feature"], **own)
        self._lock = threading.Lock()
        self._recent: deque[tuple[str, dict[str, float], int]] = deque(maxlen=RECENT)

    def answered(self, served: "Served", answer: "Answer") -> None:
        """Counts a picture."""
        self._decisions.labels(answer.decision).inc()
        if answer.novelty is not None:
            self._novelty.observe(answer.novelty)
        seen = {**answer.measures, "confidence": float(answer.alone.max())}
        with self._lock:
            self._recent.append((served.model.fingerprint, seen, int(answer.alone.argmax())))

    def text(self, served: "Served") -> bytes:
        """All of it, as Prometheus reads it."""
        who = {name: value or "" for name, value in served.who.items()}
        self._model.clear()
        self._model.labels(**who).set(1)
        self._measure_drift(served)
        return generate_latest(self._registry)

    def _measure_drift(self, served: "Served") -> None:
        """Of the pictures that the present model answered; what was told of another model goes."""
        with self._lock:
            own = [(seen, label) for by, seen, label in self._recent if by == served.model.fingerprint]
        self._psi.clear()
        self._limit.clear()
        if not own:
            return
        values = {name: np.array([seen[name] for seen, _ in own]) for name in own[0][0]}
        known = {name: each for name, each in served.reference.items() if each.edges is None or name in values}
        labels = np.array([label for _, label in own])
        for name, found in drift.compare(known, values, labels).items():
            self._psi.labels(name).set(found.psi)
            self._limit.labels(name).set(found.limit)
