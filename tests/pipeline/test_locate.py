"""An ID means the picture of just its name, else the one that a person would say it means, else none."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.inputs.locate import likely, match, visible

names = st.lists(
    st.lists(
        st.text("ab1０ 圖é._", min_size=1, max_size=3).filter(lambda part: any(c.isalnum() for c in part)),
        min_size=1,
        max_size=2,
    )
    .map("/".join)
    .map(lambda stem: f"{stem}.png"),
    unique_by=lambda name: "".join(unicodedata.normalize("NFKC", visible(name)).casefold().split()),
    min_size=2,
    max_size=6,
)
SPELLINGS = (
    str,
    str.upper,
    lambda name: f" {name}\u3000",
    lambda name: f"./{name}",
    lambda name: name.replace("/", "\\"),
    lambda name: unicodedata.normalize("NFD", name),
    lambda name: unicodedata.normalize("NFKC", name),
)


@given(names=names, order=st.randoms(use_true_random=False))
def test_an_id_that_equals_a_name_means_it_whatever_else_is_there(names, order):
    ids = order.sample(names, len(names))
    found = match(ids, names)
    assert [names[at] for at in found.places] == ids
    assert set(found.ways) == {""}


@given(names=names, how=st.lists(st.sampled_from(SPELLINGS), min_size=6, max_size=6))
def test_an_id_in_another_spelling_means_the_same_picture(names, how):
    ids = [spell(name) for spell, name in zip(how, names, strict=False)]
    assert match(ids, names).places == tuple(range(len(names)))


@given(names=names, folder=st.sampled_from(["", "train_images/", "a b/c/"]), ending=st.booleans())
def test_one_way_for_all_ids_means_the_same_pictures(names, folder, ending):
    ids = [folder + (name if ending else name.removesuffix(".png")) for name in names]
    assert match(ids, names).places == tuple(range(len(names)))
    assert match(names, [folder + name for name in names]).places == tuple(range(len(names)))


@given(ids=names, names=names)
def test_no_two_ids_mean_one_picture(ids, names):
    found = match(ids, names)
    taken = [at for at in found.places if at is not None]
    assert len(taken) == len(set(taken))
    assert sorted([*taken, *found.left]) == list(range(len(names)))
    assert set(found.missing) == {at for at, place in enumerate(found.places) if place is None}


def test_an_id_that_stands_there_twice_means_its_picture_once():
    assert match(["a.png", "a.png"], ["a.png", "b.png"]).places == (0, None)


def test_a_name_that_only_an_equal_id_means():
    assert match(["x.png"], [".x.png"], frozenset([0])).places == (None,)
    assert match([".x.png"], [".x.png"], frozenset([0])).places == (0,)


@pytest.mark.parametrize(
    ("ids", "names", "way", "fits"),
    [
        (["p/a.png", "p/b.png", "gone.png"], ["a.png", "b.png", "c.png"], "another folder around the pictures", 2),
        (["a", "b", "gone"], ["a.png", "b.png", "c.png"], "IDs without the ending of the file, or with another", 2),
        (["x", "y"], ["a.png", "b.png"], "", 0),
        (["x", "y"], [], "", 0),
    ],
)
def test_the_likely_cause_is_the_way_that_fits_most_ids(ids, names, way, fits):
    assert likely(ids, names, match(ids, names)) == (way, fits)
