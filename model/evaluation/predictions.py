"""What a model predicted for pictures whose labels are known."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfrecords.lettering import shorten

ID_COLUMNS = 32  # that a picture's id takes in a figure at most


@dataclass(frozen=True)
class Predictions:
    """ids; labels and folds int (N,); images uint8 (S, S, 1) of gray or (S, S, 3) of RGB each;
    probabilities float32 (N, classes); novelty float (N,), not a number where the model does not know it.
    """

    ids: Sequence[str]
    labels: np.ndarray
    folds: np.ndarray
    images: Sequence[np.ndarray]
    probabilities: np.ndarray
    novelty: np.ndarray

    def mistakes(self) -> list[int]:
        """Places of wrong answers, those that the model was surest of first."""
        wrong = np.flatnonzero(self.probabilities.argmax(axis=1) != self.labels)
        return sorted(wrong.tolist(), key=lambda place: (-self.probabilities[place].max(), self.ids[place]))

    def caption(self, place: int, names: Sequence[str]) -> str:
        """Three lines under a picture: its id, the true name, the answer with its probability.

        names: of the classes, as `tfrecords.lettering.names_in_figures` gives them.
        """
        said = int(self.probabilities[place].argmax())
        sure = self.probabilities[place].max()
        shown = shorten(self.ids[place], ID_COLUMNS)
        return f"{shown}\ntrue: {names[self.labels[place]]}\nsaid: {names[said]} ({sure:.2f})"
