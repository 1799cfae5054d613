"""A CSV and a heap of pictures become checked rows, or every problem is told at once, with its row and remedy."""

import os
import shutil
import stat
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.inputs import files
from pipeline.inputs.classes import read_classes
from pipeline.inputs.inputs import check_inputs, read_inputs
from pipeline.inputs.rows import Reject, duplicates
from pipeline.settings import IngestSettings
from tfrecords.dataset import Lenience
from tfrecords.errors import AoiError, Problem
from tfrecords.pictures.errors import COPY_AGAIN, PictureError
from tfrecords.pictures.formats import inspect
from tfrecords.pictures.tiff import SEVERAL_PAGES
from tfrecords.records.schema import UNLABELLED
from tfrecords.settings import LEAST_FOLDS

FOLDS = 5

KNOWN = "PNG, JPEG, BMP, TIFF or WebP"


def png(gray: int, size: int = 4) -> bytes:
    return cv2.imencode(".png", np.full((size, size), gray, np.uint8))[1].tobytes()


def refused(data: Path | str, split: str = "train", folds: int = FOLDS) -> tuple[Problem, ...]:
    """The problems that are told; the same without opening a picture."""
    with pytest.raises(AoiError) as error:
        read_inputs(str(data), split, folds)
    with pytest.raises(AoiError) as quick:
        check_inputs(str(data), split, folds)
    assert quick.value.problems == error.value.problems
    assert error.value.exit_code == 2
    return error.value.problems


def names_of(data: Path) -> tuple[str, ...]:
    """The names in classes.txt."""
    classes = read_classes(str(data))
    assert classes is not None
    return classes.names


def to_zip(folder: Path, prefix: str = "", keep: bool = False) -> Path:
    """folder -> folder.zip, with its pictures under `prefix`."""
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.iterdir(), reverse=True):
            file.write(path, prefix + path.name)
    if not keep:
        shutil.rmtree(folder)
    return archive


def edit(data: Path, old: str, new: str, split: str = "train") -> Path:
    """Replaces one text of the split's CSV."""
    path = data / f"{split}.csv"
    text = path.read_bytes().decode()
    assert text.count(old) == 1
    path.write_bytes(text.replace(old, new).encode())
    return path


# --- What is read -------------------------------------------------------------------------------------------


def test_every_row_is_read_in_the_order_of_the_csv_with_its_line_label_and_hash(data):
    inputs = read_inputs(str(data), "train", FOLDS)
    assert (inputs.csv, inputs.container) == (str(data / "train.csv"), str(data / "train_images"))
    assert inputs.classes == ("plain", "rows", "columns")
    assert [row.id for row in inputs.rows] == [f"train_{index:03d}.png" for index in range(30)]
    assert [row.row for row in inputs.rows] == list(range(2, 32))
    assert [row.label for row in inputs.rows] == [0, 1, 2] * 10
    assert len({row.sha256 for row in inputs.rows}) == 30
    assert not any(row.reject for row in inputs.rows)


def test_what_was_taken_leniently_of_the_pictures_is_told_once_per_kind(data):
    for index in (3, 7):
        pages = np.full((2, 8, 8), index, np.uint8)
        tifffile.imwrite(data / "train_images" / f"train_{index:03d}.png", pages, photometric="minisblack")
    inputs = read_inputs(str(data), "train", FOLDS)
    assert inputs.leniences == (Lenience(kind=SEVERAL_PAGES, count=2, example="train_003.png"),)


def test_the_test_split_needs_no_labels_and_takes_any(data):
    assert {row.label for row in read_inputs(str(data), "test", FOLDS).rows} == {UNLABELLED}
    edit(data, "test_000.png,", "test_000.png,whatever", split="test")
    assert {row.label for row in read_inputs(str(data), "test", FOLDS).rows} == {UNLABELLED}


def test_progress_counts_every_picture_hashed(data, monkeypatch):
    monkeypatch.setattr("pipeline.inputs.look.HASHED_AT_ONCE", 4)
    seen = []
    read_inputs(str(data), "test", FOLDS, lambda *call: seen.append(call))
    assert seen == [(0, 6, "hashed"), (4, 6, "hashed"), (6, 6, "hashed")]


