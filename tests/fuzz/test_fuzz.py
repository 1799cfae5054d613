"""A fixed few hundred of the cases that `make fuzz` makes by the ten thousand, and every kind of them by name."""

import zipfile
import zlib
from time import process_time

import archives
import cv2
import numpy as np
import options
import pictures
import pytest
import tables
from fuzz import MODULES, outcomes
from hypothesis import given, settings
from hypothesis import strategies as st
from ingests import Kind as Ingests
from oracle import DAMAGED, EITHER, EQUAL, REJECTED, WHOLE

from flows.home import Home
from flows.settings import parse_settings
from flows.stages.ingest import ingest
from flows.stages.stage import Job
from pipeline.inputs import files
from pipeline.inputs.inputs import read_inputs
from tfrecords.errors import AoiError
from tfrecords.pictures.errors import PictureError
from tfrecords.pictures.preprocessing import prepare
from tfrecords.settings import PreprocessSettings

CASES = 250
PLAIN = PreprocessSettings(image_size_px=32)


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- The same cases as `make fuzz` --------------------------------------------------------------------------


@pytest.mark.parametrize("module", [module for module in MODULES if module != "ingests"])
def test_every_case_comes_out_right_or_with_a_reason(module):
    seen = list(outcomes(module, seed=0, cases=CASES))
    assert [index for index, _, _ in seen] == list(range(CASES))
    assert [case for case in seen if case[1] not in (EQUAL, REJECTED)] == []
    assert {outcome for _, outcome, _ in seen} == {EQUAL, REJECTED}


def test_an_ingest_of_hostile_pictures_holds_a_record_or_a_reason_for_each(own):
    kind = Ingests(own)
    assert kind.run(rng(0)) == EQUAL
    assert min(kind.counts) > 10


@pytest.mark.parametrize("maker", pictures.MAKERS, ids=lambda maker: maker.__name__)
def test_a_picture_is_the_same_for_the_same_seed(maker):
    assert maker(rng(3)).data == maker(rng(3)).data


# --- Pictures, by name --------------------------------------------------------------------------------------


def sized(width: int, height: int, color: int = 0, bits: int = 8, interlaced: bool = False) -> pictures.Case:
    chunks, gray = pictures.make_png(rng(width, height), color, bits, interlaced, width, height)
    return pictures.Case("", pictures.join(chunks), WHOLE, gray)


ANIMATION = pictures.join(pictures.animated(rng(0))[1])
WHOLE_PICTURES = {
    "1x1": sized(1, 1),
    "10,000x1": sized(10_000, 1),
    "1x10,000": sized(1, 10_000),
    "1,000,000x1": sized(1_000_000, 1),
    "1 bit": sized(9, 7, bits=1),
    "2 bit": sized(9, 7, bits=2),
    "4 bit": sized(9, 7, bits=4),
    "16 bit": sized(9, 7, bits=16),
    "color": sized(9, 7, color=2),
    "palette": sized(9, 7, color=3),
    "palette of 2": sized(9, 7, color=3, bits=1),
    "gray and alpha": sized(9, 7, color=4),
    "color and alpha": sized(9, 7, color=6),
    "interlaced": sized(9, 7, interlaced=True),
    "1 bit, interlaced": sized(9, 7, bits=1, interlaced=True),
    "APNG": pictures.Case("", ANIMATION, WHOLE, pictures.animated(rng(0))[2]),
}


@pytest.mark.parametrize("name", WHOLE_PICTURES)
def test_a_whole_picture_of_any_kind_is_what_cv2_decodes(name):
    assert pictures.check(WHOLE_PICTURES[name], PLAIN.model_copy(update={"max_megapixels": 2.0})) == EQUAL


