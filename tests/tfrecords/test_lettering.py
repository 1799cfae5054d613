"""Names in figures: the font of each letter, short forms of long names, and labels for what no font can write."""

import subprocess
import sys

import pytest

from tfrecords.lettering import NUMBERED, as_seen, dejavu, fonts_of, legible, letters, names_in_figures, shorten

CJK = "正常刮傷"


def test_ascii_stands_as_it_is_and_needs_no_font():
    words = """
import sys
from tfrecords.lettering import legible, names_in_figures
names = ["normal", "$x_1$", "_hidden", "50 %"]
assert names_in_figures(names) == (names, "")
assert legible(names) == names
assert "matplotlib" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", words], check=True)


def test_a_name_is_written_where_a_font_of_the_machine_has_its_letters(fonts):
    (file,) = fonts(("cjk.ttf", CJK))
    assert names_in_figures(["normal", "刮傷", "größer"]) == (["normal", "刮傷", "größer"], "")
    assert fonts_of(["刮傷 ö"]) == {"刮": file, "傷": file, " ": "", "ö": dejavu()}


def test_a_name_that_no_font_can_write_gives_place_to_its_label_and_the_figure_says_so(fonts):
    assert names_in_figures(["normal", "刮傷", "größer"]) == (["normal", "label 1", "größer"], NUMBERED)
    fonts(("half.ttf", "刮"))
    assert names_in_figures(["normal", "刮傷"]) == (["normal", "label 1"], NUMBERED)


def test_other_texts_have_question_marks_there(fonts):
    assert legible(["lot 刮.png", "größer\nnormal"]) == ["lot ?.png", "größer\nnormal"]


CHOICES = {
    "regular before bold": ([("a.ttf", CJK, "Test Sans", "Bold"), ("b.ttf", CJK, "Test Sans", "Regular")], "b.ttf"),
    "without serifs before with": ([("a.ttf", CJK, "Test Serif"), ("b.ttf", CJK, "Test Sans")], "b.ttf"),
    "the one that has more": ([("a.ttf", CJK[:3], "Test Sans"), ("b.ttf", CJK, "Test Serif", "Bold")], "b.ttf"),
    "of equals the first name": ([("a.ttf", CJK, "B Sans"), ("b.ttf", CJK, "A Sans")], "b.ttf"),
    "never the font of last resort": ([("a.ttf", CJK, "Last Resort Sans"), ("b.ttf", CJK[:3], "Test")], "b.ttf"),
}


@pytest.mark.parametrize("case", CHOICES)
def test_which_font_is_taken_depends_on_the_fonts_and_not_on_their_order(case, fonts):
    told, expected = CHOICES[case]
    for order in (told, told[::-1]):
        fonts(*order)
        assert fonts_of([CJK])["正"].endswith(expected)


def test_letters_may_come_from_several_fonts(fonts):
    one, other = fonts(("a.ttf", "正常"), ("b.ttf", "刮"))
    assert fonts_of(["正常刮"]) == {"正": one, "常": one, "刮": other}


def test_a_damaged_font_file_is_passed_over(fonts, tmp_path):
    *_, good = fonts(("a.ttf", CJK), ("b.ttf", CJK))
    (tmp_path / "a.ttf").write_bytes(b"no font")
    assert set(fonts_of([CJK]).values()) == {good}


def test_a_letter_and_its_marks_need_one_font(fonts):
    assert letters("ab\u0301c\u0e49") == ["a", "b\u0301", "c\u0e49"]
    fonts(("letters.ttf", "漢"), ("marks.ttf", "\u0902"))
    assert legible(["漢", "漢\u0902"]) == ["漢", "?"]
    fonts(("both.ttf", "漢\u0902"))
    assert legible(["漢\u0902"]) == ["漢\u0902"]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("e\u0301", "é"),
        ("a\u3000b\u00a0c", "a b c"),
        ("x\u200cy", "xy"),
        ("⚠\ufe0f", "⚠"),
    ],
)
def test_what_has_no_shape_of_its_own_is_not_drawn(text, seen):
    assert as_seen(text) == seen


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("rolled-in_scale", "rolled-in_scale"),
        ("x" * 24, "x" * 24),
        ("a very long name that ends in 7", "a very long... ends in 7"),
        ("一二三四五六七八九十甲乙", "一二三四五六七八九十甲乙"),
        ("一二三四五六七八九十甲乙丙", "一二三四五...九十甲乙丙"),
    ],
)
def test_a_long_text_keeps_its_beginning_and_its_end(text, short):
    assert shorten(text, 24) == short


def test_a_shortened_text_takes_no_more_than_its_columns():
    for columns in range(8, 30):
        assert len(shorten("abcdefghij" * 5, columns)) == columns


def test_long_names_that_would_look_alike_have_their_labels_before_them():
    one, other = "scratch on the left " * 3 + "side", "scratch on the left, or so, on the left side"
    names, note = names_in_figures([one, "plain", other], 18)
    assert names == ["0: scrat... side", "plain", "2: scrat... side"]
    assert note == ""
