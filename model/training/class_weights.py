"""Class weights: how much a picture of each class counts in training."""

from collections.abc import Sequence

from model.settings import ClassWeights

POWERS = {ClassWeights.NONE: 0.0, ClassWeights.SQRT: 0.5, ClassWeights.BALANCED: 1.0}


def class_weights(counts: Sequence[int], rule: ClassWeights) -> list[float]:
    """Weight of a picture of each class, from the classes' counts; over all pictures the mean is 1.

    none: all alike. balanced: a class weighs the same whatever its count (King and Zeng, Political Analysis,
    2001, as scikit-learn has it). sqrt: halfway, the square root of that: enough for rare defects to be learned,
    not so much that five pictures drown in their own noise.
    """
    raw = [(sum(counts) / (len(counts) * count)) ** POWERS[rule] if count else 0.0 for count in counts]
    mean = sum(weight * count for weight, count in zip(raw, counts, strict=True)) / max(1, sum(counts))
    return [weight / mean for weight in raw]
