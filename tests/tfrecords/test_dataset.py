"""Where a picture lies is decided by its name and content alone, so no other picture moves it."""

import hashlib
import json
from collections import Counter, defaultdict

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tfrecords.artifacts.artifact import Artifact, read
from tfrecords.artifacts.make import make
from tfrecords.artifacts.manifest import Manifest
from tfrecords.dataset import (
    DatasetManifest,
    ShardEntry,
    assign_folds,
    class_counts,
    count_folds,
    record_count,
    shard_index,
    shard_key,
    shard_name,
)
from tfrecords.errors import AoiError

ids = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FEW = settings(max_examples=100)


def content(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def in_fold(fold: int, folds: int, number: int = 0) -> bytes:
    """A content whose hash picks the fold."""
    return (folds * (number + 1) + fold).to_bytes(8, "big") + content(number)[8:]


# A few numbers drawn often, so that contents repeat within a class and across classes.
pictures = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60).map(content)), max_size=80)
fold_counts = st.integers(2, 8)


# --- Shards -------------------------------------------------------------------------------------------------


def test_names_of_shards_sort_in_their_order():
    assert shard_name("train", 3, 8) == "train-00003-of-00008.tfrecord"
    names = [shard_name("test", index, 12000) for index in range(12000)]
    assert names == sorted(names)


def test_the_place_of_a_picture_is_the_hash_of_its_id():
    digest = hashlib.sha256(b"train_00001.png").hexdigest()
    assert shard_key("train_00001.png") == int(digest[:16], 16)


@FEW
@given(picture_id=ids, count=st.integers(1, 99999))
def test_every_id_lies_in_a_shard_that_exists(picture_id, count):
    assert 0 <= shard_index(picture_id, count) < count


@FEW
@given(some=st.lists(ids, unique=True, max_size=30), count=st.integers(1, 50))
def test_shards_one_after_the_other_are_in_the_order_of_the_keys(some, count):
    in_order = sorted(some, key=shard_key)
    shards = [shard_index(picture_id, count) for picture_id in in_order]
    assert shards == sorted(shards)


def test_shards_are_about_equally_full():
    filled = Counter(shard_index(f"train_{index:05d}.png", 8) for index in range(4000))
    assert sorted(filled) == list(range(8))
    assert 400 < min(filled.values()) <= max(filled.values()) < 600


# --- Folds --------------------------------------------------------------------------------------------------


@FEW
@given(some=pictures, folds=fold_counts)
def test_every_content_has_one_of_the_folds_whatever_the_order(some, folds):
    fold_of = assign_folds(some, folds)
    assert set(fold_of) == {sha256 for _, sha256 in some}
    assert all(0 <= fold < folds for fold in fold_of.values())
    assert assign_folds(reversed(some), folds) == fold_of


@FEW
@given(some=pictures, folds=fold_counts)
def test_more_copies_of_a_picture_change_no_fold(some, folds):
    assert assign_folds(some + some[:5], folds) == assign_folds(some, folds)


@FEW
@given(some=pictures, new=st.tuples(st.integers(0, 2), st.integers(1000, 2000).map(content)), folds=fold_counts)
def test_a_new_picture_moves_no_other_one_where_no_fold_is_empty(some, new, folds):
    full = [
        (label, in_fold(fold, folds, 100 * label + fold)) for label in range(3) for fold in range(folds)
    ]  # one content a fold in each class
    before = assign_folds(full + some, folds)
    after = assign_folds([*full, *some, new], folds)
    assert before.items() <= after.items()


@FEW
@given(
    members=st.lists(st.lists(st.integers(0, 10**6), unique=True, max_size=25), min_size=1, max_size=4),
    folds=fold_counts,
)
@example(members=[list(range(5)), [100]], folds=5)
def test_each_class_of_enough_contents_is_in_every_fold(members, folds):
    """Contents here belong to one class each, as they do in data without contradictions."""
    some = [(label, content(number * 10 + label)) for label, numbers in enumerate(members) for number in numbers]
    fold_of = assign_folds(some, folds)
    per_class = defaultdict(Counter)
    for label, sha256 in some:
        per_class[label][fold_of[sha256]] += 1
    for counts in per_class.values():
        assert len(counts) == min(folds, counts.total())


@FEW
@given(some=pictures, folds=fold_counts)
def test_a_class_that_is_large_does_not_move_for_a_small_one(some, folds):
    small = [(9, content(5000))]
    assert assign_folds(some, folds).items() <= assign_folds(some + small, folds).items()


def test_the_hash_alone_picks_the_fold_where_no_fold_is_empty():
    some = [(0, in_fold(fold, 5, 10 * fold + turn)) for fold in range(5) for turn in range(3)]
    assert assign_folds(some, 5) == {sha256: int.from_bytes(sha256[:8], "big") % 5 for _, sha256 in some}


def test_an_empty_fold_takes_one_content_from_the_fullest():
    kept = [in_fold(1, 3), *(in_fold(0, 3, number) for number in (1, 2))]
    fold_of = assign_folds([(0, sha256) for sha256 in kept], 3)
    assert sorted(fold_of.values()) == [0, 1, 2]
    assert fold_of[kept[0]] == 1
    assert fold_of[min(kept[1:])] == 2


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_class_smaller_than_the_folds_fills_as_many_as_it_can(size):
    fold_of = assign_folds([(0, in_fold(2, 5, number)) for number in range(size)], 5)
    assert len(set(fold_of.values())) == size


def test_no_pictures_have_no_folds():
    assert assign_folds([], 5) == {}


# --- What the manifest counts -------------------------------------------------------------------------------


def dataset_of(path, **facts):
    """A dataset with these facts alone."""
    return Artifact(path, DatasetManifest.model_construct(**facts), {})


def test_records_are_counted_by_class_and_fold_and_unlabelled_ones_apart():
    records = [(0, 1), (1, 0), (0, 1), (0, 0), (-1, -1)]
    assert count_folds(records, ("good", "bad")) == {"": {"-1": 1}, "bad": {"0": 1}, "good": {"0": 1, "1": 2}}
    assert count_folds([], ("good", "bad")) == {}


def test_counts_survive_json_as_they_are():
    counts = count_folds([(0, fold) for fold in range(12)], ("good",))
    assert json.loads(json.dumps(counts)) == counts


def test_classes_are_counted_in_label_order_of_all_folds_or_some(tmp_path):
    counts = {"bad": {"0": 5}, "good": {"0": 1, "1": 2}}
    dataset = dataset_of(tmp_path, classes=("good", "none", "bad"), counts=counts)
    assert list(class_counts(dataset).items()) == [("good", 3), ("none", 0), ("bad", 5)]
    assert class_counts(dataset, {1}) == {"good": 2, "none": 0, "bad": 0}
    assert class_counts(dataset, set()) == {"good": 0, "none": 0, "bad": 0}


def test_the_promised_records_are_those_of_all_shards(tmp_path):
    shards = tuple(ShardEntry(file="s", bytes=1, sha256="", records=records) for records in (3, 0, 4))
    assert record_count(dataset_of(tmp_path, shards=shards)) == 7


def test_opening_a_folder_that_is_no_dataset_is_refused(tmp_path):
    class Model(Manifest):
        KIND = "model"

    model, _ = make(tmp_path, "tiny", Model, "0" * 16, lambda work: Model())
    with pytest.raises(AoiError, match="a model of schema version 1, not a dataset"):
        read(model.path, DatasetManifest)
