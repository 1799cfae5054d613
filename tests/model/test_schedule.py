"""How long a training takes: by its settings and the number of pictures, never by a clock."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.settings import TrainSettings
from model.training.schedule import has_ended, learning_rate, may_be_kept, rounds, with_budget


def planned(pictures, size_px=224, **given):
    """Epochs of the rounds for so many training pictures, and steps per epoch."""
    settings = with_budget(TrainSettings(**given), pictures, size_px)
    steps = -(-pictures // settings.batch_size)
    return rounds(settings, steps), steps


def test_epochs_that_are_set_are_one_round():
    assert planned(1152, epochs=5)[0] == (5,)
    assert planned(1, epochs=2)[0] == (2,)


PLANS = {  # training pictures -> epochs of the rounds
    "NEU: 72 steps per epoch": (1152, (5, 13)),
    "a small set, which needs its steps too": (160, (35, 85)),
    "one picture": (1, (350, 850)),
    "2,000 pictures, twenty minutes of two cores": (1600, (5, 13)),
    "so many that the first round takes all that time": (10_000, (5,)),
}


@pytest.mark.parametrize("case", PLANS)
def test_a_set_that_needs_it_gets_a_second_round(case):
    pictures, epochs = PLANS[case]
    assert planned(pictures)[0] == epochs


def test_large_pictures_get_fewer_steps_since_each_takes_longer():
    assert planned(1152, size_px=448)[0] == (5,)
    assert planned(1152, size_px=160)[0] == planned(1152)[0]


def test_a_budget_that_is_set_holds_for_both_rounds():
    assert planned(1152, budget_steps=2000)[0] == (5, 22)
    assert planned(1152, budget_steps=144)[0] == (2,)
    assert planned(1152, budget_steps=1)[0] == (1,)


@given(st.integers(1, 100_000), st.integers(32, 1024), st.integers(1, 512))
def test_any_plan_has_its_first_round_and_stays_within_twenty_minutes_or_that(pictures, size_px, batch_size):
    epochs, steps = planned(pictures, size_px, batch_size=batch_size)
    assert epochs[0] >= 5
    assert epochs[0] * steps >= 350
    assert list(epochs) == sorted(epochs)
    if len(epochs) > 1:
        assert sum(epochs) * steps * batch_size * size_px**2 <= 1800 * 16 * 224**2 + 1


@given(st.lists(st.integers(2, 300), min_size=1, max_size=3), st.integers(1, 50))
def test_in_each_round_the_rate_rises_once_and_falls_to_nearly_nothing(lengths, warmup):
    start = 0
    for length in lengths:
        rates = [learning_rate(start + step, 1.0, lengths, warmup) for step in range(length)]
        highest = rates.index(max(rates))
        assert rates[highest] == pytest.approx(1.0)
        assert highest == min(warmup, length - 1)
        assert all(before < after for before, after in pairwise(rates[: highest + 1]))
        assert all(before > after for before, after in pairwise(rates[highest:]))
        start += length


def history(*balanced):
    return [{"val_balanced_accuracy": value} for value in balanced]


ENDED = {  # (settings, balanced accuracy of each epoch, rounds) -> whether it ends there
    "nearly all right after the first round": ({}, (0.9, 0.996), (2, 4), True),
    "not after it": ({}, (0.9, 0.99), (2, 4), False),
    "nearly all right within the first round": ({}, (0.996,), (2, 4), False),
    "within the second round": ({}, (0.9, 0.99, 0.999), (2, 4), False),
    "before it began": ({}, (), (2, 4), False),
    "patience, where epochs are set": ({"epochs": 9, "patience": 2}, (0.99, 0.9, 0.9), (9,), True),
    "not yet": ({"epochs": 9, "patience": 2}, (0.99, 0.9), (9,), False),
}


@pytest.mark.parametrize("case", ENDED)
def test_training_ends_early_where_validation_says_so(case):
    given, values, made, ends = ENDED[case]
    best = 1 + max(range(len(values)), key=values.__getitem__) if values else 0
    assert has_ended(history(*values), best, TrainSettings(**given), made) is ends


KEPT = {  # (settings, epochs so far, rounds) -> the epochs among which one is kept
    "within the first round": ({}, 2, (3, 6), [1, 2]),
    "after it, and within the second": ({}, 5, (3, 6), [3]),
    "after the second": ({}, 9, (3, 6), [3, 9]),
    "a number of epochs that is set": ({"epochs": 3}, 3, (3,), [1, 2, 3]),
}


@pytest.mark.parametrize("case", KEPT)
def test_the_last_epoch_of_a_round_may_be_kept_since_the_rate_is_low_there(case):
    given, epochs, made, kept = KEPT[case]
    rows = [{"epoch": float(epoch)} for epoch in range(1, epochs + 1)]
    assert [row["epoch"] for row in may_be_kept(rows, TrainSettings(**given), made)] == kept
