"""Color from the file to the batch: equalized in lightness alone, shifted and lit as one picture, three channels."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf

from tfrecords.artifacts.artifact import entry_of
from tfrecords.artifacts.make import make
from tfrecords.dataset import Dataset, DatasetManifest, DatasetSettings, ShardEntry, image_shape, shard_name
from tfrecords.errors import AoiError
from tfrecords.pictures.preprocessing import equalize, pad, prepare, resize
from tfrecords.records.arrays import read_arrays, read_first
from tfrecords.records.augmentation import bordered, relight, shift, shift_corners
from tfrecords.records.reader import training_batches, validation_batches
from tfrecords.records.schema import Record, write
from tfrecords.settings import LayoutSettings, PreprocessSettings

SIZE, COUNT = 32, 20
COLOR = PreprocessSettings(image_size_px=SIZE, color="rgb")


def soft(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Soft patches of middling colors, RGB uint8 (height, width, 3)."""
    few = np.random.default_rng(seed).integers(70, 180, (6, 6, 3), np.uint8)
    return cv2.resize(few, (width, height), interpolation=cv2.INTER_LINEAR)


def png(pixels: np.ndarray) -> bytes:
    """The file of a picture in RGB."""
    return cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()


def lab(pixels: np.ndarray) -> np.ndarray:
    """Lightness 0..100, green to red, blue to yellow: float32 (height, width, 3)."""
    return cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


# --- From the file to the record ----------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["clahe", "histogram"])
def test_equalizing_changes_the_lightness_and_leaves_the_hue(way):
    pixels = soft(64, 48)
    before, after = lab(pixels), lab(equalize(pixels, COLOR.model_copy(update={"equalize": way})))
    assert after[..., 0].std() > 1.2 * before[..., 0].std()
    inside = (after[..., 0] > 15) & (after[..., 0] < 85)  # where screens have the color at that lightness too
    assert inside.mean() > 0.5
    np.testing.assert_allclose(after[inside][:, 1:], before[inside][:, 1:], atol=2.5)


def test_the_lightness_is_equalized_as_gray_is():
    pixels = soft(64, 48)
    lightness = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)[..., 0]
    found = cv2.cvtColor(equalize(pixels, COLOR), cv2.COLOR_RGB2LAB)[..., 0]
    difference = np.abs(found.astype(int) - cv2.createCLAHE(2.0, (8, 8)).apply(lightness))
    assert np.median(difference) <= 1


def test_a_gray_picture_keeps_three_equal_channels():
    gray = np.repeat(soft(64, 48)[..., :1], 3, axis=2)
    evened = equalize(gray, COLOR).astype(int)
    assert np.abs(evened - evened[..., :1]).max() <= 1
    assert evened.std() > 1.2 * gray.std()


def test_equalizing_leaves_its_input_alone_and_none_changes_nothing():
    pixels = soft(40, 50)
    before = pixels.copy()
    equalize(pixels, COLOR)
    np.testing.assert_array_equal(equalize(pixels, COLOR.model_copy(update={"equalize": "none"})), before)


@pytest.mark.parametrize("change", [pad, lambda pixels: resize(pixels, SIZE)], ids=["pad", "resize"])
def test_every_channel_changes_its_size_as_gray_does(change):
    pixels = soft(70, 25)
    for channel in range(3):
        np.testing.assert_array_equal(change(pixels)[..., channel], change(pixels[..., channel].copy()))


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_a_file_becomes_a_square_of_red_green_and_blue(fit):
    pixels = np.full((20, 50, 3), (200, 120, 40), np.uint8)
    prepared = prepare(png(pixels), COLOR.model_copy(update={"equalize": "none", "fit": fit}))
    assert prepared.dtype == np.uint8
    np.testing.assert_array_equal(prepared, np.broadcast_to((200, 120, 40), COLOR.shape))


# --- From the record to the batch ---------------------------------------------------------------------------


