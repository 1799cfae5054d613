"""What is refused before long work; free of TensorFlow."""

from collections.abc import Sequence

from model.manifests import Evaluation, Model
from model.settings import EvaluateSettings, Head, PredictSettings, TrainSettings
from tfrecords.dataset import Dataset
from tfrecords.errors import MISSED, refuse
from tfrecords.settings import AUTO, PreprocessSettings


def check_fold(folds: int, settings: TrainSettings) -> None:
    """Raises AoiError for a validation fold outside the dataset's."""
    if settings.fold >= folds:
        raise refuse("train.fold", f"{settings.fold}, of a dataset with {folds} folds", f"Set 0 to {folds - 1}")


def check_unreadable_label(classes: Sequence[str], settings: PredictSettings) -> None:
    """Raises AoiError for a label outside the classes."""
    _check_label("predict.unreadable_label", settings.unreadable_label, classes)


def check_unreadable(lot: Dataset, settings: PredictSettings) -> None:
    """Raises AoiError for a lot of which too many pictures can't be read: it is rather the camera or the disk."""
    lost, pictures = lot.manifest.rejects, lot.manifest.records + lot.manifest.rejects
    if lost > 1 and lost > settings.max_unreadable * pictures:
        seen = f"{lost:,} of {pictures:,} pictures can't be read, more than {settings.max_unreadable:g} of them"
        remedy = "Mend what rejects.csv there names, or raise predict.max_unreadable to go on without these"
        raise refuse(lot.path, seen, remedy, exit_code=MISSED)


def normal_class(classes: Sequence[str], settings: EvaluateSettings) -> int | None:
    """Label of good parts; None where the data has no such class. Raises: AoiError for one outside the classes."""
    if settings.normal_class is None:
        return 0 if classes[0].lower() == "normal" else None
    _check_label("evaluate.normal_class", settings.normal_class, classes)
    return settings.normal_class


def check_explainable(model: Model) -> None:
    """Raises AoiError for a model that has no class maps, from which heat maps are made."""
    if model.manifest.settings.train.head == Head.FLATTEN:
        seen = "trained with train.head=flatten, and behind that nothing shows what spoke for an answer"
        raise refuse(model.path, seen, "Leave out --explain, or train with train.head=gap")


def check_same(model: Model, dataset: Dataset) -> None:
    """Raises AoiError where model and dataset differ in classes or preprocessing, saying in what.

    A setting that only one of the manifests names counts with its default in the other.
    """
    ours, theirs = model.manifest.classes, dataset.manifest.classes
    if ours != theirs:
        seen = f"its classes are {', '.join(theirs)}; the model's are {', '.join(ours)}"
        raise refuse(dataset.path, seen, "Name a model that was trained on these classes, or train one")
    known, found = (made.manifest.settings.preprocess.model_dump() for made in (model, dataset))
    if known["bit_depth"] == AUTO:  # the model is of a time when nobody looked for it, and takes any
        known["bit_depth"] = found["bit_depth"]
    differs = [f"preprocess.{key} is {found[key]}, not {known[key]}" for key in known if known[key] != found[key]]
    if differs:
        raise refuse(dataset.path, "; ".join(differs), "Ingest with the model's settings, or train on this dataset")


def overlooked(preprocess: PreprocessSettings, dataset: Dataset) -> str:
    """What to tell of settings that were given and that the dataset was not made with, for training reads it as it is;
    "" where there are none.
    """
    made = dataset.manifest.settings.preprocess
    given = {f"preprocess.{key}": getattr(preprocess, key) for key in sorted(preprocess.model_fields_set)}
    known = {f"preprocess.{key}": value for key, value in made}
    differs = [f"{key}={value} ({known[key]})" for key, value in given.items() if value not in (AUTO, known[key])]
    return f"the dataset was made with other settings: {', '.join(differs)}. They need aoi ingest" if differs else ""


def check_passed(evaluation: Evaluation) -> None:
    """Raises AoiError (exit code 1) for a model under the bound."""
    accuracy = evaluation.manifest.metrics["accuracy"]
    minimum = evaluation.manifest.settings.minimum_accuracy
    if not evaluation.manifest.passed:
        raise refuse(
            evaluation.path,
            f"accuracy {accuracy:.4f} is under evaluate.minimum_accuracy {minimum:g}",
            "Look at mistakes.png there, train a better model, or lower the bound",
            exit_code=MISSED,
        )


def _check_label(name: str, label: int, classes: Sequence[str]) -> None:
    if label >= len(classes):
        raise refuse(name, f"{label}, of {len(classes)} classes", f"Set 0 to {len(classes) - 1}")