def rewrite(text: str, how: str) -> str:
    match how:
        case "LF":
            return text.replace("\r\n", "\n")
        case "no line end at the end":
            return text.rstrip()
        case "blank lines":
            return text.replace("\r\n", "\r\n\r\n")
        case "quotes":
            return "\r\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in text.split())
        case "blanks around labels":
            return text.replace(",0", ", 0 ")
        case "leading zeros":
            return text.replace(",1", ",01")
        case "a column more":
            return "\r\n".join(f"{line},x" for line in text.split())
        case "columns changed round":
            return "\r\n".join(",".join(reversed(line.split(","))) for line in text.split())
    raise ValueError(how)


@pytest.mark.parametrize(
    "how",
    [
        "LF",
        "no line end at the end",
        "quotes",
        "blanks around labels",
        "leading zeros",
        "a column more",
        "columns changed round",
    ],
)
def test_another_way_to_write_the_same_csv_gives_the_same_digest(data, how):
    before = read_inputs(str(data), "train", FOLDS)
    path = data / "train.csv"
    text = path.read_bytes().decode()
    changed = rewrite(text, how)
    assert changed != text
    path.write_bytes(changed.encode())
    after = read_inputs(str(data), "train", FOLDS)
    assert after.rows == before.rows
    assert after.digest == before.digest


def test_blank_lines_are_passed_over_but_counted(data):
    path = data / "train.csv"
    path.write_bytes(rewrite(path.read_bytes().decode(), "blank lines").encode())
    assert [row.row for row in read_inputs(str(data), "train", FOLDS).rows] == list(range(3, 63, 2))


def test_an_id_may_hold_a_folder_commas_quotes_blanks_and_letters_of_any_script(data):
    names = ["sub/a.png", "a, b.png", 'a "b".png', "圖 片.png", "UPPER.PNG", "a..b.png"]
    (data / "test_images" / "sub").mkdir()
    for gray, name in enumerate(names):
        (data / "test_images" / name).write_bytes(png(gray))
    with open(data / "test.csv", "a", newline="") as file:
        file.writelines('"{}",\r\n'.format(name.replace('"', '""')) for name in names)
    assert [row.id for row in read_inputs(str(data), "test", FOLDS).rows][-6:] == names


def test_other_files_beside_the_pictures_are_of_no_matter(data):
    alone = read_inputs(str(data), "train", FOLDS)
    (data / "train_images" / "Thumbs.db").write_bytes(b"x")
    (data / "notes.txt").write_text("x")
    assert read_inputs(str(data), "train", FOLDS) == alone


@pytest.mark.parametrize(
    ("split", "change"),
    [
        ("train", lambda data: edit(data, "train_000.png,0", "train_000.png,1")),
        ("train", lambda data: edit(data, "ID,Label\r\n", "ID,Label\r\n\r\n")),
        ("train", lambda data: (data / "train_images" / "train_000.png").write_bytes(png(3))),
        ("train", lambda data: (data / "classes.txt").write_text("plain\nlines\ncolumns\n")),
        ("test", lambda data: (data / "test_images" / "test_000.png").write_bytes(png(3))),
    ],
    ids=["a label", "a line's number", "a picture", "a class's name", "a test picture"],
)
def test_the_digest_changes_with_everything_that_a_dataset_is_made_from(data, split, change):
    before = read_inputs(str(data), split, FOLDS).digest
    change(data)
    assert read_inputs(str(data), split, FOLDS).digest != before


def test_the_digest_knows_neither_the_place_nor_the_other_split(data, tmp_path):
    digests = [read_inputs(str(data), split, FOLDS).digest for split in ("train", "test")]
    assert len(set(digests)) == 2
    moved = data.rename(tmp_path / "moved")
    (moved / "test_images" / "test_000.png").write_bytes(png(3))
    assert read_inputs(f"{moved}/", "train", FOLDS).digest == digests[0]


# --- Zips ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "train_images/"], ids=["flat", "with its folder"])
def test_a_zip_gives_what_its_folder_gives(data, prefix):
    folder = read_inputs(str(data), "train", FOLDS)
    archive = to_zip(data / "train_images", prefix)
    zipped = read_inputs(str(data), "train", FOLDS)
    assert zipped.digest == folder.digest
    assert zipped.container == str(archive)
    assert {row.name for row in zipped.rows} == {prefix + row.id for row in folder.rows}


def test_the_folder_wins_over_the_zip(data):
    to_zip(data / "train_images", keep=True)
    assert read_inputs(str(data), "train", FOLDS).container == str(data / "train_images")


