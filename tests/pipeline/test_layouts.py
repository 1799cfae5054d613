"""Sets and lots as people keep them: read as they lie, or refused with the one cause."""

import os
import shutil
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.inputs.classes import AIDEA_CLASSES
from pipeline.inputs.inputs import Inputs, check_inputs, read_inputs
from pipeline.inputs.layouts import has_test
from tfrecords.errors import AoiError, Problem

FOLDS = 2
IDS = tuple(f"part_{number:02d}.png" for number in range(8))


def png(gray: int) -> bytes:
    return cv2.imencode(".png", np.full((4, 4), gray, np.uint8))[1].tobytes()


def write(folder: Path, names: tuple[str, ...] = IDS) -> None:
    """A picture of its own for every name."""
    for gray, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(gray))


def pack(archive: Path, names: tuple[str, ...] | list[str]) -> None:
    """The same in a zip."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w") as file:
        for gray, name in enumerate(names):
            file.writestr(name, png(gray))


def raw_zip(archive: Path, names: list[str], encoding: str) -> None:
    """A zip whose names are bytes of an encoding, without the mark of UTF-8."""
    archive.parent.mkdir(parents=True, exist_ok=True)

    class Raw(zipfile.ZipInfo):
        def _encodeFilenameFlags(self):
            return self.raw, 0

    with zipfile.ZipFile(archive, "w") as file:
        for gray, name in enumerate(names):
            entry = Raw(f"{gray}")
            entry.raw = name.encode(encoding)
            file.writestr(entry, png(gray))


def table(data: Path, ids=IDS, labels=None, split: str = "train", header: str = "ID,Label") -> Path:
    """SPLIT.csv with two classes in turn."""
    data.mkdir(exist_ok=True)
    labels = labels or [str(number % 2) for number in range(len(ids))]
    path = data / f"{split}.csv"
    path.write_text("\n".join([header, *(f"{name},{label}" for name, label in zip(ids, labels, strict=True))]) + "\n")
    return path


def read(data: Path, split: str = "train", **more) -> Inputs:
    return read_inputs(str(data), split, FOLDS, **more)


def kinds(inputs: Inputs) -> list[str]:
    return [lenience.kind for lenience in inputs.leniences]


def refused(data: Path, split: str = "train") -> tuple[Problem, ...]:
    with pytest.raises(AoiError) as error:
        check_inputs(str(data), split, FOLDS)
    assert error.value.exit_code == 2
    return error.value.problems


@pytest.fixture
def data(tmp_path) -> Path:
    """A plain set of two classes, named in classes.txt."""
    data = tmp_path / "data"
    write(data / "train_images")
    table(data)
    (data / "classes.txt").write_text("OK\nNG\n")
    return data


# --- A folder per class -------------------------------------------------------------------------------------

PER_CLASS = ("OK/1.png", "OK/2.png", "scratch/1.png", "scratch/deep/2.png", "dent/a b.png", "dent/2.png")


@pytest.mark.parametrize("place", ["train", "."])
def test_a_folder_per_class_needs_no_csv(tmp_path, place):
    write(tmp_path / "data" / place, PER_CLASS)
    inputs = read(tmp_path / "data")
    assert inputs.classes == ("OK", "dent", "scratch")
    assert [(row.id, row.label) for row in inputs.rows] == [
        ("OK/1.png", 0),
        ("OK/2.png", 0),
        ("dent/2.png", 1),
        ("dent/a b.png", 1),
        ("scratch/1.png", 2),
        ("scratch/deep/2.png", 2),
    ]
    assert kinds(inputs) == ["classes in the order of their names"]


def test_classes_txt_gives_the_order_of_folders(tmp_path):
    data = tmp_path / "data"
    write(data / "train", PER_CLASS)
    (data / "classes.txt").write_text("scratch\nOK\ndent\n")
    inputs = read(data)
    assert inputs.classes == ("scratch", "OK", "dent")
    assert {row.id.partition("/")[0]: row.label for row in inputs.rows} == {"scratch": 0, "OK": 1, "dent": 2}
    assert inputs.leniences == ()


@pytest.mark.parametrize("place", ["data/train", "data", "."])
def test_classes_txt_may_lie_in_any_folder_around_the_classes(tmp_path, place):
    write(tmp_path / "data" / "train", PER_CLASS)
    (tmp_path / place / "classes.txt").write_text("scratch\nOK\ndent\n")
    assert read(tmp_path).classes == ("scratch", "OK", "dent")


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_classes_txt_may_lie_in_the_zip(tmp_path, prefix):
    pack(tmp_path / "train.zip", [prefix + each for each in PER_CLASS])
    with zipfile.ZipFile(tmp_path / "train.zip", "a") as file:
        file.writestr(f"{prefix}classes.txt", "scratch\nOK\ndent\n".encode("utf-16"))
    assert read(tmp_path).classes == ("scratch", "OK", "dent")
    assert read(tmp_path / "train.zip").classes == ("scratch", "OK", "dent")


def test_folders_may_be_numbers_from_classes_txt(tmp_path):
    data = tmp_path / "data"
    write(data / "train", ("0/a.png", "0/b.png", "1/a.png", "1/b.png"))
    (data / "classes.txt").write_text("good\nbad\n")
    assert [row.label for row in read(data).rows] == [0, 0, 1, 1]
    (data / "classes.txt").unlink()
    write(data / "train", ("10/a.png", "10/b.png"))
    assert read(data).classes == ("0", "1", "10")


def test_a_folder_that_is_no_class_of_classes_txt_is_refused_once(tmp_path):
    data = tmp_path / "data"
    write(data / "train", PER_CLASS)
    (data / "classes.txt").write_text("scratch\nOK\n")
    (problem,) = refused(data)
    assert problem.file == str(data / "train" / "dent")
    assert "Rename it" in problem.remedy


def test_what_is_no_class_beside_folders_of_classes(tmp_path):
    data = tmp_path / "data"
    write(data, PER_CLASS)
    alone = read(data)
    write(
        data, ("train_images/x.png", "test_images/x.png", "test/x.png", ".thumbnails/x.png", "@eaDir/x.png", "me.png")
    )
    (data / "empty").mkdir()
    assert [row.id for row in read(data).rows] == [row.id for row in alone.rows]


def test_train_csv_counts_before_folders_of_classes_and_train_before_the_folder_itself(data):
    plain = read(data)
    write(data / "train", PER_CLASS)
    write(data, ("void/1.png", "void/2.png"))
    assert read(data) == plain
    (data / "train.csv").unlink()
    (data / "classes.txt").unlink()
    assert read(data).classes == ("OK", "dent", "scratch")
    shutil.rmtree(data / "train")
    write(data, ("dent/1.png", "dent/2.png"))
    assert read(data).classes == ("dent", "void")


def test_pictures_outside_of_the_folders_of_classes_are_refused_once(tmp_path):
    write(tmp_path / "train", (*PER_CLASS, "x.png", "y.png"))
    (problem,) = refused(tmp_path)
    assert problem.seen == "2 picture(s) lie in no folder of a class, such as x.png, y.png"


@pytest.mark.parametrize("names", [("OK/1.png", "OK/2.png"), ("ID/1.png", "OK/1.png"), ("ok/1.png", "OK/1.png")])
def test_folders_that_can_be_no_classes_are_refused(tmp_path, names):
    write(tmp_path / "train", names)
    assert len(refused(tmp_path)) == 1


@pytest.mark.parametrize("prefix", ["", "train/", "panel 7/train/", "./", "train\\"])
@pytest.mark.parametrize("name", ["data/train.zip", "set.zip"])
def test_a_zip_of_folders_of_classes(tmp_path, prefix, name):
    pack(tmp_path / name, [prefix + each for each in PER_CLASS])
    inputs = read(tmp_path / name.removesuffix("/train.zip"))
    assert inputs.classes == ("OK", "dent", "scratch")
    assert [row.id for row in inputs.rows] == sorted(PER_CLASS)


def test_folders_of_classes_in_a_folder_of_the_same_name(tmp_path):
    write(tmp_path / "train" / "train", PER_CLASS)
    inputs = read(tmp_path)
    assert [row.id for row in inputs.rows] == sorted(PER_CLASS)
    assert kinds(inputs)[0] == "a folder around all pictures, taken off"


@pytest.mark.parametrize("names", [("train/OK/1.png", "test/OK/1.png"), ("train_images/1.png", "test_images/1.png")])
def test_a_zip_of_a_whole_set_is_not_taken_for_classes(tmp_path, names):
    pack(tmp_path / "set.zip", [f"set/{name}" for name in names])
    (problem,) = refused(tmp_path / "set.zip")
    assert "unpack it" in problem.remedy


def test_class_names_of_a_mac_are_composed(tmp_path):
    write(
        tmp_path / "train", tuple(unicodedata.normalize("NFD", f"défaut {at}/{at}.png") for at in range(2)) + PER_CLASS
    )
    with pytest.raises(AoiError, match="1 picture"):
        read(tmp_path)
    write(tmp_path / "train", tuple(unicodedata.normalize("NFD", f"défaut {at}/x.png") for at in range(2)))
    assert "défaut 1" in read(tmp_path).classes


def test_a_set_in_a_folder_of_its_own(data, tmp_path):
    plain = read(data)
    outer = tmp_path / "outer"
    outer.mkdir()
    data.rename(outer / "data")
    (outer / ".DS_Store").touch()
    assert read(outer).digest == plain.digest
    shutil.rmtree(outer / "data")
    write(outer / "again", PER_CLASS)
    assert read(outer).classes == ("OK", "dent", "scratch")


def outer(*folders: str) -> Callable[[Path, Path], Path]:
    """Folders around the set."""

    def put(data: Path, root: Path) -> Path:
        (root / "outer").joinpath(*folders[:-1]).mkdir(parents=True, exist_ok=True)
        data.rename((root / "outer").joinpath(*folders))
        return root / "outer"

    return put


def beside(name: str) -> Callable[[Path, Path], Path]:
    """A folder around the set, with something else in it."""

    def put(data: Path, root: Path) -> Path:
        around = outer("aidea")(data, root)
        (around / name).write_bytes(b"x")
        return around

    return put


AROUND = {
    "one folder": outer("aidea"),
    "two folders": outer("a", "b"),
    "three folders": outer("a", "b", "c"),
    "its zip": beside("aidea.zip"),
    "a text": beside("read me.txt"),
    "a file of Windows": beside("desktop.ini"),
}


@pytest.mark.parametrize("how", AROUND)
@pytest.mark.parametrize("form", ["csv", "classes"])
def test_a_set_is_found_in_the_folders_that_unpacking_makes_around_it(data, tmp_path, how, form):
    if form == "classes":
        shutil.rmtree(data)
        write(data, PER_CLASS)
    plain = read(data)
    inputs = read(AROUND[how](data, tmp_path))
    assert inputs.digest == plain.digest
    assert inputs.leniences[0].kind == "a folder around the set"


@pytest.mark.parametrize("place", ["train_images", "train"])
def test_a_csv_in_the_folder_of_the_pictures(data, place):
    plain = read(data)
    (data / "train_images").rename(data / place)
    (data / "train.csv").rename(data / place / "train.csv")
    inputs = read(data)
    assert inputs.digest == plain.digest
    assert inputs.leniences[0].kind == "a CSV in the folder of the pictures"


@pytest.mark.parametrize(
    "place", ["train_images", "Training", "train set", "train-data", "train/images", "Train/train"]
)
def test_folders_of_classes_in_the_split_s_own_folder_by_any_of_its_names(tmp_path, place):
    write(tmp_path / place, PER_CLASS)
    write(tmp_path / "testing", PER_CLASS)
    inputs = read(tmp_path)
    assert inputs.classes == ("OK", "dent", "scratch")
    assert [row.id for row in inputs.rows] == sorted(PER_CLASS)
    assert has_test(str(tmp_path))
    assert len(read(tmp_path, "test").rows) == len(PER_CLASS)


@pytest.mark.parametrize("pair", [("testing", "training"), ("test_set", "train_set"), ("Test Images", "Train Images")])
def test_the_two_splits_are_never_taken_for_classes(tmp_path, pair):
    for name in pair:
        write(tmp_path / name, PER_CLASS)
    assert read(tmp_path).classes == ("OK", "dent", "scratch")


def test_what_was_made_here_is_no_picture_of_a_set_or_lot(tmp_path):
    write(tmp_path, PER_CLASS)
    plain, lot = read(tmp_path), read(tmp_path, "test")
    write(tmp_path / "aoi-home" / "mlartifacts", ("confusion.png", "mistakes.png"))
    (tmp_path / "aoi-home" / "latest").mkdir()
    (tmp_path / "aoi-home" / "latest" / "data.json").write_text("{}")
    write(tmp_path / "OK" / "out" / "explanations", ("1.png",))
    (tmp_path / "OK" / "out" / "manifest.json").write_text('{"checksum": ""}')
    assert read(tmp_path) == plain
    assert read(tmp_path, "test") == lot


@pytest.mark.parametrize("place", ["docs", "annotations/voc"])
def test_a_folder_without_pictures_is_no_class(tmp_path, place):
    write(tmp_path, PER_CLASS)
    plain = read(tmp_path)
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "notes.xml").write_text("x")
    assert read(tmp_path) == plain


@pytest.mark.parametrize(
    ("names", "csvs", "seen"),
    [
        (("A/images/1.png", "B/images/1.png"), ("A/train.csv", "B/train.csv"), "the folder A holds train.csv"),
        (("A/train_images/1.png", "B/train_images/1.png"), (), "the folder A holds a folder train_images"),
        (("OK/train/1.png", "OK/test/1.png", "NG/train/1.png"), (), "the folder NG holds a folder train"),
        ((*PER_CLASS, "val/OK/3.png", "val/dent/3.png"), (), "the folder val holds OK, which is a class beside it too"),
        ((*PER_CLASS, "masks/OK/1.png"), (), "the folder masks holds OK"),
    ],
)
def test_a_set_is_no_class_of_the_folder_around_it(tmp_path, names, csvs, seen):
    write(tmp_path, names)
    for name in csvs:
        (tmp_path / name).write_text("ID,Label\n")
    (problem,) = refused(tmp_path)
    assert problem.seen.startswith(seen)
    assert "Name one set alone" in problem.remedy


def test_a_set_is_no_class_of_a_zip_around_it(tmp_path):
    pack(tmp_path / "train.zip", (*PER_CLASS, "val/OK/3.png"))
    (problem,) = refused(tmp_path / "train.zip")
    assert problem.seen.startswith("the folder val holds OK")


def test_the_same_folders_in_all_classes_are_told_for_they_may_be_the_classes(tmp_path):
    write(tmp_path, tuple(f"cam{number}/{name}/{at}.png" for number in "01" for name in ("OK", "NG") for at in "12"))
    inputs = read(tmp_path)
    assert inputs.classes == ("cam0", "cam1")
    (told,) = (each for each in inputs.leniences if "same folders" in each.kind)
    assert told.example == "NG, OK in cam0, cam1"


def test_files_that_are_not_read_are_told_where_no_row_would_miss_them(tmp_path):
    write(tmp_path, PER_CLASS)
    (tmp_path / "crack").mkdir()
    for name in ("crack/1.gif", "crack/2.gif", "OK/3.heic", "OK/4"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "crack" / "away").symlink_to(tmp_path / "nowhere")
    (tmp_path / "OK" / "5.png").symlink_to(tmp_path / "nowhere.png")
    told = read(tmp_path, "test").leniences[-1]
    assert told.kind == "files of other kinds, passed over"
    assert (told.count, told.example) == (6, "2 .gif, 2 link(s) that lead nowhere, 1 .heic, 1 without an ending")
    assert kinds(read(tmp_path))[0] == "files of other kinds, passed over"


def test_a_set_of_pictures_that_are_not_read_is_refused_by_their_kind(tmp_path):
    for name in ("OK/1.gif", "NG/2.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"GIF89a")
    (problem,) = refused(tmp_path)
    assert "the files there are: 2 .gif" in problem.seen


def test_a_zip_for_each_class_is_refused_with_their_names(tmp_path):
    for name in ("OK", "NG"):
        pack(tmp_path / f"{name}.zip", ("1.png", "2.png"))
    (problem,) = refused(tmp_path)
    assert "there is NG.zip, OK.zip" in problem.seen
    assert "unpack them into folders" in problem.remedy


@pytest.mark.parametrize("place", ["crack", "OK/day 2"])
def test_a_folder_that_can_not_be_read_is_refused_by_its_name(tmp_path, monkeypatch, place):
    write(tmp_path, (*PER_CLASS, f"{place}/1.png"))
    scandir = os.scandir

    def denied(path):
        if str(path).endswith(place):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("pipeline.inputs.listing.os.scandir", denied)
    (problem,) = refused(tmp_path)
    assert (problem.file, problem.seen) == (str(tmp_path / place), "this folder can't be read (Permission denied)")
    assert "permissions" in problem.remedy


@pytest.mark.parametrize(
    ("names", "encoding"),
    [
        (["表面傷/1.png", "表示不良/1.png", "良品/1.png"], "cp932"),
        (["キズ/1.png", "ヨゴレ/1.png"], "cp932"),
        (["царапина/1.png", "норма/1.png"], "cp866"),
    ],
)
def test_a_zip_in_an_encoding_that_is_not_known_is_refused(tmp_path, names, encoding):
    raw_zip(tmp_path / "train.zip", names, encoding)
    (problem,) = refused(tmp_path)
    assert "in no encoding that is known" in problem.seen
    assert "UTF-8" in problem.remedy


@pytest.mark.parametrize("name", ["test_images", "test"])
def test_an_empty_folder_beside_the_full_zip_of_a_lot_is_passed_over(tmp_path, name):
    (tmp_path / name).mkdir()
    pack(tmp_path / "test.zip", ("a.png", "b.png"))
    assert [row.id for row in read(tmp_path, "test").rows] == ["a.png", "b.png"]


def test_a_link_that_leads_back_from_a_folder_of_classes_is_refused(tmp_path):
    write(tmp_path / "data", PER_CLASS)
    os.symlink("../..", tmp_path / "data" / "dent" / "back")
    (tmp_path / "data" / "dent" / "2.png").unlink()
    (tmp_path / "data" / "dent" / "a b.png").unlink()
    (problem,) = refused(tmp_path / "data")
    assert problem.remedy == "Take the link away"


@pytest.mark.parametrize("name", ["train.csv.csv", "train.xlsx", "labels.csv", "train (1).csv"])
def test_a_csv_of_another_name_is_named_where_train_csv_is_missing(data, name):
    (data / "train.csv").rename(data / name)
    (problem,) = refused(data)
    assert problem.seen == f"there is no such file; there is {name}"
    assert problem.remedy.startswith("Save what tells the labels as train.csv")


@pytest.mark.parametrize("name", ["train.csv", "train_images/part_00.png", "train_images"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_part_of_a_set_in_place_of_its_folder_is_refused_with_the_folder(data, name, split):
    if name == "train_images" and split == "test":
        assert len(read(data / name, "test").rows) == len(IDS)
        return
    (problem,) = refused(data / name, split)
    assert problem.remedy in (
        f"Name the folder that holds it: {(data / name).parent}",
        f"Name the folder around it: {data}",
    )


@pytest.mark.parametrize("name", ["train_images.rar", "pictures.7z"])
def test_an_archive_that_is_not_read_is_named(data, name):
    shutil.rmtree(data / "train_images")
    (data / name).write_bytes(b"x")
    (problem,) = refused(data)
    assert problem.seen.endswith(f"but {name}, which is not read")
    assert problem.remedy == "Unpack it into train_images/"


# --- Lots without a CSV -------------------------------------------------------------------------------------


def lot_folder(root: Path) -> Path:
    write(root / "lot")
    return root / "lot"


def lot_zip(root: Path) -> Path:
    pack(root / "lot.zip", IDS)
    return root / "lot.zip"


def lot_zip_with_a_folder(root: Path) -> Path:
    pack(root / "lot.zip", [f"a lot/{name}" for name in IDS])
    return root / "lot.zip"


def lot_test_images(root: Path) -> Path:
    write(root / "lot" / "test_images")
    return root / "lot"


def lot_test_zip(root: Path) -> Path:
    pack(root / "lot" / "test_images.zip", [f"test_images/{name}" for name in IDS])
    return root / "lot"


def lot_test(root: Path) -> Path:
    write(root / "lot" / "test")
    return root / "lot"


def lot_ids_alone(root: Path) -> Path:
    write(root / "lot" / "test_images")
    (root / "lot" / "test.csv").write_text("\r\n".join(["ID", *IDS]))
    return root / "lot"


def lot_zip_in_a_folder(root: Path) -> Path:
    pack(root / "lot" / "lot 7.zip", IDS)
    return root / "lot"


def lot_testing(root: Path) -> Path:
    write(root / "lot" / "Testing")
    return root / "lot"


LOTS = (
    *(lot_zip_in_a_folder, lot_testing),
    *(lot_folder, lot_zip, lot_zip_with_a_folder, lot_test_images, lot_test_zip, lot_test, lot_ids_alone),
)


@pytest.mark.parametrize("make", LOTS, ids=lambda make: make.__name__)
def test_a_lot_needs_no_labels_and_has_the_classes_that_are_given(tmp_path, make: Callable[[Path], Path]):
    inputs = read(make(tmp_path), "test", classes=("good", "bad"))
    assert [row.id for row in inputs.rows] == list(IDS)
    assert {row.label for row in inputs.rows} == {-1}
    assert inputs.classes == ("good", "bad")


def test_a_lot_may_have_folders_and_its_ids_are_paths_in_order(tmp_path):
    write(tmp_path, ("pm/1.png", "am/2.png", "am/10.png", "0.png", ".hidden/1.png"))
    assert [row.id for row in read(tmp_path, "test").rows] == ["0.png", "am/10.png", "am/2.png", "pm/1.png"]


def test_the_labels_of_a_test_set_per_class_are_not_read(tmp_path):
    write(tmp_path / "test", PER_CLASS)
    assert {row.label for row in read(tmp_path, "test").rows} == {-1}


def test_training_pictures_are_no_lot(data):
    assert not has_test(str(data))
    (problem,) = refused(data, "test")
    assert "test.csv" in problem.seen
    write(data / "test_images")
    assert has_test(str(data))
    assert len(read(data, "test").rows) == len(IDS)


@pytest.mark.parametrize("split", ["test", "train"])
def test_a_labelled_lot_without_its_pictures_is_told_so(tmp_path, split):
    table(tmp_path / "lot", split=split)
    with pytest.raises(AoiError) as error:
        read(tmp_path / "lot", "test", classes=["0", "1"], labelled=True)
    (problem,) = error.value.problems
    assert problem.file.endswith(f"{split}_images")
    assert f"neither this folder nor {split}_images.zip is there" in problem.seen


@pytest.mark.parametrize("names", [(), ("notes.txt", "a.gif", "b.gif")])
def test_a_folder_without_pictures_is_refused_with_what_is_there(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("x")
    (problem,) = refused(tmp_path, "test")
    assert problem.seen.startswith("no picture is there")
    assert not names or "2 .gif" in problem.seen


# --- The names of pictures ----------------------------------------------------------------------------------


def renamed(change: Callable[[str], str]) -> Callable[[Path], None]:
    """Changes the names of the files."""

    def apply(data: Path) -> None:
        shutil.rmtree(data / "train_images")
        write(data / "train_images", tuple(map(change, IDS)))

    return apply


def other_ids(change: Callable[[str], str]) -> Callable[[Path], None]:
    """Changes the IDs in the CSV."""
    return lambda data: void(table(data, tuple(map(change, IDS))))


def void(*_: object) -> None:
    """Nothing."""


def zipped(change: Callable[[str], str]) -> Callable[[Path], None]:
    """A zip in place of the folder, with names that are changed."""

    def apply(data: Path) -> None:
        shutil.rmtree(data / "train_images")
        pack(data / "train_images.zip", list(map(change, IDS)))

    return apply


def zipped_as(archive: str) -> Callable[[Path], None]:
    """A zip of another name in place of the folder."""

    def apply(data: Path) -> None:
        shutil.rmtree(data / "train_images")
        pack(data / archive, IDS)

    return apply


def moved(place: str) -> Callable[[Path], None]:
    """The pictures in another folder of the set."""

    def apply(data: Path) -> None:
        shutil.rmtree(data / "train_images")
        write(data / place)

    return apply


NAMES = {
    "upper case": renamed(str.upper),
    "an ending in upper case": renamed(lambda name: name.replace(".png", ".PNG")),
    "IDs in upper case": other_ids(str.upper),
    "no ending": other_ids(lambda name: name.removesuffix(".png")),
    "no ending, and upper case": other_ids(lambda name: name.removesuffix(".png").upper()),
    "as text for a spreadsheet": other_ids(lambda name: f'"=""{name}"""'),
    "a mark of text in front": other_ids(lambda name: f"'{name}"),
    "a blank behind": other_ids(lambda name: f"{name} "),
    "full-width blanks": other_ids(lambda name: f"\u3000{name}\u3000"),
    "blanks that nobody sees": other_ids(lambda name: f"\ufeff{name}\u200b\u00a0"),
    "full-width letters": other_ids(lambda name: name.replace("part", "ｐａｒｔ")),
    "./": other_ids(lambda name: f"./{name}"),
    "the folder in the ID": other_ids(lambda name: f"train_images/{name}"),
    "the folder in the ID, backwards": other_ids(lambda name: f"train_images\\{name}"),
    "a long folder in the ID, and no ending": other_ids(lambda name: f"data/set 1/{name.removesuffix('.png')}"),
    "a folder in the folder": renamed(lambda name: f"train_images/{name}"),
    "folders in the folder": renamed(lambda name: f"a/b/{name}"),
    "a prefix of the files": renamed(lambda name: f"lot7_{name}"),
    "a prefix of the IDs": other_ids(lambda name: f"lot7-{name}"),
    "zeros lost": other_ids(lambda name: name.replace("_0", "_")),
    "folders that the IDs lack": renamed(lambda name: f"{'even' if int(name[5:7]) % 2 else 'odd'}/{name}"),
    "zip": zipped(str),
    "zip with another top folder": zipped(lambda name: f"panel/{name}"),
    "zip with two folders": zipped(lambda name: f"panel/train_images/{name}"),
    "zip with ./": zipped(lambda name: f"./{name}"),
    "zip with backslashes": zipped(lambda name: f"train_images\\{name}"),
    "zip in upper case": zipped(lambda name: f"TRAIN_IMAGES/{name.upper()}"),
    "train/": moved("train"),
    "images/": moved("images"),
    "beside the CSV": moved("."),
    "Train_Images/": moved("Train_Images"),
    "train images/": moved("train images"),
    "an ending twice": renamed(lambda name: f"{name}.png"),
    "an ending twice in the IDs": other_ids(lambda name: f"{name}.PNG"),
    "letters as in an address": other_ids(lambda name: name.replace("_", "%5F")),
    "a zip of another name": zipped_as("lot 7.zip"),
}


