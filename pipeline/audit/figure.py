"""The audit as one picture: pictures per class, brightness, findings."""

from collections.abc import Mapping
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from tfrecords.lettering import dejavu, fonts_of, letters, names_in_figures

TEXT_PX, ROW_PX = 15, 36  # the latter of a bar in the figure, with its distance from the next
CLASSES_SHOWN = 40
HIGHEST = 20  # rows that the brightness takes at most
BLUE, RED, GRAY = "#2166ac", "#d6604d", "#666666"


def draw_audit(
    counts: Mapping[str, int], means: Mapping[str, np.ndarray], concerns: Mapping[str, int], path: Path
) -> None:
    # With Pillow, since matplotlib takes longer to import and draw than 200 pictures to convert.
    from PIL import Image, ImageDraw

    title, bars, note = _class_bars(counts)
    # Pixels: each chart is so wide, and names stand in the gap before it.
    left, width, gap = 24 + round(max(map(_length, bars))), 300, 200
    rows = max(len(bars), len(concerns), 6)
    image = Image.new("RGB", (left + 3 * width + 2 * gap + 60, 100 + ROW_PX * rows), "white")
    draw = ImageDraw.Draw(image)
    _bars(draw, left, width, title, bars, BLUE)
    _histograms(draw, left + width + gap - 80, width + 80, 50 + ROW_PX * min(rows, HIGHEST), means)
    _bars(draw, left + 2 * (width + gap), width, "findings (audit.csv)", concerns, GRAY)
    if note:
        _text(draw, (16, 100 + ROW_PX * rows - 12), note, anchor="ls", fill=GRAY)
    image.save(path)


def _class_bars(counts: Mapping[str, int]) -> tuple[str, dict[str, int], str]:
    """(title, pictures by the name that is drawn, note) of all classes, or of the rarest of too many."""
    names, note = names_in_figures(list(counts))
    bars = dict(zip(names, counts.values(), strict=True))
    if len(bars) <= CLASSES_SHOWN:
        return "pictures per class", bars, note
    rarest = sorted(bars, key=lambda name: bars[name])[:CLASSES_SHOWN]  # of equally rare ones the first labels
    return f"pictures per class: the {CLASSES_SHOWN} rarest of {len(bars)}", {name: bars[name] for name in rarest}, note


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


def _text(draw: Any, at: tuple[float, float], text: str, size: int = TEXT_PX, anchor: str = "la", **how: Any) -> None:
    """As `ImageDraw.text`, each part of the text in a font that has its letters."""
    left, runs = at[0], _runs(text)
    if len(runs) > 1 and anchor[0] != "l":
        left -= _length(text, size) / (2 if anchor[0] == "m" else 1)
        anchor = f"l{anchor[1]}"
    for file, part in runs:
        font = _font(size, file)
        draw.text((left, at[1]), part, **{"fill": "black", "font": font, "anchor": anchor, **how})
        left += font.getlength(part)


def _length(text: str, size: int = TEXT_PX) -> float:
    """Width of the text in pixels."""
    return sum(_font(size, file).getlength(part) for file, part in _runs(text))


def _runs(text: str) -> list[tuple[str, str]]:
    """(font file, part of the text) in their order; "" stands for the font that comes with Pillow, which has ASCII."""
    if text.isascii():
        return [("", text)]
    known = fonts_of([text])
    runs = groupby(letters(text), lambda letter: known[letter] or dejavu())
    return [(file, "".join(part)) for file, part in runs]


@cache
def _font(size: int, file: str) -> Any:
    from PIL import ImageFont

    return ImageFont.truetype(file, size) if file else ImageFont.load_default(size)