def test_what_macos_adds_to_a_zip_is_of_no_matter(data):
    archive = to_zip(data / "train_images", "train_images/")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("__MACOSX/train_images/._train_000.png", b"x")
        file.mkdir("train_images")
    assert len(read_inputs(str(data), "train", FOLDS).rows) == 30


def test_a_zip_of_64_bits_is_read(data):
    archive = data / "train_images.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted((data / "train_images").iterdir()):
            with file.open(path.name, "w", force_zip64=True) as entry:
                entry.write(path.read_bytes())
    folder = read_inputs(str(data), "train", FOLDS)
    shutil.rmtree(data / "train_images")
    assert read_inputs(str(data), "train", FOLDS).digest == folder.digest


def test_a_zip_that_holds_a_name_twice_is_refused(data):
    archive = to_zip(data / "train_images", "train_images/")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("train_000.png", png(0))
    (problem,) = refused(data)
    assert problem.file in (f"{archive}/train_000.png", f"{archive}/train_images/train_000.png")
    assert (problem.seen, problem.remedy) == ("the zip holds this name twice", "Pack the zip again with one of the two")


@pytest.mark.parametrize("part", [0, 0.5, 0.99])
def test_a_truncated_zip_is_refused(data, part):
    archive = to_zip(data / "train_images")
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(len(whole) * part)])
    (problem,) = refused(data)
    assert problem.file == str(archive)
    assert "can't be read" in problem.seen
    assert problem.remedy == "Copy or download it again"


def patch(archive: Path, local: int, central: int, value: int, entries: int) -> None:
    """Sets one byte, at its place in the local and the central records, of the first entries of a zip."""
    whole = bytearray(archive.read_bytes())
    for mark, at in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        start = whole.find(mark)
        for _ in range(entries):
            whole[start + at] = value
            start = whole.find(mark, start + 4)
    archive.write_bytes(whole)


def test_an_encrypted_zip_is_refused_once(data):
    archive = to_zip(data / "test_images")
    patch(archive, 6, 8, 1, entries=6)
    (problem,) = refused(data, "test")
    assert (problem.file, problem.seen) == (str(archive), "all of its 6 pictures are encrypted")
    assert "without a password" in problem.remedy


def test_an_encrypted_picture_in_a_zip_is_a_reject(data):
    patch(to_zip(data / "test_images"), 6, 8, 1, entries=1)
    (reject,) = [row.reject for row in read_inputs(str(data), "test", FOLDS).rows if row.reject]
    assert "encrypted" in reject.reason
    assert "without a password" in reject.remedy


def test_deflate64_is_refused_by_its_name_before_a_picture_is_read(data):
    archive = to_zip(data / "test_images")
    patch(archive, 8, 10, 9, entries=1)
    (problem,) = refused(data, "test")
    assert problem.file == str(archive)
    assert "Deflate64" in problem.seen
    assert "deflate" in problem.remedy


def test_a_zip_with_any_one_byte_changed_is_read_or_refused(data):
    for path in sorted((data / "test_images").iterdir())[2:]:
        path.unlink()
    for path in (data / "test_images").iterdir():
        path.write_bytes(png(len(path.name)))
    (data / "test.csv").write_text("ID,Label\ntest_000.png,\ntest_001.png,\n")
    archive = to_zip(data / "test_images")
    whole = archive.read_bytes()
    right = read_inputs(str(data), "test", FOLDS)
    for at in range(len(whole)):
        for change in (0x01, 0x40, 0xFF):
            archive.write_bytes(whole[:at] + bytes([whole[at] ^ change]) + whole[at + 1 :])
            try:
                inputs = read_inputs(str(data), "test", FOLDS)
            except AoiError as error:
                assert error.problems
                continue
            for row, expected in zip(inputs.rows, right.rows, strict=True):
                assert row.reject or row.sha256 == expected.sha256


# --- Folder and files ---------------------------------------------------------------------------------------


def test_a_missing_folder_is_refused(tmp_path):
    (problem,) = refused(tmp_path / "none")
    assert problem.file == str(tmp_path / "none")
    assert problem.seen == "there is no such folder"
    assert "train.csv" in problem.remedy


def test_links_that_lead_nowhere_and_pipes_are_no_pictures(data):
    digest = read_inputs(str(data), "train", FOLDS).digest
    folder = data / "train_images"
    os.symlink("round.png", folder / "round.png")
    os.symlink("gone", folder / "gone.png")
    os.symlink("train_000.png/below", folder / "through a file.png")
    os.mkfifo(folder / "pipe.png")
    assert read_inputs(str(data), "train", FOLDS).digest == digest


