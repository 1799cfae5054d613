"""aoi predict --explain: heat maps of the parts that are least sure, beside what is to review."""

import csv
import re
from dataclasses import replace
from unittest import mock

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from tiny import SHARED, picture, png

from flows.stages.predict import predict
from flows.stages.stage import Job
from model.checks import check_explainable
from model.inference import explain as explaining
from model.inference.answers import Answering
from model.inference.class_maps import heat_of, overlay
from model.inference.explain import _legible
from model.inference.litert import to_litert
from model.inference.runtime import open_network
from model.manifests import ModelManifest, PredictionManifest
from model.network.build import build
from model.network.parts import extractor, head_of
from model.settings import PredictSettings, TrainSettings
from tfrecords.artifacts.files import appearing_folder
from tfrecords.errors import AoiError

WEIGHTS = SHARED / "weights" / "mobilenet_1_0_224_no_top.weights.h5"
CLOSE = 0.05  # mean difference of the heat, 0..1, in floating point and in 8 bits


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def home(copy_home, tmp_path_factory):
    return copy_home(tmp_path_factory.mktemp("explain") / "home")


@pytest.fixture
def ask(home, made):
    """A function that predicts a lot and explains so many of its parts. Returns: the prediction's folder."""

    def run(data, count, force=False, **chosen):
        settings = made[2].model_copy(update={"predict": PredictSettings(**chosen)})
        ref = predict(Job(home, settings, force), data=str(data), explain=count)
        return home.open(ref, PredictionManifest).path

    return run


def shown(folder):
    return [(folder / "explanations" / row["file"]).read_bytes() for row in rows(folder / "explanations" / "index.csv")]


def test_they_are_of_the_least_sure_parts_and_the_index_says_which(ask, made):
    folder = ask(made[0], 3)
    index = rows(folder / "explanations" / "index.csv")
    table = rows(folder / "predictions.csv")
    surest = {row["ID"]: max(float(row[name]) for name in ("plain", "rows", "columns")) for row in table}
    assert [row["ID"] for row in index] == sorted(surest, key=lambda name: (surest[name], name))[:3]
    assert list(index[0]) == ["file", "ID", "label", "name", "confidence"]
    said = {row["ID"]: (row["label"], row["name"]) for row in table}
    for row in index:
        assert (row["label"], row["name"]) == said[row["ID"]]
        assert float(row["confidence"]) == pytest.approx(surest[row["ID"]], abs=1e-6)
    files = [row["file"] for row in index]
    assert files == [f"{place:03}-{row['ID'].removesuffix('.png')}.png" for place, row in enumerate(index, start=1)]
    assert sorted(path.name for path in (folder / "explanations").iterdir()) == sorted([*files, "index.csv"])


def test_each_is_the_heat_map_that_the_api_gives(ask, made, home):
    folder = ask(made[0], 2)
    answering = Answering(home.open(made[3]["train"], ModelManifest).path, None)
    for row, drawn in zip(rows(folder / "explanations" / "index.csv"), shown(folder), strict=True):
        answer = answering.answer((made[0] / "test_images" / row["ID"]).read_bytes(), explain=True)
        assert (str(answer.label), answer.heat_map) == (row["label"], drawn)
        assert cv2.imdecode(np.frombuffer(drawn, np.uint8), cv2.IMREAD_UNCHANGED).shape == (32, 32, 3)


def test_the_prediction_is_the_one_that_was_there_and_nothing_is_drawn_twice(ask, made):
    before = {path.name: path.stat().st_mtime_ns for path in ask(made[0], 0).iterdir()}
    folder = ask(made[0], 4)
    drawn = [path.stat().st_ino for path in sorted((folder / "explanations").iterdir())]
    assert ask(made[0], 4) == folder
    assert ask(made[0], 0) == folder
    assert [path.stat().st_ino for path in sorted((folder / "explanations").iterdir())] == drawn
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "explanations"}
    before.pop("explanations", None)
    assert after == before


def test_another_number_takes_the_place_of_the_first_and_one_that_is_lost_is_drawn_again(ask, made):
    few = shown(ask(made[0], 2))
    folder = ask(made[0], 100)
    many = shown(folder)
    assert len(many) == 9  # of all parts
    assert many[:2] == few
    lost = sorted((folder / "explanations").glob("*.png"))[5]
    lost.unlink()
    assert shown(ask(made[0], 100)) == many


def test_a_part_that_can_t_be_read_has_none_and_an_id_may_be_anything(ask, tmp_path):
    lot = tmp_path / "lot"
    names = ["第一/瑕疵.png", "第一/a:b?.png", "plain.png", "CON.png"]
    for place, name in enumerate(names):
        (lot / name).parent.mkdir(parents=True, exist_ok=True)
        (lot / name).write_bytes(png(picture(place % 3, 700 + place)))
    (lot / "broken.png").write_bytes(b"this is no picture")
    folder = ask(lot, 9)
    index = rows(folder / "explanations" / "index.csv")
    assert {row["ID"] for row in index} == set(names)
    found = {row["ID"]: re.sub(r"^\d+", "N", row["file"]) for row in index}
    assert [found[name] for name in names] == ["N.png", "N-a-b.png", "N-plain.png", "N-CON.png"]


