"""What an interrupted training goes on from: its state after each epoch, and the networks that may still be kept."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import keras

from model.network.files import save
from tfrecords.artifacts.files import write_whole

STATE = ".state.json"


@dataclass
class State:
    """A training between two epochs.

    run: its MLflow run, {experiment_id, run_id}; None before it has one. flips: how training pictures are mirrored;
    None before that was found. mirrors: how pictures are mirrored that answers are the mean over, known at the end.
    best: the epoch to keep, from 1; 0 before the first.

    Of each epoch: history: its number, from 1, under "epoch", and its metrics; halves: the same of validation alone, by
    the half that chooses and by the other; seconds: that it took.
    """

    run: dict[str, str] | None = None
    flips: Sequence[str] | None = None
    mirrors: Sequence[str] = ()
    best: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    halves: list[list[dict[str, float]]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def kept(self) -> dict[str, float]:
        """The history's row of the epoch to keep."""
        return self.history[self.best - 1]


def read_state(work: Path) -> State:
    """The state that an earlier try left in the folder `work`; that of a new training where it left none."""
    path = work / STATE
    return State(**json.loads(path.read_text())) if path.exists() else State()


def write_state(work: Path, state: State) -> None:
    """Notes the state in the folder `work`."""
    write_whole(work / STATE, json.dumps(vars(state)))


def checkpoint(work: Path, epoch: int) -> Path:
    """Where the network of an epoch, from 1, lies while it may be kept."""
    return work / f".epoch-{epoch:03d}.keras"


def finish_epoch(
    network: keras.Model,
    state: State,
    row: dict[str, float],
    seconds: float,
    work: Path,
    best: int,
    other: int,
) -> None:
    """Network first, then the state that names it; a kill between the two repeats the epoch.

    row: of the history. best: the epoch to keep; other: the one that the other half of validation would keep.
    """
    save(network, checkpoint(work, int(row["epoch"])))
    state.history.append(row)
    state.seconds.append(seconds)
    state.best = best
    write_state(work, state)
    kept = {checkpoint(work, each) for each in (len(state.history), best, other)}
    for old in work.glob(".epoch-*.keras"):
        if old not in kept:
            old.unlink()
