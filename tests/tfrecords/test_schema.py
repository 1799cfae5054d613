"""A record and a TFRecord file, written without TensorFlow, are byte for byte what TensorFlow would write."""

import io
import math
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrecords.records import schema
from tfrecords.records.reader import parse
from tfrecords.records.schema import UNLABELLED, Record, RecordError, decode, encode, frame, read, write

INT64 = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@st.composite
def any_record(draw) -> Record:
    shape = (draw(st.integers(0, 6)), draw(st.integers(0, 6)), *draw(st.sampled_from([(), (3,)])))
    size = math.prod(shape)
    pixels = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8)
    return Record(draw(texts), pixels.reshape(shape), draw(INT64), draw(INT64), draw(texts))


def a_record(picture_id: str = "train_001.png", label: int = 2, fold: int = 4, size: int = 3) -> Record:
    pixels = np.arange(size * size, dtype=np.uint8).reshape(size, size)
    return Record(picture_id, pixels, label, fold, "ab" * 32)


def by_tensorflow(record: Record) -> bytes:
    def of_bytes(value: bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def of_int(value: int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    height, width, *channels = record.pixels.shape
    features = {
        "id": of_bytes(record.id.encode()),
        "image": of_bytes(record.pixels.tobytes()),
        "height": of_int(height),
        "width": of_int(width),
        **({"channels": of_int(3)} if channels else {}),  # of gray there is none, as ever
        "label": of_int(record.label),
        "fold": of_int(record.fold),
        "sha256": of_bytes(record.sha256.encode()),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


@settings(max_examples=100)
@given(record=any_record())
def test_a_record_is_byte_equal_to_tensorflows_own_example(record):
    assert encode(record) == by_tensorflow(record)


@settings(max_examples=100)
@given(record=any_record())
def test_what_is_encoded_comes_back(record):
    back = decode(encode(record))
    np.testing.assert_array_equal(back.pixels, record.pixels)
    assert back.pixels.shape == record.pixels.shape
    assert replace(back, pixels=None) == replace(record, pixels=None)


@pytest.mark.parametrize("feature", ["id", "image", "sha256", "height", "width", "label", "fold"])
def test_a_record_without_one_of_its_features_is_refused(feature):
    example = tf.train.Example.FromString(encode(a_record()))
    del example.features.feature[feature]
    with pytest.raises(RecordError, match="not a record"):
        decode(example.SerializeToString())


@pytest.mark.parametrize("data", [b"\xff", encode(a_record())[:-1], b""], ids=["no message", "cut", "empty"])
def test_what_is_no_record_is_refused(data):
    with pytest.raises(RecordError, match="not a record"):
        decode(data)


def test_pixels_that_are_too_few_for_their_size_are_refused():
    example = tf.train.Example.FromString(encode(a_record()))
    example.features.feature["height"].int64_list.value[0] = 4
    with pytest.raises(RecordError, match="not a record"):
        decode(example.SerializeToString())


@settings(max_examples=50)
@given(labels=st.lists(st.tuples(texts, INT64, INT64), min_size=1, max_size=4))
def test_what_is_encoded_is_what_the_reader_parses(labels):
    records = [a_record(picture_id, label, fold) for picture_id, label, fold in labels]
    batch = parse(tf.constant([encode(record) for record in records]), (3, 3, 1))
    assert [value.decode() for value in batch["id"].numpy()] == [picture_id for picture_id, _, _ in labels]
    np.testing.assert_array_equal(batch["label"], [label for _, label, _ in labels])
    np.testing.assert_array_equal(batch["fold"], [fold for _, _, fold in labels])
    np.testing.assert_array_equal(batch["image"], np.stack([record.pixels for record in records])[..., None])


def test_the_reader_parses_three_channels_as_they_were_encoded():
    colors = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    batch = parse(tf.constant([encode(replace(a_record(), pixels=colors))]), (3, 3, 3))
    np.testing.assert_array_equal(batch["image"], colors[None])


def test_pixels_need_not_lie_in_one_piece_of_memory():
    whole = np.arange(36, dtype=np.uint8).reshape(6, 6)
    scattered = Record("a", whole[::2, ::2].T, UNLABELLED, -1, "")
    gathered = Record("a", np.ascontiguousarray(whole[::2, ::2].T), UNLABELLED, -1, "")
    assert encode(scattered) == encode(gathered)


# --- The file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_file_is_byte_equal_to_tensorflows_own_and_readable_by_it(tmp_path, count):
    records = [a_record(f"{index}.png", size=index + 1) for index in range(count)]
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    with open(mine, "wb") as file:
        for record in records:
            write(file, record)
    with tf.io.TFRecordWriter(str(theirs)) as writer:
        for record in records:
            writer.write(by_tensorflow(record))
    assert mine.read_bytes() == theirs.read_bytes()
    entries = list(tf.data.TFRecordDataset(str(mine)).as_numpy_iterator())
    assert entries == [encode(record) for record in records]
    with open(theirs, "rb") as file:
        assert [encode(record) for record in read(file)] == entries


def test_an_entry_of_an_impossible_length_is_refused_before_it_is_read():
    length = struct.pack("<Q", 2**62)
    forged = length + frame(length)[-4:]  # the data's checksum, here of the length
    with pytest.raises(RecordError, match="no entry begins at byte 0"):
        list(read(io.BytesIO(forged)))


@settings(max_examples=30)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_framed_as_tensorflow_frames_them(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("frame") / "file"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(data)
    assert frame(data) == path.read_bytes()


def test_writing_appends():
    file = io.BytesIO()
    write(file, a_record("a"))
    first = file.getvalue()
    write(file, a_record("b"))
    assert file.getvalue().startswith(first)
    assert len(file.getvalue()) == 2 * len(first)


def test_writing_does_not_import_tensorflow_and_reading_beside_it_does_no_harm():
    code = (
        "import sys, io, numpy as np; from tfrecords.records.schema import *\n"
        "record = Record('a', np.zeros((2, 2), np.uint8), 1, 0, 'x'); before = encode(record)\n"
        "assert not any(name.partition('.')[0] in ('tensorflow', 'apache_beam', 'cv2') for name in sys.modules)\n"
        "from google.protobuf import descriptor_pool\n"
        "try: descriptor_pool.Default().FindMessageTypeByName('tensorflow.Example')\n"
        "except KeyError: print('apart')"
    )
    root = Path(schema.__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert (run.returncode, run.stdout.strip()) == (0, "apart"), run.stderr
