"""What spoke for the answers about a lot: heat maps of the parts that the networks are least sure of."""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from model.inference.class_maps import heat_map
from model.inference.classifier import open_classifier
from model.manifests import Export, Model, Prediction
from model.settings import Runtime
from tfrecords.artifacts.artifact import verify
from tfrecords.artifacts.files import appearing_folder
from tfrecords.dataset import Dataset
from tfrecords.pictures.formats import SUFFIXES
from tfrecords.progress import Progress
from tfrecords.records.arrays import read_arrays

EXPLANATIONS, INDEX = "explanations", "index.csv"
LONGEST = 60  # letters of an ID in a file's name


def explain_lot(
    prediction: Prediction, answering: Model | Export, lot: Dataset, count: int, again: bool, progress: Progress
) -> None:
    """Puts `explanations/` into the prediction's folder: a picture of each of the `count` parts that it is least sure
    of, and index.csv (file, ID, label, name, confidence), the least sure first. All of it at once, or nothing.

    A picture is what the networks see, under the heat of what spoke for the label that was given, PNG; of several
    networks their mean. Parts that can't be read have none.

    answering: whose networks answered, which have class maps (see `check_explainable`); lot: that was predicted; again:
    even where the same is there.
    """
    folder = prediction.path / EXPLANATIONS
    index = _least_sure(prediction, lot.manifest.classes, count)
    text = index.to_csv(index=False, float_format="%.6f").encode()
    there = all((folder / file).exists() for file in (INDEX, *index["file"]))
    if there and not again and (folder / INDEX).read_bytes() == text:
        return
    verify(answering)
    verify(lot)
    files = dict(zip(index["ID"], index["file"], strict=True))
    labels = dict(zip(index["ID"], index["label"], strict=True))
    keras = prediction.manifest.settings.runtime == Runtime.KERAS
    with appearing_folder(folder) as work:
        _draw(answering.path, keras, lot, {name: (work / file, labels[name]) for name, file in files.items()}, progress)
        (work / INDEX).write_bytes(text)


def _least_sure(prediction: Prediction, classes: Sequence[str], count: int) -> pd.DataFrame:
    """The rows of index.csv."""
    types = {"ID": str, "name": str, "status": str}
    table = pd.read_csv(prediction.path / "predictions.csv", dtype=types, keep_default_na=False, na_values={})
    table = table[table["status"] == "ok"]
    table = table.assign(confidence=table[list(classes)].astype(float).max(axis=1))
    table = table.sort_values(["confidence", "ID"])[:count]
    digits = max(3, len(str(len(table))))
    files = [f"{place:0{digits}}{_legible(name)}.png" for place, name in enumerate(table["ID"], start=1)]
    return table.assign(file=files)[["file", "ID", "label", "name", "confidence"]]


def _legible(name: str) -> str:
    """What every file system takes of an ID, behind a dash: its end, without the ending of a picture's file."""
    ending = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")
    plain = re.sub(r"[^A-Za-z0-9_]+", "-", name[: len(name) - len(ending)]).strip("-")
    return f"-{plain[-LONGEST:]}" if plain else ""


def _draw(
    answering: Path, keras: bool, lot: Dataset, wanted: Mapping[str, tuple[Path, int]], progress: Progress
) -> None:
    """wanted: of an ID, where its picture comes, and the label that is explained."""
    if not wanted:
        return
    classifier, done = open_classifier(answering, keras=keras), 0
    progress(0, len(wanted), "heat maps")

    def draw(name: str, image: np.ndarray, evidence: np.ndarray) -> None:
        wanted[name][0].write_bytes(heat_map(image, evidence))

    with ThreadPoolExecutor() as pool:
        for batch in read_arrays(lot):
            names = batch["id"].tolist()
            places = [place for place, name in enumerate(names) if name in wanted]
            if not places:
                continue
            images = batch["image"][places]
            looks = classifier.look(images, evidence=True)
            mean = np.mean([seen.evidence for seen in looks if seen.evidence is not None], axis=0)
            chosen = [names[place] for place in places]
            evidence = [maps[..., wanted[name][1]] for name, maps in zip(chosen, mean, strict=True)]
            list(pool.map(draw, chosen, images, evidence))
            done += len(chosen)
            progress(done, len(wanted), "heat maps")
