"""Which picture a row means: names are compared in ever more lenient ways, and each way is told once."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple
from urllib.parse import unquote

from tfrecords.pictures.formats import SUFFIXES

INVISIBLE = " \t\r\n\v\f\u00a0\u3000\u200b\u200e\u200f\u2060\ufeff"  # blanks that copying leaves around an ID
QUOTES = "=\"'`“”‘’„"  # ="001" is how a spreadsheet is kept from taking zeros
TRIED = 20  # folders or prefixes, of the first row's candidates
ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")
FRACTION = re.compile(r"(?<=[0-9])\.0$")
NOT_IN_WINDOWS = re.compile(r'[<>:"|?*]')


class Match(NamedTuple):
    """Which name each ID means.

    places: of every ID, its place in the names, or None; ways: of every ID, how it was compared ("" where it is equal);
    left: places of the names that no ID means.
    """

    places: tuple[int | None, ...]
    ways: tuple[str, ...]
    left: tuple[int, ...]

    @property
    def missing(self) -> tuple[int, ...]:
        """Places of the IDs that mean no name."""
        return tuple(at for at, place in enumerate(self.places) if place is None)


def match(ids: Sequence[str], names: Sequence[str], exact_only: frozenset[int] = frozenset()) -> Match:
    """Finds the name that each ID means.

    An ID that equals a name means it. The others are compared without what people do not see (blanks around, slashes,
    composed letters) and without case: each for itself, where just one ID and one name are left to be equal. What is
    left then is taken where one way fits all of it: without the ending, or by the file's name alone; where no ID has
    a name yet, in another folder, without zeros that a spreadsheet took, or without a prefix.

    names: all different. exact_only: places of names that only an equal ID means.
    """
    place_of = {name: at for at, name in enumerate(names)}
    places = [place_of.get(each) for each in ids]
    ways = [""] * len(ids)
    for at in [at for at, count in Counter(place for place in places if place is not None).items() if count > 1]:
        for row in [row for row, place in enumerate(places) if place == at][1:]:  # an ID that stands there twice
            places[row] = None
    taken = {place for place in places if place is not None}
    rows = [row for row, place in enumerate(places) if place is None]
    free = [at for at in range(len(names)) if at not in taken and at not in exact_only]
    for way, key in SAFE:
        if not rows or not free:
            break
        found = _pairs(rows, [key(ids[row]) for row in rows], free, [key(names[at]) for at in free])
        for row, at in found.items():
            places[row], ways[row] = at, way
        rows = [row for row in rows if row not in found]
        gone = set(found.values())
        free = [at for at in free if at not in gone]
    for way, pairs in _bold(ids, names, rows, free) if rows and free else ():
        if len(pairs) == len(rows):
            for row, at in pairs.items():
                places[row], ways[row] = at, way
            gone = set(pairs.values())
            free = [at for at in free if at not in gone]
            break
    return Match(tuple(places), tuple(ways), tuple(free))


def likely(ids: Sequence[str], names: Sequence[str], found: Match) -> tuple[str, int]:
    """The way that would fit the most of the IDs without a name, and how many; ("", 0) where none fits half of them."""
    rows = list(found.missing)
    tried = {way: len(pairs) for way, pairs in _bold(ids, names, rows, list(found.left))} if found.left else {}
    best = max(tried, key=lambda way: tried[way], default="")
    return (best, tried[best]) if best and tried[best] * 2 > len(rows) else ("", 0)


def visible(name: str) -> str:
    """A name without what a reader does not see: blanks around, doubled slashes, decomposed letters."""
    return _composed(_slashed(_stripped(name)))


def without_ending(name: str) -> str:
    """A name without the ending of a picture's file, or several."""
    while suffix := next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), ""):
        name = name[: -len(suffix)].rstrip()  # a.png.png, where a system hid the first one
    return name.rstrip()


def _stripped(name: str) -> str:
    """Without blanks around, and with plain ones within."""
    if name.isascii():
        return name.strip()
    return "".join(" " if unicodedata.category(c) == "Zs" else c for c in name.strip(INVISIBLE)).strip()


def _slashed(name: str) -> str:
    if "/" not in name and "\\" not in name:
        return name
    parts = name.replace("\\", "/").split("/")
    return "/".join(part.strip() for at, part in enumerate(parts) if part not in (".", "") or (at == 0 and not part))


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _full_width(name: str) -> str:
    return unicodedata.normalize("NFKC", name)


def _bare(name: str) -> str:
    """What is compared where a way must fit every row: visible, in one case, in plain letters, without quotes."""
    return _stripped(_full_width(visible(name)).strip(QUOTES)).casefold()


SAFE: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("blanks around an ID", _stripped),
    ("quotes around an ID", lambda name: _stripped(_stripped(name).strip(QUOTES))),
    ("slashes written otherwise", lambda name: _slashed(_stripped(name))),
    ("letters composed otherwise", visible),
    ("letters in full width", lambda name: _full_width(visible(name))),
    ("upper and lower case", _bare),
)


