"""Where the pictures of a split lie, and what says their labels."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal, NamedTuple

from pipeline.inputs import files
from pipeline.inputs.files import READ_ERRORS, reason
from pipeline.inputs.listing import Listing, holds_picture, is_made_here, list_pictures
from pipeline.inputs.names import is_hidden, is_picture
from pipeline.inputs.telling import EXAMPLES, counted
from tfrecords.errors import AoiError, refuse, sentence
from tfrecords.pictures.formats import SUFFIXES

Split = Literal["train", "test"]
# Names of a split's own folder or zip, which are never those of classes: train, Training, test_images, "test set".
OF_SPLIT: dict[Split, re.Pattern[str]] = {
    split: re.compile(rf"{split}(ing)?[ _-]?(set|data|images?|pictures?)?", re.IGNORECASE)
    for split in ("train", "test")
}
USUAL: dict[Split, tuple[str, ...]] = {  # names of a split's own folder or zip, the likeliest first
    "train": ("train", "train.zip", "train_images", "train_images.zip"),
    "test": ("test_images", "test_images.zip", "test", "test.zip"),
}
AROUND = ("images", "image", "imgs", "pictures", "photos", "data", "dataset")  # folders around those of the classes
ARCHIVES = (".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz")  # that are not read
TABLES = (".csv", ".tsv", ".txt", ".xlsx", ".xls", ".ods")  # files that may be meant to be the CSV
DEEPEST = 5  # folders around a set
MARKS = tuple(
    f"{split}{ending}" for split in ("train", "test") for ending in (".csv", "_images", "_images.zip", "", ".zip")
)
LIKE = "Put the pictures into train_images/, with train.csv beside it, or into a folder per class: train/CLASS/"


class Kind(StrEnum):
    """What tells the pictures of a split, and their labels."""

    CSV = "csv"  # a CSV names them
    CLASSES = "classes"  # a folder for each class
    PICTURES = "pictures"  # all that are there, without labels


class Container(NamedTuple):
    """A folder or zip of pictures. own: whether it holds those of one split alone; usual: whether it has their name."""

    path: str
    own: bool = True
    usual: bool = True


@dataclass(frozen=True)
class Layout:
    """How a split lies in a folder. csv: the CSV, or the container where there is none.

    containers: where the pictures may lie, the usual place first; but: names in the container that are not the split's.
    """

    kind: Kind
    csv: str
    containers: tuple[Container, ...]
    but: frozenset[str] = frozenset()


def find_layout(data: str, split: Split) -> Layout:
    """The layout of one split.

    A CSV counts first, then the split's own folder or zip, then what lies in `data` itself: folders of classes for
    "train", and for "test" all pictures, where nothing else there belongs to a training set.

    Raises: AoiError where there is none.
    """
    found = _layout(data, split)
    if found is None and split == "train":
        raise _no_table(data)
    if found is None:
        seen = "neither test.csv nor pictures are there: no test_images/, test_images.zip, test/ or test.zip"
        raise refuse(data, seen, "Put the pictures without labels into one of these, or name the folder of a lot")
    return found


def find_labelled(data: str, split: Split) -> Layout:
    """As `find_layout`, of a lot whose labels are to be read: they are told by a CSV, or by a folder for each class.

    Raises: AoiError where nothing tells them.
    """
    found = _layout(data, split)
    if found is None:
        seen = "nothing tells the labels: there is no test.csv, and no folder per class"
        raise refuse(data, seen, "Write test.csv with the columns ID,Label, or put the pictures into test/CLASS/")
    return replace(found, kind=Kind.CLASSES) if found.kind == Kind.PICTURES else found


def _layout(data: str, split: Split) -> Layout | None:
    """The layout of one split; None where nothing tells its pictures, or those of a training set their labels.

    Raises: AoiError where a CSV names pictures, and there is no place for them.
    """
    if files.is_zip(data):
        return Layout(Kind.CLASSES if split == "train" else Kind.PICTURES, data, (Container(data),))
    own = None
    csv = files.child(data, f"{split}.csv")
    if csv is None and (own := _own(data, split)):
        csv = files.child(own, f"{split}.csv")
    if csv:
        return Layout(Kind.CSV, csv, tuple(_containers(data, split)))
    if split == "train":
        if own and (os.path.basename(own).lower() in ("train", "train.zip") or _has_folders(own)):
            return Layout(Kind.CLASSES, own, (Container(own),))
        if folders := class_folders(data):
            return Layout(Kind.CLASSES, data, (Container(data),), frozenset(_entries(data)) - set(folders))
        return None
    if own:
        own = _full(data) or own
        return Layout(Kind.PICTURES, own, (Container(own),))
    if _own(data, "train") or files.child(data, "train.csv"):
        return None
    return Layout(Kind.PICTURES, data, (Container(data),))


def _no_table(data: str) -> AoiError:
    """What is told where nothing tells the labels of a training set."""
    path, around = files.join(data, "train.csv"), os.path.dirname(data.rstrip("/"))
    if is_split(os.path.basename(data.rstrip("/"))) and files.child(around, "train.csv"):
        return refuse(path, "there is no such file, and one beside this folder", f"Name the folder around it: {around}")
    seen = "there is no such file"
    tables = [name for name in _entries(data) if name.lower().endswith(TABLES) and not is_hidden(name)]
    if alike := [name for name in tables if name.lower() not in ("classes.txt", "test.csv")]:
        seen += f"; there is {', '.join(alike[:EXAMPLES])}"
        return refuse(path, seen, f"Save what tells the labels as train.csv, with the columns ID,Label. {LIKE}")
    if zips := [name for name in _entries(data) if name.lower().endswith((".zip", *ARCHIVES))]:
        seen += f"; there is {', '.join(zips[:EXAMPLES])}"
        return refuse(path, seen, f"If each is a class, unpack them into folders: train/CLASS/. {LIKE}")
    listing = read_container(data) if os.path.isdir(data) else None
    others = {ending: count for ending, count in listing.others.items() if ending not in TABLES} if listing else {}
    if listing and not listing.pictures and others:
        seen += f"; the files there are: {counted(others)[:200]}"
        return refuse(path, seen, f"Save the pictures as one of {', '.join(SUFFIXES)}. {LIKE}")
    return refuse(path, seen, f"Put it there, with the columns ID,Label. {LIKE}")


def is_split(name: str) -> bool:
    """Whether a folder's name is that of a split, and of no class."""
    return any(_has_name(name, split) for split in OF_SPLIT)


