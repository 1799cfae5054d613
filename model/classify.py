"""A trained model in use: PNG bytes or record pixels in, classes and probabilities out."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from model.network import load
from model.settings import CARD_FILE, MODEL_FILE
from tfrecords.picture import PictureError, prepare
from tfrecords.settings import PreprocessSettings


@dataclass(frozen=True)
class Classifier:
    """A network with what belongs to it."""

    network: keras.Model
    classes: tuple[str, ...]
    preprocess: PreprocessSettings

    def probabilities(self, images: np.ndarray, batch_size: int = 32) -> np.ndarray:
        """uint8 (N, S, S, 1), 0..255, to float32 (N, classes).

        A compiled call of the network; Keras' own predict() takes twice as long a picture on a CPU.
        """
        starts = range(0, len(images), batch_size)
        parts = [self._call(tf.constant(images[at : at + batch_size])).numpy() for at in starts]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.classes)), np.float32)

    @property
    def _call(self):
        # Kept on the network, so that the graph is traced once for each of them.
        if not hasattr(self.network, "_aoi_call"):
            spec = tf.TensorSpec([None, *self.network.input_shape[1:]], tf.uint8)
            self.network._aoi_call = tf.function(
                lambda images: self.network(images, training=False), input_signature=[spec]
            )
        return self.network._aoi_call

    def classify(self, pictures: Sequence[bytes]) -> pd.DataFrame:
        """Files as an inspection machine writes them, with the very preprocessing of ingest.

        Args:
            pictures: PNG files' bytes.

        Returns: a row a picture: label (int), name, and one probability a class under the class's name.

        Raises:
            PictureError: names the first picture (by its place) that is no usable PNG.
        """
        prepared = []
        for place, data in enumerate(pictures):
            try:
                prepared.append(prepare(data, self.preprocess))
            except PictureError as error:
                raise PictureError(f"picture {place}: {error}") from None
        size = self.preprocess.image_size_px
        return answers(self.probabilities(np.reshape(prepared, (-1, size, size, 1)).astype(np.uint8)), self.classes)


def answers(probabilities: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """float32 (N, classes) to a table: label, name, and one probability a class under the class's name."""
    labels = probabilities.argmax(axis=1) if len(probabilities) else np.zeros(0, int)
    table = pd.DataFrame({"label": labels, "name": [classes[label] for label in labels]})
    return pd.concat([table, pd.DataFrame(probabilities, columns=list(classes))], axis=1)


def write_card(folder: Path, classes: Sequence[str], preprocess: PreprocessSettings) -> None:
    """Puts class names and preprocessing beside the network."""
    card = {"classes": list(classes), "preprocess": preprocess.model_dump()}
    (folder / CARD_FILE).write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def open_classifier(folder: Path) -> Classifier:
    """The classifier that a training wrote. Raises: AoiError where the network can't be loaded."""
    card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    return Classifier(load(folder / MODEL_FILE), tuple(card["classes"]), PreprocessSettings(**card["preprocess"]))
