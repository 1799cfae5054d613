"""Where the network looks: Grad-CAM sheets."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from model import figures
from model.card import read_card
from model.evaluation.predictions import Predictions
from model.inference.class_maps import heat_of, overlay
from model.network.files import load
from model.network.parts import head_of, last_maps
from tfrecords.lettering import CAPTION_COLUMNS, names_in_figures

CLASSES_SHOWN, MISTAKES_SHOWN = 30, 6


def draw_gradcam(model: Path, seen: Predictions, classes: Sequence[str], path: Path) -> None:
    """A typical picture of each class (the one its true class is surest of), then the worst mistakes.

    Each beside itself with a heat map of what spoke for the answer. model: folder of the networks that answered.
    """
    networks = {fold: load(model / f"{name}.keras") for name, fold in read_card(model).networks.items()}
    names, note = names_in_figures(classes, CAPTION_COLUMNS)
    present = np.unique(seen.labels).tolist()
    labels = _most_mistaken(seen, present)
    typical = [_surest(seen, label) for label in labels]
    pictures, captions = [], []
    for place in [*typical, *seen.mistakes()[:MISTAKES_SHOWN]]:
        heat = gradcam(networks[seen.folds[place]], seen.images[place], int(seen.probabilities[place].argmax()))
        pictures += [seen.images[place], overlay(seen.images[place], heat)]
        captions += [seen.caption(place, names), ""]
    title = "what spoke for the answer: one typical picture per class, then the worst mistakes"
    if len(labels) < len(present):
        title += f"\n{len(labels)} of {len(classes)} classes: those with the largest share of mistakes"
    figures.picture_sheet(pictures, captions, title, path, columns=6, note=note)


def _surest(seen: Predictions, label: int) -> int:
    """The place of the picture of a class for which its own probability is the highest."""
    places: list[int] = np.flatnonzero(seen.labels == label).tolist()
    return max(places, key=lambda place: (seen.probabilities[place, label], seen.ids[place]))


def _most_mistaken(seen: Predictions, labels: Sequence[int]) -> list[int]:
    """The labels, or as many of them as a sheet shows, those with the largest share of mistakes."""
    wrong = seen.probabilities.argmax(axis=1) != seen.labels
    share = {label: wrong[seen.labels == label].mean() for label in labels}
    return sorted(sorted(labels, key=lambda label: (-share[label], label))[:CLASSES_SHOWN])


def gradcam(network: keras.Model, image: np.ndarray, label: int) -> np.ndarray:
    """Evidence for a class over a picture, uint8 (S, S, C): float32 (S, S), 0..1, 0 where nothing spoke for it.

    Source: Selvaraju et al., Grad-CAM, ICCV 2017. Behind global average pooling and one dense layer the gradient
    is that layer's weights, so none has to be computed (Zhou et al., CAM, CVPR 2016: the same map). Behind flatten
    every place has weights of its own.
    """
    maps = last_maps(network, image[None])[0]
    weights = head_of(network).get_weights()[0][:, label]
    spoke = maps @ weights if len(weights) == maps.shape[-1] else (maps * weights.reshape(maps.shape)).sum(axis=-1)
    return heat_of(spoke, image.shape[0])
