"""What spoke for an answer, from the exported network alone."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from lively import CLASSES, SIZE

from model.evaluation.gradcam import gradcam
from model.inference import runtime
from model.inference.class_maps import heat_of
from model.inference.endings import giving
from model.inference.keras_runtime import compiled
from model.inference.litert import to_litert
from model.inference.runtime import at_work, open_network
from model.network.build import build
from model.network.parts import extractor, head_of
from model.settings import TrainSettings


@pytest.fixture
def exported(network):
    return to_litert(network)


@pytest.fixture
def looked(exported, pictures):
    return open_network(exported).look(pictures, evidence=True)


def test_one_pass_gives_the_probabilities_the_features_and_the_maps_that_keras_computes(looked, network, pictures):
    theirs = compiled(network).look(pictures, evidence=True)
    np.testing.assert_allclose(looked.probabilities, theirs.probabilities, atol=1e-4)
    np.testing.assert_allclose(looked.features, theirs.features, atol=1e-4)
    np.testing.assert_allclose(looked.texture, theirs.texture, atol=1e-3)
    np.testing.assert_allclose(looked.evidence, theirs.evidence, atol=1e-3)
    for place, image in enumerate(pictures[:5]):
        for label in range(CLASSES):
            heat = heat_of(looked.evidence[place, ..., label], SIZE)
            np.testing.assert_allclose(heat, gradcam(network, image[..., 0], label), atol=1e-4)


def test_the_probabilities_are_to_the_bit_those_that_the_file_gives_to_other_programs(exported, looked, pictures):
    theirs = Interpreter(model_content=exported, num_threads=1)
    theirs.allocate_tensors()
    (given,), (wanted,) = theirs.get_input_details(), theirs.get_output_details()
    for place in range(5):
        theirs.set_tensor(given["index"], pictures[place : place + 1])
        theirs.invoke()
        np.testing.assert_array_equal(looked.probabilities[place], theirs.get_tensor(wanted["index"])[0])


def test_what_is_not_asked_for_is_not_given_and_changes_no_answer(exported, looked, pictures):
    asked = open_network(exported)
    plain = asked.look(pictures)
    assert plain.evidence is None
    np.testing.assert_array_equal(plain.features, looked.features)
    np.testing.assert_array_equal(asked(pictures), looked.probabilities)


def test_the_mean_of_the_evidence_and_the_bias_are_the_answer(looked, network):
    logits = looked.evidence.mean(axis=(1, 2)) + head_of(network).get_weights()[1]
    ours = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    np.testing.assert_allclose(ours, looked.probabilities, atol=1e-5)


def test_in_8_bits_they_show_the_same(looked, network, pictures):
    rough = open_network(to_litert(network, list(pictures))).look(pictures, evidence=True)
    assert np.corrcoef(looked.evidence.ravel(), rough.evidence.ravel())[0, 1] > 0.8
    kernel, bias = head_of(network).get_weights()
    ours = keras.ops.convert_to_numpy(keras.ops.softmax(rough.features @ kernel + bias))
    np.testing.assert_allclose(ours, rough.probabilities, atol=0.05)  # its answer is made from these features


def test_behind_flatten_there_are_features_without_maps(pictures):
    flat = build(TrainSettings(alpha=0.25, weights="none", head="flatten"), SIZE, CLASSES)
    ours = open_network(to_litert(flat)).look(pictures, evidence=True)
    theirs = compiled(flat).look(pictures, evidence=True)
    assert ours.evidence is None
    np.testing.assert_allclose(ours.features, theirs.features, atol=1e-4)
    np.testing.assert_allclose(ours.texture, theirs.texture, atol=1e-4)


def test_what_is_no_classifier_gives_what_it_gives_alone(network, pictures):
    ours = open_network(to_litert(extractor(network))).look(pictures, evidence=True)
    assert ours.features.shape == (len(pictures), 0)
    assert ours.evidence is None


def test_a_network_can_give_any_of_its_tensors_whatever_the_length_of_its_file(exported):
    for extra in range(4):
        opened = Interpreter(model_content=giving(exported + bytes(extra), [0, 0, 0, 0, 0]))
        assert len(opened.get_output_details()) == 5


def test_a_picture_has_all_cores_only_where_no_other_thread_works_on_one():
    with at_work(), at_work(), ThreadPoolExecutor(1) as pool:
        assert runtime._is_alone()  # however often one thread says so
        others = at_work()
        pool.submit(others.__enter__).result()
        assert not runtime._is_alone()
        assert not pool.submit(runtime._is_alone).result()
        pool.submit(others.__exit__, None, None, None).result()
        assert runtime._is_alone()
    assert not runtime.AT_WORK


TASKS = Path("/proc/self/task")  # of Linux: this process' threads


@pytest.mark.skipif(len(runtime.cores()) == 1 or not TASKS.exists(), reason="no cores to choose from")
def test_threads_that_share_a_picture_have_cores_of_their_own(exported, pictures, monkeypatch):
    first, *others = runtime.cores()
    before, run, ran_on = {*os.listdir(TASKS)}, runtime._Lane.run, []
    ask = open_network(exported)
    started = {*os.listdir(TASKS)} - before
    assert started
    assert [os.sched_getaffinity(int(thread)) for thread in started] == [{*others}] * len(started)
    monkeypatch.setattr(runtime._Lane, "run", lambda *given: (ran_on.append(os.sched_getaffinity(0)), run(*given)))
    ask(pictures[:1])
    assert ran_on == [{first}]
    assert os.sched_getaffinity(0) == {first, *others}
