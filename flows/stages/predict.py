"""predict: the pictures of a lot to a submission, a decision for each part, and a list to review.

Needs a model and a folder or zip with pictures. A prediction is named after the model, the lot's dataset, the model's
evaluation and the settings of [predict].
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from flows.home import Ref, name_of
from flows.products import choose_model, describe_model
from flows.stages.export import make_export
from flows.stages.ingest import choose_data, ingest_split
from flows.stages.stage import BEAM, PRODUCT, Job, Option, Stage
from model.checks import check_explainable, check_same, check_unreadable, check_unreadable_label
from model.decisions.drift import warning as drift_warning
from model.decisions.wording import promise_lines, void_line
from model.manifests import Evaluation, Export, Model, Prediction, PredictionManifest
from model.quiet import import_tensorflow
from model.settings import SUBMISSION, Precision, Runtime
from pipeline.location import fetch
from tfrecords.artifacts.artifact import verify
from tfrecords.artifacts.copies import check_target, put_copy
from tfrecords.artifacts.files import hash_json, write_whole
from tfrecords.artifacts.make import make
from tfrecords.dataset import Dataset
from tfrecords.errors import refuse

VERSION = 6  # raise it when the same model and lot would give another prediction
DATA = Option("a lot: a folder or zip of pictures, or one with test.csv (default: used last)", metavar="DIR")
EXPLAIN = Option(
    "heat maps of the N parts that are least sure, into explanations/ beside review.csv (default: none)", metavar="N"
)
MODEL = Option("a model's folder or name (default: the champion of the product)")
OUT = Option("a folder for a copy of the result, which appears there whole", metavar="DIR")


def predict(
    job: Job,
    model: Annotated[str | None, MODEL] = None,
    product: Annotated[str | None, PRODUCT] = None,
    data: Annotated[str | None, DATA] = None,
    beam: Annotated[str, BEAM] = "",
    explain: Annotated[int, EXPLAIN] = 0,
    out: Annotated[str | None, OUT] = None,
) -> Ref:
    """The test pictures of `data` to HOME/submission.csv, by a model or by the champion of a product.

    The pictures go through the same Beam job as the training's, with the settings that the model knows.
    explain: of how many parts, the least sure first, heat maps show what spoke for the answer.
    """
    home, data = job.home, choose_data(job.home, data)
    if explain < 0:
        raise refuse("--explain", f"{explain} parts", "Name a number of parts, such as --explain 20")
    if out is not None:
        check_target(Path(out))
    chosen = choose_model(home, model, product, data)
    if explain:
        check_explainable(chosen)
    known = job.settings.model_copy(update={"preprocess": chosen.manifest.settings.preprocess})
    ingested = ingest_split(replace(job, settings=known, force=False), data, "test", beam, chosen.manifest.classes)
    lot = ingested.dataset
    exported = exported_of(job, chosen)
    evaluation = home.evaluation_of(chosen.fingerprint)
    made, cached = make_prediction(job, chosen, lot, evaluation, exported)
    decisions = ", ".join(f"{count:,} {decision}" for decision, count in made.manifest.decisions.items())
    notes = [f"model: {describe_model(home, chosen)}", f"decided: {decisions}; see review.csv there"]
    if explain:
        from model.inference.explain import EXPLANATIONS, explain_lot

        explain_lot(made, exported or chosen, lot, explain, job.force, job.progress)
        notes.append(f"explained: the least sure parts; see {EXPLANATIONS}/index.csv there")
    notes += [f"promise: {line}" for line in lot_promises(made, evaluation)]
    notes += ingested.told()
    if not made.manifest.novelty:
        notes.append("novelty is not known: the model is of an earlier version; train again to have it")
    if drifted := drift_warning(made.manifest.drift):
        notes.append(f"THE LOT LOOKS DIFFERENT from the training pictures: {drifted}")
    ref = replace(home.finished(made, cached), note="\n".join(notes))
    write_whole(home.root / SUBMISSION, (made.path / SUBMISSION).read_bytes().decode())
    if out is not None:
        put_copy(made, Path(out))
    return ref


def exported_of(job: Job, model: Model) -> Export | None:
    """The export that answers in the model's place, made where it is not there; None for the other runtimes."""
    if job.settings.predict.runtime != Runtime.LITERT_INT8:
        return None
    return make_export(replace(job, force=False), model, Precision.INT8)[0]


def lot_promises(prediction: Prediction, evaluation: Evaluation | None) -> list[str]:
    """A line per promise that the model's evaluation makes, or one that says why they do not hold for this lot."""
    lines = promise_lines(evaluation.manifest.operating) if evaluation else []
    settings = prediction.manifest.settings
    if lines and (settings.runtime == Runtime.LITERT_INT8 or settings.shift_copies):
        return ["void for this lot: it is proven without predict.shift_copies, and not in 8 bits"]
    void = void_line(prediction.manifest.drift)
    return [void] if lines and void else lines


def make_prediction(
    job: Job, model: Model, lot: Dataset, evaluation: Evaluation | None, exported: Export | None
) -> tuple[Prediction, bool]:
    """Names the pictures of a lot, decides each part, and tells whether the lot looks as usual.

    evaluation: of the model; its operating point decides and its pictures are what is usual. Without one every
    part is for review. exported: of the model, where predict.runtime is litert-int8.

    Returns:
        the prediction (see `model.inference.predict.predict_lot`), and whether it was there before.

    Raises:
        AoiError: a lot of other classes or preprocessing than the model's; a setting outside the classes.
    """
    settings = job.settings.predict
    check_same(model, lot)
    check_unreadable_label(lot.manifest.classes, settings)
    check_unreadable(lot, settings)
    made_from = {"model": model.made_from.model_dump(), "dataset": lot.made_from.model_dump()}
    known = {key: evaluation.json[key] for key in ("operating", "reference")} if evaluation else None
    deciding = settings.model_dump(exclude={"max_unreadable"})
    fingerprint = hash_json({"version": VERSION, **made_from, "predict": deciding, "known": known})

    def build(work: Path) -> PredictionManifest:
        verify(exported or model)
        fetch(lot, job.progress)
        verify(lot)
        if settings.runtime == Runtime.KERAS:
            import_tensorflow()
        from model.inference.predict import predict_lot

        return predict_lot(model, exported, lot, evaluation, settings, work, job.progress)

    root = job.home.folder(PredictionManifest)
    return make(root, name_of(lot), PredictionManifest, fingerprint, build, job.force)


STAGE = Stage(
    predict,
    makes=(PredictionManifest,),
    shortcuts={"runtime": "predict.runtime"},
    show=lambda home, ref: f"submission  {home.root / SUBMISSION}",
)
