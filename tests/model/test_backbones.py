"""Every backbone of the table: the same function as Keras' own on gray pictures, and usable from end to end."""

import fnmatch

import keras
import numpy as np
import pytest

from model.evaluation.gradcam import gradcam
from model.inference.keras_runtime import compiled
from model.inference.litert import to_litert
from model.inference.runtime import open_network
from model.network.backbones import BACKBONES, ONE_WIDTH, BackboneName
from model.network.build import BATCH_NORM_MOMENTUM, build
from model.network.files import load, save
from model.network.parts import convolutions_of, extractor, head_of, last_maps, seed_dropout
from model.network.weights import ensure_weights
from model.settings import TrainSettings
from tfrecords.errors import AoiError

SIZE, CLASSES = 64, 3  # maps of 2 x 2 at the end, so that borders count
# Keras' own module of each, for its preprocess_input: what its ImageNet weights expect of RGB, 0..255.
MODULES = {
    BackboneName.MOBILENET: "mobilenet",
    BackboneName.MOBILENET_V2: "mobilenet_v2",
    BackboneName.MOBILENET_V3_SMALL: "mobilenet_v3",
    BackboneName.MOBILENET_V3_LARGE: "mobilenet_v3",
    BackboneName.EFFICIENTNET_V2_B0: "efficientnet_v2",
}


def width(name):
    return 1.0 if BACKBONES[name].widths == ONE_WIDTH else 0.25


def settings(name, **given):
    return TrainSettings(**{"backbone": name, "alpha": width(name), "weights": "none", **given})


def keras_own(name, alpha):
    """Keras' own network over RGB without its top, with whatever scaling it brings along."""
    given = {} if BACKBONES[name].widths == ONE_WIDTH else {"alpha": alpha}
    make = getattr(keras.applications, BACKBONES[name].constructor)
    return make(input_shape=(SIZE, SIZE, 3), include_top=False, pooling="avg", weights=None, **given)


