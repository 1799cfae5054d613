"""How MLflow loads a logged model: plain files and the code that came with them, no pickled objects."""

import base64
import json
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from model.inference.classifier import Classifier, open_classifier
from tfrecords.pictures.errors import PictureError


class UnreadablePicture(MlflowException, PictureError):
    """Refuses a request. MLflow's server answers with HTTP 400 and the message alone."""

    def __init__(self, message: str):
        super().__init__(message, error_code=BAD_REQUEST)
        self.refusal = message

    def serialize_as_json(self) -> str:
        """The body of the answer. Without this the server would put the whole request in front of the message."""
        return json.dumps({"error_code": self.error_code, "message": self.refusal}, ensure_ascii=False)


class PictureModel:
    """MLflow's view of a classifier: a column of picture files in, a row of answers per picture out."""

    def __init__(self, classifier: Classifier):
        self.classifier = classifier

    def predict(self, pictures: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Classifies pictures.

        Args:
            pictures: one column of picture files, each as bytes or as base64 text (str, or bytes in ASCII). MLflow's
                server decodes the text in `dataframe_split` and `dataframe_records`, but not in `inputs` and
                `instances`.
            params: not used; part of MLflow's interface.

        Returns: a row per picture: label, name, one probability per class, and novelty where the model knows it.

        Raises:
            UnreadablePicture: names the first picture (by its position, from 0) that can't be read.
        """
        try:
            files = [_file(value, position) for position, value in enumerate(pictures.iloc[:, 0])]
            return self.classifier.classify(files)
        except PictureError as error:
            raise UnreadablePicture(str(error)) from None


def _file(value: Any, position: int) -> bytes:
    """The bytes of a picture file. Raises: PictureError."""
    data = value.encode(errors="replace") if isinstance(value, str) else value
    if not isinstance(data, bytes):
        raise PictureError(f"picture {position}: neither bytes nor base64 text")
    if not data.isascii() or b"\0" in data:  # as in every picture file; MLflow hands text on as bytes too
        return data
    try:
        return base64.b64decode(b"".join(data.split()), validate=True)
    except ValueError:
        raise PictureError(f"picture {position}: neither a picture file nor base64 text") from None


def _load_pyfunc(data_path: str) -> PictureModel:
    return PictureModel(open_classifier(Path(data_path)))
