"""The network as it is by default: what it computes, its first weights, its file. Of every backbone: test_backbones."""

import random
import re
import threading

import keras
import numpy as np
import pytest

from model.evaluation.gradcam import gradcam
from model.network.build import build
from model.network.files import load, save
from model.network.parts import convolutions_of, seed_dropout
from model.network.weights import ensure_weights, weights_digest
from model.settings import TrainSettings
from tfrecords.errors import AoiError

SIZE, CLASSES = 32, 3


def settings(**given):
    return TrainSettings(**{"alpha": 0.25, "weights": "none", **given})


@pytest.fixture(scope="module")
def rgb():
    """Keras' own MobileNet on RGB with random weights, batch normalization's statistics included."""
    keras.utils.set_random_seed(7)
    network = keras.applications.MobileNet(
        input_shape=(SIZE, SIZE, 3), alpha=0.25, include_top=False, pooling="avg", weights=None
    )
    rng = np.random.default_rng(7)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.8, 1.2, value.shape) for value in layer.get_weights()])
    return network


@pytest.fixture(scope="module")
def weights(rgb, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "quarter.weights.h5"
    rgb.save_weights(path)
    return path


@pytest.fixture
def pictures():
    return np.random.default_rng(3).integers(0, 256, (5, SIZE, SIZE, 1), dtype=np.uint8)


# --- What it computes ---------------------------------------------------------------------------------------


def test_the_whole_classifier_is_scale_features_and_softmax(rgb, weights, pictures):
    network = build(settings(weights=str(weights)), SIZE, CLASSES)
    kernel, bias = network.get_layer("probabilities").get_weights()
    features = rgb(np.repeat(pictures / np.float32(127.5) - 1, 3, axis=-1), training=False).numpy()
    odds = np.exp(features @ kernel + bias)
    expected = odds / odds.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(network(pictures, training=False).numpy(), expected, atol=1e-5)


def test_over_rgb_it_has_the_kernels_of_the_weights_as_they_are(rgb, weights):
    network = build(settings(weights=str(weights)), SIZE, CLASSES, channels=3)
    assert network.input_shape == (None, SIZE, SIZE, 3)
    for ours, theirs in zip(convolutions_of(network).get_weights(), rgb.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_it_takes_uint8_gray_and_gives_float32_probabilities_that_sum_to_one(pictures):
    network = build(settings(), SIZE, CLASSES)
    answers = network(pictures, training=False).numpy()
    assert network.input_shape == (None, SIZE, SIZE, 1)
    assert network.inputs[0].dtype == "uint8"
    assert answers.shape == (5, CLASSES)
    assert answers.dtype == np.float32
    assert answers.min() >= 0
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-6)


def test_black_and_white_are_not_the_same_to_it():
    network = build(settings(), SIZE, CLASSES)
    extremes = np.stack([np.zeros((SIZE, SIZE, 1), np.uint8), np.full((SIZE, SIZE, 1), 255, np.uint8)])
    hidden = network.get_layer("scale")(extremes).numpy()
    assert (hidden.min(), hidden.max()) == (-1, 1)


def test_a_network_without_dropout_is_trained_as_one_with_it_is():
    network = build(settings(dropout=0), SIZE, CLASSES)
    seed_dropout(network, seed=0, epoch=1)  # Keras gives such a layer no generator
    assert network.get_layer("dropout").rate == 0


# --- Flatten in place of pooling ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flat(weights):
    return build(settings(weights=str(weights), head="flatten"), 64, CLASSES)


def test_flatten_sees_every_place_where_pooling_sees_their_mean(flat, weights):
    pooled = build(settings(weights=str(weights)), 64, CLASSES)
    pictures = np.random.default_rng(4).integers(0, 256, (2, 64, 64, 1), dtype=np.uint8)
    every, mean = (
        keras.Model(network.input, network.get_layer("dropout").input)(pictures, training=False).numpy()
        for network in (flat, pooled)
    )
    assert every.shape == (2, 2 * 2 * mean.shape[1])
    np.testing.assert_allclose(every.reshape(2, 4, -1).mean(axis=1), mean, rtol=1e-4, atol=1e-5)
    assert flat.count_params() - pooled.count_params() == 3 * mean.shape[1] * CLASSES


def test_what_spoke_for_an_answer_is_shown_behind_flatten_too(flat):
    kernel = np.zeros((4, flat.get_layer("dropout").input.shape[1] // 4, CLASSES), np.float32)
    kernel[3, :, 1] = 1  # class 1 counts what is bottom right, and nothing else
    flat.get_layer("probabilities").set_weights([kernel.reshape(-1, CLASSES), np.zeros(CLASSES, np.float32)])
    picture = np.random.default_rng(5).integers(0, 256, (64, 64), dtype=np.uint8)[..., None]
    heat = gradcam(flat, picture, 1)
    assert heat.shape == (64, 64)
    assert heat[:16, :16].max() < 0.1 < 0.9 < heat[48:, 48:].max()


# --- Where its first weights come from ----------------------------------------------------------------------


def bad_weights(case, folder, weights):
    path = folder / f"{case}.weights.h5"
    match case:
        case "text":
            path.write_text("these are no weights")
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
        case "damaged":
            data = bytearray(weights.read_bytes())
            data[200:4000] = bytes(3800)
            path.write_bytes(data)
        case "other":
            keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(path)
        case "name":
            path = folder / "weights.bin"
            path.write_bytes(weights.read_bytes())
    return path


@pytest.mark.parametrize("case", ["text", "empty", "cut", "damaged", "other", "name"])
def test_a_file_that_is_no_mobilenet_is_refused_with_its_name_and_a_remedy(case, weights, tmp_path):
    path = bad_weights(case, tmp_path, weights)
    with pytest.raises(AoiError) as refused:
        build(settings(weights=str(path)), SIZE, CLASSES)
    assert str(path) in str(refused.value)
    assert "not the weights of mobilenet of alpha 0.25" in str(refused.value)
    assert "Give the file that belongs to train.backbone and train.alpha" in str(refused.value)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("case", ["text", "empty", "cut", "damaged", "other"])
def test_a_file_that_is_no_mobilenet_is_refused_before_any_work(case, weights, tmp_path):
    path = bad_weights(case, tmp_path, weights)
    with pytest.raises(AoiError, match=re.escape(str(path)) + ": not (a file of weights|the weights of mobilenet)"):
        ensure_weights(settings(weights=str(path)))


@pytest.mark.parametrize(
    "attempt", [ensure_weights, lambda wanted: build(wanted, SIZE, CLASSES)], ids=["ahead", "when it is built"]
)
def test_weights_of_another_width_are_refused_with_the_width_that_is_set(attempt, weights):
    ensure_weights(settings(weights=str(weights)))
    with pytest.raises(AoiError) as refused:
        attempt(settings(alpha=0.5, weights=str(weights)))
    assert str(weights) in str(refused.value)
    assert "alpha 0.5" in str(refused.value)
    assert "train.alpha" in str(refused.value)


@pytest.mark.parametrize("check", [ensure_weights, lambda wanted: weights_digest(wanted.weights)])
@pytest.mark.parametrize("name", ["nowhere.weights.h5", "folder"])
def test_a_path_that_is_no_file_is_refused_before_any_work(check, name, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(AoiError) as refused:
        check(settings(weights=str(tmp_path / name)))
    assert str(tmp_path / name) in str(refused.value)
    assert "train.weights=PATH" in str(refused.value)


def test_weights_are_known_by_their_content_and_not_by_their_path(weights, tmp_path):
    copy = tmp_path / "copy.weights.h5"
    copy.write_bytes(weights.read_bytes())
    assert weights_digest(str(copy)) == weights_digest(str(weights))
    copy.write_bytes(weights.read_bytes() + b"\0")
    assert weights_digest(str(copy)) != weights_digest(str(weights))


def test_imagenet_out_of_reach_says_how_to_give_a_path(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise Exception("URL fetch failure on https://storage.example: None -- Name or service not known")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", fail)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    for attempt in (
        lambda: build(settings(weights="imagenet"), SIZE, CLASSES),
        lambda: ensure_weights(settings(weights="imagenet")),
    ):
        with pytest.raises(AoiError) as refused:
            attempt()
        assert "imagenet can't be had (URL fetch failure" in str(refused.value)
        assert "train.weights=PATH or AOI_WEIGHTS" in str(refused.value)


def test_imagenet_has_no_weights_of_an_odd_width_and_the_error_lists_those_it_has():
    with pytest.raises(AoiError, match=r"Set one of 0\.25, 0\.5, 0\.75, 1;"):
        build(settings(alpha=0.3, weights="imagenet"), SIZE, CLASSES)


# --- Its file -----------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        save(build(settings(seed=seed), SIZE, CLASSES), tmp_path / f"{name}.keras")
    one, two, three = ((tmp_path / f"{name}.keras").read_bytes() for name in ("one", "two", "three"))
    assert one == two
    assert one != three
    assert len(list(tmp_path.iterdir())) == 3  # nothing else is left beside them


def test_other_threads_that_draw_numbers_do_not_change_the_first_weights():
    # Prefect's and MLflow's do, for the pauses between their tries; Keras takes its seeds from the same generator.
    alone = build(settings(), SIZE, CLASSES).get_weights()
    stop = threading.Event()

    def draw():
        while not stop.is_set():
            random.random()

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        beside = build(settings(), SIZE, CLASSES).get_weights()
    finally:
        stop.set()
        thread.join()
    for ours, theirs in zip(alone, beside, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_model_answers_as_before_however_often_it_was_saved_and_loaded(tmp_path, pictures):
    network = build(settings(), SIZE, CLASSES)
    once, twice = tmp_path / "once.keras", tmp_path / "twice.keras"
    save(network, tmp_path / "built.keras")
    save(load(tmp_path / "built.keras"), once)
    save(load(once), twice)
    np.testing.assert_array_equal(network(pictures, training=False), load(twice)(pictures, training=False))
    assert once.read_bytes() == twice.read_bytes()  # so a resumed training ends in the same file


def bad_model(case, folder):
    path = folder / "model.keras"
    match case:
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("this is no model")
        case "cut":
            save(build(settings(), SIZE, CLASSES), path)
            path.write_bytes(path.read_bytes()[:100_000])
        case "flipped":
            save(build(settings(), SIZE, CLASSES), path)
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        case "code":
            keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x + 1)]).save(path)
    return path


@pytest.mark.parametrize("case", ["missing", "empty", "text", "cut", "flipped", "code"])
def test_a_file_that_is_no_safe_model_is_refused_with_its_name_and_a_remedy(case, tmp_path):
    path = bad_model(case, tmp_path)
    with pytest.raises(AoiError) as refused:
        load(path)
    assert str(path) in str(refused.value)
    assert "Train again with --force" in str(refused.value)
