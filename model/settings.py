"""What can be set about a model, free of TensorFlow so that --help and forms stay quick."""

import os
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from model.network.backbones import ANY_WIDTH, BACKBONES, BackboneName
from tfrecords.settings import AUTO, StageSettings

IMAGENET = "imagenet"
NO_WEIGHTS = "none"
NETWORK = "model"  # of a single network's files, before .keras and .tflite
SUBMISSION = "submission.csv"
REVIEW_FILE = "review.csv"


class Recipe(StrEnum):
    """What is trained."""

    FULL = "full"
    FROZEN = "frozen"


class ClassWeights(StrEnum):
    """How much a picture of a rare class counts."""

    NONE = "none"
    SQRT = "sqrt"
    BALANCED = "balanced"


class Head(StrEnum):
    """How the last maps become features."""

    GAP = "gap"
    FLATTEN = "flatten"


class Mirror(StrEnum):
    """A picture turned round: left to right, or top to bottom."""

    HORIZONTAL = "horizontal"
    VERTICAL = "vertical"

    @property
    def axis(self) -> int:
        """Of a picture (rows, columns, channels), that is turned round."""
        return 1 if self == Mirror.HORIZONTAL else 0


class Flips(StrEnum):
    """How training pictures are mirrored at random."""

    AUTO = "auto"
    NONE = "none"
    HORIZONTAL = "horizontal"
    VERTICAL = "vertical"
    BOTH = "both"

    @property
    def mirrors(self) -> tuple[Mirror, ...]:
        """What `self`, which is not `auto`, stands for."""
        return {Flips.NONE: (), Flips.BOTH: tuple(Mirror)}.get(self) or tuple(m for m in Mirror if m == self.value)


