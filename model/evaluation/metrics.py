"""Figures of merit."""

import numpy as np
from sklearn.metrics import f1_score, recall_score


def measure(labels: np.ndarray, predicted: np.ndarray, classes: int, normal: int | None) -> dict[str, float]:
    """Figures of merit, each 0..1, from int labels (N,) and predictions (N,).

    escape_rate: share of defects called normal; overkill_rate: share of normal parts called defective; both
    only where there is a normal class and parts to count. Macro F1 is the mean over all classes, balanced accuracy
    the mean recall of those that there are pictures of.
    """
    present = np.unique(labels)
    metrics = {
        "accuracy": float(np.mean(labels == predicted)),
        "balanced_accuracy": float(recall_score(labels, predicted, labels=present, average="macro")),
        "macro_f1": float(f1_score(labels, predicted, labels=range(classes), average="macro", zero_division=0)),
        "pictures": len(labels),
    }
    if normal is not None:
        good = labels == normal
        if (~good).any():
            metrics["escape_rate"] = float(np.mean(predicted[~good] == normal))
        if good.any():
            metrics["overkill_rate"] = float(np.mean(predicted[good] != normal))
    return metrics
