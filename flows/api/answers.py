"""From pictures to results: the queue, the threads that answer, and what is kept of it."""

import asyncio
import base64
import hashlib
import json
import math
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count
from time import perf_counter
from typing import Any

from flows.api.decisions import DecisionLog
from flows.api.metrics import Metrics
from flows.api.requests import Picture, Refusal
from flows.champion import Served
from model.inference.answers import Answer
from model.inference.runtime import lanes
from tfrecords.pictures.errors import PictureError

DIGITS = 8  # of probabilities, behind the point; they have no more
PACE = 0.05  # weight of the latest picture in the mean time of one


class Answers:
    """Answers pictures, as many side by side as the machine has cores, in the order in which they came.

    most: pictures that wait or are worked on. log: where each answer is kept before it is given; none: nowhere.
    """

    def __init__(self, most: int, metrics: Metrics, log: DecisionLog | None):
        self._most, self._metrics, self._log = most, metrics, log
        self._pool = ThreadPoolExecutor(lanes(), thread_name_prefix="answers")
        self._waiting, self._pace, self._turns = 0, 0.02, count()

    async def results(self, served: Served, pictures: Sequence[Picture], explain: bool) -> list[dict[str, Any]]:
        """A result per picture, see docs/api.md. Raises: Refusal where the queue is full or answers can't be kept."""
        if self._waiting and self._waiting + len(pictures) > self._most:
            seconds = max(1, math.ceil(self._waiting * self._pace / lanes()))
            remedy = f"Try again in {seconds} s, or raise api.max_queue"
            raise Refusal(503, f"{self._waiting} pictures wait already", remedy, {"Retry-After": str(seconds)})
        self._waiting += len(pictures)
        self._metrics.queue.set(self._waiting)
        loop = asyncio.get_running_loop()
        try:
            work = [loop.run_in_executor(self._pool, self._answer, served, each, explain) for each in pictures]
            hashes = [hashlib.sha256(each.data).hexdigest() for each in pictures]  # while the threads read pictures
            told = await asyncio.gather(*work)
        finally:
            self._waiting -= len(pictures)
            self._metrics.queue.set(self._waiting)
        results = [result for result, _ in told]
        if self._log:
            self._keep(self._log, served, hashes, results)
        loop.call_soon(self._count, served, [answer for _, answer in told])  # once these have been sent
        return results

    def close(self) -> None:
        """Ends the threads once they have answered."""
        self._pool.shutdown()

    def _answer(self, served: Served, picture: Picture, explain: bool) -> tuple[dict[str, Any], Answer | None]:
        """The result, and what it tells of, None where the picture can't be read."""
        began = perf_counter()
        result: dict[str, Any] = dict.fromkeys(
            ("id", "label", "name", "probabilities", "decision", "novelty", "error"), None
        )
        result["id"] = picture.id
        try:
            answer = served.answering.answer(picture.data, next(self._turns), explain=explain)
        except PictureError as error:
            result["error"] = {"seen": str(error), "remedy": error.remedy_alone}
            return result, None
        classes = served.answering.classifier.classes
        result |= {
            "label": answer.label,
            "name": answer.name,
            "probabilities": {
                name: round(float(p), DIGITS) for name, p in zip(classes, answer.probabilities, strict=True)
            },
            "decision": str(answer.decision),
            "novelty": None if answer.novelty is None else round(answer.novelty, DIGITS),
        }
        if explain:
            result["heat_map"] = _heat_map(answer)
        self._pace += PACE * (perf_counter() - began - self._pace)
        return result, answer

    def _count(self, served: Served, answers: Sequence[Answer | None]) -> None:
        for answer in answers:
            if answer:
                self._metrics.answered(served, answer)
            else:
                self._metrics.unreadable.inc()

    def _keep(self, log: DecisionLog, served: Served, hashes: Sequence[str], results: Sequence[dict[str, Any]]) -> None:
        who = served.who
        head = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "model": who["name"],
            "version": who["version"],
            "fingerprint": who["fingerprint"],
        }
        lines = []
        for sha256, result in zip(hashes, results, strict=True):
            kept = {key: value for key, value in result.items() if key != "heat_map"}
            lines.append(json.dumps({**head, "sha256": sha256, **kept}, ensure_ascii=False))
        try:
            log.append(lines)
        except OSError as error:
            print(f"aoi api: answers are refused, for they can't be kept: {error}", file=sys.stderr)
            remedy = "Make room in HOME, or set api.log_decisions to false"
            raise Refusal(503, f"the answer can't be kept ({error.strerror})", remedy, {"Retry-After": "10"})


def _heat_map(answer: Answer) -> str:
    drawn = answer.heat_map
    if drawn is None:
        remedy = "Ask without explain, or train with global average pooling"
        raise Refusal(501, "this model's network has no class maps", remedy)
    return base64.b64encode(drawn).decode()
