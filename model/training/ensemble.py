"""One model of many: a cross-validation's networks, asked together."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from model.inference.classifier import write_card
from model.registry import tracking
from model.registry.store import Store
from model.settings import NETWORK
from tfrecords.artifacts.artifact import RECORD, Artifact
from tfrecords.records.arrays import read_arrays
from tfrecords.settings import PreprocessSettings


def build_ensemble(
    members: Sequence[Artifact], dataset: Artifact, work: Path, store: Store, fingerprint: str
) -> dict[str, Any]:
    """Puts the networks of `members`, one a fold, side by side in `work`, with a card that names their folds.

    In MLflow: a parent run with mean and spread of the members' figures, whose runs become its children.

    Returns: the manifest's entries.
    """
    classes = dataset.manifest["classes"]
    networks = {}
    for member in members:
        (fold,) = member.manifest["folds"]
        networks[f"fold-{fold}"] = fold
        for suffix in (".keras", ".tflite"):
            shutil.copyfile(member.path / f"{NETWORK}{suffix}", work / f"fold-{fold}{suffix}")
    write_card(work, classes, PreprocessSettings(**dataset.manifest["settings"]["preprocess"]), networks)
    settings = members[0].manifest["settings"]
    train = {key: value for key, value in settings["train"].items() if key != "fold"}
    bests = [member.manifest["best"] for member in members]
    spread = {}
    for key in ("accuracy", "loss", "val_accuracy", "val_balanced_accuracy", "val_loss"):
        values = [best[key] for best in bests]
        spread |= {f"{key}_mean": float(np.mean(values)), f"{key}_std": float(np.std(values, ddof=1))}
    name = f"crossval-{len(members)} mobilenet-{train['alpha']:g} {train['epochs']}ep {fingerprint[:6]}"
    params = {**settings, "train": train, "folds": len(members)}
    with tracking.training_run(store, fingerprint, name, params, [dataset], None) as record:
        tracking.adopt(store, record["run_id"], [member.manifest[RECORD]["run_id"] for member in members])
        picture = next(read_arrays(dataset))["image"][0]
        example = cv2.imencode(".png", picture)[1].tobytes()
        tracking.finish_training(store, record["run_id"], spread, work, classes, example)
    return {
        RECORD: record,
        "dataset": {"fingerprint": dataset.fingerprint, "digest": dataset.digest},
        "classes": classes,
        "settings": {**settings, "train": train},
        "folds": list(networks.values()),
        "members": [{"fingerprint": member.fingerprint, "digest": member.digest} for member in members],
        "best": spread,
        "versions": members[0].manifest["versions"],
    }
