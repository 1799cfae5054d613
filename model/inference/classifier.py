"""A trained model in use: picture files or record pixels in, classes and probabilities out."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from model.card import read_card
from model.decisions.novelty import Novelty, open_novelty
from model.inference.formats import Network, Outputs, open_exported
from model.settings import Mirror
from tfrecords.pictures.errors import PictureError
from tfrecords.pictures.formats import decode
from tfrecords.pictures.light import light
from tfrecords.pictures.preprocessing import finish, prepare
from tfrecords.settings import Color, PreprocessSettings

if TYPE_CHECKING:
    import pandas as pd  # half a second, which who asks for one answer does without

TEST_SHIFT = 0.025  # of the picture's size: half of what training shifts by


@dataclass(frozen=True)
class Classifier:
    """One network, or an ensemble of them, with what belongs to it. folds: what each did not train on; novelty: what
    they are used to, None in models of earlier versions.
    """

    networks: tuple[Network, ...]
    folds: tuple[int, ...]
    classes: tuple[str, ...]
    preprocess: PreprocessSettings
    novelty: Novelty | None = None

    def look(self, images: np.ndarray, *, evidence: bool = False) -> list[Outputs]:
        """uint8 (N, S, S, C), 0..255, to what one pass of each network gives; evidence: whether class maps too."""
        return [network.look(images, evidence=evidence) for network in self.networks]

    def novelty_of(self, looks: Sequence[Outputs]) -> np.ndarray:
        """Novelty of N pictures from `look`: float (N,), not a number where the model does not know it."""
        return self.novelty.of(looks) if self.novelty else np.full(len(looks[0].probabilities), np.nan)

    def each(self, images: np.ndarray) -> np.ndarray:
        """uint8 (N, S, S, C), 0..255, to float32 (networks, N, classes): what every network answers."""
        return np.stack([outputs.probabilities for outputs in self.look(images)])

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """uint8 (N, S, S, C), 0..255, to float32 (N, classes): the mean over the networks."""
        return self.each(images).mean(axis=0)

    def unseen(self, images: np.ndarray, fold: int) -> Outputs:
        """uint8 (N, S, S, C), pictures of a fold, to what the network gives of them that did not train on it."""
        return self.networks[self.folds.index(fold)].look(images)

    def novelty_unseen(self, seen: Outputs, fold: int) -> np.ndarray:
        """Novelty of N pictures of a fold from `unseen`, as that network alone sees it: float (N,), as `novelty_of`."""
        if not self.novelty:
            return np.full(len(seen.probabilities), np.nan)
        return Novelty((self.novelty.detectors[self.folds.index(fold)],)).of([seen])

    def unknown_unseen(self, novelty: np.ndarray, folds: np.ndarray, max_false_unknown: float) -> np.ndarray:
        """Which of N pictures, of folds int (N,), are unknown by their `novelty_unseen`: bool (N,)."""
        found = np.zeros(len(novelty), dtype=bool)
        for fold, detector in zip(self.folds, self.novelty.detectors if self.novelty else (), strict=False):
            own = folds == fold
            found[own] = Novelty((detector,)).unknown(novelty[own], max_false_unknown)
        return found

    def read(self, data: bytes) -> tuple[np.ndarray, dict[str, float]]:
        """A picture file to what the networks see of it, uint8 (S, S, C), and what drift needs of it, by feature.

        Raises: PictureError where it can't be used.
        """
        pixels = decode(data, self.preprocess)
        seen = light(pixels)
        measures = {"brightness": seen.mean, "contrast": seen.deviation}
        if self.preprocess.color == Color.RGB:
            measures |= {"red": seen.red, "blue": seen.blue}
        return finish(pixels, self.preprocess).reshape(self.preprocess.shape), measures

    def classify(self, pictures: Sequence[bytes]) -> "pd.DataFrame":
        """Files as an inspection machine writes them, with the very preprocessing of ingest.

        Args:
            pictures: files' bytes.

        Returns: a row per picture: label (int), name, one probability per class under the class's name, and novelty
        where the model knows it.

        Raises:
            PictureError: names the first picture (by its place) that can't be used.
        """
        prepared = []
        for place, data in enumerate(pictures):
            try:
                prepared.append(prepare(data, self.preprocess))
            except PictureError as error:
                raise PictureError(f"picture {place}: {error}", error.remedy) from None
        images = np.reshape(prepared, (-1, *self.preprocess.shape)).astype(np.uint8)
        looks = self.look(images)
        table = prediction_table(np.mean([seen.probabilities for seen in looks], axis=0), self.classes)
        return table.assign(novelty=self.novelty.of(looks)) if self.novelty else table


def shifted(images: np.ndarray, copies: int) -> list[np.ndarray]:
    """The pictures, uint8 (N, S, S, C), then `copies` (0 to 4) of all of them, each moved along another diagonal."""
    size = images.shape[1]
    most = max(1, round(TEST_SHIFT * size))
    corners = [(0, 0), (2 * most, 2 * most), (0, 2 * most), (2 * most, 0)][:copies]
    padded = np.pad(images, ((0, 0), (most, most), (most, most), (0, 0)), mode="reflect") if corners else images
    return [images, *(padded[:, row : row + size, column : column + size] for row, column in corners)]


def mirrored(network: Network, mirrors: Collection[str]) -> Network:
    """The network that answers with the mean over a picture and its mirror images; all else is the picture's own.

    mirrors: "horizontal", "vertical", or both, which are three images; none: the network as it is.
    """
    axes = [1 + Mirror(each).axis for each in mirrors]  # the first is that of the pictures
    turns = [turn for count in range(1, len(axes) + 1) for turn in combinations(axes, count)]
    if not turns:
        return network

    def run(images: np.ndarray, evidence: bool) -> Outputs:
        seen = network.run(np.concatenate([images, *(np.flip(images, turn) for turn in turns)]), evidence)
        own = slice(len(images))
        answers = seen.probabilities.reshape(1 + len(turns), len(images), seen.probabilities.shape[1])
        spoke = None if seen.evidence is None else seen.evidence[own]
        return Outputs(answers.mean(axis=0), seen.features[own], seen.texture[own], spoke)

    return Network(run)


def prediction_table(probabilities: np.ndarray, classes: Sequence[str]) -> "pd.DataFrame":
    """float32 (N, classes) to a table: label, name, and one probability per class under the class's name."""
    import pandas as pd

    labels = probabilities.argmax(axis=1) if len(probabilities) else np.zeros(0, int)
    table = pd.DataFrame({"label": labels, "name": [classes[label] for label in labels]})
    return pd.concat([table, pd.DataFrame(probabilities, columns=list(classes))], axis=1)


def open_classifier(folder: Path, *, keras: bool = False) -> Classifier:
    """The classifier in the folder of a model or of an export.

    keras: the networks as they were trained, which exports are measured against, in place of those that were exported.

    Raises: AoiError where a network can't be loaded.
    """
    card, open_one = read_card(folder), _open_keras if keras else open_exported
    return Classifier(
        networks=tuple(mirrored(open_one(folder, name), card.mirrors.get(name, ())) for name in card.networks),
        folds=tuple(card.networks.values()),
        classes=tuple(card.classes),
        preprocess=card.preprocess,
        novelty=open_novelty(folder, card.networks),
    )


def _open_keras(folder: Path, name: str) -> Network:
    from model.inference.keras_runtime import compiled  # TensorFlow, which the other runtimes do without
    from model.network.files import load

    return compiled(load(folder / f"{name}.keras"))