def _pairs(rows: Sequence[int], keys: Sequence[str], free: Sequence[int], others: Sequence[str]) -> dict[int, int]:
    """Row to place where a key is that of one row and of one name alone."""
    in_rows, in_names = Counter(keys), Counter(others)
    place_of = dict(zip(others, free, strict=True))
    return {row: place_of[key] for row, key in zip(rows, keys, strict=True) if in_rows[key] == 1 and in_names[key] == 1}


class _Left(NamedTuple):
    """What is not matched yet: rows and free places, with their bare names."""

    rows: list[int]
    ids: list[str]
    free: list[int]
    names: list[str]

    def pairs(self, key: Callable[[str], str]) -> dict[int, int]:
        return _pairs(self.rows, [key(each) for each in self.ids], self.free, [key(each) for each in self.names])


def _bold(ids: Sequence[str], names: Sequence[str], rows: list[int], free: list[int]) -> Iterator[tuple[str, dict]]:
    """(way, the rows that it fits with their places), the surest way first."""
    left = _Left(rows, [_bare(ids[row]) for row in rows], free, [_bare(names[at]) for at in free])
    ended = left._replace(ids=list(map(without_ending, left.ids)), names=list(map(without_ending, left.names)))
    yield "IDs without the ending of the file, or with another", _alone(ended.pairs(str), ended, ids, names, str)
    none_yet = len(rows) == len(ids)
    if none_yet:
        yield "another folder around the pictures", _by_folder(left)
        yield "another folder around the pictures, and another ending", _by_folder(ended)
    if none_yet or not any("/" in each for each in ended.ids):
        yield "names of files alone, in other folders", _alone(ended.pairs(_file_name), ended, ids, names, _file_name)
    if none_yet:
        if all(each.replace(".", "").isdecimal() for each in ended.ids):
            yield "numbers with .0, as IDs", ended.pairs(lambda name: FRACTION.sub("", name))
        yield "_ for marks that Windows allows in no name", ended.pairs(lambda name: NOT_IN_WINDOWS.sub("_", name))
        yield "letters written as in an address", ended.pairs(unquote)
        if not any(ZEROS.search(each) for each in ended.ids):
            yield "zeros at the beginning of a number", ended.pairs(lambda name: ZEROS.sub("", name))
        yield "a prefix of all names", _by_prefix(ended)


def _alone(
    pairs: dict[int, int], left: _Left, ids: Sequence[str], names: Sequence[str], key: Callable[[str], str]
) -> dict[int, int]:
    """Of pairs without endings, those whose key no other ID or name has, matched ones too."""
    if len(left.rows) == len(ids) and len(left.free) == len(names):
        return pairs
    in_rows, in_names = (Counter(key(without_ending(_bare(each))) for each in several) for several in (ids, names))

    def is_alone(name: str) -> bool:
        return in_rows[key(without_ending(_bare(name)))] == 1 == in_names[key(without_ending(_bare(name)))]

    return {row: at for row, at in pairs.items() if is_alone(names[at])}


def _file_name(name: str) -> str:
    return name.rpartition("/")[2]


def _by_folder(left: _Left) -> dict[int, int]:
    """The rows that fit if one folder before the IDs is replaced by one before the names."""
    best: dict[int, int] = {}
    last = left.ids[0].rpartition("/")[2]
    same = (name for name in left.names if name.rpartition("/")[2] == last)
    counts = Counter(left.names)
    place_of = dict(zip(left.names, left.free, strict=True))
    for name in islice(same, TRIED):
        ours, theirs = left.ids[0].split("/"), name.split("/")
        while ours and theirs and ours[-1] == theirs[-1]:
            ours.pop()
            theirs.pop()
        before, instead = ("".join(f"{part}/" for part in parts) for parts in (ours, theirs))
        best = max(best, _replaced(left, before, instead, place_of, counts), key=len)
    return best


def _by_prefix(left: _Left) -> dict[int, int]:
    """The rows that fit if a prefix that ends in a mark is taken off all IDs, or off all names."""
    best: dict[int, int] = {}
    first = left.ids[0]
    counts = Counter(left.names)
    place_of = dict(zip(left.names, left.free, strict=True))
    longer = ((first.removesuffix(name), "") for name in left.names if name and first.endswith(name))
    shorter = (("", name.removesuffix(first)) for name in left.names if first and name.endswith(first))
    for several in (longer, shorter):
        for before, instead in islice(several, TRIED):
            prefix = before or instead
            if prefix and not prefix[-1].isalnum():
                best = max(best, _replaced(left, before, instead, place_of, counts), key=len)
    return best


def _replaced(left: _Left, before: str, instead: str, place_of: dict[str, int], counts: Counter[str]) -> dict[int, int]:
    """The rows that fit with `instead` in place of `before`."""
    wanted = [instead + each.removeprefix(before) if each.startswith(before) else "" for each in left.ids]
    asked = Counter(wanted)
    return {
        row: place_of[name]
        for row, name in zip(left.rows, wanted, strict=True)
        if name in place_of and asked[name] == 1 and counts[name] == 1
    }