@pytest.mark.parametrize("how", NAMES)
def test_names_that_are_written_otherwise_mean_the_same_pictures(data, how):
    plain = read(data)
    NAMES[how](data)
    inputs = read(data)
    assert [row.sha256 for row in inputs.rows] == [row.sha256 for row in plain.rows]
    assert [row.label for row in inputs.rows] == [row.label for row in plain.rows]
    assert len(inputs.leniences) == (how not in ("zip", "zip with ./", "zip with backslashes", "Train_Images/"))
    assert all(0 < lenience.count <= len(IDS) and lenience.example for lenience in inputs.leniences)


@pytest.mark.parametrize("quoted", ['="{}"', "`{}`", "“{}”", "'{}"])
def test_numbers_that_are_kept_from_a_spreadsheet_are_names_without_their_ending(data, quoted):
    shutil.rmtree(data / "train_images")
    write(data / "train_images", tuple(f"{number:03}.png" for number in range(8)))
    table(data, [quoted.format(f"{number:03}") for number in range(8)])
    assert [row.name for row in read(data).rows] == [f"{number:03}.png" for number in range(8)]


@pytest.mark.parametrize("quoted", ['="{}"', "'{}"])
def test_labels_that_are_kept_from_a_spreadsheet_are_numbers(data, quoted):
    table(data, labels=[quoted.format(number % 2) for number in range(8)])
    (data / "classes.txt").unlink()
    inputs = read(data)
    assert inputs.classes == ("class_0", "class_1")
    assert inputs.rows.labels.tolist() == [0, 1] * 4