def write_dataset(root: Path, shape: tuple[int, ...], color: str = "rgb") -> Dataset:
    """Records whose first channel is their number, and the others twice and thrice it; record i has fold i % 5."""

    def build(work: Path) -> DatasetManifest:
        name = shard_name("train", 0, 1)
        with open(work / name, "wb") as file:
            for number in range(COUNT):
                pixels = (np.ones(shape) * number * np.arange(1, 1 + shape[-1])).astype(np.uint8)
                write(file, Record(f"{number}", pixels, number, number % 5, ""))
        return DatasetManifest(
            split="train",
            classes=("all",),
            settings=DatasetSettings(
                preprocess=PreprocessSettings(image_size_px=SIZE, color=color), ingest=LayoutSettings()
            ),
            input_digest="",
            records=COUNT,
            counts={"all": {str(fold): COUNT // 5 for fold in range(5)}},
            rejects=0,
            duplicates=(),
            versions={},
            shards=(ShardEntry(**entry_of(work, name).model_dump(), records=COUNT),),
        )

    return make(root, "colors", DatasetManifest, "0" * 16, build)[0]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("color"), (SIZE, SIZE, 3))


def assert_colors(images: np.ndarray, labels: np.ndarray) -> None:
    """Every picture has the colors that its label, the record's number, says."""
    expected = np.broadcast_to(labels[:, None, None, None] * [1, 2, 3], (len(labels), SIZE, SIZE, 3))
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, expected)


def test_arrays_hold_three_channels(dataset):
    assert image_shape(dataset) == (SIZE, SIZE, 3)
    (batch,) = read_arrays(dataset)
    assert_colors(batch["image"], batch["label"])
    assert read_first(dataset, {0: 2, 3: 0})[0].shape == (2, SIZE, SIZE, 3)


@pytest.mark.parametrize("cache_mb", [64, 0], ids=["in memory", "from disk"])
@pytest.mark.parametrize("shift_fraction", [0.0, 0.3], ids=["still", "shifted"])
def test_batches_hold_three_channels(dataset, cache_mb, shift_fraction):
    training = training_batches(dataset, 1, 6, 7, shift_fraction, cache_mb)(0)
    validation = validation_batches(dataset, 1, 6, cache_mb)
    numbers = []
    for batches in (training, validation):
        assert batches.element_spec[0] == tf.TensorSpec((None, SIZE, SIZE, 3), tf.uint8)
        for images, labels in batches.as_numpy_iterator():
            assert_colors(images, labels)
            numbers += labels.tolist()
    assert sorted(numbers) == list(range(COUNT))


def test_records_of_other_channels_than_the_manifest_says_are_refused(tmp_path):
    gray = write_dataset(tmp_path / "gray", (SIZE, SIZE))
    with pytest.raises(AoiError, match=r"0 has the shape \(32, 32, 1\), not \(32, 32, 3\)"):
        list(read_arrays(gray))
    with pytest.raises(tf.errors.InvalidArgumentError):
        list(validation_batches(gray, 1, 6, 64))


def test_all_channels_are_shifted_alike():
    pixels = soft(9, 9)
    moved = shift(bordered(tf.constant(pixels), 4), shift_corners(tf.constant([[2, -3]]), 4)[0], 9)
    expected = np.pad(pixels, ((4, 4), (4, 4), (0, 0)), "reflect")[2:11, 7:16]
    np.testing.assert_array_equal(moved, expected)


def test_light_changes_alike_in_all_channels_but_for_their_balance_and_noise():
    gray = np.full((64, 64, 3), 100, np.uint8)
    brightness, balances = [], []
    for index in range(50):
        lit = relight(tf.constant(gray), tf.constant([0, index], tf.int64), 0.15).numpy().astype(float)
        assert lit.shape == gray.shape
        means = lit.mean(axis=(0, 1))
        brightness.append(means.mean())
        balances.append(means / means.mean())
        noise = (lit - means).reshape(-1, 3)
        if noise.std() > 1:
            assert np.abs(np.corrcoef(noise.T)[np.triu_indices(3, 1)]).max() < 0.1
    assert np.ptp(brightness) > 40
    assert 0.03 < np.abs(np.array(balances) - 1).max() < 0.07  # 5 % of each, here to their mean
