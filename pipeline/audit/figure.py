"""The audit as one picture: pictures per class, brightness, findings."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

TEXT_PX, ROW_PX = 15, 36  # the latter of a bar in the figure, with its distance from the next


BLUE, RED, GRAY = "#2166ac", "#d6604d", "#666666"


def draw_audit(
    counts: Mapping[str, int], means: Mapping[str, np.ndarray], concerns: Mapping[str, int], path: Path
) -> None:
    # With Pillow, since matplotlib takes longer to import and draw than 200 pictures to convert.
    from PIL import Image, ImageDraw

    # Pixels: each chart is so wide, and names stand in the gap before it.
    left, width, gap = 24 + round(max(map(_font(TEXT_PX).getlength, counts))), 300, 200
    rows = max(len(counts), len(concerns), 6)
    image = Image.new("RGB", (left + 3 * width + 2 * gap + 60, 100 + ROW_PX * rows), "white")
    draw = ImageDraw.Draw(image)
    _bars(draw, left, width, "pictures a class", counts, BLUE)
    _histograms(draw, left + width + gap - 80, width + 80, 50 + ROW_PX * rows, means)
    _bars(draw, left + 2 * (width + gap), width, "findings (audit.csv)", concerns, GRAY)
    image.save(path)


def _bars(draw: Any, left: int, width: int, title: str, values: Mapping[str, int], color: str) -> None:
    _text(draw, (left, 14), title, size=18)
    most = max(1, *values.values())
    for place, (name, value) in enumerate(values.items()):
        top, length = 50 + ROW_PX * place, round(width * value / most)
        draw.rectangle((left, top, left + length, top + ROW_PX - 10), fill=color)
        _text(draw, (left - 8, top + ROW_PX // 2 - 5), name, anchor="rm")
        _text(draw, (left + length + 8, top + ROW_PX // 2 - 5), f"{value:,}", anchor="lm")


def _histograms(draw: Any, left: int, width: int, bottom: int, values: Mapping[str, np.ndarray]) -> None:
    """Shares of each split by mean gray, as outlines one over the other."""
    _text(draw, (left, 14), "brightness of the pictures", size=18)
    bins = np.arange(0, 257, 8)
    shares = {split: np.histogram(one, bins)[0] / len(one) for split, one in values.items() if len(one)}
    most = max((share.max() for share in shares.values()), default=1.0)
    for place, ((split, share), color) in enumerate(zip(shares.items(), (BLUE, RED), strict=False)):
        heights = np.repeat(bottom - (bottom - 60) * share / most, 2)
        points = list(zip(left + np.repeat(bins, 2)[1:-1] * width / 256, heights, strict=True))
        draw.line([(left, bottom), *points, (left + width, bottom)], fill=color, width=3)
        _text(draw, (left + width, 60 + 22 * place), split, anchor="rm", fill=color)
    draw.line([(left, bottom), (left + width, bottom)], fill="black")
    for gray in (0, 64, 128, 192, 255):
        _text(draw, (left + gray * width / 256, bottom + 14), str(gray), anchor="mm")
    _text(draw, (left + width / 2, bottom + 36), "mean gray", anchor="mm")


def _text(draw: Any, at: tuple[float, float], text: str, size: int = TEXT_PX, **how: Any) -> None:
    draw.text(at, text, **{"fill": "black", "font": _font(size), **how})


@cache
def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