def test_ids_that_a_spreadsheet_shortened_are_the_fault_and_not_the_labels(data):
    (data / "classes.txt").unlink()
    table(data, ["2.02401E+13"] * 8, labels=[str(number % 3) for number in range(8)])
    problem = refused(data)[1]
    assert "2.02401E+13 stands in row 2 already: a spreadsheet has shortened the IDs" in problem.seen
    assert not any("label" in each.seen for each in refused(data))


def test_a_row_that_is_no_row_is_the_fault_and_not_the_labels(data):
    (data / "classes.txt").unlink()
    with open(data / "train.csv", "a") as file:
        file.write("Total,60\n")
    (problem,) = refused(data)
    assert problem.seen == "no picture Total"


def test_a_header_below_a_title_is_found_and_told(data):
    (data / "train.csv").write_text("Inspection results\n" + (data / "train.csv").read_text())
    (problem,) = refused(data)
    assert problem.seen.endswith("row 2 has")
    assert problem.remedy == "Take out the rows above it"


def test_a_mixture_of_ways_is_told_way_by_way(data):
    table(data, (IDS[0], f" {IDS[1]}", IDS[2].upper(), "./" + IDS[3], *(name.removesuffix(".png") for name in IDS[4:])))
    inputs = read(data)
    assert [row.name for row in inputs.rows] == list(IDS)
    assert {lenience.kind: (lenience.count, lenience.example) for lenience in inputs.leniences} == {
        "blanks around an ID": (1, "' part_01.png' is part_01.png"),
        "upper and lower case": (1, "PART_02.PNG is part_02.png"),
        "slashes written otherwise": (1, "./part_03.png is part_03.png"),
        "IDs without the ending of the file, or with another": (4, "part_04 is part_04.png"),
    }
    assert inputs.rows[1].id == IDS[1]  # blanks are taken off; else the ID stays as the CSV has it, for the answers
    assert inputs.rows[2].id == IDS[2].upper()


