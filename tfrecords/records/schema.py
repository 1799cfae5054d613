"""The record: one picture as a tf.train.Example in a TFRecord file, written and read without importing TensorFlow."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, BinaryIO

import google_crc32c
import numpy as np

VERSION = 1  # of a record's features and their meaning
UNLABELLED = -1
HEADER_BYTES = 12  # before the data of an entry: its length and a checksum
LARGEST_BYTES = 2**31 - 1  # of a protobuf message


class RecordError(ValueError):
    """Bytes that are no record of ours; its text says what was seen."""


@dataclass(frozen=True)
class Record:
    """One picture.

    id: its name in the CSV; pixels: uint8 (height, width) of gray, (height, width, 3) of RGB; label: class index, or
    UNLABELLED; fold: 0..k-1, or -1 where there are no folds; sha256: of the source file's bytes, in hex.
    """

    id: str
    pixels: np.ndarray
    label: int
    fold: int
    sha256: str


def encode(record: Record) -> bytes:
    """The record as a serialized tf.train.Example; equal records give equal bytes.

    Gray ones have no feature `channels`, as those of earlier versions.
    """
    features = {
        "id": record.id.encode(),
        "image": record.pixels.tobytes(),
        "sha256": record.sha256.encode(),
        **dict(zip(("height", "width", "channels"), record.pixels.shape, strict=False)),
        "label": record.label,
        "fold": record.fold,
    }
    example = _example_class()()
    for name, value in features.items():
        feature = example.features.feature[name]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        else:
            feature.int64_list.value.append(value)
    return example.SerializeToString(deterministic=True)


def decode(data: bytes) -> Record:
    """What `encode` was given. Raises: RecordError for bytes that it did not make."""
    from google.protobuf.message import DecodeError

    try:
        found = _example_class().FromString(data).features.feature
        height, width, label, fold = (found[name].int64_list.value[0] for name in ("height", "width", "label", "fold"))
        channels = found["channels"].int64_list.value  # none of gray
        name, image, sha256 = (found[name].bytes_list.value[0] for name in ("id", "image", "sha256"))
        pixels = np.frombuffer(image, np.uint8).reshape(height, width, *channels)
        return Record(name.decode(), pixels, label, fold, sha256.decode())
    except (DecodeError, IndexError, ValueError) as error:  # no message, a feature missing, another size or no UTF-8
        raise RecordError(f"not a record ({error})") from None


def frame(data: bytes) -> bytes:
    """One TFRecord entry: length, masked crc32c of it, data, masked crc32c of that.

    Source: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
    """
    length = struct.pack("<Q", len(data))
    return b"".join((length, _masked_crc(length), data, _masked_crc(data)))


def write(file: BinaryIO, record: Record) -> None:
    """Appends a record to an open TFRecord file."""
    file.write(frame(encode(record)))


def read(file: BinaryIO) -> Iterator[Record]:
    """The records of an open TFRecord file, in their order.

    Raises: RecordError, once the damaged entry is reached: cut off, or a checksum that does not hold.
    """
    at = 0
    while header := file.read(HEADER_BYTES):
        length = int.from_bytes(header[:8], "little")
        if header[8:] != _masked_crc(header[:8]) or length > LARGEST_BYTES:
            raise RecordError(f"no entry begins at byte {at}")
        data, checksum = file.read(length), file.read(4)
        if checksum != _masked_crc(data):
            raise RecordError(f"the entry at byte {at} does not hold its checksum")
        at += HEADER_BYTES + length + 4
        yield decode(data)


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


@cache
def _example_class() -> Any:
    """tf.train.Example from its published definition (tensorflow/core/example/{example,feature}.proto).

    A pool of its own, since TensorFlow registers the same names in the default one. Protobuf is imported here, since a
    run that finds all of its work done needs none of it.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")

    def message(name: str, *fields: tuple[Any, Any, str], parent: Any = None) -> Any:
        made = parent.nested_type.add(name=name) if parent else file.message_type.add(name=name)
        for number, (label, kind, field_name) in enumerate(fields, 1):
            made_field = made.field.add(name=field_name, number=number, label=label)
            if isinstance(kind, int):
                made_field.type = kind
            else:
                made_field.type, made_field.type_name = field.TYPE_MESSAGE, f".tensorflow.{kind}"
        return made

    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    message("BytesList", (many, field.TYPE_BYTES, "value"))
    message("FloatList", (many, field.TYPE_FLOAT, "value"))
    message("Int64List", (many, field.TYPE_INT64, "value"))
    feature = message(
        "Feature",
        (one, "BytesList", "bytes_list"),
        (one, "FloatList", "float_list"),
        (one, "Int64List", "int64_list"),
    )
    feature.oneof_decl.add(name="kind")
    for member in feature.field:
        member.oneof_index = 0
    features = message("Features", (many, "Features.FeatureEntry", "feature"))
    entry = message("FeatureEntry", (one, field.TYPE_STRING, "key"), (one, "Feature", "value"), parent=features)
    entry.options.map_entry = True
    message("Example", (one, "Features", "features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))
