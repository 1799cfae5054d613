"""Which epoch of a training is kept: validation metrics, and the choice by them.

Half of the validation pictures choose (see `model.decisions.halves`).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.metrics import log_loss, recall_score

from model.decisions.operating import calibrate, fit_temperature


def scores(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """accuracy, balanced_accuracy (mean recall of the classes present), its standard error balanced_error, loss (cross
    entropy, in nats), and calibrated_loss (the same at the temperature where it is least, see `fit_temperature`).

    probabilities: float32 (N, classes); labels: int (N,).
    """
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)  # float32 sums to one only nearly, which scikit-learn warns of
    calibrated = calibrate(exact, fit_temperature(exact, labels))
    every = range(probabilities.shape[1])
    predicted = probabilities.argmax(axis=1)
    present, counts = np.unique(labels, return_counts=True)
    recall = recall_score(labels, predicted, labels=present, average=None)
    # One more right and one more wrong (Agresti and Coull, 1998): without mistakes there is an error still.
    assumed = (recall * counts + 1) / (counts + 2)
    return {
        "accuracy": float(np.mean(predicted == labels)),
        "balanced_accuracy": float(recall.mean()),
        "balanced_error": float(np.sqrt(np.sum(assumed * (1 - assumed) / counts)) / len(present)),
        "loss": float(log_loss(labels, exact, labels=every)),
        "calibrated_loss": float(log_loss(labels, calibrated, labels=every)),
    }


def best_epoch(history: Sequence[Mapping[str, float]]) -> int:
    """The epoch, from 1, of the lowest calibrated loss in validation among those whose balanced accuracy lies within
    one standard error of the highest (Breiman et al., Classification and Regression Trees, 1984, section 3.4.3).

    Not of the highest accuracy: where defects are rare, that is an epoch that overlooks them. And not of the highest
    balanced accuracy alone: on some hundred pictures one of them decides it, and it is often an early one. Calibrated,
    as decisions are: a network that trains for long gets too sure of itself, which the plain loss takes for worse.
    """
    highest = max(history, key=lambda row: row["val_balanced_accuracy"])
    enough = highest["val_balanced_accuracy"] - highest["val_balanced_error"]
    close = [row for row in history if row["val_balanced_accuracy"] >= enough]
    return int(min(close, key=lambda row: row["val_calibrated_loss"])["epoch"])
