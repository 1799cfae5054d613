"""How long a training takes, and how fast it learns at each step. Free of TensorFlow: fingerprints need it."""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

from model.settings import MirrorCopies, TrainSettings

EPOCHS, STEPS = 5, 350  # of the first round at least: what NEU's 1,440 pictures take at batch 16
LONG_EPOCHS, LONG_STEPS = 18, 1200  # of both rounds together
MOST_STEPS = 1800  # at 16 pictures of 224 px: under twenty minutes on two cores
ENOUGH = 0.993  # balanced accuracy in validation: one mistake in 150 pictures of six classes


def with_budget(settings: TrainSettings, pictures: int, size_px: int) -> TrainSettings:
    """The same with `budget_steps` set, where neither it nor the epochs are.

    It depends on the number of training pictures and their size alone, never on a clock: the same everywhere.
    """
    if settings.epochs or settings.budget_steps:
        return settings
    per_epoch = math.ceil(pictures / settings.batch_size)
    affordable = int(MOST_STEPS * 16 / settings.batch_size * (224 / size_px) ** 2)
    long = min(max(LONG_EPOCHS * per_epoch, LONG_STEPS), affordable)
    return settings.model_copy(update={"budget_steps": max(long, _first(per_epoch) * per_epoch)})


def rounds(settings: TrainSettings, per_epoch: int) -> tuple[int, ...]:
    """Epochs of each round: the one that the settings name; or a short one, and a long one for sets that need it.

    Many sets are learned in the first round. What is left of the budget makes the second, which is left out where it
    would be the shorter one. settings: with `epochs` or `budget_steps`; per_epoch: steps.
    """
    if settings.epochs:
        return (settings.epochs,)
    budget = max(1, (settings.budget_steps or 0) // per_epoch)
    first = min(_first(per_epoch), budget)
    return (first, budget - first) if budget >= 2 * first else (first,)


def _first(per_epoch: int) -> int:
    return max(EPOCHS, math.ceil(STEPS / per_epoch))


def length_of(settings: TrainSettings) -> str:
    """'5ep', or 'auto' where training finds its own length; for names."""
    return f"{settings.epochs}ep" if settings.epochs else "auto"


def learning_rate(step: int, highest: float, lengths: Sequence[int], warmup: int) -> float:
    """The rate at a step: in each round it rises for `warmup` steps, then falls to zero as a cosine.

    Source of the rounds: warm restarts, Loshchilov and Hutter, SGDR, ICLR 2017. lengths: of the rounds, in steps.
    """
    for length in lengths:
        if step < length:
            break
        step -= length
    warmup = min(warmup, length - 1)
    if step < warmup:
        return highest * step / warmup
    return highest * (1 + math.cos(math.pi * (step - warmup) / (length - warmup))) / 2


def may_be_kept(
    history: Sequence[Mapping[str, float]], settings: TrainSettings, made: Sequence[int]
) -> Sequence[Mapping[str, float]]:
    """The epochs among which the one to keep is chosen, as rows of the history. made: epochs of the rounds.

    Of a training that finds its own length, the last of each round: before it the rate is high, and an epoch that does
    well in validation then does so by chance. Within the first round, and where the number of epochs is set: all.
    """
    ends = set(accumulate(made))
    return [row for row in history if not settings.epochs and row["epoch"] in ends] or history


def has_ended(history: Sequence[Mapping[str, float]], best: int, settings: TrainSettings, made: Sequence[int]) -> bool:
    """Whether training ends before its last epoch.

    history: per epoch what the half of validation says that chooses; best: the best epoch, from 1, or 0; made: epochs
    of the rounds.

    With a number of epochs: when none was better for `patience` of them. Without: after a round in which an epoch
    named nearly all pictures of validation right.
    """
    if settings.epochs:
        return len(history) - best >= settings.patience
    return len(history) in made[:-1] and history[best - 1]["val_balanced_accuracy"] >= ENOUGH


def copies_of(flips: Sequence[str], settings: TrainSettings, epochs: int, made: Sequence[int]) -> Sequence[str]:
    """How the pictures are mirrored that the model's answers are the mean over.

    flips: that do no harm; epochs: that were trained; made: epochs of the rounds.
    """
    wanted = {MirrorCopies.ALWAYS: True, MirrorCopies.NEVER: False, MirrorCopies.AUTO: epochs > made[0]}
    return flips if wanted[settings.mirror_copies] else []
