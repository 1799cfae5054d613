"""One model of many: a cross-validation's networks, asked together."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model.card import Card, read_card, write_card
from model.decisions.halves import OTHER_EPOCH
from model.decisions.novelty import NOVELTY_FILE
from model.manifests import Model, ModelManifest
from model.registry import tracking
from model.registry.store import Store
from model.settings import NETWORK
from model.training.schedule import length_of
from tfrecords.artifacts.manifest import RunRecord
from tfrecords.dataset import Dataset, read_example


def build_ensemble(
    members: Sequence[Model], dataset: Dataset, work: Path, store: Store, fingerprint: str
) -> ModelManifest:
    """Puts the networks of `members`, one per fold, side by side in `work`, with a card that names their folds.

    In MLflow: a parent run with mean and spread of the members' metrics, whose runs become its children.
    """
    classes = dataset.manifest.classes
    networks, mirrors = {}, {}
    for member in members:
        (fold,) = member.manifest.folds
        networks[f"fold-{fold}"] = fold
        mirrors[f"fold-{fold}"] = read_card(member.path).mirrors.get(NETWORK, ())
        for suffix in (".keras", ".tflite", NOVELTY_FILE, OTHER_EPOCH):
            if (file := member.path / f"{NETWORK}{suffix}").exists():  # not every member has the last two
                shutil.copyfile(file, work / f"fold-{fold}{suffix}")
    write_card(work, Card(classes, dataset.manifest.settings.preprocess, networks, mirrors))
    first = members[0].manifest
    bests = [member.manifest.best for member in members]
    spread: dict[str, float] = {}
    for key in ("accuracy", "loss", "val_accuracy", "val_balanced_accuracy", "val_loss"):
        values = [best[key] for best in bests]
        spread |= {f"{key}_mean": float(np.mean(values)), f"{key}_std": float(np.std(values, ddof=1))}
    train = first.settings.train
    name = f"crossval-{len(members)} {train.backbone}-{train.alpha:g} {length_of(train)} {fingerprint[:6]}"
    params = {**first.settings.model_dump(), "train": train.model_dump(exclude={"fold"}), "folds": len(members)}
    with tracking.training_run(store, fingerprint, name, params, [dataset], None) as record:
        tracking.adopt(store, record["run_id"], [member.manifest.mlflow.run_id for member in members])
        registered = tracking.finish_training(store, record["run_id"], spread, work, classes, read_example(dataset))
    return ModelManifest(
        mlflow=RunRecord(
            **record, version=registered, seconds=sum(member.manifest.mlflow.seconds for member in members)
        ),
        dataset=dataset.made_from,
        classes=classes,
        settings=first.settings,
        folds=tuple(networks.values()),
        members=tuple(member.made_from for member in members),
        best=spread,
        versions=first.versions,
        half_chose=all(member.manifest.half_chose for member in members),
    )
