"""The one place where pictures, and what tells their labels, become validated rows."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from pipeline.inputs import files
from pipeline.inputs.classes import (
    AIDEA_CLASSES,
    CLASSES,
    Classes,
    read_classes,
)
from pipeline.inputs.gather import Gathered, gather
from pipeline.inputs.layouts import (
    Kind,
    Layout,
    Split,
    find_labelled,
    find_layout,
    has_test,
    inner_set,
)
from pipeline.inputs.look import Look, fill, look_here
from pipeline.inputs.rows import Rows
from pipeline.inputs.telling import LISTED
from tfrecords.artifacts.files import hash_json_rows
from tfrecords.dataset import Lenience
from tfrecords.errors import AoiError, Problem, refuse
from tfrecords.progress import Progress, silent
from tfrecords.settings import LEAST_FOLDS


@dataclass(frozen=True)
class Inputs:
    """All that a split holds, checked.

    csv: what names the pictures: a CSV, or the container where there is none; container: folder or zip of the pictures;
    leniences: what of it was taken although it is not written as it should be.
    """

    split: Split
    csv: str
    container: str
    classes: tuple[str, ...]
    rows: Rows
    leniences: tuple[Lenience, ...] = ()

    @cached_property
    def digest(self) -> str:
        """Hash of what a dataset is made from: rows of the CSV in their order, picture contents, class names."""
        rows = (
            zip(part.ids, part.lines.tolist(), part.labels.tolist(), part.hexes(), strict=True)
            for part in self.rows.parts()
        )
        return hash_json_rows([self.split, self.classes], rows)


def read_inputs(
    data: str,
    split: Split,
    folds: int,
    progress: Progress = silent,
    classes: Sequence[str] | None = None,
    look: Look = look_here,
    labelled: bool = False,
) -> Inputs:
    """Reads and checks one split of a set of pictures, and hashes every picture.

    Args:
        data: folder or zip, in any layout of `pipeline.inputs.layouts`; classes.txt in it names the classes.
        folds: for "train": how many pictures each class must have at least.
        progress: counts the pictures hashed.
        look: what reads the pictures, here or elsewhere.
        classes: for "test": those of the model that is to answer; classes.txt may not name others.
        labelled: for "test": whether to read its labels too, or those of the training set where nothing else is there.

    Raises:
        AoiError: everything that is wrong with the folder, the CSV or its ids, told at once. A picture with
            damaged bytes is no error here: its row says so in `reject`.
    """
    found = _gathered(data, split, folds, classes, labelled)
    noted = fill(found.rows, look(found.rows, found.container, progress))
    return Inputs(split, found.csv, found.container, found.classes, found.rows, (*found.leniences, *noted))


def check_inputs(data: str, split: Split, folds: int) -> tuple[str, ...]:
    """All that `read_inputs` refuses, without opening a picture. Returns: the classes. Raises: AoiError."""
    return _gathered(data, split, folds, classes=None, labelled=False).classes


def _gathered(data: str, split: Split, folds: int, classes: Sequence[str] | None, labelled: bool) -> Gathered:
    """The pictures of a split, with all that can be wrong ahead of reading them refused; see `read_inputs`."""
    if split == "train":
        return _training_set(data, folds)
    return _labelled_lot(data, classes) if labelled else _lot(data, classes)


def _training_set(data: str, folds: int) -> Gathered:
    """Labelled pictures, of every class as many as there are folds or more."""
    found = _find(data, "train")
    gathered = found.gather(found.listed, labelled=True)
    if problems := _too_few(gathered, folds, listed=found.listed is not None):
        raise AoiError(problems)
    return gathered


def _lot(data: str, classes: Sequence[str] | None) -> Gathered:
    """Pictures without labels: those that are there are not read."""
    found = _find(data, "test")
    return found.gather(_classes_of_lot(found, classes), labelled=False)


def _labelled_lot(data: str, classes: Sequence[str] | None) -> Gathered:
    """A lot with its labels: of its test split, or of its training split where that is all there is."""
    found = _find(data, "test" if has_test(data) else "train", find_labelled)
    known = _classes_of_lot(found, classes)
    # Labels that are numbers count in the order of the lot's own classes.txt, where it has one.
    gathered = found.gather(found.listed or known, labelled=True)
    order = np.array([known.names.index(name) for name in gathered.classes])
    rows = replace(gathered.rows, labels=order[gathered.rows.labels])
    return gathered._replace(classes=known.names, rows=rows)


class _Found(NamedTuple):
    """Where a split lies. data: the folder or zip of its set; listed: the classes of its classes.txt, where it has one;
    leniences: what was taken of where it lies although it should lie elsewhere.
    """

    data: str
    split: Split
    layout: Layout
    listed: Classes | None
    leniences: tuple[Lenience, ...]

    def gather(self, known: Classes | None, labelled: bool) -> Gathered:
        """As `gather`, with the leniences of both."""
        gathered = gather(self.layout, self.split, known, labelled)
        return gathered._replace(leniences=(*self.leniences, *gathered.leniences))


def _find(given: str, split: Split, find: Callable[[str, Split], Layout] = find_layout) -> _Found:
    """The split of the set in the folder or zip that a person named. Raises: AoiError."""
    data = inner_set(given, split)
    layout = find(data, split)
    inside = (each.path for each in layout.containers if layout.kind == Kind.CLASSES)
    return _Found(data, split, layout, read_classes(data, *inside, given), tuple(_around(given, data, layout)))


def _around(given: str, data: str, layout: Layout) -> Iterator[Lenience]:
    """What is taken leniently of where the set and its CSV lie. given: what a person named; data: the set in it."""
    if data != given:
        yield Lenience(kind="a folder around the set", count=1, example=os.path.basename(data))
    own = layout.kind != Kind.CSV or files.is_remote(data) or os.path.samefile(os.path.dirname(layout.csv), data)
    if not own:
        yield Lenience(kind="a CSV in the folder of the pictures", count=1, example=os.path.relpath(layout.csv, data))


def _classes_of_lot(found: _Found, classes: Sequence[str] | None) -> Classes:
    """The classes of a lot: those that are given count, and classes.txt may not name others. Raises: AoiError."""
    if classes is None:
        return found.listed or Classes(AIDEA_CLASSES)
    if found.listed and set(found.listed.names) != set(classes):
        seen = f"its classes are {', '.join(found.listed.names)}; the model's are {', '.join(classes)}"
        remedy = f"Name a model that was trained on these classes; a lot that is the model's needs no {CLASSES}"
        raise refuse(files.join(found.data, CLASSES), seen, remedy)
    return Classes(tuple(classes), listed=False)


def _too_few(found: Gathered, folds: int, listed: bool) -> list[Problem]:
    """Problems of classes with fewer pictures than folds. listed: whether classes.txt names the classes."""
    counts = Counter(found.rows.labels.tolist())
    problems = []
    for label, name in enumerate(found.classes):
        if not counts[label]:
            remedy = f"Add pictures of it, or take its line out of {CLASSES} and number the labels anew"
            problems.append(Problem(found.csv, f"no picture of class {label} ({name})", remedy))
        elif counts[label] < folds:
            seen = f"{counts[label]} picture(s) of class {label} ({name}), fewer than the {folds} folds"
            remedy = f"Add pictures of it: every class needs one per fold, {LEAST_FOLDS} or more"
            if counts[label] >= LEAST_FOLDS:
                remedy = f"Add pictures of it, or set ingest.folds to {counts[label]} or less"
            if not listed:
                remedy += f"; if it should be no class, correct the labels, or write {CLASSES}"
            problems.append(Problem(found.csv, seen, remedy))
    smallest = min(counts.values())
    if len(problems) > 1 and len(counts) == len(found.classes) and smallest >= LEAST_FOLDS:
        label = min(range(len(found.classes)), key=lambda each: counts[each])
        seen = f"{len(problems):,} classes have fewer pictures than the {folds} folds; the smallest, {label} "
        seen += f"({found.classes[label]}), has {smallest}"
        return [Problem(found.csv, seen, f"Set ingest.folds to {smallest} or less, or add pictures")]
    if len(problems) > LISTED:
        seen = f"{len(problems):,} of {len(found.classes):,} classes have fewer pictures than the {folds} folds"
        return [Problem(found.csv, f"{seen}: {problems[0].seen}", "See whether the labels are the classes")]
    return problems