PGM = b"P5 8 8 255\n" + bytes(64)
OTHER_FILES = {
    "zero bytes": (b"", "the file is empty"),
    "text": (b"ID,Label\n", "not a PNG"),
    "zeros": (bytes(100), "not a PNG"),
    "a PGM": (PGM, "not a PNG, JPEG, BMP, TIFF or WebP"),
    "the signature alone": (pictures.SIGNATURE, "cut off after 8 bytes"),
    "random bytes after the signature": (pictures.SIGNATURE + rng(0).bytes(99), "cut off|damaged"),
    "a chunk named in control characters": (
        pictures.SIGNATURE + pictures.chunk(b"\x1b[2J"),
        "no chunk begins at byte 8",
    ),
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_any_other_file_named_png_is_rejected_with_what_it_is(name):
    data, reason = OTHER_FILES[name]
    with pytest.raises(PictureError, match=reason):
        prepare(data, PLAIN)
    assert pictures.check(pictures.Case(name, data, DAMAGED), PLAIN) == REJECTED


@pytest.mark.parametrize("name", ["1x1", "palette", "APNG"])
def test_a_picture_cut_at_any_byte_or_with_any_bit_flipped_is_rejected(name):
    data = WHOLE_PICTURES[name].data
    spoilt = EITHER if pictures.beside(data) else DAMAGED  # of an animation the still picture may be whole
    for at in range(len(data)):
        assert pictures.check(pictures.Case(f"cut at {at}", data[:at], DAMAGED), PLAIN) == REJECTED
        for bit in range(8):
            flipped = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            found = pictures.check(pictures.Case(f"bit {bit} of {at}", flipped, spoilt), PLAIN)
            assert found == REJECTED or spoilt == EITHER


@pytest.mark.parametrize("size", [(20_000, 20_000), (1, 2**32 - 1), (2**31, 2**31), (10_001, 10_000)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(size, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    stream = zlib.compress(bytes(1 << 20))
    bomb = pictures.join([pictures.header(*size), (b"IDAT", stream), (b"IEND", b"")])
    began = process_time()  # which neighbours on the machine do not lengthen
    with pytest.raises(PictureError, match="more than 100 megapixels"):
        prepare(bomb, PLAIN)
    assert process_time() - began < 0.5


def test_a_picture_of_exactly_the_largest_size_is_decoded_and_one_pixel_more_is_not():
    limit = PLAIN.model_copy(update={"max_megapixels": 0.01})
    assert pictures.check(sized(100, 100), limit) == EQUAL
    assert pictures.check(pictures.Case("", sized(10_001, 1).data, DAMAGED), limit) == REJECTED


def test_a_second_header_does_not_get_past_the_bound():
    small, large = pictures.header(4, 4), pictures.header(30_000, 30_000)
    data = pictures.join([small, large, (b"IDAT", zlib.compress(bytes(20))), (b"IEND", b"")])
    assert pictures.check(pictures.Case("two headers", data, DAMAGED), PLAIN) == REJECTED


def test_no_animation_reaches_cv2_which_a_damaged_one_would_end(monkeypatch):
    """https://github.com/opencv/opencv/issues/27744"""
    seen, imdecode = [], cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda data, how: seen.append(data.tobytes()) or imdecode(data, how))
    for seed in range(20):
        chunks = pictures.animated(rng(seed))[1]
        first = [kind for kind, _ in chunks].index(b"fcTL")
        for at in (None, 0, first):  # whole; a second header, and a second control, within the animation
            more = [] if at is None else [chunks[at]]
            damaged = [*chunks[: first + 1], *more, *chunks[first + 1 :]]
            pictures.check(pictures.Case("animation", pictures.join(damaged), EITHER), PLAIN)
    assert len(seen) >= 80
    assert not any(kind in data for data in seen for kind in (b"acTL", b"fcTL", b"fdAT"))


@given(data=st.binary(max_size=200), signed=st.booleans())
@settings(max_examples=200)
def test_any_bytes_are_decoded_or_rejected(data, signed):
    pictures.check(pictures.Case("any bytes", pictures.SIGNATURE * signed + data, DAMAGED), PLAIN)


# --- CSVs, by name ------------------------------------------------------------------------------------------

LINES = tables.write(tables.ROWS, lineterminator="\n").splitlines()
TEXT = "\n".join(["ID,Label", *LINES, ""])
ROWS = [("ID", "Label"), *tables.ROWS]
ODD_TABLES = {
    "quotes and commas": TEXT.encode(),
    "blank lines": TEXT.replace("\n", "\r\n\r\n").encode(),
    "UTF-16": TEXT.encode("utf-16"),
    "UTF-16 without a mark": TEXT.encode("utf-16-le"),
    "UTF-8 with a mark": TEXT.encode("utf-8-sig"),
    "tabs": tables.write(ROWS, delimiter="\t").encode(),
    "semicolons": tables.write(ROWS, delimiter=";").encode(),
    "trailing commas": "\n".join(["ID,Label", *(f"{line}," for line in LINES)]).encode(),
    "a million empty fields": TEXT.encode() + b"," * 1_000_000,
}
BAD_TABLES = {
    "another encoding": (TEXT.encode("big5", "replace"), "not UTF-8, and as Big5 the file does not fit"),
    "a NUL": (TEXT.encode() + b"\0", "NUL character"),
    "a huge field": (TEXT.encode() + b"x" * 10_000_000, "field larger than field limit"),
    "a quote that nothing closes": (TEXT.encode() + b'"', "unexpected end of data"),
    "a million fields": (TEXT.encode() + b"x," * 1_000_000, "1000001 fields"),
    "zero bytes": (b"", "without ID and Label"),
    "a picture": (sized(9, 9).data, "not UTF-8"),
}


@pytest.fixture
def folder(own):
    tables.write_pictures(own)
    return own


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_csv_of_another_kind_is_refused_with_what_it_is(name, folder):
    data, reason = BAD_TABLES[name]
    assert tables.check(folder, tables.Case(name, data, DAMAGED)) == REJECTED
    with pytest.raises(AoiError, match=reason):
        read_inputs(str(folder), "train", tables.FOLDS)


@pytest.mark.parametrize("name", ODD_TABLES)
def test_a_csv_as_people_save_it_is_read_as_csv_means_it(name, folder):
    assert tables.check(folder, tables.Case(name, ODD_TABLES[name], WHOLE)) == EQUAL


def test_a_csv_of_a_million_rows_without_pictures_is_refused_in_seconds_with_one_problem(folder):
    rows = "".join(f"n{index}.png,0\n" for index in range(1_000_000 - len(LINES)))
    (folder / "train.csv").write_bytes(TEXT.encode() + rows.encode())
    began = process_time()  # which neighbours on the machine do not lengthen
    with pytest.raises(AoiError, match=r"999,992 of 1,000,000 rows have no picture in .*, such as n0.png") as error:
        read_inputs(str(folder), "train", tables.FOLDS)
    assert len(error.value.problems) == 1
    assert process_time() - began < 60  # 5 are usual


@given(text=st.text(st.sampled_from("a.png,01\"\n\r\t;'é\ufeff ") | st.characters(exclude_categories=["Cs"])))
@settings(max_examples=200)
def test_any_text_below_the_header_is_read_or_refused(text, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "any_text"
    if not folder.exists():
        tables.write_pictures(folder)
    tables.check(folder, tables.Case("any text", f"ID,Label\n{text}".encode(), EITHER))


# --- Zips, by name ------------------------------------------------------------------------------------------

ZIP_MAKERS = {
    "truncated": archives.cut,
    "encrypted": archives.encrypted,
    "nested": archives.nested,
    "a symlink": archives.symlink,
    "packed in an unknown way": archives.unknown_method,
    "names in other encodings": archives.in_another_encoding,
    "another file": archives.another_file,
}


@pytest.mark.parametrize("name", ZIP_MAKERS)
def test_a_zip_of_another_kind_is_rejected_with_a_reason(name, own):
    folder = archives.Kind(own).folder
    for seed in range(8):
        case = ZIP_MAKERS[name](rng(seed))
        assert case.expected == DAMAGED
        assert archives.check(folder, case) == REJECTED


BAD_NAMES = {
    "an absolute path": ("/etc/p9.png", "no row names this picture"),
    "..": ("../../p9.png", "no row names this picture"),
    "a drive": ("C:\\p9.png", "no row names this picture"),
    "twice": ("p0.png", "the zip holds this name twice"),
    "twice, once below the folder": ("train_images/p0.png", "the zip holds this name twice"),
    "another case": ("P0.PNG", "no row names this picture"),
    "control characters": ("\x1b[2Jp.png", r"x1b\[2Jp.png: no row names this picture"),
}


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_in_a_zip_that_no_row_can_mean_is_refused(name, own):
    folder = archives.Kind(own).folder
    entry, reason = BAD_NAMES[name]
    pictures_and_it = [*archives.PICTURES.items(), (entry, archives.PICTURES["p0.png"])]
    assert archives.check(folder, archives.Case(name, archives.pack(pictures_and_it), DAMAGED)) == REJECTED
    with pytest.raises(AoiError, match=reason):
        read_inputs(str(folder), "train", archives.FOLDS)


@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
def test_a_file_too_large_for_a_picture_is_rejected_before_it_is_read(zipped, own, monkeypatch):
    folder = archives.Kind(own).folder
    monkeypatch.setattr(files, "MAX_BYTES", 1000)
    large = dict(archives.PICTURES, **{"p3.png": bytes(1001)})
    if zipped:
        (folder / "train_images.zip").write_bytes(archives.pack(list(large.items()), zipfile.ZIP_DEFLATED))
    else:
        (folder / "train_images").mkdir()
        for name, data in large.items():
            (folder / "train_images" / name).write_bytes(data)
    rejects = {
        row.id: row.reject.reason for row in read_inputs(str(folder), "train", archives.FOLDS).rows if row.reject
    }
    assert rejects == {"p3.png": "the file can't be read (it holds 1,001 bytes, more than 1,000)"}


def test_names_that_are_not_unicode_can_be_told_and_written_down(own):
    folder = archives.Kind(own).folder
    (folder / "train_images").mkdir()
    for name, data in archives.PICTURES.items():
        (folder / "train_images" / name).write_bytes(data)
    with open(bytes(folder / "train_images") + b"/\xe9.png", "wb") as file:
        file.write(archives.PICTURES["p0.png"])
    with pytest.raises(AoiError, match=r"udce9.png: no row names this picture") as error:
        ingest(Job(Home(own / "home")), str(folder))
    assert archives.refused(DAMAGED, error.value) == REJECTED


# --- Settings, by name --------------------------------------------------------------------------------------

WRONG = [
    (name, kind, literal)
    for name in options.KINDS
    for kind, literals in options.LITERALS.items()
    for literal in literals
    if kind not in options.types_of(name)
]


@pytest.mark.parametrize("name", options.KINDS)
def test_a_setting_takes_no_value_of_another_type(name, own):
    for setting, kind, literal in WRONG:
        if setting == name:
            case = options.Case(f"{kind} for {name}", options.as_toml({name: literal}), (), DAMAGED)
            assert options.check(own / "settings.toml", case) == REJECTED, literal[:40]


@pytest.mark.parametrize("name", [name for name in options.KINDS if options.type_of(name) == "whole number"])
def test_a_whole_number_has_bounds(name, own):
    for literal in ("9223372036854775808", "0x" + "f" * 6000, "-0x" + "f" * 6000):
        case = options.Case(name, options.as_toml({name: literal.replace("-0x", "-1")}), (), EITHER)
        options.check(own / "settings.toml", case)
    with pytest.raises(AoiError, match=name):
        parse_settings({name.partition(".")[0]: {name.partition(".")[2]: 2**63}}, "settings.toml")


BAD_FILES = {
    "not UTF-8": b"\xff\xfe",
    "JSON": b"{}",
    "a value for a section": b"train = 1",
    "a list of sections": b"[[train]]\nepochs = 1",
    "a setting outside its section": b"epochs = 1",
    "an unknown section": b"[tarin]\nepochs = 1",
    "a section in a section": b"[train.train]\nepochs = 1",
    "a name twice": b"[train]\nepochs = 1\nepochs = 2",
    "lists without end": b"x = " + b"[" * 100_000,
    "tables without end": b"[train]\nepochs" + b".a" * 3000 + b" = 1",
    "a number without end": b"[train]\nepochs = 0x" + b"f" * 6000,
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_is_no_settings_is_refused(name, own):
    assert options.check(own / "settings.toml", options.Case(name, BAD_FILES[name], (), DAMAGED)) == REJECTED


@pytest.mark.parametrize(
    "option", ["", "=", "train", "train.epochs", "train.epochs=", ".=1", "a=b", "train.epochs=3\nx=2"]
)
def test_an_option_that_is_none_is_refused(option, own):
    assert options.check(own / "unused", options.Case(option, None, (option,), DAMAGED)) == REJECTED


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(list(options.KINDS))


@given(
    values=st.dictionaries(NAMES, VALUES, max_size=3), beside=st.dictionaries(st.text(max_size=5), VALUES, max_size=1)
)
@settings(max_examples=200)
def test_any_values_become_settings_that_equal_them_or_are_refused(values, beside):
    nested = dict(beside)
    for name, value in values.items():
        section, _, key = name.partition(".")
        nested.setdefault(section, {})[key] = value
    try:
        told = parse_settings(nested, "request").model_dump()
    except AoiError as error:
        options.refused(EITHER, error)
        return
    for name, value in values.items():
        section, _, key = name.partition(".")
        assert options.same(name, told[section][key], value)
        assert options.within(name, value)