class MirrorCopies(StrEnum):
    """Whether a model answers with the mean over a picture and its mirror images."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Runtime(StrEnum):
    """What computes the answers of a trained network."""

    LITERT = "litert"
    LITERT_INT8 = "litert-int8"
    KERAS = "keras"


class Decision(StrEnum):
    """What becomes of a part."""

    ACCEPT = "accept"
    REJECT = "reject"
    REVIEW = "review"
    UNKNOWN = "unknown"


class Precision(StrEnum):
    """Of the weights and activations of an exported network."""

    FLOAT = "float"
    INT8 = "int8"


class TrainSettings(StageSettings):
    """How a model is made from a dataset."""

    recipe: Recipe = Field(
        Recipe.FULL,
        strict=False,  # as all enums: TOML and --set have words, not members
        description="train the whole network, or only its last layer on features that are computed once",
    )
    epochs: int | None = Field(
        None,
        ge=1,
        le=10000,
        description="passes over the training pictures; unset: as many as validation needs, within train.budget_steps",
    )
    budget_steps: int | None = Field(
        None,
        ge=1,
        le=10**9,
        description="most steps where train.epochs is unset; unset: from the number of pictures and their size",
    )
    patience: int = Field(
        10, ge=1, le=10000, description="epochs without a better one that end it, where train.epochs is set"
    )
    batch_size: int = Field(16, ge=1, le=4096, description="pictures per step")
    backbone: BackboneName = Field(
        BackboneName.MOBILENET, strict=False, description="network of keras.applications that finds the features"
    )
    alpha: float = Field(
        1.0,
        ge=ANY_WIDTH[0],
        le=ANY_WIDTH[1],
        description="width of the backbone, as a factor; imagenet has some widths of each alone",
    )
    weights: str = Field(
        default_factory=lambda: os.environ.get("AOI_WEIGHTS", IMAGENET),
        description="first weights: imagenet (downloaded), a path to a no_top .weights.h5 of the backbone, or none",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="of everything random in training")
    fold: int = Field(0, ge=0, le=99, description="the fold that validates")
    learning_rate: float = Field(
        5e-4, gt=0, le=1, description="highest learning rate of Adam: rises for half an epoch, then falls as a cosine"
    )
    class_weights: ClassWeights = Field(
        ClassWeights.SQRT,
        strict=False,
        description="class weighting: none, square root of inverse frequency, or inverse frequency",
    )
    frozen_copies: int = Field(2, ge=1, le=100, description="shifted copies of a picture that the frozen recipe sees")
    head: Head = Field(
        Head.GAP,
        strict=False,
        description="global average pooling before the softmax, or flatten, which is there for comparison alone",
    )
    dropout: float = Field(0.2, ge=0, lt=1, description="part of the features dropped before the last layer")
    shift_fraction: float = Field(0.05, ge=0, lt=0.5, description="largest random shift, as a part of the size")
    flips: Flips = Field(
        Flips.AUTO,
        strict=False,
        description="mirrored training pictures: those that a test on them finds harmless, none, or the ones named",
    )
    mirror_copies: MirrorCopies = Field(
        MirrorCopies.AUTO,
        strict=False,
        description="answer with the mean over a picture and its harmless mirror images, which takes up to four times "
        "as long; auto: where one round of training was not enough",
    )
    light_fraction: float = Field(
        0.2, ge=0, lt=0.5, description="largest random change of contrast, as a part; exposure and noise go along"
    )
    cache_mb: int = Field(
        2048, ge=0, le=10**9, description="memory for training records, in MiB; more are read each epoch"
    )
    devices: Literal["auto", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16] = Field(
        AUTO,
        description="GPUs of this machine that share each step; auto: as many of them as divide train.batch_size",
    )
    mixed_precision: bool = Field(
        False, description="16 bits where 32 are not needed, which saves time and memory on GPUs alone"
    )

    @field_validator("devices", mode="before")
    @classmethod
    def _is_no_truth_value(cls, devices: Any) -> Any:
        if devices is True:  # which equals 1
            raise PydanticCustomError("devices", "Input should be auto or a number")
        return devices

    @field_validator("devices")
    @classmethod
    def _divides_a_step(cls, devices: Any, info: ValidationInfo) -> Any:
        pictures = info.data.get("batch_size", devices)  # missing where it was refused itself
        if devices != AUTO and pictures % devices:
            raise PydanticCustomError("devices", f"Input should divide train.batch_size, which is {pictures}")
        return devices

    @field_validator("alpha")
    @classmethod
    def _is_a_width_of_the_backbone(cls, alpha: float, info: ValidationInfo) -> float:
        backbone = info.data.get("backbone", BackboneName.MOBILENET)  # missing where it was refused itself
        low, high = BACKBONES[backbone].widths
        if not low <= alpha <= high:
            widths = f"{low:g}, the only width" if low == high else f"from {low:g} to {high:g}, the widths"
            raise PydanticCustomError("width", f"Input should be {widths} of {backbone}")
        return alpha


class EvaluateSettings(StageSettings):
    """What a model is measured by."""

    minimum_accuracy: float = Field(0.0, ge=0, le=1, description="a model below it fails the stage")
    max_escape_rate: float = Field(
        0.01, ge=0, lt=1, description="share of defects that may be accepted; sets where a part is accepted"
    )
    max_overkill_rate: float = Field(
        0.01, ge=0, lt=1, description="share of good parts that may be rejected; sets where a part is rejected"
    )
    confidence: float = Field(
        0.95, ge=0.5, lt=1, description="with which each of these two rates is proven to be below its bound"
    )
    max_false_unknown: float = Field(
        0.01, ge=0, le=0.5, description="share of parts of the known classes that may be called unknown; 0: no part is"
    )
    normal_class: int | None = Field(
        None, ge=0, le=10**9, description="label of good parts, for escape and overkill; unset: 0 if its name is normal"
    )


class PredictSettings(StageSettings):
    """How the pictures of a lot are named."""

    runtime: Runtime = Field(
        Runtime.LITERT,
        strict=False,
        description="what computes: the network as exported when trained, in 8 bits, or as Keras has it",
    )
    shift_copies: int = Field(
        0, ge=0, le=4, description="shifted copies whose answers are averaged with the picture's own"
    )
    max_unreadable: float = Field(
        0.05,
        ge=0,
        le=1,
        description="share of a lot's pictures that may be unreadable; two or more that exceed it stop the prediction",
    )
    unreadable_label: int = Field(
        1,
        ge=0,
        le=10**9,
        description="label that the submission gives a picture that can't be read (1: as if defective)",
    )
