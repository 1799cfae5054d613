"""Predict: from PNG files to a submission, Keras as it comes against ours; and one picture at a time."""

import importlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.core import Contestant, aoi, by_turns, goal, median, row, run_alone
from benchmarks.pictures import draw, repeat

OURS, KERAS = "ours", "Keras (model.predict)"


def measure(work: Path, size: Mapping[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """size: drawn, pictures (ours alone, once), slow (both, by turns), arrays, singles, rounds, settings."""
    drawn = draw(work, size["drawn"])
    home = str(work / "predict-home")
    chosen = [word for setting in size["settings"] for word in ("--set", setting)]
    tell("a model to predict with")
    aoi(["ingest", "--data", str(repeat(drawn, work, size["drawn"])), "--home", home, *chosen])
    aoi(["train", "--home", home, *chosen])
    given = {"home": home, "settings": chosen}
    data = str(repeat(drawn, work, size["drawn"], size["slow"]))
    both = [
        Contestant(OURS, "benchmarks.predict:ours", {**given, "data": data}),
        Contestant(KERAS, "benchmarks.predict:keras_predict", {"home": home, "data": data}),
    ]
    whole = by_turns(both, size["rounds"], tell)
    data = str(repeat(drawn, work, size["drawn"], size["pictures"]))
    name = f"ours, {size['pictures']:,} pictures"
    whole += by_turns([Contestant(name, "benchmarks.predict:ours", {**given, "data": data})], 1, tell)
    tell("the network alone, and one picture at a time")
    alone = run_alone(
        Contestant(
            "alone",
            "benchmarks.predict:alone",
            {"home": home, "data": data, **{key: size[key] for key in ("arrays", "singles", "rounds")}},
        )
    )
    network = [row(who, alone[who]) for who in (OURS, KERAS)]
    in_all = median(whole, name, "pictures_per_s") / median(whole, KERAS, "pictures_per_s")
    of_network = median(network, OURS, "pictures_per_s") / median(network, KERAS, "pictures_per_s")
    return {
        "size": dict(size),
        "tables": {"whole": whole, "network": network, "one picture": alone["latency"]},
        "goals": [
            goal("as fast as model.predict, the network alone", of_network, 2.5, unit="x"),
            goal("as fast as model.predict, PNG to submission", in_all, 2.5, unit="x"),
        ],
    }


def ours(home: str, settings: list[str], data: str) -> dict[str, float]:
    """The stage as it is used: the lot's ingest, and the rest of it. The result is removed again."""
    import shutil
    from tempfile import TemporaryDirectory

    from flows.home import Home
    from flows.settings import load_settings
    from flows.stages import STAGES

    importlib.import_module("model.predict")  # as the stage does once there is work; the rates leave it out
    seen: list[tuple[float, str]] = []

    def progress(done: int, total: int, note: str) -> None:
        seen.append((time.perf_counter(), note))

    with TemporaryDirectory(dir=home) as own:
        shutil.copytree(Path(home, "models"), Path(own, "models"))
        chosen = load_settings(overrides=settings[1::2])
        began = time.perf_counter()
        ref = STAGES["predict"](Home(Path(own)), chosen, model_name=_model(own), data=data, progress=progress)
        ended = time.perf_counter()
        pictures = Home(Path(own)).open(ref).manifest["pictures"]
    converted = max(at for at, note in seen if note != "pictures")
    return {
        "pictures": pictures,
        "convert_s": converted - began,
        "predict_s": ended - converted,
        "pictures_per_s": pictures / (ended - began),
    }


def keras_predict(home: str, data: str) -> dict[str, float]:
    """A loop over the files with OpenCV, one call of model.predict, a CSV."""
    import keras
    import numpy as np
    import pandas as pd

    from benchmarks.convert import steps_to

    began = time.perf_counter()
    table = pd.read_csv(Path(data, "test.csv"), dtype=str)
    card = json.loads(Path(_model(home), "card.json").read_text())
    steps, images = steps_to(card["preprocess"]["image_size_px"]), []
    for name in table["ID"]:
        value: Any = Path(data, "test_images", name)
        for step in steps:
            value = step(value)
        images.append(value[..., None])
    converted = time.perf_counter()
    network = keras.saving.load_model(_network(home), compile=False)
    table["Label"] = network.predict(np.stack(images), verbose=0).argmax(axis=1)
    out = Path(home, "keras-submission.csv")
    table.to_csv(out, index=False)
    out.unlink()
    ended = time.perf_counter()
    return {
        "pictures": len(table),
        "convert_s": converted - began,
        "predict_s": ended - converted,
        "pictures_per_s": len(table) / (ended - began),
    }


def alone(home: str, data: str, arrays: int, singles: int, rounds: int) -> dict[str, Any]:
    """The network alone on arrays, by turns; then single pictures: ms from a PNG's bytes to its class."""
    import keras
    import numpy as np

    from model.classify import open_classifier
    from tfrecords.picture import prepare

    classifier = open_classifier(Path(_model(home)))
    network = keras.saving.load_model(_network(home), compile=False)
    files = sorted(Path(data, "test_images").iterdir())
    pngs = [path.read_bytes() for path in files[: max(arrays, singles)]]
    images = np.stack([prepare(png, classifier.preprocess)[..., None] for png in pngs[:arrays]])
    calls = {
        OURS: lambda: classifier.probabilities(images),
        KERAS: lambda: network.predict(images, verbose=0),
    }
    told: dict[str, Any] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            told[name].append({"pictures_per_s": len(images) / (time.perf_counter() - began)})
    one = {
        OURS: lambda png: classifier.classify([png]),
        KERAS: lambda png: network.predict(prepare(png, classifier.preprocess)[None, ..., None], verbose=0),
    }
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


def _model(home: str) -> str:
    """Folder of the one model there."""
    (folder,) = Path(home, "models").glob("[!.]*")
    return str(folder)


def _network(home: str) -> str:
    return str(Path(_model(home), "model.keras"))
