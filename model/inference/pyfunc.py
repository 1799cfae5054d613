"""How MLflow loads a logged model: plain files and this package, no pickled code."""

from pathlib import Path
from typing import Any

import pandas as pd

from model.inference.classifier import Classifier, open_classifier


class PngModel:
    """MLflow's view of a classifier: a column (or list) of PNG bytes in, a row of answers each out."""

    def __init__(self, classifier: Classifier):
        self.classifier = classifier

    def predict(self, pictures: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """pictures: one column, PNG bytes. Returns: label, name, and a probability a class."""
        return self.classifier.classify(pictures.iloc[:, 0].tolist())


def _load_pyfunc(data_path: str) -> PngModel:
    return PngModel(open_classifier(Path(data_path)))