@pytest.mark.parametrize("target", ["..", ".", "../..", "/"])
def test_a_link_that_leads_back_is_refused(data, target):
    os.symlink(target, data / "train_images" / "back")
    (problem,) = refused(data)
    assert (problem.file, problem.remedy) == (str(data / "train_images" / "back"), "Take the link away")


def test_a_link_to_a_folder_is_followed_once(data, tmp_path):
    pictures = data / "train_images"
    digest = read_inputs(str(data), "train", FOLDS).digest
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    os.symlink(tmp_path / "elsewhere", pictures / "part")
    os.symlink(tmp_path / "elsewhere" / "deep", pictures / "the same")
    (tmp_path / "elsewhere" / "deep" / "x.png").write_bytes(png(1))
    assert read_inputs(str(data), "train", FOLDS).digest == digest  # what is behind a link needs no row
    edit(data, "train_003.png,", "part/deep/x.png,")
    (pictures / "train_003.png").unlink()
    assert [row.name for row in read_inputs(str(data), "train", FOLDS).rows][3] == "part/deep/x.png"


def test_a_file_in_place_of_the_folder_of_pictures_is_refused(data):
    shutil.rmtree(data / "train_images")
    (data / "train_images").write_text("no folder")
    (problem,) = refused(data)
    assert problem.file == str(data / "train_images")
    assert "Not a directory" in problem.seen


def test_a_missing_csv_is_refused(data):
    (data / "train.csv").unlink()
    (problem,) = refused(data)
    assert problem.file == str(data / "train.csv")
    assert problem.seen == "there is no such file"
    assert "ID,Label" in problem.remedy


def test_a_folder_in_place_of_the_csv_is_refused(data):
    (data / "train.csv").unlink()
    (data / "train.csv").mkdir()
    (problem,) = refused(data)
    assert problem.file == str(data / "train.csv")
    assert "can't be read" in problem.seen


@pytest.mark.parametrize("split", ["train", "test"])
def test_missing_pictures_are_refused(data, split):
    shutil.rmtree(data / f"{split}_images")
    (problem,) = refused(data, split)
    assert problem.file == str(data / f"{split}_images")
    assert f"{split}_images.zip" in problem.seen
    assert problem.remedy == "Put the pictures into one of the two"


bad_texts = {
    "NUL": (b"ID,Label\r\na.png,1\r\nb\0.png,1\r\n", 3, "NUL character", "UTF-8"),
    "Latin-1": ("ID,Label\r\nd\u00e9faut.png,1\r\n".encode("latin-1"), 2, "byte 11 is not UTF-8", "UTF-8"),
    "no known encoding": (b"ID,Label\na.png,1\n\xff\xff.png,1\n", 3, "is not UTF-8", "UTF-8"),
    "UTF-32": ("ID,Label\n".encode("utf-32"), 1, "NUL character", "UTF-8"),
    "empty": (b"", 1, "the header is '', without ID", "ID"),
    "no header": (
        b"train_000.png,0\r\n",
        1,
        "the header is 'train_000.png,0', without ID",
        "Begin it with the line ID",
    ),
    "no id column": (b"Name,Label\r\n", 1, "the header is 'Name,Label', without ID", "Begin it with the line ID"),
    "two columns for the ID": (b"File,Image,Label\r\n", 1, "'File' and 'Image' may each be meant", "the line ID"),
    "other separators": (b"ID|Label\r\n", 1, "the header is 'ID|Label', without ID", "Begin it with the line ID"),
}


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("case", bad_texts)
def test_a_file_that_is_no_csv_is_refused_by_its_row(data, split, case):
    content, row, seen, remedy = bad_texts[case]
    (data / f"{split}.csv").write_bytes(content)
    (problem,) = refused(data, split)
    assert (problem.file, problem.row) == (str(data / f"{split}.csv"), row)
    assert seen in problem.seen
    assert remedy in problem.remedy


def test_only_a_training_set_needs_a_column_of_labels(data):
    (data / "train.csv").write_text("ID,Value\r\n")
    (problem,) = refused(data)
    assert problem.seen == "the header is 'ID,Value', without Label"
    (data / "test.csv").write_text("ID\r\n" + "".join(f"test_{number:03d}.png\r\n" for number in range(6)))
    assert len(read_inputs(str(data), "test", FOLDS).rows) == 6


