"""One picture's answer as a line wants it: label, probabilities, decision; free of TensorFlow and of pandas."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.decisions.operating import decide
from model.inference.class_maps import heat_map
from model.inference.classifier import Classifier, open_classifier, shifted
from model.inference.runtime import at_work
from model.manifests import OperatingPoint
from model.settings import Decision

OK, UNREADABLE = "ok", "unreadable"  # status of a picture


@dataclass(frozen=True)
class Answer:
    """What is said of a picture.

    probabilities: float32 (classes,). novelty: 0 to below 1, None where the model does not know it. alone: the
    probabilities of one network about the picture itself, and measures: what was measured of it, by feature; drift
    compares both. image: what the networks saw, uint8 (S, S, C). evidence: what spoke for the label at each place,
    float32 (down, across), where it was asked for and the networks have class maps.
    """

    label: int
    name: str
    probabilities: np.ndarray
    decision: Decision
    novelty: float | None
    alone: np.ndarray
    measures: dict[str, float]
    image: np.ndarray
    evidence: np.ndarray | None

    @property
    def heat_map(self) -> bytes | None:
        """What spoke for the answer, in color over the picture as the networks saw it: a PNG file; None without
        evidence.
        """
        if self.evidence is None:
            return None
        return heat_map(self.image, self.evidence)


class Answering:
    """A model or an export, ready to answer from several threads.

    folder: of the model or export; point: the operating point that decides, none: every part is for review;
    shift_copies: see `PredictSettings`.
    """

    def __init__(self, folder: Path, point: OperatingPoint | None, shift_copies: int = 0):
        self.folder, self.point, self.shift_copies = folder, point, shift_copies
        self.classifier: Classifier = open_classifier(folder)

    @at_work()
    def answer(self, data: bytes, turn: int = 0, *, explain: bool = False) -> Answer:
        """The answer about a picture file, the same as predict's. turn: which network's answer drift gets; explain:
        with the evidence.

        Raises: PictureError where the file can't be used.
        """
        image, measures = self.classifier.read(data)
        looks = [
            self.classifier.look(images, evidence=explain and not copy)
            for copy, images in enumerate(shifted(image[None], self.shift_copies))
        ]
        answers = [np.stack([outputs.probabilities for outputs in each]) for each in looks]
        probabilities = np.mean([each.mean(axis=0) for each in answers], axis=0)
        label = int(probabilities[0].argmax())
        usual, decision = self.classifier.novelty, Decision.REVIEW
        novelty = self.classifier.novelty_of(looks[0])
        if self.point:
            unknown = usual.unknown(novelty, self.point.max_false_unknown) if usual else None
            decision = Decision(decide(probabilities.astype(float), self.point, unknown)[0])
        alone = answers[0][turn % len(answers[0]), 0]
        spoke = [outputs.evidence[0, ..., label] for outputs in looks[0] if outputs.evidence is not None]
        return Answer(
            label=label,
            name=self.classifier.classes[label],
            probabilities=probabilities[0],
            decision=decision,
            novelty=float(novelty[0]) if usual else None,
            alone=alone,
            measures=measures,
            image=image,
            evidence=np.mean(spoke, axis=0) if spoke else None,
        )

    def warm_up(self) -> None:
        """Opens what the first pictures would otherwise wait for."""
        blank = np.zeros((2, *self.classifier.preprocess.shape), np.uint8)
        self.classifier.each(blank[:1])
        self.classifier.each(blank)


def columns(classes: Sequence[str]) -> list[str]:
    """Names of the columns of predictions.csv, in their order."""
    return ["ID", "label", "name", *classes, "decision", "novelty", "status"]


def row(id: str, answer: Answer) -> list[str]:
    """An answer as it stands in predictions.csv, under `columns`."""
    probabilities = [f"{probability:.6f}" for probability in answer.probabilities]
    novelty = "" if answer.novelty is None else f"{answer.novelty:.6f}"
    return [id, str(answer.label), answer.name, *probabilities, str(answer.decision), novelty, OK]


def unreadable_row(id: str, label: int, classes: Sequence[str]) -> list[str]:
    """As `row`, of a picture that can't be read: it is for review. label: that it gets."""
    return [id, str(label), classes[label], *[""] * len(classes), str(Decision.REVIEW), "", UNREADABLE]
