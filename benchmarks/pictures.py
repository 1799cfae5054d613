"""Sample pictures for the sections: drawn once, repeated under new names where many are wanted."""

import csv
import os
import shutil
from pathlib import Path

from pipeline.sample import write_sample
from tfrecords.settings import PreprocessSettings


def draw(work: Path, count: int) -> Path:
    """`count` labelled sample pictures, drawn once a work folder, to be handed to `repeat`. Returns their folder."""
    folder = work / f"drawn-{count}"
    if not folder.exists():
        write_sample(folder, count, 0)
    return folder


def saved_as(drawn: Path, folder: Path, suffix: str) -> Path:
    """The same set with its pictures in another format, ".jpg" say. Their names stay: a file is told by its content.

    TIFFs are not compressed, as cameras write them.
    """
    import cv2

    from tfrecords.pictures.formats import decode

    if not folder.exists():
        aside = folder.with_name(f".{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(drawn, aside)
        options = [cv2.IMWRITE_TIFF_COMPRESSION, cv2.IMWRITE_TIFF_COMPRESSION_NONE] if suffix == ".tiff" else []
        for path in (aside / "train_images").iterdir():
            pixels = decode(path.read_bytes(), PreprocessSettings())
            path.write_bytes(cv2.imencode(suffix, pixels, options)[1].tobytes())
        os.rename(aside, folder)
    return folder


def repeat(drawn: Path, work: Path, train: int, test: int = 0) -> Path:
    """A set of any size from drawn pictures: hard links, so that it costs names alone.

    The copies are byte-identical: they share folds, and the audit finds them all. Returns: its folder.
    """
    folder = work / f"repeated-{train}-{test}"
    if folder.exists():
        return folder
    aside = work / f".{folder.name}"
    shutil.rmtree(aside, ignore_errors=True)
    with open(drawn / "train.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for split, count in (("train", train), ("test", test)):
        if not count:
            continue
        (aside / f"{split}_images").mkdir(parents=True)
        lines = []
        for index in range(count):
            one = rows[index % len(rows)]
            name = f"{split}_{index:05d}.png"
            os.link(drawn / "train_images" / one["ID"], aside / f"{split}_images" / name)
            lines.append((name, one["Label"] if split == "train" else ""))
        with open(aside / f"{split}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("ID", "Label"), *lines])
    os.rename(aside, folder)
    return folder


def by_class(data: Path, folder: Path) -> Path:
    """The training pictures of a set as image_dataset_from_directory wants them: a folder a class; hard links."""
    if not folder.exists():
        with open(data / "train.csv", newline="", encoding="utf-8") as file:
            for one in csv.DictReader(file):
                place = folder / one["Label"]
                place.mkdir(parents=True, exist_ok=True)
                os.link(data / "train_images" / one["ID"], place / one["ID"])
    return folder
