"""Rows as columns, and the shards and folds that they go to, against the plain definitions."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inputs.inputs import Inputs
from pipeline.inputs.rows import Reject, Row, Rows, duplicates
from pipeline.job import plan
from pipeline.job.plan import folds_of, shard_rows
from pipeline.settings import IngestSettings
from tfrecords.artifacts.files import hash_json, hash_json_rows
from tfrecords.dataset import NO_FOLD, assign_folds, shard_index, shard_key, shard_name

FEW = settings(max_examples=60, deadline=None)


@st.composite
def split_rows(draw):
    """Rows of some labels, in which contents repeat, some begin alike, and some pictures can't be used."""
    contents = [bytes([number % 3, *[0] * 7]) + bytes([number]) * 24 for number in range(1, 8)]
    contents += [bytes([number]) * 32 for number in range(200, 230)]
    ids = draw(st.lists(st.text("ab/.刮", min_size=1, max_size=4), unique=True, max_size=40))
    rows = []
    for line, name in enumerate(ids, 2):
        sha256 = draw(st.sampled_from(contents))
        fault = draw(st.sampled_from(["", "", "", "cut off", "gone"]))
        reject = Reject(name, line, fault, "copy it again") if fault else None
        # The same bytes have the same fault.
        given = {"gone": b"", "cut off": bytes(31) + b"c"}.get(fault, sha256)
        rows.append(
            Row(name, line, draw(st.integers(0, 2)), f"in/{name}", given, reject, draw(st.sampled_from([8, 16])))
        )
    return rows


@FEW
@given(rows=split_rows(), start=st.integers(-50, 50), stop=st.integers(-50, 50))
def test_columns_are_the_rows(rows, start, stop):
    columns = Rows.of(rows)
    assert list(columns) == [columns[at] for at in range(len(rows))] == rows
    assert list(columns[start:stop]) == rows[start:stop]
    assert list(columns.take(np.arange(len(rows))[::-1])) == rows[::-1]
    assert columns == Rows.of(rows)
    assert Rows.from_plain(columns.plain()) == Rows.of([Row(*_without_bits(row)) for row in rows])


def _without_bits(row):
    return row.id, row.row, row.label, row.name, row.sha256, row.reject


@FEW
@given(rows=split_rows(), folds=st.integers(2, 12))
def test_folds_are_those_of_the_definition(rows, folds):
    fold_of = assign_folds(((row.label, row.sha256) for row in rows if not row.reject), folds)
    expected = [NO_FOLD if row.reject else fold_of[row.sha256] for row in rows]
    assert folds_of(Rows.of(rows), folds).tolist() == expected


@FEW
@given(rows=split_rows(), count=st.integers(1, 9), alike=st.booleans())
def test_shards_are_those_of_the_definition(rows, count, alike):
    def key(picture_id):
        return shard_key(picture_id) >> 62 << 62 if alike else shard_key(picture_id)

    expected = defaultdict(list)
    for row in sorted(rows, key=lambda row: (key(row.id), row.id)):
        expected[key(row.id) * count >> 64].append(row)
    inputs = Inputs("test", "", "", (), Rows.of(rows))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plan, "shard_key", key)
        found = list(shard_rows(inputs, IngestSettings(shards=count), 1))
    assert [name for name, _, _ in found] == [shard_name("test", index, count) for index in range(count)]
    assert [list(shard) for _, shard, _ in found] == [expected[index] for index in range(count)]
    assert alike or all(shard_index(row.id, count) == at for at, (_, shard, _) in enumerate(found) for row in shard)


@FEW
@given(rows=split_rows())
def test_equal_files_are_told_in_groups(rows):
    groups = defaultdict(list)
    for row in rows:
        groups[row.sha256].append(row.id)
    expected = sorted(sorted(ids) for sha256, ids in groups.items() if sha256 and len(ids) > 1)
    assert duplicates(Rows.of(rows)) == expected


@FEW
@given(
    values=st.lists(st.text() | st.integers(), min_size=1, max_size=3),
    parts=st.lists(st.lists(st.tuples(st.text(st.characters(codec="utf-8")), st.integers()), min_size=1), max_size=3),
)
def test_the_hash_of_rows_in_parts_is_that_of_all_at_once(values, parts):
    values = [str(value).encode(errors="replace").decode() for value in values]
    assert hash_json_rows(values, parts) == hash_json([*values, [row for part in parts for row in part]])
