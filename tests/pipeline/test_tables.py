"""A CSV says the same however a person, Excel or pandas wrote it."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.inputs.tables import Table, read_table
from tfrecords.errors import AoiError

ROWS = (("a.png", "0"), ("刮 傷,1.png", "1"), ('b "c".png', "正常"), ("d;e\tf.png", "0"))


def text_of(rows=ROWS, header=("ID", "Label"), **dialect) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, **dialect).writerows([header, *rows])
    return text.getvalue()


def read(path: Path, data: str | bytes, labelled: bool = True) -> Table:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return read_table(str(path), labelled)


def pairs(table: Table) -> list[tuple[str, str]]:
    assert table.problems == ()
    return [(row.id, row.label) for row in table.rows]


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "train.csv"


WAYS = {
    "plain": (text_of(), []),
    "LF": (text_of(lineterminator="\n"), []),
    "CR": (text_of(lineterminator="\r"), []),
    "quotes": (text_of(quoting=csv.QUOTE_ALL), []),
    "UTF-8 with its mark": (text_of().encode("utf-8-sig"), ["a byte order mark"]),
    "UTF-16": (text_of().encode("utf-16"), ["an encoding other than UTF-8"]),
    "UTF-16, big end first": (("\ufeff" + text_of()).encode("utf-16-be"), ["an encoding other than UTF-8"]),
    "UTF-16 without its mark": (text_of().encode("utf-16-le"), ["an encoding other than UTF-8"]),
    "Big5": (text_of().encode("cp950"), ["an encoding other than UTF-8"]),
    "semicolons": (text_of(delimiter=";"), ["semicolons between the fields"]),
    "tabs, UTF-16": (
        text_of(delimiter="\t").encode("utf-16"),
        ["an encoding other than UTF-8", "tabs between the fields"],
    ),
    "sep=": ("sep=;\r\n" + text_of(delimiter=";"), ["Excel's first line sep="]),
    "sep=, and a mark": (
        ("sep=|\n" + text_of(delimiter="|")).encode("utf-8-sig"),
        ["a byte order mark", "Excel's first line sep="],
    ),
    "lower case": (
        text_of(header=("id", "label")),
        ["another name of the column ID", "another name of the column Label"],
    ),
    "blanks in the header": (text_of(header=("ID", " Label\u3000")), ["another name of the column Label"]),
    "Kaggle": (
        text_of(header=("image_id", "class")),
        ["another name of the column ID", "another name of the column Label"],
    ),
    "columns before, between and behind": (
        text_of([("7", each, "x, y", label, "") for each, label in ROWS], ("", "ID", "note", "Label", "more")),
        [],
    ),
    "columns changed round": (text_of([row[::-1] for row in ROWS], ("Label", "ID")), []),
    "empty rows": (text_of([*ROWS, ("", ""), (" ", "\u3000")]) + "\r\n,,,\r\n\r\n", ["empty rows"]),
    "trailing separators": (text_of([(*row, "") for row in ROWS]), ["empty fields too many or too few"]),
    "nothing at the end": (text_of().rstrip(), []),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_csv_means_the_same_in_every_way_to_write_it(path, way):
    data, kinds = WAYS[way]
    table = read(path, data)
    assert pairs(table) == list(ROWS)
    assert [lenience.kind for lenience in table.leniences] == kinds


@given(
    rows=st.lists(
        st.tuples(
            st.text(st.sampled_from("ab1 ._-/\\'\",;\t圖傷（"), min_size=1).filter(str.strip),
            st.sampled_from(["0", "1", "正常", "NG", ""]),
        ),
        min_size=1,
        max_size=6,
    ),
    separator=st.sampled_from([",", ";", "\t"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp950"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=st.sampled_from(["\n", "\r\n"]),
    header=st.sampled_from(
        [("ID", "Label"), ("id", "label"), (" ID ", "LABEL"), ("filename", "class"), ("Image", "Label")]
    ),
    more=st.booleans(),
    empty=st.booleans(),
    hint=st.booleans(),
)
def test_any_rows_in_any_accepted_spelling_are_those_of_the_plain_csv(
    tmp_path_factory, rows, separator, encoding, quoting, end, header, more, empty, hint
):
    path = tmp_path_factory.getbasetemp() / "spelled.csv"
    plain = pairs(read(path, text_of(rows)))
    spelled = [(f"{number}", *row) for number, row in enumerate(rows)] if more else list(rows)
    spelled += [("",) * len(spelled[0])] * empty
    columns = ("No.", *header) if more else header
    text = text_of(spelled, columns, delimiter=separator, quoting=quoting, lineterminator=end)
    text = f"sep={separator}{end}{text}" if hint else text
    assert pairs(read(path, text.encode(encoding))) == plain == rows


@given(data=st.one_of(st.binary(max_size=80), st.binary(max_size=60).map(lambda data: b"ID,Label\n" + data)))
def test_any_bytes_are_a_table_or_a_refusal_with_a_remedy(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    try:
        table = read(path, data)
    except AoiError as error:
        assert all(problem.seen and problem.remedy for problem in error.problems)
    else:
        assert table.rows or table.problems


def test_a_row_keeps_its_line_in_the_file(path):
    table = read(path, 'sep=,\nID,Label\n\na.png,0\n"b\n.png",1\n,\nc.png,0\n')
    assert [(row.line, row.id) for row in table.rows] == [(4, "a.png"), (6, "b\n.png"), (8, "c.png")]


def test_a_test_set_may_hold_ids_alone(path):
    assert [row.id for row in read(path, "ID\na.png\nb.png\n", labelled=False).rows] == ["a.png", "b.png"]
    assert [row.label for row in read(path, "ID,Label\na.png,7\nb.png\n", labelled=False).rows] == ["", ""]


@pytest.mark.parametrize("header", ["ID;Label,x", "filename,file,Label", "image,ID2", "Label", "a.png,0"])
def test_a_header_without_one_column_for_each_is_refused(path, header):
    with pytest.raises(AoiError, match="the header is"):
        read(path, f"{header}\na.png,0,1\n")


@pytest.mark.parametrize("data", [b"PK\x03\x04" + bytes(50), b"\xd0\xcf\x11\xe0" + bytes(50)])
def test_a_workbook_is_told_by_what_it_is(path, data):
    with pytest.raises(AoiError, match=r"a workbook of Excel.*CSV UTF-8"):
        read(path, data)


def test_the_first_of_two_equal_columns_counts(path):
    assert pairs(read(path, "ID,Label,Label\na.png,0,1\n")) == [("a.png", "0")]


# --- What else people write ----------------------------------------------------------------------------------


def test_quotes_behind_blanks_are_quotes(path):
    table = read(path, '"ID", "Label"\n"a, b.png", "0"\n"c.png",  "1"\n')
    assert pairs(table) == [("a, b.png", "0"), ("c.png", "1")]
    assert [lenience.kind for lenience in table.leniences] == ["blanks before quotes"]
    assert pairs(read(path, 'ID,Label\n"a.png", "0"\n')) == [("a.png", "0")]


def test_the_example_of_blanks_is_the_header_also_behind_excel_s_hint(path):
    table = read(path, 'sep=;\n"ID"; "Label"\n"a.png"; "0"\n')
    examples = {lenience.kind: lenience.example for lenience in table.leniences}
    assert examples == {"Excel's first line sep=": "';'", "blanks before quotes": '"ID"; "Label"'}


def test_a_file_of_several_that_were_put_together_has_its_header_several_times(path):
    table = read(path, "ID,Label\na.png,0\nID,Label\nb.png,1\n")
    assert pairs(table) == [("a.png", "0"), ("b.png", "1")]
    assert [(each.kind, each.example) for each in table.leniences] == [("the header again", "row 3")]


@pytest.mark.parametrize("before", ["\n\n", ",\n", "\r\n;;\r\n", " \t\n"])
def test_empty_lines_before_the_header_are_passed_over_and_counted(path, before):
    table = read(path, f"{before}ID,Label\na.png,0\n")
    assert pairs(table) == [("a.png", "0")]
    assert table.rows[0].line == before.count("\n") + 2


def test_the_end_mark_of_dos_is_no_row(path):
    assert pairs(read(path, "ID,Label\r\na.png,0\r\n\x1a")) == [("a.png", "0")]


@pytest.mark.parametrize(
    "header", ["檔名,標籤", "ファイル;ラベル", "文件名\t缺陷", "ID,類別", ",影像,類別", "標籤,檔名"]
)
def test_a_header_in_chinese_is_told_by_what_the_columns_hold(path, header):
    separator = next(sign for sign in ",;\t" if sign in header.strip(","))
    rows = [["a.png", "0"], [" b.JPG", "1"]]
    if header.startswith(","):
        rows = [["7", *row] for row in rows]
    if header.startswith("標籤"):
        rows = [row[::-1] for row in rows]
    table = read(path, "\n".join([header, *(separator.join(row) for row in rows)]))
    assert pairs(table) == [("a.png", "0"), (" b.JPG", "1")]
    kinds = [lenience.kind for lenience in table.leniences]
    assert kinds[-1] == "another name of the column Label"
    assert ("another name of the column ID" in kinds) == ("ID" not in header)


@pytest.mark.parametrize(
    "text",
    [
        "檔名,標籤,班別\na.png,0,1\n",
        "甲,乙\na.png,b.png\n",
        "甲,乙\na,0\n",
        "a.png,0\nb.png,1\n",
        "ID,Value\na.png,0\n",
        "name,value\na.png,0\n",
    ],
)
def test_columns_that_could_be_more_than_one_thing_are_refused(path, text):
    with pytest.raises(AoiError, match="the header is"):
        read(path, text)


@pytest.mark.parametrize("names", [["b.png", "a.png"], ["x/1.png", "x/0.png"], ["img_1", "img_0"]])
def test_a_column_that_numbers_the_rows_is_no_id_where_another_names_the_pictures(path, names):
    table = read(path, "id,filename,label\n" + "".join(f"{at},{name},{at}\n" for at, name in enumerate(names)))
    assert [row.id for row in table.rows] == names
    assert "another name of the column ID" in [lenience.kind for lenience in table.leniences]


@pytest.mark.parametrize(
    "names", [["0.png", "1.png"], ["x/000.png", "x/001.png"], ["s.dat", "t.dat"], ["same", "same"]]
)
def test_a_number_that_is_the_picture_s_own_is_its_id(path, names):
    table = read(path, "ID,path,Label\n" + "".join(f"{at},{name},{at}\n" for at, name in enumerate(names)))
    assert [row.id for row in table.rows] == ["0", "1"]


@pytest.mark.parametrize("word", ["Größe", "défaut", "Schäden", "Maße"])
def test_accents_of_western_letters_are_not_taken_for_chinese(path, word):
    with pytest.raises(AoiError, match="not UTF-8"):
        read(path, f"ID,Label\na.png,{word}\nb.png,OK\n".encode("cp1252"))


@pytest.mark.parametrize("words", [("A面", "B面"), ("正常", "défaut"), ("A\u3000", "B\u3000")])
def test_single_letters_of_chinese_are_read(path, words):
    text = "".join(f"{at}.png,{word}\n" for at, word in enumerate(words)).replace("é", "e")
    assert pairs(read(path, f"ID,Label\n{text}".encode("cp950")))[0] == ("0.png", words[0])


def test_a_row_of_too_few_fields_is_told_what_separates_them(path):
    (problem,) = read(path, "ID;Label\na.png,0\n").problems
    assert problem.remedy == "Write 2, with semicolons between them"


def test_a_column_found_by_its_name_counts_before_one_found_by_what_it_holds(path):
    assert [row.id for row in read(path, "No.\tID\n1\ta.png\n2\tb.png\n", labelled=False).rows] == ["a.png", "b.png"]


@pytest.mark.parametrize("words", [("正常", "划伤"), ("合格", "缺陷"), ("良品", "脏污")])
def test_another_encoding_of_chinese_is_not_taken_for_big5(path, words):
    with pytest.raises(AoiError, match="not UTF-8"):
        read(path, b"ID,Label\n" + "".join(f"{word}.png,{word}\n" for word in words).encode("gbk"))


def test_numbers_before_the_rows_that_the_header_does_not_know(path):
    table = read(path, '"ID","Label"\n"1","a.png","0"\n"2","b.png","1"\n')
    assert pairs(table) == [("a.png", "0"), ("b.png", "1")]


@pytest.mark.parametrize("rows", ["7,0,note\n9,1,note\n", "a.png,0,note\nb.png,1,note\n", "a.png,0,\nb.png,1,x\n"])
def test_one_field_too_many_that_counts_no_rows_is_refused(path, rows):
    assert read(path, f"ID,Label\n{rows}").problems


def test_two_columns_of_the_same_name_in_other_letters_are_told(path):
    with pytest.raises(AoiError, match="'label' and 'LABEL' may each be meant"):
        read(path, "ID,label,LABEL\na.png,0,1\n")
