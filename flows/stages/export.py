"""export: a model for machines without Keras, checked against it on real pictures.

Needs a model and the dataset that it was trained on. An export is named after both, the format and the precision.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from flows.home import Ref, name_of
from flows.products import choose_model
from flows.stages.evaluate import trained_on
from flows.stages.stage import PRODUCT, Job, Option, Stage
from model.checks import check_same
from model.inference.formats import FORMATS
from model.manifests import Export, ExportManifest, Model
from model.quiet import import_tensorflow
from model.registry.databases import check_store
from model.registry.store import store_of
from model.settings import Precision
from pipeline.location import fetch
from tfrecords.artifacts.artifact import verify
from tfrecords.artifacts.files import hash_json
from tfrecords.artifacts.make import make

VERSION = 3  # raise it when the same model would give another export
MODEL = Option("a model's folder or name (default: the champion of the product)")
FORMAT = Option("of the file (default litert)", choices=tuple(FORMATS))
PRECISION = Option("of weights and activations (default float)", choices=tuple(Precision))


def export(
    job: Job,
    model: Annotated[str | None, MODEL] = None,
    product: Annotated[str | None, PRODUCT] = None,
    format: Annotated[str, FORMAT] = "litert",
    precision: Annotated[str, PRECISION] = Precision.FLOAT.value,
) -> Ref:
    """A model, or the champion of a product, for machines without Keras. Raises: AoiError."""
    chosen = choose_model(job.home, model, product)
    made, cached = make_export(job, chosen, Precision(precision), format)
    dataset = trained_on(job, chosen)
    fetch(dataset, job.progress)
    import_tensorflow()
    from model.inference.export import compare_speed

    return replace(job.home.finished(made, cached), note=compare_speed(chosen, made, dataset))


def make_export(job: Job, model: Model, precision: Precision, form: str = "litert") -> tuple[Export, bool]:
    """The export of a model (see `model.inference.export.export_model`), and whether it was there before.

    Raises:
        AoiError: answers that differ too much from Keras'; a dataset that is gone.
    """
    dataset = trained_on(job, model)
    check_same(model, dataset)
    store = store_of(job.home.root, name_of(model))
    made_from = {"model": model.made_from.model_dump(), "dataset": dataset.made_from.model_dump()}
    fingerprint = hash_json({"version": VERSION, **made_from, "format": form, "precision": precision})

    def build(work: Path) -> ExportManifest:
        check_store(store)
        verify(model)
        fetch(dataset, job.progress)
        verify(dataset)
        import_tensorflow()
        from model.inference.export import export_model

        return export_model(model, dataset, form, precision, work, store, job.progress)

    return make(job.home.folder(ExportManifest), store.name, ExportManifest, fingerprint, build, job.force)


STAGE = Stage(
    export,
    makes=(ExportManifest,),
    has_settings=False,
)