def test_a_csv_without_rows_is_refused(data):
    (data / "test.csv").write_text("ID,Label\r\n")
    problem = refused(data, "test")[0]
    assert (problem.file, problem.seen) == (str(data / "test.csv"), "no row below the header")
    assert "row for every picture" in problem.remedy
    assert "where there are none, take this file away" in problem.remedy


# --- Rows ---------------------------------------------------------------------------------------------------

bad_lines = {
    # name: (what stands in the place of the line "train_004.png,1", row, seen, remedy, pictures left without a row)
    "blank label": ("train_004.png,", 6, "train_004.png has no label", "from 0 to 2 (plain, rows, columns)", 0),
    "label of blanks": ("train_004.png,  ", 6, "train_004.png has no label", "from 0 to 2", 0),
    "word": ("train_004.png,lines", 6, "the label 'lines' of train_004.png", "from 0 to 2", 0),
    "too large": ("train_004.png,3", 6, "the label '3' of train_004.png", "from 0 to 2", 0),
    "negative": ("train_004.png,-1", 6, "the label '-1' of train_004.png", "from 0 to 2", 0),
    "fraction": ("train_004.png,1.5", 6, "the label '1.5' of train_004.png", "from 0 to 2", 0),
    "other digits": ("train_004.png,\u0661", 6, "the label '\u0661' of train_004.png", "from 0 to 2", 0),
    "endless": ("train_004.png," + "9" * 5000, 6, "the label '" + "9" * 40 + "'", "from 0 to 2", 0),
    "twice": (
        "train_004.png,1\r\ntrain_004.png,2",
        7,
        "train_004.png stands in row 6 already",
        "take one of the two rows out",
        0,
    ),
    "twice, same label": (
        "train_004.png,1\r\ntrain_004.png,1",
        7,
        "train_004.png stands in row 6 already",
        "take one of the two rows out",
        0,
    ),
    "blank id": ("train_004.png,1\r\n ,1", 7, "the ID is blank", "Name the picture by its file", 0),
    "no id": ("train_004.png,1\r\n,1", 7, "the ID is blank", "Name the picture by its file", 0),
    "leaves": ("train_004.png,1\r\n../x.png,1", 7, "'../x.png' leaves the folder", "by its file", 0),
    "leaves below": ("train_004.png,1\r\na/../../x.png,1", 7, "'a/../../x.png' leaves the folder", "by its file", 0),
    "leaves backwards": ("train_004.png,1\r\n..\\x.png,1", 7, "leaves the folder", "by its file", 0),
    "absolute": ("train_004.png,1\r\n/etc/x.png,1", 7, "'/etc/x.png' leaves the folder", "by its file", 0),
    "drive": ("train_004.png,1\r\nC:\\x.png,1", 7, "leaves the folder", "by its file", 0),
    "address": ("train_004.png,1\r\ngs://b/x.png,1", 7, "'gs://b/x.png' leaves the folder", "by its file", 0),
    "control character": ("train_004.png,1\r\na\x1b[31m.png,1", 7, "holds a control character", "by its file", 0),
    "line end within": ('train_004.png,1\r\n"a\nb.png",1', 8, "holds a control character", "by its file", 0),
    "no such picture": ("train_004.png,1\r\nx.png,1", 7, "no picture x.png", "take the row out", 0),
    "a folder": ("train_004.png,1\r\n.,1", 7, "no picture .", "take the row out", 0),
    "other case": ("train_004.png,1\r\nTRAIN_004.png,1", 7, "no picture TRAIN_004.png", "take the row out", 0),
    "fields too many": ("train_004.png,1\r\ntrain_004.png,1,2", 7, "3 fields", "Write 2", 0),
    "fields too few": ("train_004.png,1\r\ntrain_004.png", 7, "1 fields", "Write 2", 0),
    "row missing": ("", None, "no row names this picture", "Add a row for it to train.csv or take the picture out", 1),
}


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("case", bad_lines)
def test_a_bad_line_is_told_once_with_its_row_what_was_seen_and_what_to_do(data, case, packed):
    line, row, seen, remedy, unnamed = bad_lines[case]
    path = edit(data, "train_004.png,1\r\n", line + "\r\n" if line else "")
    container = to_zip(data / "train_images") if packed else data / "train_images"
    (problem,) = refused(data)
    assert (problem.file, problem.row) == (str(container / "train_004.png" if unnamed else path), row)
    assert seen in problem.seen
    assert remedy in problem.remedy


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ('"train_004.png"x,1', "expected after"),
        ('"train_004.png,1', "end of data"),
        ("train_004.png," + "1" * 200_000, "field limit"),
    ],
    ids=["text after a quote", "open quote", "endless field"],
)
def test_a_line_that_is_no_csv_is_told_without_guesses_about_what_follows(data, line, seen):
    path = edit(data, "train_004.png,1", line)
    (problem,) = refused(data)
    assert (problem.file, problem.row) == (str(path), 6)
    assert "not readable as CSV" in problem.seen
    assert seen in problem.seen