def _has_name(path: str, split: Split) -> bool:
    name = os.path.basename(path)
    return OF_SPLIT[split].fullmatch(name[:-4] if files.is_zip(name) else name) is not None


def _own(data: str, split: Split) -> str | None:
    """The split's own folder or zip: by its usual names, else the only one whose name is alike; None for none."""
    return files.child(data, *USUAL[split]) or _alike(data, split)


def _full(data: str) -> str | None:
    """The first folder or zip of a lot, by its usual names, that is no empty folder; None for none."""
    there = (path for name in USUAL["test"] if (path := files.child(data, name)))
    return next((path for path in there if not os.path.isdir(path) or holds_picture(path)), None)


def _alike(data: str, split: Split) -> str | None:
    """The only folder or zip whose name may be that of the split; None for none or several."""
    alike = [files.join(data, name) for name in _entries(data) if _has_name(name, split)]
    alike = [path for path in alike if files.is_zip(path) or os.path.isdir(path)]
    return alike[0] if len(alike) == 1 else None


def _has_folders(container: str) -> bool:
    """Whether there are folders with pictures in a folder or zip."""
    if not files.is_zip(container):
        return bool(class_folders(container))
    names = [each.spellings[0] for each in read_container(container).pictures if not each.hidden]
    prefix = inner_folder(names, container)
    return any("/" in name.removeprefix(prefix) for name in names)


def inner_set(data: str, split: Split) -> str:
    """The folder or zip of the set: `data`, or the one folder in it, as unpacking makes one around what it unpacks.

    Raises: AoiError where `data` is not there, or is no folder or zip.
    """
    if not files.exists(data):
        what = "train.csv and the pictures" if split == "train" else "the pictures"
        raise refuse(data, "there is no such folder", f"Name the folder that holds {what}")
    if os.path.isfile(data) and not files.is_zip(data):
        raise refuse(
            data, "it is a file, and no folder or zip", f"Name the folder that holds it: {os.path.dirname(data)}"
        )
    if files.is_zip(data) or files.is_remote(data):
        return data
    place = data
    for _ in range(DEEPEST):
        if files.child(place, *MARKS) or any(map(is_split, _folders(place))):
            return place
        if split == "train" and len(class_folders(place)) > 1:
            return place
        folders = _folders(place)
        if _has_pictures(place) or len(folders) != 1:
            break
        place = files.join(place, folders[0])
    zips = [name for name in _entries(data) if files.is_zip(name) and not is_hidden(name)]
    if len(zips) == 1 and not _folders(data) and not _has_pictures(data):
        return files.join(data, zips[0])
    return data


