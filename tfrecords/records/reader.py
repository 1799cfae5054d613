"""From shards to batches: the tf.data reader."""

import math
from collections.abc import Callable, Collection

import tensorflow as tf

from tfrecords.dataset import Dataset, image_shape
from tfrecords.errors import refuse
from tfrecords.records.augmentation import bordered, mirror, relight, shift, shift_corners, shift_offsets

PARSE_BATCH = 64


FEATURES = {
    "id": tf.io.FixedLenFeature([], tf.string),
    "image": tf.io.FixedLenFeature([], tf.string),
    "label": tf.io.FixedLenFeature([], tf.int64),
    "fold": tf.io.FixedLenFeature([], tf.int64),
}


def parse(serialized: tf.Tensor, shape: tuple[int, int, int]) -> dict[str, tf.Tensor]:
    """A batch of serialized records, string (B,), of a shape (S, S, C), to their features.

    Returns: id string (B,), image uint8 (B, S, S, C), label int64 (B,), fold int64 (B,).
    """
    features = tf.io.parse_example(serialized, FEATURES)
    pixels = tf.ensure_shape(tf.io.decode_raw(features.pop("image"), tf.uint8), [None, math.prod(shape)])
    return {**features, "image": tf.reshape(pixels, [-1, *shape])}


def records(dataset: Dataset) -> tf.data.Dataset:
    """Every record in batches as `parse` returns them: always in the same order, blocks of four shards by turns."""
    paths = [str(dataset.place(shard)) for shard in dataset.manifest.shards]
    files = tf.data.Dataset.from_tensor_slices(paths)
    raw = files.interleave(
        lambda path: tf.data.TFRecordDataset(path, buffer_size=1 << 20),
        cycle_length=len(paths) if len(paths) < 4 else 4,
        block_length=PARSE_BATCH,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    shape = image_shape(dataset)
    return raw.batch(PARSE_BATCH).map(lambda batch: parse(batch, shape), num_parallel_calls=tf.data.AUTOTUNE)


def in_folds(batches: tf.data.Dataset, keep: Callable[[tf.Tensor], tf.Tensor]) -> tf.data.Dataset:
    """Single (image, label) records of the folds for which `keep` (int64 (B,) to bool (B,)) says so."""

    def select(batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        kept = keep(batch["fold"])
        return tf.boolean_mask(batch["image"], kept), tf.boolean_mask(batch["label"], kept)

    return batches.map(select, num_parallel_calls=tf.data.AUTOTUNE).unbatch()


def training_batches(
    dataset: Dataset,
    validation_fold: int,
    batch_size: int,
    seed: int,
    shift_fraction: float,
    cache_mb: int,
    parts: int = 1,
) -> Callable[..., tf.data.Dataset]:
    """The training records as a function of the epoch.

    Args:
        validation_fold: left out.
        seed: the same seed gives the same batches in the same epoch, resumed or not. It becomes TensorFlow's own.
        shift_fraction: largest shift, as a part of the picture's size, both ways.
        cache_mb: records are kept in memory up to this many MiB; above it they are read again every epoch and
            shuffled within a buffer of that size.
        parts: every batch can be divided into so many of the same size, as batch_size can.

    Returns:
        (epoch, light_fraction=0, flips=()) -> batches (uint8 (B, S, S, C), int64 (B,)), every record once, the last
        batch maybe smaller, without the few (others in each epoch) that keep it from being divided; light_fraction:
        largest change of light, see `relight`; flips: "horizontal", "vertical".
    """
    count = sum(
        n for folds in dataset.manifest.counts.values() for fold, n in folds.items() if int(fold) != validation_fold
    )
    if not count:
        raise refuse(dataset.path, f"no record outside fold {validation_fold}", "Set train.fold to another fold")
    if count < parts:
        raise refuse("train.devices", f"{parts}, for {count} training pictures", "Set train.devices=1")
    size, _, channels = image_shape(dataset)
    picture_bytes = size * size * channels
    room = cache_mb << 20
    most_px = round(shift_fraction * size)
    single = in_folds(records(dataset), lambda fold: fold != validation_fold)
    # A border costs more than cutting it, so it is kept with the pictures where there is room for it.
    kept_border = most_px > 0 and count * channels * (size + 2 * most_px) ** 2 <= room
    if kept_border:
        single = single.map(
            lambda picture, label: (bordered(picture, most_px), label), num_parallel_calls=tf.data.AUTOTUNE
        )
    single = single.enumerate().apply(tf.data.experimental.assert_cardinality(count))
    fits = count * picture_bytes <= room
    if fits:
        single = single.cache()
    buffer = count if fits else max(batch_size, room // picture_bytes)

    def epoch_batches(epoch: int, light_fraction: float = 0.0, flips: Collection[str] = ()) -> tf.data.Dataset:
        corners = shift_corners(shift_offsets(seed, tf.constant(epoch), count, most_px), most_px)

        def move(index: tf.Tensor, item: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
            picture, label = item
            if most_px and not kept_border:
                picture = bordered(picture, most_px)
            if most_px:
                picture = shift(picture, corners[index], size)
            key = tf.stack([tf.constant(seed, tf.int64), epoch * count + index])
            if flips:
                picture = mirror(picture, key, "horizontal" in flips, "vertical" in flips)
            if light_fraction:
                picture = relight(picture, key, light_fraction)
            return picture, label

        tf.random.set_seed(seed)  # tf.data mixes the process's seed into the order
        # Keras looks at the first batch of several devices ahead of the epoch, which must not give it another order.
        shuffled = single.shuffle(buffer, seed=seed * 1_000_003 + epoch, reshuffle_each_iteration=parts == 1)
        if parts > 1:
            shuffled = shuffled.take(count - count % parts)
        # Single pictures, since a loop over a batch inside one call costs more than the calls it spares.
        return _delivered(shuffled.map(move, num_parallel_calls=tf.data.AUTOTUNE), batch_size)

    return epoch_batches


def validation_batches(dataset: Dataset, fold: int, batch_size: int, cache_mb: int) -> tf.data.Dataset:
    """The records of one fold, always in the same order: batches (uint8 (B, S, S, C), int64 (B,))."""
    single = in_folds(records(dataset), lambda folds: folds == fold)
    count = sum(folds.get(str(fold), 0) for folds in dataset.manifest.counts.values())
    single = single.apply(tf.data.experimental.assert_cardinality(count))
    if count * math.prod(image_shape(dataset)) <= cache_mb << 20:
        single = single.cache()
    return _delivered(single, batch_size)


def validation_ids(dataset: Dataset, fold: int) -> list[str]:
    """The ids of the records of one fold, in the order of `validation_batches`."""
    batches = records(dataset).map(lambda batch: tf.boolean_mask(batch["id"], batch["fold"] == fold))
    return [name.decode() for names in batches.as_numpy_iterator() for name in names]


def _delivered(single: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
    """Records in batches, the next two made while one is used.

    Without tf.data's autotuning: its thread sleeps for 10 ms, 20, 40 and so on, up to a minute, and an iterator that is
    done waits for it, so an epoch may end many seconds after its last batch (kOptimizationPeriodMinMs and MaxMs in
    tensorflow/core/framework/model.h). AUTOTUNE then stands for as many threads as TensorFlow has.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    # Several devices of one machine share a batch; the shards are for machines, and to divide them drops assertions.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return single.batch(batch_size).prefetch(2).with_options(options)