def test_composed_and_decomposed_letters_are_the_same(tmp_path):
    names = ("défaut_1.png", "défaut_2.png", "ok_1.png", "ok_2.png")
    for form, other in (("NFC", "NFD"), ("NFD", "NFC")):
        data = tmp_path / form
        write(data / "train_images", tuple(unicodedata.normalize(form, name) for name in names))
        table(data, tuple(unicodedata.normalize(other, name) for name in names))
        assert kinds(read(data)) == ["classes without names", "letters composed otherwise"]


def test_a_colon_may_stand_in_an_id(tmp_path):
    names = tuple(f"cam1_10:22:{number}.png" for number in range(4))
    write(tmp_path / "train_images", names)
    table(tmp_path, names)
    assert [row.id for row in read(tmp_path).rows] == list(names)


def test_colons_that_windows_wrote_as_underscores(tmp_path):
    write(tmp_path / "train_images", tuple(f"cam1_10_22_{number}.png" for number in range(4)))
    table(tmp_path, tuple(f"cam1_10:22:{number}.png" for number in range(4)))
    assert [row.name for row in read(tmp_path).rows] == [f"cam1_10_22_{number}.png" for number in range(4)]


def test_numbers_that_pandas_wrote_with_a_point(tmp_path):
    write(tmp_path / "train_images", tuple(f"{number}.png" for number in range(12)))
    table(tmp_path, tuple(f"{number}.0" for number in range(12)))
    assert [row.name for row in read(tmp_path).rows] == [f"{number}.png" for number in range(12)]


