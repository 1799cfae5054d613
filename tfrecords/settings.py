"""What can be set about a record's pixels; free of cv2, as settings are read before any work."""

import re
from decimal import Decimal
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

LEAST_FOLDS = 2
AUTO: Literal["auto"] = "auto"
DEPTHS: tuple[Literal[8, 10, 12, 14, 16], ...] = (8, 10, 12, 14, 16)
PIXELS, SHARES = re.compile(r"[0-9]{1,9}(,[0-9]{1,9}){3}"), re.compile(r"(0\.[0-9]+|1\.0+)(,(0\.[0-9]+|1\.0+)){3}")


class StageSettings(BaseModel):
    """Base of all settings: frozen, no unknown names, no silent conversion of types, nothing without bounds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, str_max_length=4096)


class Fit(StrEnum):
    """How a picture becomes a square."""

    STRETCH = "stretch"
    PAD = "pad"


class Color(StrEnum):
    """What of a picture's color a record holds."""

    GRAY = "gray"
    RGB = "rgb"


class Equalization(StrEnum):
    """How contrast is evened out."""

    CLAHE = "clahe"
    HISTOGRAM = "histogram"
    NONE = "none"


class PreprocessSettings(StageSettings):
    """What happens to a picture between its file and its record."""

    image_size_px: int = Field(224, ge=32, le=1024, description="width and height of a record, in pixels")
    # Enums are not strict: TOML and --set have words, not members.
    color: Color = Field(Color.GRAY, strict=False, description="what a record holds: gray, or red, green and blue")
    fit: Fit = Field(
        Fit.STRETCH,
        strict=False,
        description="to a square: both sides alike, or the longer one, mirroring what is left free",
    )
    equalize: Equalization = Field(Equalization.CLAHE, strict=False, description="contrast equalization")
    clahe_clip_limit: float = Field(2.0, gt=0, le=100, description="contrast limit of CLAHE, in mean bin heights")
    clahe_tile_grid: int = Field(8, ge=1, le=64, description="tiles of CLAHE per side")
    max_megapixels: float = Field(
        100.0, gt=0, le=10**9, description="largest declared or padded picture size that is decoded"
    )
    bit_depth: Literal["auto", 8, 10, 12, 14, 16] = Field(
        AUTO,
        description="bits that the values of 16-bit files use; auto: the least that hold the training set's largest",
    )
    crop: str | None = Field(
        None,
        description="left,top,width,height of the part that is used; in pixels, or in shares of the size",
    )

    @field_validator("crop")
    @classmethod
    def _is_a_part(cls, crop: str | None) -> str | None:
        crop = (crop or "").replace(" ", "")
        if not crop:
            return None
        if PIXELS.fullmatch(crop) and 0 not in map(int, crop.split(",")[2:]):
            return crop
        if SHARES.fullmatch(crop):
            left, top, width, height = map(Decimal, crop.split(","))
            if width and height and max(left + width, top + height) <= 1:
                return crop
        raise PydanticCustomError(
            "crop",
            "Input should be left,top,width,height: whole pixels as 10,20,300,200, or shares of the size within it as "
            "0.1,0.1,0.5,0.5",
        )

    @property
    def channels(self) -> int:
        """Channels of a record: 1 or 3."""
        return 3 if self.color == Color.RGB else 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a record, as readers and networks have it."""
        return self.image_size_px, self.image_size_px, self.channels


class LayoutSettings(StageSettings):
    """How a dataset is divided."""

    folds: int = Field(5, ge=LEAST_FOLDS, le=100, description="stratified folds; one of them validates")
    shards: int = Field(0, ge=0, le=99999, description="number of shard files; 0: from shard_size_mb")
    shard_size_mb: int = Field(8, ge=1, le=1024, description="size of a shard to aim at, in MiB")
