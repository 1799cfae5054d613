"""The predict stage: a submission for pictures without labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from model.decisions import drift
from model.decisions.operating import decide
from model.inference.answers import OK, UNREADABLE, columns
from model.inference.classifier import Classifier, open_classifier, prediction_table, shifted
from model.manifests import Evaluation, Export, Model, PredictionManifest
from model.settings import REVIEW_FILE, SUBMISSION, Decision, PredictSettings, Runtime
from tfrecords.dataset import ROWS, Dataset
from tfrecords.progress import Progress
from tfrecords.records.arrays import read_arrays


def predict_lot(
    model: Model,
    exported: Export | None,
    dataset: Dataset,
    evaluation: Evaluation | None,
    settings: PredictSettings,
    folder: Path,
    progress: Progress,
) -> PredictionManifest:
    """Names and decides every row of the CSV that the dataset was made from, in its order.

    exported: of the model, where its networks answer in place of the model's; evaluation: of the model, whose
    operating point decides; or None: then every part is for review.

    Writes into `folder` predictions.csv (ID, label, name, one probability per class, decision, novelty, and status: ok,
    or unreadable and then without probabilities and novelty), review.csv (the parts that a person should look at: the
    unknown ones, then those to review, the least sure first) and submission.csv (ID,Label). Novelty is empty where the
    model does not know it.
    """
    classes = dataset.manifest.classes
    classifier = open_classifier((exported or model).path, keras=settings.runtime == Runtime.KERAS)
    table, alone = _predict(classifier, dataset, settings, progress)
    readable = (table["status"] == OK).to_numpy()
    table.insert(len(table.columns) - 2, "decision", Decision.REVIEW)
    probabilities = table.loc[readable, list(classes)].to_numpy(dtype=float)
    found = {}
    if evaluation:
        known, usual = evaluation.manifest, classifier.novelty
        point, novelty = known.operating.point, table.loc[readable, "novelty"].to_numpy(dtype=float)
        unknown = usual.unknown(novelty, point.max_false_unknown) if usual else None
        table.loc[readable, "decision"] = decide(probabilities, point, unknown)
        # An export in 8 bits is less sure than the network that it was made from, and has a reference of its own.
        reference = known.reference | (exported.manifest.reference if exported else {})
        values = drift.measures(_read_rows(dataset)) | {"confidence": alone.max(axis=1, initial=0)}
        found = drift.compare(reference, values, alone.argmax(axis=1))
    table[columns(classes)].to_csv(folder / "predictions.csv", index=False, float_format="%.6f")
    _write_review(table, classes, folder / REVIEW_FILE)
    submission = table[["ID", "label"]].rename(columns={"label": "Label"})
    submission.to_csv(folder / SUBMISSION, index=False, lineterminator="\r\n")
    return PredictionManifest(
        model=model.made_from,
        dataset=dataset.made_from,
        settings=settings,
        pictures=len(table),
        unreadable=int((~readable).sum()),
        counts={name: int((table["label"] == label).sum()) for label, name in enumerate(classes)},
        drift=found,
        decisions={decision: int((table["decision"] == decision).sum()) for decision in Decision},
        novelty=classifier.novelty is not None,
    )


def _write_review(table: pd.DataFrame, classes: Sequence[str], path: Path) -> None:
    """The parts that a person should look at, of the table of all: first the unknown ones, then the least sure."""
    review = table[table["decision"].isin([Decision.REVIEW, Decision.UNKNOWN])]
    review = review.assign(
        confidence=review[list(classes)].max(axis=1), known=(review["decision"] != Decision.UNKNOWN).astype(int)
    )
    review = review.sort_values(["known", "confidence", "ID"], na_position="first")
    shown = ["ID", "label", "name", "confidence", "decision", "novelty", "status"]
    review[shown].to_csv(path, index=False, float_format="%.6f")


def _predict(
    classifier: Classifier, dataset: Dataset, settings: PredictSettings, progress: Progress
) -> tuple[pd.DataFrame, np.ndarray]:
    """The table of all rows, and answers to compare with the reference: float32 (readable pictures, classes).

    Evaluation asks one network about each picture, the one that did not train on it, and about no shifted copies. The
    mean of several answers is less sure, so the lot's drift is measured on answers of that kind too. Novelty is that of
    the picture itself as well.
    """
    classes, rows = dataset.manifest.classes, _read_rows(dataset)
    none = np.zeros((0, len(classes)), np.float32)
    ids: list[str] = []
    parts, alone, novelty = [none], [none], [np.zeros(0)]
    progress(0, dataset.manifest.records, "pictures")
    for batch in read_arrays(dataset):
        looks = [classifier.look(images) for images in shifted(batch["image"], settings.shift_copies)]
        answers = [np.stack([seen.probabilities for seen in each]) for each in looks]
        parts.append(np.mean([each.mean(axis=0) for each in answers], axis=0))
        alone.append(drift.in_turn(answers[0], len(ids)))
        novelty.append(classifier.novelty_of(looks[0]))
        ids += batch["id"].tolist()
        progress(len(ids), dataset.manifest.records, "pictures")
    table = prediction_table(np.concatenate(parts), classes)
    table.insert(0, "ID", ids)
    # By name, since a table without rows has no types of its own.
    table = table.assign(novelty=np.concatenate(novelty), status=OK).astype({"ID": str, "name": str, "status": str})
    ordered = rows[["id"]].rename(columns={"id": "ID"}).merge(table, on="ID", how="left")
    lost = ordered["status"].isna()
    label = settings.unreadable_label
    ordered.loc[lost, "label"] = label
    ordered.loc[lost, "name"] = classes[label]
    ordered.loc[lost, "status"] = UNREADABLE
    return ordered.astype({"label": int}), np.concatenate(alone)


def _read_rows(dataset: Dataset) -> pd.DataFrame:
    return pd.read_csv(dataset.path / ROWS, dtype={"id": str, "phash": str}, keep_default_na=False)
