"""How names are written in figures: which font has their letters, and what stands for a name that no font can write.

For the figures of matplotlib and of Pillow alike. ASCII needs no look at any font, and no import.
"""

import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path

# That a name takes at most, on an axis and under a picture; Chinese, Japanese and Korean letters take two each.
AXIS_COLUMNS, CAPTION_COLUMNS = 24, 18
NUMBERED = "label N: no font here can write its name (see classes.txt)"
SKIN_TONES = "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"  # of the emoji before
REGULAR = {"regular", "book", "normal", "roman"}


def names_in_figures(classes: Sequence[str], columns: int = AXIS_COLUMNS) -> tuple[list[str], str]:
    """(class names as a figure writes them, in label order; a note for the figure, or "").

    A long name is shortened; where two would then be the same, their labels stand before them. A name that no font of
    this machine can write gives place to its label, and the note says so.
    """
    seen = [as_seen(name) for name in classes]
    known = fonts_of(seen).keys()
    written = [known >= set(letters(name)) for name in seen]
    short = [shorten(name, columns) for name in seen]
    uses = Counter(short)
    names = []
    for label, (name, shown) in enumerate(zip(seen, short, strict=True)):
        if not written[label]:
            names.append(f"label {label}")
        elif uses[shown] > 1:
            names.append(f"{label}: {shorten(name, columns - 5)}")
        else:
            names.append(shown)
    return legible(names), "" if all(written) else NUMBERED


def legible(texts: Sequence[str]) -> list[str]:
    """The texts with a question mark for each letter that no font of this machine has."""
    seen = [as_seen(text) for text in texts]
    known = fonts_of(seen)
    return ["".join(letter if letter in known else "?" for letter in letters(text)) for text in seen]


def shorten(text: str, columns: int) -> str:
    """`text`, or its beginning and end around "..." where it takes more than so many columns."""
    parts = letters(text)
    if _begin(parts, columns) == text:
        return text
    room = columns - 3
    return f"{_begin(parts, room - room // 2)}...{text[len(text) - len(_begin(parts[::-1], room // 2)) :]}"


def letters(text: str) -> list[str]:
    """The letters of a text, each with the marks that stand over or under it: together they need one font."""
    if text.isascii():
        return list(text)
    parts: list[str] = []
    for c in text:
        if parts and (unicodedata.category(c).startswith("M") or c in SKIN_TONES):
            parts[-1] += c
        else:
            parts.append(c)
    return parts


def fonts_of(texts: Iterable[str]) -> dict[str, str]:
    """The font file of each of the `letters` of the texts; those that no font of this machine has are left out.

    ASCII is for the font that the figure has anyway: "". Beyond it DejaVu Sans, which comes with matplotlib, before
    all others. Of the others the one that has the most of what is left, and of several such ones the one of regular
    weight, without serifs, with the first name.
    """
    wanted = {letter for text in texts for letter in letters(text)}
    known = {letter: "" for letter in wanted if letter.isascii()}
    beyond = frozenset(wanted - known.keys())
    return known | _fonts_of(beyond, installed_fonts()) if beyond else known


@cache
def installed_fonts() -> tuple[str, ...]:
    """The font files of this machine."""
    from matplotlib.font_manager import findSystemFonts

    return tuple(sorted(findSystemFonts()))


def dejavu() -> str:
    """The file of the font that matplotlib brings."""
    from matplotlib import get_data_path

    return str(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


@cache
def _fonts_of(wanted: frozenset[str], installed: tuple[str, ...]) -> dict[str, str]:
    known = dict.fromkeys(sorted(_rank(dejavu(), wanted)[-1]), dejavu())
    while left := wanted - known.keys():
        *_, file, found = min((_rank(file, left) for file in installed), default=(dejavu(), frozenset()))
        if not found:
            break
        known |= dict.fromkeys(sorted(found), file)
    return known


def _rank(file: str, wanted: frozenset[str]) -> tuple[int, bool, bool, str, str, frozenset[str]]:
    """What a font is worth for these letters, the least the best; at the end the letters that it has."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(file)
    except (OSError, RuntimeError):  # gone meanwhile, or damaged
        return 0, True, True, "", file, frozenset()
    family = font.family_name.replace(" ", "").lower()
    # Pictures of letters have one size; the font of last resort has a box for each letter.
    usable = font.scalable and "lastresort" not in family
    found = frozenset(letter for letter in wanted if usable and all(font.get_char_index(ord(c)) for c in letter))
    regular = font.style_name.lower() in REGULAR
    return -len(found), not regular, "sans" not in family, family, file, found


def as_seen(text: str) -> str:
    """`text` with letters and their accents composed, plain spaces, and none of what has no shape of its own."""
    composed = unicodedata.normalize("NFC", text)
    plain = ("" if _shapeless(c) else " " if unicodedata.category(c) == "Zs" else c for c in composed)
    return "".join(plain)


def _shapeless(c: str) -> bool:
    """Joiners, direction marks, and the selectors that ask for another form of the letter before."""
    return not c.isascii() and (unicodedata.category(c) == "Cf" or "VARIATION SELECTOR" in unicodedata.name(c, ""))


def _begin(parts: Sequence[str], columns: int) -> str:
    """As many of the letters as take no more columns."""
    taken = list(accumulate(2 if unicodedata.east_asian_width(letter[0]) in "WF" else 1 for letter in parts))
    return "".join(parts[: bisect_right(taken, columns)])