@pytest.fixture(scope="module", params=list(BackboneName), ids=str)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(2)
    contrast = rng.uniform(50, 60, (24, 1, 1, 1))  # alike enough that rounding is nowhere magnified
    return np.clip(rng.normal(128, contrast, (24, SIZE, SIZE, 1)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def colors(name, pictures):
    """The gray pictures in three equal colors, as Keras' own wants them."""
    prepare = getattr(keras.applications, MODULES[name]).preprocess_input
    return prepare(np.repeat(pictures, 3, axis=-1).astype(np.float32))


@pytest.fixture(scope="module")
def rgb(name, colors):
    """Keras' own, with the statistics of these pictures: with those of none the signal would die out."""
    keras.utils.set_random_seed(7)
    network = keras_own(name, width(name))
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0
    network(colors, training=True)
    return network


@pytest.fixture(scope="module")
def weights(rgb, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "own.weights.h5"
    rgb.save_weights(path)
    return path


@pytest.fixture(scope="module")
def network(name, weights, pictures):
    """A network with Keras' weights, whose answers differ from picture to picture."""
    made = build(settings(name, weights=str(weights)), SIZE, CLASSES)
    features = extractor(made)(pictures).numpy()
    kernel = np.random.default_rng(1).normal(size=(features.shape[1], CLASSES))
    kernel *= 2 / (features @ kernel).std(axis=0)
    head_of(made).set_weights([kernel, -features.mean(axis=0) @ kernel])
    return made


@pytest.fixture(scope="module")
def litert(network):
    """The network's inference as the bytes of a .tflite file."""
    return to_litert(network)


# --- What it computes ---------------------------------------------------------------------------------------


def test_it_gives_a_gray_picture_the_features_that_keras_own_gives_three_equal_colors(rgb, network, colors, pictures):
    theirs, ours = rgb(colors, training=False).numpy(), extractor(network)(pictures, training=False).numpy()
    assert theirs.std(axis=0).max() > 0.1  # else equality would say nothing
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * theirs.std())


def test_over_rgb_it_is_keras_own_and_sees_a_gray_picture_as_the_gray_network_does(
    name, rgb, network, weights, colors, pictures
):
    own = extractor(build(settings(name, weights=str(weights)), SIZE, CLASSES, channels=3))
    assert own.input_shape == (None, SIZE, SIZE, 3)
    assert own.inputs[0].dtype == "uint8"
    tinted = np.concatenate([pictures, pictures // 2, pictures // 3 + 90], axis=-1)[:8]
    prepare = getattr(keras.applications, MODULES[name]).preprocess_input
    for seen, theirs in (
        (tinted, rgb(prepare(tinted.astype(np.float32)), training=False).numpy()),
        (np.repeat(pictures, 3, axis=-1), extractor(network)(pictures, training=False).numpy()),
    ):
        assert theirs.std(axis=0).max() > 0.1
        ours = own(seen, training=False).numpy()
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * theirs.std())


def test_its_batch_normalization_follows_the_weights(network):
    layers = convolutions_of(network).layers
    assert {each.momentum for each in layers if hasattr(each, "momentum")} == {BATCH_NORM_MOMENTUM}


def test_what_is_dropped_in_training_follows_from_seed_and_epoch_alone(name, network, pictures):
    def train_once(epoch):
        seed_dropout(network, seed=1, epoch=epoch)
        return network(pictures, training=True).numpy()

    first = train_once(0)
    assert np.abs(first - train_once(1)).max() > 1e-3
    np.testing.assert_array_equal(first, train_once(0))


# --- Its files ----------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_file_whatever_the_process_built_before(name, tmp_path):
    for file in ("one.keras", "two.keras"):
        keras.layers.ReLU(), keras.layers.Activation("relu"), keras.layers.Dropout(0.5)  # Keras counts them
        save(build(settings(name), SIZE, CLASSES), tmp_path / file)
    assert (tmp_path / "one.keras").read_bytes() == (tmp_path / "two.keras").read_bytes()


def test_its_file_holds_the_same_names_and_gives_the_same_answers(network, pictures, tmp_path):
    save(network, tmp_path / "saved.keras")
    loaded = load(tmp_path / "saved.keras")
    ours, theirs = ([each.name for each in convolutions_of(one).operations] for one in (network, loaded))
    assert ours == theirs  # so a resumed training ends in the same file
    np.testing.assert_array_equal(network(pictures, training=False), loaded(pictures, training=False))


def test_litert_answers_as_keras_does(network, litert, pictures):
    ours, theirs = (each.look(pictures, evidence=True) for each in (open_network(litert), compiled(network)))
    assert theirs.probabilities.std(axis=0).max() > 0.1  # else equality would say nothing
    np.testing.assert_array_equal(ours.probabilities.argmax(axis=1), theirs.probabilities.argmax(axis=1))
    np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-4)
    for part in ("features", "texture", "evidence"):
        one, other = (getattr(each, part) for each in (ours, theirs))
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * np.abs(other).max())


def test_in_8_bits_it_answers_and_explains_and_its_file_is_smaller(network, litert, pictures):
    file = to_litert(network, list(pictures[:4]))
    assert len(file) < 0.6 * len(litert)
    ours, theirs = (open_network(each).look(pictures, evidence=True) for each in (file, litert))
    np.testing.assert_allclose(ours.probabilities.sum(axis=1), 1, atol=0.02)
    assert ours.evidence.shape == theirs.evidence.shape
    assert ours.features.shape == theirs.features.shape


# --- Where it looks -----------------------------------------------------------------------------------------


def test_its_features_are_the_mean_of_the_maps_that_are_shown(network, pictures):
    maps, features = last_maps(network, pictures), extractor(network)(pictures).numpy()
    np.testing.assert_allclose(maps.mean(axis=(1, 2)), features, rtol=1e-4, atol=1e-5)
    heat = gradcam(network, pictures[0], label=1)
    assert heat.shape == (SIZE, SIZE)
    assert 0 <= heat.min() <= heat.max() <= 1


# --- Its first weights --------------------------------------------------------------------------------------


def test_a_weights_file_is_known_ahead_by_its_kernels(name, weights):
    ensure_weights(settings(name, weights=str(weights)))
    for other in set(BackboneName) - {name}:
        with pytest.raises(AoiError, match=rf"not the weights of {other} of alpha .*Give the file that belongs to"):
            ensure_weights(settings(other, weights=str(weights)))


@pytest.mark.parametrize("name", [each for each in BackboneName if BACKBONES[each].widths != ONE_WIDTH])
def test_the_kernels_of_the_table_are_keras_own_when_it_is_wider(name):
    kernels = [weight.shape for weight in keras_own(name, 1.3).weights if len(weight.shape) == 4]
    assert (kernels[0], kernels[-1]) == BACKBONES[name].kernels(1.3)
    assert len(kernels) == BACKBONES[name].convolutions


def test_imagenet_has_the_widths_of_the_table_in_files_of_these_names(name, monkeypatch, tmp_path):
    asked = []

    def fetch(file, *_, **__):
        asked.append(file)
        raise OSError("no network")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", fetch)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    known = BACKBONES[name].imagenet
    for alpha, pattern in {each: known[each] for each in (min(known), max(known))}.items():
        wanted = settings(name, alpha=alpha, weights="imagenet")
        with pytest.raises(AoiError, match=r"imagenet can't be had \(no network\)"):
            ensure_weights(wanted)
        assert fnmatch.fnmatchcase(asked[-1], pattern)
        (tmp_path / "models" / asked[-1]).touch()
        ensure_weights(wanted)  # now it is there, and nothing is built to find out
    assert len(set(asked)) == len(asked)  # the file of one width is not taken for another's


def test_imagenet_in_another_width_is_refused_ahead_with_those_there_are():
    wanted = settings(BackboneName.MOBILENET_V2, alpha=0.25, weights="imagenet")
    with pytest.raises(
        AoiError, match=r"train\.alpha: 0\.25: imagenet has no .*Set one of 0\.35, 0\.5, 0\.75, 1, 1\.3"
    ):
        ensure_weights(wanted)


# --- The table ----------------------------------------------------------------------------------------------


def test_the_table_has_a_row_for_every_name_and_a_test_for_every_row():
    assert set(BACKBONES) == set(BackboneName) == set(MODULES)
