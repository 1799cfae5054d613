"""Predict: from PNG files to a submission, Keras as it comes against ours; and one picture at a time."""

import importlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.core import Contestant, aoi, by_turns, goal, rate, row, run_alone
from benchmarks.pictures import draw, repeat
from benchmarks.train import chosen, ingested, told_data
from flows.home import Home
from model.manifests import ModelManifest, PredictionManifest
from tfrecords.errors import AoiError

OURS, INT8, KERAS = "ours", "ours, int8", "Keras (model.predict)"
BOUNDS = {OURS: 2.5, INT8: 5}


def measure(work: Path, size: Mapping[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """size: data (what the model is trained on, or None: sample pictures), drawn, pictures (ours alone, once), slow
    (all, by turns), rounds, int8 (whether that is measured too), arrays, calls (of the network with them), singles,
    settings.
    """
    drawn = draw(work, size["drawn"])
    tell("a model to predict with")
    home = ingested(work, size)
    aoi(["train", "--home", home, *chosen(size["settings"])])  # found where the section train has made it
    runtimes = {OURS: "litert"}
    goals = []
    if size["int8"]:
        try:
            aoi(["export", "--home", home, "--model", _model(home).name, "--precision", "int8"])
            runtimes[INT8] = "litert-int8"
        except AoiError as refused:
            tell(f"int8 is left out: {refused}")
        goals.append(goal("model that int8 keeps: at most 1 in 1,000 labels differ", float(INT8 in runtimes), 1))

    def one(name: str, runtime: str, data: Path) -> Contestant:
        given = {"home": home, "settings": [*size["settings"], f"predict.runtime={runtime}"], "data": str(data)}
        return Contestant(name, "benchmarks.predict:ours", given)

    def lot(pictures: int) -> Path:
        folder = repeat(drawn, work, size["drawn"], pictures)
        if size["data"] and Path(size["data"], "classes.txt").exists():  # a lot has the classes of its model
            shutil.copy(Path(size["data"], "classes.txt"), folder)
        return folder

    some = lot(size["slow"])
    keras = Contestant(KERAS, "benchmarks.predict:keras_predict", {"home": home, "data": str(some)})
    whole = by_turns([*(one(name, runtime, some) for name, runtime in runtimes.items()), keras], size["rounds"], tell)
    data = lot(size["pictures"])
    in_full = {name: f"{name}, {size['pictures']:,} pictures" for name in runtimes}
    whole += by_turns([one(in_full[name], runtime, data) for name, runtime in runtimes.items()], 1, tell)
    tell("the network alone, and one picture at a time")
    given = {"home": home, "data": str(data), "runtimes": runtimes}
    given |= {key: size[key] for key in ("arrays", "calls", "singles")}
    alone = run_alone(Contestant("alone", "benchmarks.predict:alone", given))
    network = [row(who, alone[who]) for who in (*runtimes, KERAS)]
    # Medians would fall on calls of model.predict that wait, or on those that don't.
    in_all = {name: rate(whole, in_full[name]) / rate(whole, KERAS) for name in runtimes}
    of_network = rate(network, OURS) / rate(network, KERAS)
    goals += [
        goal("as fast as model.predict, the network alone", of_network, 2.5, unit="x"),
        *(
            goal(f"as fast as model.predict, PNG to submission, {name}", in_all[name], BOUNDS[name], unit="x")
            for name in runtimes
        ),
    ]
    tables = {"whole": whole, "network": network, "one picture": alone["latency"]}
    return {"size": {**size, "data": told_data(size)}, "tables": tables, "goals": goals}


def ours(home: str, settings: list[str], data: str) -> dict[str, float]:
    """The stage as it is used: the lot's ingest, and the rest of it. The result is removed again."""
    from tempfile import TemporaryDirectory

    from flows.settings import load_settings
    from flows.stages.predict import predict
    from flows.stages.stage import Job

    importlib.import_module("model.inference.predict")  # as the stage does once there is work; the rates leave it out
    seen: list[tuple[float, str]] = []

    def progress(done: int, total: int, note: str) -> None:
        seen.append((time.perf_counter(), note))

    with TemporaryDirectory(dir=home) as own:
        for kind in ("models", "exports", "datasets"):
            if Path(home, kind).exists():
                shutil.copytree(Path(home, kind), Path(own, kind))
        job = Job(Home(Path(own)), load_settings(overrides=settings), progress=progress)
        began = time.perf_counter()
        ref = predict(job, model=_model(home).name, data=data)
        ended = time.perf_counter()
        pictures = job.home.open(ref, PredictionManifest).manifest.pictures
    converted = max(at for at, note in seen if note != "pictures")
    return {
        "pictures": pictures,
        "convert_s": converted - began,
        "predict_s": ended - converted,
        "pictures_per_s": pictures / (ended - began),
    }


def _rates(pictures: float, seconds: float, waited: float) -> dict[str, float]:
    return {
        "pictures_per_s": pictures / seconds,
        "wait_s": waited,
        "without_wait_per_s": pictures / (seconds - waited),
    }


def keras_predict(home: str, data: str) -> dict[str, float]:
    """A loop over the files with OpenCV, one call of model.predict, a CSV. wait_s: see `_predict`."""
    import keras
    import numpy as np
    import pandas as pd

    from benchmarks.convert import steps_to

    began = time.perf_counter()
    table = pd.read_csv(Path(data, "test.csv"), dtype=str)
    card = json.loads((_model(home) / "card.json").read_text())
    steps, images = steps_to(card["preprocess"]["image_size_px"]), []
    for name in table["ID"]:
        value: Any = Path(data, "test_images", name)
        for step in steps:
            value = step(value)
        images.append(value[..., None])
    converted = time.perf_counter()
    network = keras.saving.load_model(_network(home), compile=False)
    probabilities, waited = _predict(network, np.stack(images))
    table["Label"] = probabilities.argmax(axis=1)
    out = Path(home, "keras-submission.csv")
    table.to_csv(out, index=False)
    out.unlink()
    ended = time.perf_counter()
    return {
        "pictures": len(table),
        "convert_s": converted - began,
        "predict_s": ended - converted,
        **_rates(len(table), ended - began, waited),
    }


def _predict(network: Any, images: Any) -> tuple[Any, float]:
    """What model.predict gives, and the seconds that it took to return when its last batch was done.

    They are none or, by chance, up to half of the call: its iterator waits at its end for tf.data's autotuning thread,
    see `tfrecords.records.reader`. With a callback that sees batches no call was seen to wait.
    """
    network.make_predict_function()
    step, ended = network.predict_function, []

    def timed(batch: Any) -> Any:
        out = step(batch)
        ended.append(time.perf_counter())
        return out

    network.predict_function = timed
    try:
        return network.predict(images, verbose=0), time.perf_counter() - ended[-1]
    finally:
        network.predict_function = step


def _classify(classifier: Any, images: Any) -> tuple[Any, float]:
    """As `_predict`; ours does not wait."""
    return classifier.probabilities(images), 0.0


def _classify_file(classifier: Any, picture: bytes) -> Any:
    return classifier.classify([picture])


def alone(home: str, data: str, runtimes: Mapping[str, str], arrays: int, calls: int, singles: int) -> dict[str, Any]:
    """The network alone on arrays, by turns; then single pictures: ms from a PNG's bytes to its class."""
    import keras
    import numpy as np

    from model.inference.classifier import open_classifier
    from tfrecords.pictures.preprocessing import prepare

    folders = {"litert": _model(home)}
    if "litert-int8" in runtimes.values():
        folders["litert-int8"] = next(Path(home, "exports").glob("[!.]*"))
    ours = {name: open_classifier(folders[runtime]) for name, runtime in runtimes.items()}
    preprocess = ours[OURS].preprocess
    network = keras.saving.load_model(_network(home), compile=False)
    files = sorted(Path(data, "test_images").iterdir())
    pngs = [path.read_bytes() for path in files[: max(arrays, singles)]]
    images = np.stack([np.atleast_3d(prepare(png, preprocess)) for png in pngs[:arrays]])
    networks: dict[str, Callable[[], tuple[Any, float]]] = {
        name: partial(_classify, classifier, images) for name, classifier in ours.items()
    }
    networks[KERAS] = partial(_predict, network, images)
    told: dict[str, Any] = {name: [] for name in networks}
    for ask in networks.values():
        ask()
    for _ in range(calls):
        for name, ask in networks.items():
            began = time.perf_counter()
            _, waited = ask()
            told[name].append(_rates(len(images), time.perf_counter() - began, waited))
    one: dict[str, Callable[[bytes], Any]] = {
        name: partial(_classify_file, classifier) for name, classifier in ours.items()
    }
    one[KERAS] = lambda png: network.predict(np.atleast_3d(prepare(png, preprocess))[None], verbose=0)
    told["latency"] = []
    for name, call in one.items():
        call(pngs[0])
        milliseconds = []
        for png in pngs[:singles]:
            began = time.perf_counter()
            call(png)
            milliseconds.append(1000 * (time.perf_counter() - began))
        p50, p99 = np.percentile(milliseconds, [50, 99])
        told["latency"].append(row(name, [{"p50_ms": float(p50), "p99_ms": float(p99)}]))
    return told


def _model(home: str) -> Path:
    """Folder of the latest model there."""
    return Home(Path(home)).latest(ModelManifest, "").path


def _network(home: str) -> str:
    return str(_model(home) / "model.keras")
