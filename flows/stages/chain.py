"""The whole chain: ingest, train, evaluate, predict."""

from collections.abc import Callable
from typing import Annotated

from flows.home import Ref
from flows.stages.ingest import choose_data
from flows.stages.stage import BEAM, Job, Option
from model.checks import check_fold, check_unreadable_label, normal_class
from model.network.weights import ensure_weights
from pipeline import store
from pipeline.inputs.inputs import check_inputs
from pipeline.inputs.layouts import has_test
from pipeline.job.beam import read_options
from tfrecords.errors import refuse

DATA = Option("folder with pictures and CSVs, or with a folder per class", metavar="DIR")


def chain(
    run: Callable[..., Ref], job: Job, data: Annotated[str, DATA], beam: Annotated[str, BEAM] = ""
) -> dict[str, Ref]:
    """The whole job. run: (stage's name, its options) to its reference; it says how a stage is run and watched.

    Returns: the stages' references under their names. Raises: AoiError from the first stage that refuses.
    """
    store.use(read_options(beam))
    data = check_ahead(job, data)
    dataset = run("ingest", data=data, beam=beam)
    trained = run("train", dataset=dataset.folder)
    evaluation = run("evaluate", model=trained.folder)
    prediction = run("predict", model=trained.folder, data=data, beam=beam)
    return {"ingest": dataset, "train": trained, "evaluate": evaluation, "predict": prediction}


def check_ahead(job: Job, data: str | None) -> str:
    """What the whole chain would trip over late: both splits' inputs, settings against them, the weights.

    Returns: the data's folder.

    Raises: AoiError.
    """
    settings, data = job.settings, choose_data(job.home, data)
    classes = check_inputs(data, "train", settings.ingest.folds)
    if not has_test(data):
        seen = "no pictures to predict are there: no test.csv, test_images/, test_images.zip or test/"
        raise refuse(data, seen, "Put them there; or run aoi ingest, aoi train and aoi evaluate, which need none")
    check_inputs(data, "test", settings.ingest.folds)
    check_fold(settings.ingest.folds, settings.train)
    normal_class(classes, settings.evaluate)
    check_unreadable_label(classes, settings.predict)
    ensure_weights(settings.train)
    return data