def has_test(data: str) -> bool:
    """Whether a folder holds a test split beside its training split."""
    data = inner_set(data, "train")
    return not files.is_zip(data) and bool(files.child(data, "test.csv") or _own(data, "test"))


def class_folders(data: str) -> list[str]:
    """Names of the folders in `data` that may be classes: those with pictures, but for a split's."""
    return [name for name in _folders(data) if not is_split(name) and holds_picture(files.join(data, name))]


def _folders(data: str) -> list[str]:
    """Names of the folders in `data` that a person made, sorted."""
    found = [name for name in _entries(data) if not is_hidden(name)]
    return [name for name in found if os.path.isdir(path := files.join(data, name)) and not is_made_here(path)]


def read_container(path: str) -> Listing:
    """What a folder or zip holds. Raises: AoiError where it can't be read."""
    try:
        return list_pictures(path)
    except READ_ERRORS as error:
        remedy = files.remedy(error, "copy or download it again")
        raise refuse(path, f"it can't be read ({reason(error)})", sentence(remedy))


def read_listing(layout: Layout, container: Container) -> Listing:
    """What the container holds of the split. Raises: AoiError where it can't be read."""
    listing = read_container(container.path)
    if layout.but:
        pictures = tuple(each for each in listing.pictures if each.name.partition("/")[0] not in layout.but)
        listing = Listing(pictures, listing.encodings, listing.others)
    return listing


def inner_folder(names: Sequence[str], container: str, least: int = 0) -> str:
    """The one folder that all names lie in, with its slash: what a zip or its unpacking put around them. '' for none.

    least: folders that stay in every name. In a folder it counts only where it has the folder's own name, or, around
    folders of classes, one that is no class's.
    """
    stem = os.path.splitext(os.path.basename(container.rstrip("/")))[0].lower()
    prefix = ""
    while names:
        first = names[0][len(prefix) :].partition("/")
        if not first[1] or not all(name.startswith(f"{prefix}{first[0]}/") for name in names):
            break
        known = first[0].lower() in (stem, *(AROUND if least else ())) or (least and is_split(first[0]))
        if not files.is_zip(container) and not known:
            break
        if any(name[len(prefix) + len(first[0]) + 1 :].count("/") < least for name in names):
            break
        prefix += f"{first[0]}/"
    return prefix


def _containers(data: str, split: Split) -> Iterator[Container]:
    """Where the pictures of a CSV may lie. Raises: AoiError where there is no place for them."""
    folder, archive = f"{split}_images", f"{split}_images.zip"
    found: list[Container] = []
    for name, own, usual in (
        *((folder, True, True), (archive, True, True)),
        *((split, True, False), (f"{split}.zip", True, False)),
        *((os.path.basename(_alike(data, split) or folder), True, False),),
        *((name, False, False) for name in ("images", "images.zip", "pictures", "pictures.zip")),
    ):
        path = files.child(data, name)
        if path and path not in [each.path for each in found]:
            found.append(Container(path, own, usual))
    if not found and (_has_pictures(data) or class_folders(data)):
        found.append(Container(data, own=False, usual=False))
    zips = [name for name in _entries(data) if files.is_zip(name) and not is_split(name)]
    if not found and len(zips) == 1:
        found.append(Container(files.join(data, zips[0]), own=False, usual=False))
    if not found:
        seen, remedy = f"neither this folder nor {archive} is there", "Put the pictures into one of the two"
        if packed := [name for name in _entries(data) if name.lower().endswith(ARCHIVES)]:
            seen, remedy = f"{seen}, but {packed[0]}, which is not read", f"Unpack it into {folder}/"
        raise refuse(files.join(data, folder), seen, remedy)
    yield from found


def _has_pictures(data: str) -> bool:
    """Whether pictures lie directly in a folder."""
    return any(is_picture(name) and not is_hidden(name) for name in _entries(data))


def _entries(data: str) -> list[str]:
    """Names in a folder, sorted; of elsewhere and of what is no folder none."""
    return sorted(os.listdir(data)) if not files.is_remote(data) and os.path.isdir(data) else []