def test_everything_that_is_wrong_is_told_at_once(data):
    edit(data, "train_003.png,0", "train_003.png,")
    edit(data, "train_007.png,1", "train_007.png,7")
    edit(data, "train_009.png,0", "train_003.png,0")
    edit(data, "train_012.png,0", "../train_012.png,0")
    edit(data, "train_015.png,0", "gone.png,0")
    (data / "train_images" / "more.png").write_bytes(png(1))
    problems = refused(data)
    assert [(problem.row, Path(problem.file).name) for problem in problems] == [
        (5, "train.csv"),
        (9, "train.csv"),
        (11, "train.csv"),
        (14, "train.csv"),
        (17, "train.csv"),
        (None, "more.png"),
        (None, "train_009.png"),
        (None, "train_015.png"),
    ]


def test_a_picture_whose_line_has_fields_too_many_is_not_said_to_have_no_row(data):
    edit(data, "train_004.png,1", "train_004.png,1,2")
    (problem,) = refused(data)
    assert problem.row == 6


def test_the_test_split_is_matched_with_its_pictures_too(data):
    edit(data, "test_000.png", "test_00.png", split="test")
    (problem,) = refused(data, "test")
    assert problem.seen == "no picture test_00.png, but test_000.png, which no row names"
    assert problem.remedy == "Write the ID as the picture is named, or the other way round"


# --- Classes ------------------------------------------------------------------------------------------------


def test_a_class_without_pictures_is_refused(data):
    with open(data / "classes.txt", "a") as file:
        file.write("dots\n")
    (problem,) = refused(data)
    assert (problem.file, problem.row) == (str(data / "train.csv"), None)
    assert problem.seen == "no picture of class 3 (dots)"
    assert "take its line out of classes.txt and number the labels anew" in problem.remedy


def test_a_class_of_fewer_pictures_than_folds_is_refused(data):
    (problem,) = refused(data, folds=11)
    assert problem.seen == "3 classes have fewer pictures than the 11 folds; the smallest, 0 (plain), has 10"
    assert problem.remedy == "Set ingest.folds to 10 or less, or add pictures"
    read_inputs(str(data), "train", 10)
    read_inputs(str(data), "test", 11)


def test_one_picture_of_a_class_is_not_helped_by_fewer_folds(data):
    lines = (data / "train.csv").read_text().splitlines()
    once = [line.replace(",2", ",1") if line.endswith(",2") and "_002" not in line else line for line in lines]
    (data / "train.csv").write_text("\n".join(once))
    for folds in (5, LEAST_FOLDS):
        (problem,) = refused(data, folds=folds)
        assert problem.seen == f"1 picture(s) of class 2 (columns), fewer than the {folds} folds"
        assert problem.remedy == "Add pictures of it: every class needs one per fold, 2 or more"


def test_blank_lines_and_blanks_around_a_class_are_of_no_matter(data):
    (data / "classes.txt").write_bytes(" plain\r\n\r\nhell grün \r\n圖".encode())
    assert names_of(data) == ("plain", "hell grün", "圖")


@pytest.mark.parametrize(
    "name",
    [
        "scratch (deep), 50 % & more",
        "$x_1$ \\frac{a}{b} #1",
        "_hidden",
        "'quoted' \"name\"",
        "刮傷（深）",
        "表面\u3000刮傷",
        "نیم\u200cفاصله",
        "NA",
        "01",
        "true",
        "line\u0301",
        "🔥",
        "x" * 1000,
    ],
)
def test_any_name_that_prints_will_do(data, name):
    (data / "classes.txt").write_text(f"good\n{name}\n", encoding="utf-8", newline="")
    assert names_of(data) == ("good", name)