@given(st.text(max_size=200))
def test_of_any_id_a_file_s_name_has_what_every_system_takes(name):
    assert re.fullmatch(r"(-[A-Za-z0-9_][A-Za-z0-9_-]{0,59})?|(-[A-Za-z0-9_-]{60})", _legible(name))


@pytest.mark.parametrize("runtime", ["keras", "litert-int8"])
def test_every_runtime_shows_what_its_networks_saw(runtime, ask, made):
    folder = ask(made[0], 9, runtime=runtime)
    table = {row["ID"]: row["label"] for row in rows(folder / "predictions.csv")}
    index = rows(folder / "explanations" / "index.csv")
    assert {row["ID"]: row["label"] for row in index} == table
    plain = ask(made[0], 9)
    if runtime == "keras":  # the same but for rounding
        names = [row["ID"] for row in rows(plain / "explanations" / "index.csv")]
        ours, theirs = (
            dict(zip(ids, shown(path), strict=True))
            for ids, path in (([row["ID"] for row in index], folder), (names, plain))
        )
        for name in table:
            one, other = (cv2.imdecode(np.frombuffer(data[name], np.uint8), 1).astype(int) for data in (ours, theirs))
            assert abs(one - other).max() <= 2


def spotted(label, rng):
    """Noise with a bright spot somewhere, a dark one, or a striped one: uint8 (128, 128, 1)."""
    pixels = rng.normal(128, 8, (128, 128))
    row, column = rng.integers(8, 88, 2)
    stripes = np.where(np.arange(32) % 8 < 4, 90, -90)[:, None]
    pixels[row : row + 32, column : column + 32] += (90, -90, stripes)[label]
    return np.clip(pixels, 0, 255).astype(np.uint8)[..., None]


@pytest.mark.skipif(not WEIGHTS.exists(), reason="ImageNet weights are not there; random ones spoil 8 bits")
def test_in_8_bits_the_heat_is_the_same_within_a_distance():
    rng, labels = np.random.default_rng(3), np.arange(30) % 3
    pictures = np.stack([spotted(label, rng) for label in labels])
    network = build(TrainSettings(weights=str(WEIGHTS)), 128, 3)
    learned = LogisticRegression(max_iter=1000, fit_intercept=False).fit(extractor(network)(pictures).numpy(), labels)
    head_of(network).set_weights([learned.coef_.T, np.zeros(3)])
    whole, rough = (
        open_network(to_litert(network, given)).look(pictures, evidence=True) for given in ((), list(pictures))
    )
    apart = []
    for place, label in enumerate(labels):
        one, other = (heat_of(seen.evidence[place, ..., label], 128) for seen in (whole, rough))
        assert one.max() == 1
        apart.append(abs(one - other).mean())
    assert np.mean(apart) < CLOSE


def test_over_heat_a_picture_is_a_mixture_of_both_and_without_it_is_as_it_was():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(overlay(image, np.zeros((16, 16), np.float32)), image)
    gray = overlay(image[..., :1], np.zeros((16, 16), np.float32))
    np.testing.assert_array_equal(gray, np.repeat(image[..., :1], 3, axis=2))
    hottest = cv2.applyColorMap(np.full((1, 1), 255, np.uint8), cv2.COLORMAP_INFERNO)[0, 0, ::-1]
    np.testing.assert_allclose(
        overlay(image, np.ones((16, 16), np.float32)), 0.35 * image + 0.65 * hottest, rtol=0, atol=1
    )


# --- What is refused, and what is cut short ------------------------------------------------------------------


def test_behind_flatten_nothing_can_be_shown_and_that_is_said_before_any_work(made):
    model = made[1].open(made[3]["train"], ModelManifest)
    train = model.manifest.settings.train.model_copy(update={"head": "flatten"})
    flat = model.manifest.model_copy(update={"settings": model.manifest.settings.model_copy(update={"train": train})})
    with pytest.raises(AoiError, match=r"train\.head=flatten.*Leave out --explain") as refused:
        check_explainable(replace(model, manifest=flat))
    assert refused.value.exit_code == 2


def test_a_negative_number_is_refused(ask, made):
    with pytest.raises(AoiError, match=r"--explain: -1 parts\. Name a number of parts, such as --explain 20"):
        ask(made[0], -1)


def test_an_interruption_leaves_what_was_there(ask, made):
    folder = ask(made[0], 2)
    before = shown(folder)
    with mock.patch.object(explaining, "heat_map", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        ask(made[0], 3)
    assert shown(folder) == before
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []


def test_what_a_killed_try_left_goes_with_the_next(tmp_path):
    place = tmp_path / "explanations"
    for left in (".explanations.tmp", ".explanations.old"):  # it was killed between its two renames
        (tmp_path / left).mkdir()
        (tmp_path / left / "part").touch()
    with appearing_folder(place) as work:
        (work / "whole").touch()
        assert not place.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["explanations"]
    assert [path.name for path in place.iterdir()] == ["whole"]