def test_one_id_without_its_ending_beside_a_lost_picture_is_one_problem_each(data):
    table(data, (IDS[0].removesuffix(".png"), *IDS[1:], "gone.png"), [*"01010101", "0"])
    assert [(problem.row, problem.seen) for problem in refused(data)] == [
        (2, "no picture part_00, but part_00.png, which no row names"),
        (10, "no picture gone.png"),
    ]


def test_a_picture_beside_each_picture_is_one_problem(data):
    names = tuple(f"{number:02d}.png" for number in range(12))
    shutil.rmtree(data / "train_images")
    write(data / "train_images", (*names, *(name.replace(".png", ".jpg") for name in names)))
    table(data, names)
    (problem,) = refused(data)
    assert problem.seen.startswith("12 of 24 pictures have no row in train.csv")


def test_a_folder_that_is_named_as_a_zip_is_a_folder(tmp_path):
    write(tmp_path / "lot.zip")
    assert [row.id for row in read(tmp_path / "lot.zip", "test").rows] == list(IDS)


def test_a_name_in_no_encoding_is_told_so(tmp_path):
    (tmp_path / "lot").mkdir()
    with open(os.fsencode(tmp_path / "lot") + b"/\xff\xfe.png", "wb") as file:
        file.write(png(1))
    (problem,) = refused(tmp_path / "lot", "test")
    assert (problem.seen, problem.remedy) == (
        "the name '\\udcff\\udcfe.png' is in no encoding that is known",
        "Rename the file",
    )


