"""Read: batches for training from pictures of 512 px, as others read them and as we do."""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.core import Contestant, aoi, by_turns, goal, median
from benchmarks.pictures import by_class, draw, repeat

if TYPE_CHECKING:
    from tfrecords.dataset import Dataset

SIZE_PX, BATCH, SHIFT = 224, 16, 0.05
GENERATOR, DIRECTORY, FILES, OURS, MEMORY = (
    "ImageDataGenerator",
    "image_dataset_from_directory",
    "tf.data on image files",
    "tf.data on TFRecords (ours)",
    "raw in memory",
)
READERS = {GENERATOR: "generator", DIRECTORY: "directory", FILES: "files", OURS: "ours", MEMORY: "memory"}


def measure(work: Path, size: Mapping[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """size: drawn, pictures, seconds (of later epochs at least), still (readers without shift too), rounds."""
    data = repeat(draw(work, size["drawn"]), work, size["pictures"])
    folders = by_class(data, work / f"classes-{size['pictures']}")
    home = work / f"read-home-{size['pictures']}"
    if not home.exists():
        aoi(["ingest", "--data", str(data), "--home", str(home)])
    places = {"data": str(data), "folders": str(folders), "home": str(home)}
    contestants = [
        Contestant(
            _named(name, shifted),
            "benchmarks.read:read",
            {"reader": reader, "shift": SHIFT if shifted else 0.0, "seconds": size["seconds"], **places},
        )
        for shifted in ((True, False) if size["still"] else (True,))
        for name, reader in READERS.items()
    ]
    rows = by_turns(contestants, size["rounds"], tell)
    rate = {row["name"]: median(rows, row["name"], "later_per_s") for row in rows}
    ours = rate[_named(OURS, True)]
    return {
        "size": dict(size),
        "tables": {"batches": rows},
        "goals": [
            goal(f"as fast as {DIRECTORY}, with shift", ours / rate[_named(DIRECTORY, True)], 10, unit="x"),
            goal(f"as fast as {GENERATOR}, with shift", ours / rate[_named(GENERATOR, True)], 25, unit="x"),
        ],
    }


def _named(name: str, shifted: bool) -> str:
    return f"{name}, {'shift' if shifted else 'still'}"


def read(reader: str, shift: float, seconds: float, **places: str) -> dict[str, float]:
    """One reader's epochs of batches (B, 224, 224, 1): how long the first batch takes, the first epoch, later ones.

    The clock of the first batch starts when the libraries are imported.
    """
    import tensorflow as tf

    tf.config.list_physical_devices()
    began = time.perf_counter()
    epoch = globals()[f"_{reader}"](shift=shift, **places)
    first_batch, count = 0.0, 0
    for images in epoch(0):
        first_batch = first_batch or time.perf_counter() - began
        count += len(images)
    first = time.perf_counter() - began
    began, later, epochs = time.perf_counter(), 0, 0
    while epochs == 0 or time.perf_counter() - began < seconds:
        epochs += 1
        later += sum(len(images) for images in epoch(epochs))
    rate = later / (time.perf_counter() - began)
    return {"pictures": count, "first_batch_s": first_batch, "first_per_s": count / first, "later_per_s": rate}


Epoch = Callable[[int], Iterable]


def _generator(shift: float, data: str, **_: str) -> Epoch:
    import pandas as pd
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    table = pd.read_csv(Path(data, "train.csv"), dtype=str)
    source = ImageDataGenerator(width_shift_range=shift, height_shift_range=shift, fill_mode="reflect")
    batches = source.flow_from_dataframe(
        table,
        str(Path(data, "train_images")),
        x_col="ID",
        y_col="Label",
        target_size=(SIZE_PX, SIZE_PX),
        color_mode="grayscale",
        class_mode="sparse",
        batch_size=BATCH,
        validate_filenames=False,
    )
    return lambda epoch: (batches[at][0] for at in range(len(batches)))


def _directory(shift: float, folders: str, **_: str) -> Epoch:
    import keras
    import tensorflow as tf

    dataset = keras.utils.image_dataset_from_directory(
        folders, color_mode="grayscale", batch_size=BATCH, image_size=(SIZE_PX, SIZE_PX), verbose=False
    )
    if shift:
        move = keras.layers.RandomTranslation(shift, shift, fill_mode="reflect")
        dataset = dataset.map(lambda x, y: (move(x, training=True), y), num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.prefetch(2)
    return lambda epoch: (images for images, _ in dataset)


def _files(shift: float, data: str, **_: str) -> Epoch:
    import tensorflow as tf

    paths = sorted(str(path) for path in Path(data, "train_images").iterdir())

    def load(path: Any) -> Any:
        pixels = tf.io.decode_png(tf.io.read_file(path), channels=1)
        return tf.cast(tf.image.resize(pixels, (SIZE_PX, SIZE_PX), "area"), tf.uint8)

    dataset = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths))
    dataset = dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE)
    if shift:
        dataset = dataset.map(_cropped(shift), num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(BATCH).prefetch(2)
    return lambda epoch: dataset


def _ours(shift: float, home: str, **_: str) -> Epoch:
    from tfrecords.records.reader import training_batches

    batches = training_batches(_dataset(home), -1, BATCH, 0, shift, cache_mb=2048)
    return lambda epoch: (images for images, _ in batches(epoch))


def _memory(shift: float, home: str, **_: str) -> Epoch:
    import numpy as np
    import tensorflow as tf

    from tfrecords.records.arrays import read_arrays

    images = np.concatenate([batch["image"] for batch in read_arrays(_dataset(home))])
    if not shift:
        return lambda epoch: (
            images[chosen] for chosen in np.split(np.random.permutation(len(images)), range(BATCH, len(images), BATCH))
        )
    dataset = tf.data.Dataset.from_tensor_slices(images).map(_cropped(shift), num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(BATCH).prefetch(2)
    return lambda epoch: dataset


def _dataset(home: str) -> "Dataset":
    from flows.home import Home
    from tfrecords.dataset import DatasetManifest

    return Home(Path(home)).latest(DatasetManifest, "")


def _cropped(shift: float) -> Callable:
    """A shift as tf.image has it: pad, then a random crop."""
    import tensorflow as tf

    most = round(shift * SIZE_PX)

    def move(picture: Any) -> Any:
        padded = tf.pad(picture, [[most, most], [most, most], [0, 0]], "REFLECT")
        return tf.image.random_crop(padded, (SIZE_PX, SIZE_PX, 1))

    return move