@pytest.mark.parametrize(
    ("content", "row", "seen", "remedy"),
    [
        ("one\nt\x1bwo\n", 2, r"the name 't\x1bwo' holds U+001B, which does not print", "Take it out"),
        ("one\n\ntwo\x85three\n", 3, r"the name 'two\x85three' holds U+0085", "Take it out"),
        ("one\nt\u202ewo\n", 2, r"the name 't\u202ewo' holds U+202E", "Take it out"),
        ("one\nt\ue000wo\n", 2, "holds U+E000", "Take it out"),
        ("one\n\u200c\n", 2, "has nothing that prints", "Write a name"),
        ("novelty\none\n", 1, "'novelty' is a column of predictions.csv already", "Choose another name"),
        ("one\ntwo\n\none\n", 4, "the name 'one' stands there twice, in row 1 too", "a name of its own"),
        ("caf\u00e9\ncafe\u0301\n", 2, "looks like that of row 1, 'café'", "a name of its own"),
        ("a b\na\u00a0 b\n", 2, "looks like that of row 1, 'a b'", "a name of its own"),
        ("one\n" + "x" * 1001, 2, "a name of 1,001 letters", "at most 1,000"),
    ],
)
def test_a_name_that_can_not_work_is_refused_by_its_row_with_a_remedy(data, content, row, seen, remedy):
    (data / "classes.txt").write_text(content, encoding="utf-8", newline="")
    (problem,) = refused(data)
    assert (problem.file, problem.row) == (str(data / "classes.txt"), row)
    assert seen in problem.seen
    assert remedy in problem.remedy


@pytest.mark.parametrize("form", ["{} {}", "{}: {}", "{}\t{}", "{}, {}", "{}. {}", "{}) {}"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_numbers_before_the_names_are_their_labels(data, form, order):
    names = ("good", "bad", "edge 2")
    (data / "classes.txt").write_text("\n".join(form.format(label, names[label]) for label in order))
    assert names_of(data) == names


@pytest.mark.parametrize(
    "lines", ["0 mm\n1 mm", "0-1 mm\n1-2 mm", "1 good\n2 bad", "0 good\n0 bad", "0 good\nbad", "0\n1"]
)
def test_numbers_that_are_part_of_the_names_stay(data, lines):
    (data / "classes.txt").write_text(lines)
    assert names_of(data) == tuple(lines.splitlines())


def test_all_bad_names_are_told_at_once(data):
    (data / "classes.txt").write_text("ID\none\none\nt\x1bwo\n")
    assert [problem.row for problem in refused(data)] == [1, 3, 4]


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (b"", "0 class name(s)"),
        (b"\n\n", "0 class name(s)"),
        (b"one\n", "1 class name(s)"),
        (b"one\ntwo\n one\n", "the name 'one' stands there twice"),
        (b"one\nID\n", "'ID' is a column of predictions.csv already"),
        (b"one\n\xff\n", "byte 4 is not UTF-8"),
        (b"one\nt\0wo\n", "NUL character"),
    ],
)
def test_a_bad_list_of_classes_is_refused(data, content, seen):
    (data / "classes.txt").write_bytes(content)
    (problem,) = refused(data)
    assert problem.file == str(data / "classes.txt")
    assert seen in problem.seen
    assert problem.remedy


# --- Pictures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_a_picture_that_is_damaged_is_no_error_but_a_reject_with_its_reason(data, packed):
    pictures = data / "test_images"
    (pictures / "test_000.png").write_bytes(b"")
    (pictures / "test_001.png").write_bytes(b"GIF89a")
    (pictures / "test_002.png").write_bytes(png(1)[:-5])
    if packed:
        to_zip(pictures)
    rows = read_inputs(str(data), "test", FOLDS).rows
    assert [row.reject for row in rows] == [
        Reject("test_000.png", 2, "the file is empty", COPY_AGAIN),
        Reject(
            "test_001.png",
            3,
            f"the file is not a {KNOWN}; it is a GIF",
            f"save the picture as {KNOWN}, or take it out with its row",
        ),
        Reject("test_002.png", 4, f"the PNG is cut off after {len(png(1)) - 5} bytes", COPY_AGAIN),
        *[None] * 3,
    ]
    assert all(row.sha256 for row in rows)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x1cftypavif" + bytes(20), "an AVIF"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "a HEIC"),
        (b"\0\0\0\x0cjP  \r\n", "a JPEG 2000"),
        (b"P5 4 4 255\n", "a PNM"),
        (b"<html>404", "a web page or XML"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS in the picture's place"),
        (bytes(100), "zeros, as a copy that broke off leaves them"),
    ],
)
def test_a_file_that_is_no_picture_is_named(data, name):
    with pytest.raises(PictureError, match=f"the file is not a {KNOWN}; it is {name}"):
        inspect(data)


