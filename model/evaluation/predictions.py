"""What a model predicted for pictures whose labels are known."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Predictions:
    """ids; labels and folds int (N,); images uint8 (S, S) each; probabilities float32 (N, classes)."""

    ids: Sequence[str]
    labels: np.ndarray
    folds: np.ndarray
    images: Sequence[np.ndarray]
    probabilities: np.ndarray

    def mistakes(self) -> list[int]:
        """Places of wrong answers, those that the model was surest of first."""
        wrong = np.flatnonzero(self.probabilities.argmax(axis=1) != self.labels)
        return sorted(wrong.tolist(), key=lambda place: (-self.probabilities[place].max(), self.ids[place]))

    def caption(self, place: int, classes: Sequence[str]) -> str:
        """Three lines under a picture: its id, the true name, the answer with its probability."""
        said = int(self.probabilities[place].argmax())
        sure = self.probabilities[place].max()
        return f"{self.ids[place]}\ntrue: {classes[self.labels[place]]}\nsaid: {classes[said]} ({sure:.2f})"