def test_rows_and_pictures_that_are_left_in_the_same_number_are_one_problem(data):
    table(data, ("left.png", *IDS[1:-1], "right.png"))
    (problem,) = refused(data)
    assert problem.row == 2
    assert problem.seen == (
        "no picture left.png, right.png, but part_00.png, part_07.png, which no row names; "
        "2 rows have no picture, and as many pictures no row"
    )


def test_a_row_that_is_none_is_told_once(data):
    table(data, (*IDS, "Total"), [*"01010101", "8"])
    (problem,) = refused(data)
    assert (problem.row, problem.seen) == (10, "no picture Total")


@pytest.mark.parametrize("names", [("a.png", "A.png", "b.png", "c.png"), ("a.png", "a.PNG", "A.png", "b.png")])
def test_names_that_differ_in_case_alone_are_different_pictures(tmp_path, names):
    write(tmp_path / "train_images", names)
    table(tmp_path, names)
    assert [row.name for row in read(tmp_path).rows] == list(names)


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        (("a.png", "b/a.png", "c.png", "d.png"), ("a.png", "x/a.png", "c.png", "d.png")),  # which a.png?
        (("A.png", "a.png", "c.png", "d.png"), ("A.PNG", "a.PNG", "c.png", "d.png")),
        (("cam2_1.png", "cam2_2.png", "cam2_3.png", "cam2_4.png"), ("cam1_1", "cam1_2", "cam1_3", "cam1_4")),
        (("01.png", "1.png", "2.png", "3.png"), ("1", "001", "2", "3")),
    ],
)
def test_what_could_mean_another_picture_is_refused(tmp_path, files, ids):
    write(tmp_path / "train_images", files)
    table(tmp_path, ids)
    assert refused(tmp_path)


