"""What can be set about a record's pixels; free of cv2, as settings are read before any work."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class StageSettings(BaseModel):
    """Base of all settings: frozen, no unknown names, no silent conversion of types, finite numbers, short texts."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, str_max_length=4096)


class PreprocessSettings(StageSettings):
    """What happens to a picture between its file and its record."""

    image_size_px: int = Field(224, ge=32, le=1024, description="width and height of a record, in pixels")
    equalize: Literal["clahe", "histogram", "none"] = Field("clahe", description="contrast equalization")
    clahe_clip_limit: float = Field(2.0, gt=0, le=100, description="contrast limit of CLAHE, in mean bin heights")
    clahe_tile_grid: int = Field(8, ge=1, le=64, description="tiles of CLAHE a side")
    max_megapixels: float = Field(100.0, gt=0, description="largest declared picture size that is decoded")
