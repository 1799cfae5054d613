"""What a network is used to, from the dataset that it was trained on; see `model.decisions.novelty`."""

from collections.abc import Mapping
from itertools import islice

import numpy as np

from model.decisions.halves import choosing
from model.decisions.novelty import Detector, learn
from model.inference.formats import Network, Outputs, joined
from tfrecords.dataset import Dataset
from tfrecords.records.arrays import BATCH, first_of_each, read_arrays

MOST_LEARNED = 1000  # pictures that tell what a network learned from, as many of every class where they are there


def detector_of(network: Network, kernel: np.ndarray, bias: np.ndarray, dataset: Dataset, fold: int) -> Detector:
    """The novelty detector of a network. kernel, bias: of its last layer; fold: that it did not train on.

    Of the fold, the half that chose the epoch sets the scales, and the other half calibrates.
    """
    seen, labels = learned(network, dataset, fold)
    held_out, chose = unseen({fold: network}, dataset)[fold]
    return learn(kernel, bias, seen, labels, held_out.at(chose), held_out.at(~chose))


def learned(network: Network, dataset: Dataset, fold: int) -> tuple[Outputs, np.ndarray]:
    """What a network gives of pictures that it trained on, the first of each class, and their labels int (N,)."""
    most = max(1, MOST_LEARNED // len(dataset.manifest.classes))
    chosen = first_of_each(dataset, fold, most)
    parts, labels = [], []
    while chunk := list(islice(chosen, BATCH)):
        images, named = zip(*chunk, strict=True)
        parts.append(network.look(np.stack(images)))
        labels += named
    return joined(parts), np.array(labels)


def unseen(networks: Mapping[int, Network], dataset: Dataset) -> dict[int, tuple[Outputs, np.ndarray]]:
    """What networks give of the pictures of the folds that they did not train on, in one pass over the shards.

    networks: by fold. Returns: by fold what its network gives, and whether each picture is of the half that chooses,
    bool (N,).
    """
    parts: dict[int, list[Outputs]] = {fold: [] for fold in networks}
    ids: dict[int, list[str]] = {fold: [] for fold in networks}
    for batch in read_arrays(dataset, networks):
        for fold in np.unique(batch["fold"]).tolist():
            own = batch["fold"] == fold
            parts[fold].append(networks[fold].look(batch["image"][own]))
            ids[fold] += batch["id"][own].tolist()
    return {fold: (joined(parts[fold]), choosing(dataset, ids[fold])) for fold in networks}
