"""The audit: doubles, conflicts, leaks and outliers are found, and named for what they are."""

import numpy as np
import pandas as pd
import pytest

from pipeline.audit import find, outliers, same_pictures

CLASSES = ("plain", "rows")
ONE, NEAR, FAR = "00000000000000ff", "00000000000003ff", "ffffffff00000000"


def rows(*pictures):
    """A rows table from (split, id, label, sha256, phash) and, if they matter, width and mean."""
    columns = ["split", "id", "label", "sha256", "phash", "width", "height", "mean", "deviation"]
    return pd.DataFrame([(*picture, 48, 48, 128.0, 10.0)[:9] for picture in pictures], columns=columns)


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
    (found,) = find(rows(("train", "a", 0, "s1", ONE), other), CLASSES)
    assert found[:2] == (finding, concern)
    assert (found[3], found[6]) == ("a", "b")


def test_pictures_that_differ_and_pictures_that_could_not_be_read_are_no_pair():
    table = rows(("train", "a", 0, "s1", ONE), ("train", "b", 0, "s2", FAR), ("train", "c", 0, "", ""))
    assert list(find(table, CLASSES)) == []


def test_the_gravest_findings_come_first():
    table = rows(
        ("train", "a", 0, "s1", ONE),
        ("train", "b", 0, "s1", ONE),
        ("test", "c", -1, "s1", ONE),
        ("train", "d", 1, "s1", ONE),
    )
    concerns = [found[1] for found in find(table, CLASSES)]
    assert concerns == sorted(concerns, key=["conflict", "leak", "duplicate", "outlier"].index)
    assert set(concerns) == {"conflict", "leak", "duplicate"}


def test_many_copies_of_a_picture_are_told_once_each():
    table = rows(*[("train", f"{place:04}", 0, "s1", ONE) for place in range(2000)])
    pairs = list(same_pictures(table))
    assert [later for _, later, _ in pairs] == list(range(1, 2000))


def test_an_odd_size_and_an_odd_brightness_stand_out():
    rng = np.random.default_rng(0)
    table = rows(*[("train", str(place), 0, str(place), f"{place * 977:016x}") for place in range(200)])
    table["mean"] = rng.normal(128, 2, 200)
    table.loc[7, "mean"] = 20.0
    table.loc[9, ["width", "height"]] = (640, 480)
    found = {(index, finding) for index, finding, _ in outliers(table)}
    assert found == {(7, "brightness"), (9, "size")}


def test_sets_of_many_sizes_have_no_odd_one():
    table = rows(*[("train", str(place), 0, str(place), f"{place * 977:016x}") for place in range(50)])
    table["width"] = range(50, 100)
    assert [finding for _, finding, _ in outliers(table)] == []
