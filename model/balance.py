"""What a picture of a rare class counts: in training, and in choosing the best epoch."""

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.metrics import log_loss, recall_score

POWERS = {"none": 0.0, "sqrt": 0.5, "balanced": 1.0}


def class_weights(counts: Sequence[int], rule: str) -> list[float]:
    """Weight of a picture of each class, from the classes' counts; over all pictures the mean is 1.

    none: all alike. balanced: a class weighs the same whatever its count (King and Zeng, Political Analysis,
    2001, as scikit-learn has it). sqrt: halfway, the square root of that: enough for rare defects to be learned,
    not so much that five pictures drown in their own noise.
    """
    raw = [(sum(counts) / (len(counts) * count)) ** POWERS[rule] if count else 0.0 for count in counts]
    mean = sum(weight * count for weight, count in zip(raw, counts, strict=True)) / max(1, sum(counts))
    return [weight / mean for weight in raw]


def scores(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """accuracy, balanced_accuracy (mean recall of the classes present) and loss (cross entropy, in nats).

    probabilities: float32 (N, classes); labels: int (N,).
    """
    predicted = probabilities.argmax(axis=1)
    recall = recall_score(labels, predicted, labels=np.unique(labels), average="macro")
    return {
        "accuracy": float(np.mean(predicted == labels)),
        "balanced_accuracy": float(recall),
        "loss": float(log_loss(labels, probabilities.astype(np.float64), labels=range(probabilities.shape[1]))),
    }


def best_epoch(history: Sequence[Mapping[str, float]]) -> int:
    """The epoch, from 1, of the highest balanced accuracy in validation; of several the one of the lowest loss.

    Not of the highest accuracy: where defects are rare, that is an epoch that overlooks them.
    """
    best = max(history, key=lambda row: (row["val_balanced_accuracy"], -row["val_loss"]))
    return int(best["epoch"])