def test_no_row_finds_its_picture_is_one_problem_with_three_examples(data):
    table(data, tuple(f"cam1_{number}" for number in range(8)))
    (problem,) = refused(data)
    assert problem.file == str(data / "train.csv")
    assert problem.seen == (
        f"8 of 8 rows have no picture in {data / 'train_images'}, such as cam1_0, cam1_1, cam1_2; "
        "without a row are part_00.png, part_01.png, part_02.png"
    )


def test_a_cause_that_fits_most_rows_is_named(data):
    table(data, (*(f"lot/{name}" for name in IDS[:6]), "gone.png", "away.png"))
    (problem,) = refused(data)
    assert "6 of these rows would fit by this: another folder around the pictures" in problem.seen


def test_pictures_that_have_no_row_are_one_problem(data):
    write(data / "train_images" / "more", tuple(f"{number}.png" for number in range(20)))
    (problem,) = refused(data)
    assert problem.seen.startswith("20 of 28 pictures have no row in train.csv, such as more/0.png")


def test_a_fault_of_many_rows_is_told_once(tmp_path):
    names = tuple(f"/data/{number}.png" for number in range(30))
    write(tmp_path / "train_images", tuple(f"{number}.png" for number in range(30)))
    table(tmp_path, names)
    (problem,) = refused(tmp_path)
    assert problem.row == 2
    assert "29 more rows have this fault, such as 3, 4, 5" in problem.seen


# --- Names of files in other encodings ----------------------------------------------------------------------

CHINESE = [
    "刮傷_01.png",
    "刮傷_02.png",
    "功能許_03.png",
    "正常/04.png",
]  # 功 and 許 have a backslash as their second byte


@pytest.mark.parametrize("encoding", ["utf-8", "cp950"])
@pytest.mark.parametrize("prefix", ["", "train_images/", "面板/"])
def test_names_in_a_zip_without_the_mark_of_utf8(tmp_path, encoding, prefix):
    raw_zip(tmp_path / "train_images.zip", [prefix + name for name in CHINESE], encoding)
    table(tmp_path, CHINESE)
    assert [row.id for row in read(tmp_path).rows] == CHINESE
    assert f"names in the encoding {encoding}" in kinds(read(tmp_path))


def test_a_zip_of_chinese_folders_of_classes(tmp_path):
    raw_zip(
        tmp_path / "train.zip", ["資料/刮傷/1.png", "資料/刮傷/2.png", "資料/正常/1.png", "資料/正常/2.png"], "cp950"
    )
    inputs = read(tmp_path)
    assert inputs.classes == ("刮傷", "正常")
    assert inputs.rows[0].id == "刮傷/1.png"


@pytest.mark.parametrize(
    ("names", "encoding"), [("合格 不合格", "gbk"), ("合格 划伤", "gbk"), ("良品 不良", "gbk"), ("양품 불량", "euc-kr")]
)
@pytest.mark.parametrize("how", ["labels", "zip"])
def test_classes_in_an_encoding_that_big5_only_seems_to_be_are_refused(tmp_path, names, encoding, how):
    good, bad = names.split()
    if how == "zip":
        raw_zip(tmp_path / "train.zip", [f"{name}/{at}.png" for name in (good, bad) for at in "12"], encoding)
    else:
        write(tmp_path / "train_images")
        path = table(tmp_path, labels=[good, bad] * 4)
        path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
    (problem,) = refused(tmp_path)
    assert "UTF-8" in problem.remedy
    assert "encoding" in problem.seen or "not UTF-8" in problem.seen


def test_classes_in_big5_that_labels_alone_tell(tmp_path):
    write(tmp_path / "train_images")
    path = table(tmp_path, labels=["合格", "不合格"] * 4)
    path.write_bytes(path.read_text(encoding="utf-8").encode("cp950"))
    assert read(tmp_path).classes == ("不合格", "合格")


def test_names_that_were_unpacked_in_the_encoding_of_dos(tmp_path):
    write(
        tmp_path / "train_images",
        (*(name.encode("cp950").decode("cp437") for name in CHINESE[:2]), "a.png", "b.png"),
    )
    table(tmp_path, (*CHINESE[:2], "a.png", "b.png"))
    assert [row.id for row in read(tmp_path).rows] == [*CHINESE[:2], "a.png", "b.png"]


def test_names_in_utf8_that_were_unpacked_in_the_encoding_of_dos(tmp_path):
    write(tmp_path / "train_images", (*(name.encode().decode("cp437") for name in CHINESE[:2]), "a.png", "b.png"))
    table(tmp_path, (*CHINESE[:2], "a.png", "b.png"))
    assert [row.id for row in read(tmp_path).rows] == [*CHINESE[:2], "a.png", "b.png"]


def test_names_in_the_encoding_of_dos_itself(tmp_path):
    names = ["é_1.png", "é_2.png", "b.png", "c.png"]
    raw_zip(tmp_path / "train_images.zip", names, "cp437")
    table(tmp_path, names)
    assert [row.id for row in read(tmp_path).rows] == names


def test_names_of_a_folder_in_bytes_of_big5(tmp_path):
    (tmp_path / "train_images").mkdir()
    for gray, name in enumerate(CHINESE[:2]):
        with open(os.fsencode(tmp_path / "train_images") + b"/" + name.encode("cp950"), "wb") as file:
            file.write(png(gray))
    write(tmp_path / "train_images", ("a.png", "b.png"))
    table(tmp_path, (*CHINESE[:2], "a.png", "b.png"))
    assert [row.id for row in read(tmp_path).rows] == [*CHINESE[:2], "a.png", "b.png"]


# --- What programs put beside pictures ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    [
        "",
        ".ipynb_checkpoints/",
        "@eaDir/",
        "#recycle/",
        "@Recycle/",
        "$Recycle.Bin/",
        ".thumbnails/",
        "__MACOSX/",
        "sub/__MACOSX/",
    ],
)
@pytest.mark.parametrize("how", ["folder", "zip"])
def test_what_programs_put_there_is_passed_over_and_told_once(data, how, place):
    junk = tuple(f"{place}{'._' if not place else ''}{name}" for name in IDS)
    write(data / "train_images", junk)
    if how == "zip":
        shutil.rmtree(data / "train_images")
        pack(data / "train_images.zip", [*IDS, *junk])
    inputs = read(data)
    assert [row.id for row in inputs.rows] == list(IDS)
    (lenience,) = inputs.leniences
    assert (lenience.kind, lenience.count) == ("files that programs put there, passed over", len(IDS))


