"""How names are written in figures: which font has their letters, and what stands for a name that no font can write.

For the figures of matplotlib and of Pillow alike. ASCII needs no look at any font, and no import.
"""

import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path

NAME_COLUMNS = 24  # that a name takes at most; Chinese, Japanese and Korean letters take two each
NUMBERED = "label N: no font here can write its name (see classes.txt)"
REGULAR = {"regular", "book", "normal", "roman"}


def names_in_figures(classes: Sequence[str]) -> tuple[list[str], str]:
    """(class names as a figure writes them, in label order; a note for the figure, or "").

    A long name is shortened; where two would then be the same, their labels stand before them. A name that no font of
    this machine can write gives place to its label, and the note says so.
    """
    tidy = [_tidy(name) for name in classes]
    known = fonts_of(tidy)
    short = [shorten(name, NAME_COLUMNS) for name in tidy]
    uses = Counter(short)
    names = []
    for label, (name, shown) in enumerate(zip(tidy, short, strict=True)):
        if not _written(name, known):
            names.append(f"label {label}")
        elif uses[shown] > 1:
            names.append(f"{label}: {shorten(name, NAME_COLUMNS - 5)}")
        else:
            names.append(shown)
    return names, "" if all(_written(name, known) for name in tidy) else NUMBERED


def legible(texts: Sequence[str]) -> list[str]:
    """The texts with a question mark for each letter that no font of this machine has."""
    tidy = [_tidy(text) for text in texts]
    known = fonts_of(tidy)
    return ["".join(c if _written(c, known) else "?" for c in text) for text in tidy]


def shorten(text: str, columns: int) -> str:
    """`text`, or its beginning and end around "..." where it takes more than so many columns."""
    if _begin(text, columns) == text:
        return text
    room = columns - 3
    return f"{_begin(text, room - room // 2)}...{_begin(text[::-1], room // 2)[::-1]}"


def fonts_of(texts: Iterable[str]) -> dict[str, str]:
    """The font file of each letter beyond ASCII in `texts`. Letters that no font of this machine has are left out.

    DejaVu Sans, which comes with matplotlib, before all others. Of the others the one that has the most of what is
    left, and of several such ones the one of regular weight, without serifs, with the first name.
    """
    letters = frozenset(c for text in texts for c in text if not c.isascii())
    return _fonts_of(letters, installed_fonts()) if letters else {}


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
def _fonts_of(letters: frozenset[str], installed: tuple[str, ...]) -> dict[str, str]:
    known = dict.fromkeys(sorted(_rank(dejavu(), letters)[-1]), dejavu())
    while left := letters - known.keys():
        *_, file, found = min((_rank(file, left) for file in installed), default=(dejavu(), frozenset()))
        if not found:
            break
        known |= dict.fromkeys(sorted(found), file)
    return known


def _rank(file: str, letters: frozenset[str]) -> tuple[int, bool, bool, str, str, frozenset[str]]:
    """What a font is worth for these letters, the least the best; at the end the letters that it has."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(file)
    except (OSError, RuntimeError):  # gone meanwhile, or damaged
        return 0, True, True, "", file, frozenset()
    family = font.family_name.replace(" ", "").lower()
    # Pictures of letters have one size; the font of last resort has a box for each letter.
    usable = font.scalable and "lastresort" not in family
    found = frozenset(c for c in letters if usable and font.get_char_index(ord(c)))
    regular = font.style_name.lower() in REGULAR
    return -len(found), not regular, "sans" not in family, family, file, found


def _written(text: str, known: Mapping[str, str]) -> bool:
    return all(c.isascii() or c in known for c in text)


def _tidy(text: str) -> str:
    """`text` with letters and their accents composed, plain spaces, and none of what has no shape of its own."""
    composed = unicodedata.normalize("NFC", text)
    plain = ("" if _shapeless(c) else " " if unicodedata.category(c) == "Zs" else c for c in composed)
    return "".join(plain)


def _shapeless(c: str) -> bool:
    """Joiners, direction marks, and the selectors that ask for another form of the letter before."""
    return not c.isascii() and (unicodedata.category(c) == "Cf" or "VARIATION SELECTOR" in unicodedata.name(c, ""))


def _columns(text: str) -> list[int]:
    """Columns that the text has taken after each of its letters."""
    return list(accumulate(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text))


def _begin(text: str, columns: int) -> str:
    """The longest beginning of `text` that takes no more columns."""
    return text[: bisect_right(_columns(text), columns)]