def test_a_picture_that_can_not_be_read_is_a_reject_too(data, monkeypatch):
    read_bytes = files.read_bytes

    def failing(path: str) -> bytes:
        if path.endswith(".png"):
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(files, "read_bytes", failing)
    rows = read_inputs(str(data), "test", FOLDS).rows
    assert all("can't be read" in row.reject.reason for row in rows)
    assert all("allow this account to read it" in row.reject.remedy for row in rows)
    assert not any(row.sha256 for row in rows)


def test_a_damaged_entry_of_a_zip_is_a_reject(data):
    archive = to_zip(data / "test_images")
    with zipfile.ZipFile(archive) as file:
        entry = file.getinfo("test_000.png")
    whole = bytearray(archive.read_bytes())
    whole[entry.header_offset + 30 + len(entry.filename) + entry.compress_size // 2] ^= 0xFF
    archive.write_bytes(whole)
    rows = read_inputs(str(data), "test", FOLDS).rows
    assert [row.id for row in rows if row.reject] == ["test_000.png"]


def test_reading_changes_nothing_in_the_folder(data):
    before = {path: (path.stat().st_mtime_ns, stat.S_IMODE(path.stat().st_mode)) for path in data.rglob("*")}
    read_inputs(str(data), "train", FOLDS)
    assert {path: (path.stat().st_mtime_ns, stat.S_IMODE(path.stat().st_mode)) for path in data.rglob("*")} == before


def test_groups_of_equal_files_are_told_by_their_ids(data):
    for name in ("train_007.png", "train_003.png", "train_020.png"):
        (data / "train_images" / name).write_bytes(png(1))
    for name in ("train_001.png", "train_029.png"):
        (data / "train_images" / name).write_bytes(png(2))
    rows = read_inputs(str(data), "train", FOLDS).rows
    assert duplicates(rows) == [
        ["train_001.png", "train_029.png"],
        ["train_003.png", "train_007.png", "train_020.png"],
    ]


# --- Any text -----------------------------------------------------------------------------------------------

cells = st.sampled_from(
    ["a.png", "b.png", "ID", "Label", "0", "1", "", " ", '"', '""', "..", "/", "\ud7ff", "\x85", "\u2028", "\x00", "-1"]
)
csv_texts = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(st.lists(cells, max_size=4).map(",".join), max_size=6).map("\n".join).map(str.encode),
    st.lists(st.tuples(cells, cells).map(",".join), max_size=6).map(
        lambda lines: "\r\n".join(["ID,Label", *lines]).encode()
    ),
)


@pytest.fixture(scope="module")
def two_pictures(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("two")
    (root / "classes.txt").write_text("good\nbad\n")
    for split in ("train", "test"):
        (root / f"{split}_images").mkdir()
        for gray, name in enumerate(("a.png", "b.png")):
            (root / f"{split}_images" / name).write_bytes(png(gray))
    return root


@settings(max_examples=100)
@given(text=csv_texts, split=st.sampled_from(["train", "test"]))
@example(text=b"ID,Label\na.png,0\nb.png,1", split="train")
@example(text=b"ID,Label\ra.png,0\rb.png,1\r", split="train")
def test_any_csv_is_parsed_or_refused_with_a_remedy(two_pictures, text, split):
    (two_pictures / f"{split}.csv").write_bytes(text)
    try:
        inputs = read_inputs(str(two_pictures), split, 1)
    except AoiError as error:
        assert error.problems
        assert all(problem.file and problem.seen and problem.remedy for problem in error.problems)
        assert str(error)
        return
    assert sorted(row.id for row in inputs.rows) == ["a.png", "b.png"]


@settings(max_examples=60)
@given(text=st.one_of(st.binary(max_size=40), st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace"))))
def test_any_list_of_classes_is_read_or_refused(two_pictures, text):
    path = two_pictures / "classes.txt"
    before = path.read_bytes()
    path.write_bytes(text)
    try:
        classes = names_of(two_pictures)
    except AoiError as error:
        assert error.problems
    else:
        assert len(set(classes)) == len(classes) >= 2
        assert all(name == name.strip() != "" for name in classes)
    finally:
        path.write_bytes(before)


def test_the_default_of_folds_is_five():
    assert IngestSettings().folds == FOLDS