def test_a_hidden_picture_that_a_row_names_is_taken(data):
    write(data / "train_images", (".x.png",))
    table(data, (*IDS, ".x.png"))
    assert read(data).rows[-1].name == ".x.png"


# --- Labels and classes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (["0.0", "1.0"] * 4, "whole numbers written otherwise, as labels"),
        (["０", "１"] * 4, "whole numbers written otherwise, as labels"),
        (["OK", "NG"] * 4, "labels given by the class's name"),
        (["OK", "1"] * 4, "labels given by the class's name"),
        (["ok", "ng"] * 4, "class names in other letters, as labels"),
        (["ＯＫ", "NG "] * 4, "class names in other letters, as labels"),
        ([" 0", "01"] * 4, ""),
        (["0: OK", "1 - NG"] * 4, "numbers and names of classes, as labels"),
        (["0.", "1."] * 4, "whole numbers written otherwise, as labels"),
        (["-0.0", "1.0"] * 4, "whole numbers written otherwise, as labels"),
        (["0.000000e+00", "1.000000E+00"] * 4, "whole numbers written otherwise, as labels"),
    ],
)
def test_a_label_may_be_written_in_several_ways(data, labels, kind):
    plain = read(data)
    table(data, labels=labels)
    inputs = read(data)
    assert inputs.rows == plain.rows
    assert inputs.digest == plain.digest
    assert {each.kind for each in inputs.leniences} - {"labels given by the class's name"} <= {kind}
    assert bool(kind) == bool(inputs.leniences)


def test_blanks_and_dashes_in_a_class_s_name_are_written_for_each_other(data):
    (data / "classes.txt").write_text("edge defect\ngood_part\n")
    table(data, labels=["edge_defect", "Good-Part"] * 4)
    assert [row.label for row in read(data).rows][:2] == [0, 1]
    (data / "classes.txt").write_text("a b\na_b\n")
    table(data, labels=["a b", "a-b"] * 4)
    assert "'a-b' of part_01.png is none of the classes" in refused(data)[0].seen


def test_numbers_count_before_names_that_are_numbers(data):
    (data / "classes.txt").write_text("1\n0\n")
    assert [row.label for row in read(data).rows][:2] == [0, 1]
    (data / "classes.txt").write_text("10\n20\n")
    table(data, labels=["20", "10"] * 4)
    assert [row.label for row in read(data).rows][:2] == [1, 0]


def without_names(data: Path, labels: list[str], count: int) -> Path:
    (data / "classes.txt").unlink(missing_ok=True)
    ids = tuple(f"{number:02d}.png" for number in range(count))
    shutil.rmtree(data / "train_images")
    write(data / "train_images", ids)
    table(data, ids, (labels * count)[:count])
    return data


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["0", "1"], ("class_0", "class_1")),
        (["0.0", "1.0", "2.0"], ("class_0", "class_1", "class_2")),
        ([str(number) for number in range(6)], AIDEA_CLASSES),
        ([str(number) for number in range(7)], tuple(f"class_{number}" for number in range(7))),
        (["void", "normal", "edge"], ("edge", "normal", "void")),
        (["刮傷", "正常"], ("刮傷", "正常")),
    ],
)
def test_without_classes_txt_the_labels_tell_the_classes_and_that_is_said(data, labels, classes):
    inputs = read(without_names(data, labels, 14))
    assert inputs.classes == classes
    assert inputs.leniences[0].kind in (
        "classes without names",
        "AIdea's names for six classes",
        "classes in the order of their names",
    )


@pytest.mark.parametrize(
    ("labels", "seen", "remedy"),
    [
        (["1", "2"], "the labels begin at 1 and end at 2", "Take 1 off every label"),
        (["1.0", "2.0", "3.0"], "the labels begin at 1 and end at 3", "Take 1 off every label"),
        (["0", "2"], "no row has 1", "number the labels from 0"),
        (["0"], "all rows have the label 0", "two classes"),
        (["nan"], "the column Label is empty", "a label in every row"),
        (["1"], "all rows have the label 1", "two classes"),
        (["-1", "1"], "the label '-1' is no whole number from 0 on", "Number the classes 0, 1, 2"),
        (["0.5", "1"], "the label '0.5' is no whole number from 0 on", "Number the classes 0, 1, 2"),
        (["OK"], "1 class(es): OK", "two classes"),
        (["OK", "NG", "1"], "the labels mix names and numbers: '1' in row 4, '1' in row 7", "either names or numbers"),
        ([""], "the column Label is empty", "a label in every row"),
        (["OK", "ok", "NG"], "'OK' and 'ok' differ in case or width of letters alone", "one of the two"),
        (["OK", "ID"], "'ID' is a column of predictions.csv already", "another name"),
    ],
)
def test_labels_that_tell_no_classes_are_refused_once(data, labels, seen, remedy):
    (problem,) = refused(without_names(data, labels, 14))
    assert seen in problem.seen
    assert remedy in problem.remedy


def test_labels_that_begin_at_1_are_refused_with_classes_txt_too(data):
    table(data, labels=["1", "2"] * 4)
    (problem,) = refused(data)
    assert "begin at 1" in problem.seen
    assert problem.remedy.startswith("Take 1 off every label")


def test_an_unknown_label_of_many_rows_is_told_once(data):
    ids = tuple(f"{number:02d}.png" for number in range(30))
    shutil.rmtree(data / "train_images")
    write(data / "train_images", ids)
    table(data, ids, ["crack", "OK", "NG"] * 10)
    assert len(refused(data)) == 10
    table(data, ids, ["crack", "burr", "NG"] * 10)
    (problem,) = refused(data)
    assert "'crack' of 00.png is none of the classes; 19 more rows" in problem.seen
