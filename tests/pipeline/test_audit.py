"""The audit: doubles, conflicts, leaks and outliers are found, and named for what they are."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.audit import compared
from pipeline.audit.figure import draw_audit
from pipeline.audit.findings import PICTURE, find, outliers, read_pictures, same_pictures
from tfrecords.artifacts.artifact import Artifact
from tfrecords.dataset import ROWS, DatasetManifest

CLASSES = ("plain", "rows")
ONE, NEAR, FAR = "00000000000000ff", "00000000000003ff", "ffffffff00000000"


def picture(split, id, label, sha256, phash, size="48 x 48", mean=128.0):
    return split, id, label, sha256.encode().ljust(32), size, mean, int(phash, 16)


def pictures(*told):
    return np.array(list(told), PICTURE)


def unlike(count, size=lambda place: "48 x 48", mean=lambda place: 128.0):
    """So many pictures that are no pair."""
    codes = [f"{place * 977:016x}" for place in range(count)]
    told = (picture("train", code, 0, code, code, size(place), mean(place)) for place, code in enumerate(codes))
    return pictures(*told)


CONCERNS = {
    "the same bytes, one label": (("train", "b", 0, "s1", ONE), "identical", "duplicate"),
    "the same bytes, two labels": (("train", "b", 1, "s1", ONE), "identical", "conflict"),
    "the same bytes in the lot": (("test", "b", -1, "s1", ONE), "identical", "leak"),
    "nearly the same": (("train", "b", 0, "s2", NEAR), "near-identical", "duplicate"),
    "nearly the same, two labels": (("train", "b", 1, "s2", NEAR), "near-identical", "conflict"),
    "nearly the same in the lot": (("test", "b", -1, "s2", NEAR), "near-identical", "leak"),
}


@pytest.mark.parametrize("case", CONCERNS)
def test_a_pair_is_named_for_what_it_means(case):
    other, finding, concern = CONCERNS[case]
    (found,) = find(pictures(picture("train", "a", 0, "s1", ONE), picture(*other)), CLASSES)
    assert found[:2] == (finding, concern)
    assert (found[3], found[6]) == ("a", "b")


def test_pictures_that_differ_are_no_pair():
    two = pictures(picture("train", "a", 0, "s1", ONE), picture("train", "b", 0, "s2", FAR))
    assert find(two, CLASSES) == []


def test_pictures_that_could_not_be_read_are_left_out(tmp_path):
    (tmp_path / ROWS).write_text(
        "row,id,label,fold,sha256,width,height,mean,deviation,phash\n"
        f"2,a.png,1,0,{'5e' * 32},64,48,128.5,10.25,{ONE}\n"
        f"3,b.png,-1,-1,{'5f' * 32},,,,,\n"
    )
    dataset = Artifact(tmp_path, DatasetManifest.model_construct(split="train"), {})
    assert list(read_pictures(dataset)) == [("train", "a.png", 1, b"\x5e" * 32, "64 x 48", 128.5, 0xFF)]
    assert find(pictures(), CLASSES) == []


def test_the_gravest_findings_come_first():
    table = pictures(
        picture("train", "a", 0, "s1", ONE),
        picture("train", "b", 0, "s1", ONE),
        picture("test", "c", -1, "s1", ONE),
        picture("train", "d", 1, "s1", ONE),
    )
    concerns = [found[1] for found in find(table, CLASSES)]
    assert concerns == sorted(concerns, key=["conflict", "leak", "duplicate", "outlier"].index)
    assert set(concerns) == {"conflict", "leak", "duplicate"}


def test_many_copies_of_a_picture_are_told_once_each():
    table = pictures(*(picture("train", f"{place:04}", 0, "s1", ONE) for place in range(2000)))
    pairs = list(same_pictures(table))
    assert [later for _, later, _ in pairs] == list(range(1, 2000))


# --- Pairs --------------------------------------------------------------------------------------------------


def flipped(base, bits):
    for bit in bits:
        base ^= 1 << bit
    return base


@st.composite
def near_pictures(draw):
    """Pictures whose hashes are a few bits away from a few others."""
    bases = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3))
    flips = st.lists(st.integers(0, 63), max_size=9)
    one = st.tuples(st.sampled_from(("train", "test")), st.integers(-1, 2), st.sampled_from(bases), flips)
    told = draw(st.lists(one, max_size=40))
    return pictures(*(picture(split, "a", label, "s", f"{flipped(base, bits):x}") for split, label, base, bits in told))


@given(near_pictures())
def test_the_pairs_are_those_that_comparing_all_with_all_finds(table):
    assert list(same_pictures(table)) == list(compared(table))


@pytest.mark.parametrize("unstable_bits", [4, 12, 40])
def test_so_they_are_where_most_pictures_look_the_same(unstable_bits):
    rng = np.random.default_rng(unstable_bits)
    table = np.zeros(3000, PICTURE)
    table["phash"] = rng.integers(0, 1 << unstable_bits, 3000, np.uint64) << np.uint64(7)
    table["split"] = np.where(rng.random(3000) < 0.2, "test", "train").astype(object)
    table["label"] = np.where(table["split"] == "train", rng.random(3000) < 0.02, -1)
    assert list(same_pictures(table)) == list(compared(table))


# --- Outliers -----------------------------------------------------------------------------------------------


def test_an_odd_size_and_an_odd_brightness_stand_out():
    means = np.random.default_rng(0).normal(128, 2, 200)
    means[7] = 20.0
    table = unlike(200, mean=means.__getitem__, size=lambda place: "640 x 480" if place == 9 else "48 x 48")
    found = {(index, finding) for index, finding, _ in outliers(table)}
    assert found == {(7, "brightness"), (9, "size")}


def test_sets_of_many_sizes_have_no_odd_one():
    table = unlike(50, size=lambda place: f"{50 + place} x 48")
    assert [finding for _, finding, _ in outliers(table)] == []


# --- The figure ---------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(tmp_path):
    """A function: the audit's figure of a set with so many pictures per class, uint8 (rows, columns, 3)."""

    def draw(counts):
        path = tmp_path / "audit.png"
        draw_audit(counts, {"train": np.full(9, 128.0), "test": np.full(3, 90.0)}, {"conflict": 1}, path)
        return cv2.imread(str(path))

    return draw


def test_names_are_drawn_in_a_font_that_has_their_letters_or_their_labels_are(drawn, fonts):
    without = drawn({"normal": 5, "刮 x": 4})
    fonts(("cjk.ttf", "刮"))
    assert (drawn({"normal": 5, "刮 x": 4})[:, :300] != without[:, :300]).any()
    for other in ("$x_1$", "grün", "e\u0301\u0302", "שריטה", "\U00013000"):
        assert drawn({"normal": 5, other: 4}).size


def test_of_many_classes_the_rarest_are_shown(drawn, fonts):
    counts = {f"class {label}": 1000 - label for label in range(1000)}
    assert max(drawn(counts).shape) < 2000
    rarest = dict(sorted(counts.items(), key=lambda one: one[1])[:40])
    assert (drawn(counts)[40:1480] == drawn(rarest)[40:1480]).all()  # but for the titles


def test_long_names_leave_room_for_the_rest(drawn, fonts):
    assert drawn({"x" * 1000: 3, "y": 2}).shape[1] < 2000
