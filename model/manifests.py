"""What the manifests of the model's artefacts say."""

from typing import Any

from pydantic import ConfigDict, Field

from model.settings import EvaluateSettings, Precision, PredictSettings, TrainSettings
from tfrecords.artifacts.artifact import Artifact
from tfrecords.artifacts.manifest import Facts, MadeFrom, Manifest, RecordedManifest
from tfrecords.dataset import DatasetSettings


class ModelSettings(DatasetSettings):
    """The settings that a model was made with. train.weights: the content's hash where it was a file.

    Of a cross-validation's ensemble: those of its first member.
    """

    train: TrainSettings


class ModelManifest(RecordedManifest):
    """A trained model.

    folds: that its networks did not train on, in their order; parameters: numbers that the network holds; members:
    of an ensemble, the models of its folds; flips: how training pictures were mirrored, None where it is not known;
    mirrors: how the pictures are mirrored that answers are the mean over, none: they are a picture's alone;
    best: metrics of the epoch that was kept, or their mean and spread; half_chose: half of the fold's pictures alone
    chose the epoch, so that the others can prove (earlier versions: all).
    """

    KIND = "model"
    FOLDER = "models"
    MADE_BY = "aoi train"

    dataset: MadeFrom
    classes: tuple[str, ...]
    settings: ModelSettings
    folds: tuple[int, ...]
    parameters: int | None = None
    members: tuple[MadeFrom, ...] | None = None
    flips: tuple[str, ...] | None = None
    mirrors: tuple[str, ...] = ()
    best: dict[str, float]
    versions: dict[str, str]
    half_chose: bool = False


class OperatingPoint(Facts):
    """How a part is decided from its calibrated probabilities.

    normal: label of good parts, or None. With one: accept where P(normal) >= accept_at, reject where
    P(normal) <= reject_at, else review. Without: a part is always a defect of some class; reject where the
    largest probability is >= accept_at, else review; reject_at is not used. Whatever these say, a part is unknown whose
    novelty is above the threshold for `max_false_unknown`, see `model.decisions.novelty`; 0, as in earlier versions:
    none is.
    """

    temperature: float
    normal: int | None = None
    accept_at: float
    reject_at: float
    max_false_unknown: float = 0.0


class Promise(Facts):
    """That a true rate is below a bound, with a confidence.

    of: "escape", "overkill" or "misnamed"; bound: the one that was set; proven: the same where it is met, else the
    lowest that the pictures prove; pictures: that prove it: defects, good parts, or parts that nobody reviews;
    met: whether the bound is proven; missing: how many more such pictures prove it if the rate is zero among them, None
    where no number does.
    """

    of: str
    bound: float
    proven: float
    confidence: float
    pictures: int
    met: bool
    missing: int | None = None  # which a manifest leaves out where there is none


class PromiseUnknown(Facts):
    """That on average over trainings and evaluations at most a share of the parts of known classes is called unknown.

    bound: the one that was set; proven: the same where it is met, else the lowest that the pictures prove; pictures:
    that calibrate; met: whether the bound is proven; missing: how many more such pictures prove it, None where no
    number does, as after a cross-validation, which proves twice the bound.
    """

    bound: float
    proven: float
    pictures: int
    met: bool
    missing: int | None = None  # which a manifest leaves out where there is none


class Promised(Facts):
    """The promises of an operating point: of escapes or wrong names, of overkill where there is a normal class, and of
    parts called unknown where the model knows novelty.

    None in evaluations of earlier versions, whose thresholds were chosen by point estimates.
    """

    promise: Promise | None = None
    promise_overkill: Promise | None = None
    promise_unknown: PromiseUnknown | None = None

    @property
    def promises(self) -> tuple[Promise, ...]:
        """Those that there are."""
        return tuple(each for each in (self.promise, self.promise_overkill) if each)


class Operating(Promised):
    """The operating point, its bounds and promises, and what the decisions mean; rates and their intervals as
    operating.json.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    point: OperatingPoint
    max_escape_rate: float
    max_overkill_rate: float


class Feature(Facts):
    """What is usual of a feature: shares of pictures in its bins, whose inner edges are `edges`, or in its classes."""

    edges: tuple[float, ...] | None = None
    shares: tuple[float, ...]
    count: int


class EvaluationManifest(Manifest):
    """What a model gets right on pictures that it did not train on. passed: accuracy reached the minimum."""

    KIND = "evaluation"
    FOLDER = "evaluations"
    MADE_BY = "aoi evaluate"

    model: MadeFrom
    dataset: MadeFrom
    settings: EvaluateSettings
    metrics: dict[str, int | float]
    operating: Operating
    reference: dict[str, Feature]
    passed: bool


class Drift(Facts):
    """Population stability index of a feature of a lot, and the limit above which it has drifted."""

    psi: float
    limit: float
    drifted: bool


class PredictionManifest(Manifest):
    """The named and decided pictures of a lot.

    counts: by class name; decisions: by decision; novelty: whether the model knows it.
    """

    KIND = "prediction"
    FOLDER = "predictions"
    MADE_BY = "aoi predict"

    model: MadeFrom
    dataset: MadeFrom
    settings: PredictSettings
    pictures: int
    unreadable: int
    counts: dict[str, int]
    drift: dict[str, Drift]
    decisions: dict[str, int]
    novelty: bool = False


class MeasurementManifest(Manifest):
    """A finished model, measured on a labelled lot.

    prediction: the answers that were measured; metrics: see `model.evaluation.metrics.measure`, with the interval of
    the accuracy at 95 %; decided: what the decisions mean, see `model.decisions.operating.outcome`.
    """

    KIND = "measurement"
    FOLDER = "measurements"
    MADE_BY = "aoi evaluate --data"

    model: MadeFrom
    dataset: MadeFrom
    prediction: MadeFrom
    metrics: dict[str, float]
    decided: dict[str, float]


class ExportCheck(Facts):
    """How the exported answers differ from Keras' on real pictures, and the sizes of both in bytes."""

    pictures: int
    labels_differ: int
    largest_difference: float
    bytes: int
    keras_bytes: int


class ExportManifest(Manifest):
    """A model for machines without Keras. reference: what is usual of its answers, see `EvaluationManifest`."""

    KIND = "export"
    FOLDER = "exports"
    MADE_BY = "aoi export"

    model: MadeFrom
    dataset: MadeFrom
    classes: tuple[str, ...]
    settings: ModelSettings
    format: str = "litert"  # version 0.1 had this one alone
    precision: Precision
    check: ExportCheck
    reference: dict[str, Feature] = Field(default_factory=dict)


class SweepManifest(RecordedManifest):
    """The points of a grid. points: the rows of its table without what a clock says."""

    KIND = "sweep"
    FOLDER = "sweeps"
    MADE_BY = "aoi sweep"

    points: tuple[dict[str, Any], ...]


Model = Artifact[ModelManifest]
Evaluation = Artifact[EvaluationManifest]
Prediction = Artifact[PredictionManifest]
Measurement = Artifact[MeasurementManifest]
Export = Artifact[ExportManifest]
Sweep = Artifact[SweepManifest]
