"""Networks outside Keras: the same answers, or a refusal."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from flows.stages.export import export
from flows.stages.predict import predict
from flows.stages.stage import Job
from model.inference import runtime
from model.inference.classifier import open_classifier
from model.inference.export import LABELS_THAT_DIFFER
from model.inference.formats import FORMATS, Format
from model.inference.keras_runtime import compiled
from model.inference.litert import to_litert
from model.inference.runtime import open_network
from model.manifests import ExportManifest
from model.network.files import load, save
from model.settings import Runtime
from tfrecords.errors import MISSED, AoiError

CLASSES = 3


@pytest.fixture(scope="module")
def job(copy_home, made, tmp_path_factory):
    return Job(copy_home(tmp_path_factory.mktemp("export") / "home"), made[2])


def test_litert_answers_as_keras_does(network, pictures):
    ours, theirs = open_network(to_litert(network))(pictures), compiled(network)(pictures)
    assert theirs.std(axis=0).max() > 0.01  # else equality would say nothing
    assert ours.dtype == theirs.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_the_same_network_gives_the_same_file(network):
    assert to_litert(network) == to_litert(network)


def test_no_picture_gets_no_answer(network, pictures):
    assert open_network(to_litert(network))(pictures[:0]).shape == (0, CLASSES)


@pytest.mark.parametrize("cores", [1, 2, 5, 12])
def test_a_picture_gets_the_same_answer_alone_and_beside_others_on_any_number_of_cores(
    network, pictures, monkeypatch, cores
):
    ask = open_network(to_litert(network))
    alone = np.concatenate([ask(pictures[place : place + 1]) for place in range(len(pictures))])
    monkeypatch.setattr(runtime, "cores", lambda: list(range(cores)))
    np.testing.assert_array_equal(open_network(to_litert(network))(pictures), alone)


def test_several_threads_may_ask_at_once(network, pictures):
    ask = open_network(to_litert(network))
    alone = ask(pictures)
    with ThreadPoolExecutor(4) as pool:
        for together in pool.map(ask, [pictures] * 8):
            np.testing.assert_array_equal(together, alone)


def test_the_first_network_of_a_process_is_opened_without_a_word(network, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(to_litert(network))
    code = (
        f"from pathlib import Path; from model.inference.runtime import open_network; open_network(Path({str(path)!r}))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout + told.stderr == ""


def test_a_file_that_is_no_network_is_refused_by_name(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"no network at all, but long enough to be one")
    with pytest.raises(AoiError, match=r"model\.tflite: not a network that LiteRT runs"):
        open_network(path)


@pytest.mark.parametrize("precision", ["float", "int8"])
def test_an_export_holds_the_networks_the_card_and_the_check(job, precision):
    artifact = job.home.open(export(job, precision=precision), ExportManifest)
    assert {path.name for path in artifact.path.iterdir()} == {
        "model.tflite",
        "model.novelty.npz",
        "card.json",
        "check.json",
        "manifest.json",
    }
    check = json.loads((artifact.path / "check.json").read_text())
    assert check["pictures"] == 60
    assert check["labels_differ"] <= 1
    assert check["bytes"] < check["keras_bytes"]
    assert open_classifier(artifact.path).classes == ("plain", "rows", "columns")


def test_another_format_is_a_row_of_the_table(job, monkeypatch, tmp_path):
    """What CONTRIBUTING.md says of a new one."""

    def write(network, calibration):
        save(network, tmp_path / "whole.keras")
        return (tmp_path / "whole.keras").read_bytes()

    row = Format(".keras", write, lambda path: compiled(load(path)))
    monkeypatch.setitem(FORMATS, "keras", row)
    artifact = job.home.open(export(job, format="keras"), ExportManifest)
    assert (artifact.path / "model.keras").exists()
    assert json.loads((artifact.path / "check.json").read_text())["labels_differ"] == 0
    seen = np.zeros((2, *artifact.manifest.settings.preprocess.shape), np.uint8)
    theirs = open_classifier(job.home.open(export(job), ExportManifest).path)
    np.testing.assert_allclose(
        open_classifier(artifact.path).probabilities(seen), theirs.probabilities(seen), atol=1e-4
    )


def test_an_export_is_made_once_and_tells_what_it_takes_to_load_and_to_answer(job):
    export(job)
    ref = export(job)
    assert ref.cached
    header, keras_row, litert_row, last = ref.note.splitlines()
    assert header.split()[:2] == ["load", "median"]
    assert (keras_row.split()[0], litert_row.split()[0]) == ("keras", "litert-float")
    assert "0 labels differ" in last


def test_an_export_that_answers_otherwise_is_refused_and_nothing_is_left(job, monkeypatch):
    monkeypatch.setitem(LABELS_THAT_DIFFER, "int8", -1.0)  # less than none may differ
    before = job.home.committed(ExportManifest)
    with pytest.raises(AoiError, match=r"exported in int8: \d+ of 60 labels differ from Keras'") as caught:
        export(replace(job, force=True), precision="int8")
    assert caught.value.exit_code == MISSED
    assert job.home.committed(ExportManifest) == before


def test_predicting_in_8_bits_exports_the_model_first(copy_home, made, tmp_path):
    home = copy_home(tmp_path / "home")
    settings = made[2]
    chosen = settings.model_copy(
        update={"predict": settings.predict.model_copy(update={"runtime": Runtime.LITERT_INT8})}
    )
    predict(Job(home, chosen))
    (exported,) = home.committed(ExportManifest)
    assert (exported / "model.tflite").stat().st_size < 500_000  # in floating point: 900,000
