"""Where the pictures of a split lie, and what says their labels."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from pipeline.inputs import files
from pipeline.inputs.files import READ_ERRORS, Listing, reason
from tfrecords.errors import refuse, sentence

Split = Literal["train", "test"]
SPLITS = ("train_images", "test_images", "train", "test")  # names that are never those of classes
MARKS = tuple(
    f"{split}{ending}" for split in ("train", "test") for ending in (".csv", "_images", "_images.zip", "", ".zip")
)
LIKE = "Put the pictures into train_images/, with train.csv beside it, or into a folder per class: train/CLASS/"


class Kind(StrEnum):
    """What tells the pictures of a split, and their labels."""

    CSV = "csv"  # a CSV names them
    CLASSES = "classes"  # a folder for each class
    PICTURES = "pictures"  # all that are there, without labels


@dataclass(frozen=True)
class Container:
    """A folder or zip of pictures. own: whether it holds those of one split alone; usual: whether it has their name."""

    path: str
    own: bool = True
    usual: bool = True


@dataclass(frozen=True)
class Layout:
    """How a split lies in a folder. table: the CSV, or the container where there is none.

    containers: where the pictures may lie, the usual place first; but: names in the container that are not the split's.
    """

    kind: Kind
    table: str
    containers: tuple[Container, ...]
    but: frozenset[str] = frozenset()


def find_layout(data: str, split: Split) -> Layout:
    """The layout of one split.

    A CSV counts first, then the split's own folder or zip, then what lies in `data` itself: folders of classes for
    "train", and for "test" all pictures, where nothing else there belongs to a training set.

    Raises: AoiError where there is none.
    """
    if files.is_zip(data):
        return Layout(Kind.CLASSES if split == "train" else Kind.PICTURES, data, (Container(data),))
    if table := files.child(data, f"{split}.csv"):
        return Layout(Kind.CSV, table, tuple(_containers(data, split)))
    if split == "train":
        if own := files.child(data, "train", "train.zip"):
            return Layout(Kind.CLASSES, own, (Container(own),))
        if folders := class_folders(data):
            return Layout(Kind.CLASSES, data, (Container(data),), frozenset(_entries(data)) - set(folders))
        seen = "there is no such file"
        raise refuse(files.join(data, "train.csv"), seen, f"Put it there, with the columns ID,Label. {LIKE}")
    if own := files.child(data, "test_images", "test_images.zip", "test", "test.zip"):
        return Layout(Kind.PICTURES, own, (Container(own),))
    if files.child(data, *(mark for mark in MARKS if mark.startswith("train"))):
        seen = "neither test.csv nor pictures are there: no test_images/, test_images.zip, test/ or test.zip"
        raise refuse(data, seen, "Put the pictures without labels into one of these, or name the folder of a lot")
    return Layout(Kind.PICTURES, data, (Container(data),))


def inner_set(data: str, split: Split) -> str:
    """The folder of the set: `data`, or the one folder in it, as unpacking makes one around what it unpacks.

    Raises: AoiError where `data` is not there.
    """
    if not files.exists(data):
        raise refuse(data, "there is no such folder", "Name the folder that holds train.csv and the pictures")
    there = [name for name in _entries(data) if not files.is_hidden(name)]
    if len(there) != 1 or there[0].lower() in SPLITS:
        return data
    inside = files.join(data, there[0])
    is_set = bool(files.child(inside, *MARKS)) or (split == "train" and len(class_folders(inside)) > 1)
    return inner_set(inside, split) if is_set and os.path.isdir(inside) else data


def has_test(data: str) -> bool:
    """Whether a folder holds a test split beside its training split."""
    data = inner_set(data, "train")
    return not files.is_zip(data) and bool(files.child(data, *(mark for mark in MARKS if mark.startswith("test"))))


def class_folders(data: str) -> list[str]:
    """Names of the folders in `data` that may be classes: all but those of a split and those that no person made."""
    return [
        name
        for name in _entries(data)
        if name.lower() not in SPLITS and not files.is_hidden(name) and os.path.isdir(files.join(data, name))
    ]


def read_listing(layout: Layout, container: Container) -> Listing:
    """What the container holds of the split. Raises: AoiError where it can't be read, or holds no picture."""
    try:
        listing = files.list_pictures(container.path)
    except READ_ERRORS as error:
        remedy = files.remedy(error, "copy or download it again")
        raise refuse(container.path, f"it can't be read ({reason(error)})", sentence(remedy))
    if layout.but:
        pictures = tuple(each for each in listing.pictures if each.name.partition("/")[0] not in layout.but)
        listing = Listing(pictures, listing.encodings, listing.others)
    return listing


def inner_folder(names: Sequence[str], container: str, least: int = 0) -> str:
    """The one folder that all names lie in, with its slash: what a zip or its unpacking put around them. '' for none.

    least: folders that stay in every name. In a folder it counts only where it has the folder's own name.
    """
    stem = os.path.splitext(os.path.basename(container.rstrip("/")))[0].lower()
    prefix = ""
    while names:
        first = names[0][len(prefix) :].partition("/")
        if not first[1] or not all(name.startswith(f"{prefix}{first[0]}/") for name in names):
            break
        if not files.is_zip(container) and first[0].lower() != stem:
            break
        if any(name[len(prefix) + len(first[0]) + 1 :].count("/") < least for name in names):
            break
        prefix += f"{first[0]}/"
    return prefix


def _containers(data: str, split: Split) -> Iterator[Container]:
    """Where the pictures of a CSV may lie. Raises: AoiError where there is no place for them."""
    usual, archive = f"{split}_images", f"{split}_images.zip"
    found = []
    for name, own, known in (
        *((usual, True, True), (archive, True, True)),
        *((split, True, False), (f"{split}.zip", True, False)),
        *((name, False, False) for name in ("images", "images.zip", "pictures", "pictures.zip")),
    ):
        if path := files.child(data, name):
            found.append(Container(path, own, known))
    if not found and (_has_pictures(data) or class_folders(data)):
        found.append(Container(data, False, False))
    if not found:
        seen = f"neither this folder nor {archive} is there"
        raise refuse(files.join(data, usual), seen, "Put the pictures into one of the two")
    yield from found


def _has_pictures(data: str) -> bool:
    """Whether pictures lie directly in a folder."""
    return any(files.is_picture(name) and not files.is_hidden(name) for name in _entries(data))


def _entries(data: str) -> list[str]:
    """Names in a folder, sorted; of elsewhere and of what is no folder none."""
    return sorted(os.listdir(data)) if not files.is_remote(data) and os.path.isdir(data) else []
