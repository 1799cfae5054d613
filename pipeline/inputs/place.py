"""The rows of a CSV and the pictures of a folder or zip, brought together."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NamedTuple

from pipeline.inputs import files
from pipeline.inputs.layouts import TABLES, Container, Layout, Split, read_listing
from pipeline.inputs.listing import Listing, Stored
from pipeline.inputs.locate import INVISIBLE, Match, likely, match, visible, without_ending
from pipeline.inputs.names import AS_STORED
from pipeline.inputs.tables import TableRow
from pipeline.inputs.telling import EXAMPLES, counted, is_whole, shown, some
from tfrecords.dataset import Lenience
from tfrecords.errors import AoiError, Problem
from tfrecords.pictures.formats import SUFFIXES

BESIDE_PICTURES = (*TABLES, ".md", ".xml", ".json", ".yaml", ".yml", ".ini", ".log", ".pdf", ".db")  # notes on them
SHORTENED = re.compile(r"[0-9][.,][0-9]+E\+[0-9]+", re.IGNORECASE)  # 2.02401E+13
MANY = 1000  # pictures of one fault, of which no list helps any more
ALIKE = "Write the ID as the picture is named, or the other way round"
NEAR = 200  # rows and pictures that are left, up to which those of almost the same name are told together


def repeated_row(path: str, row: TableRow, line: int) -> Problem:
    """The problem of a row whose ID an earlier one has. path: the CSV; line: of the earlier row."""
    seen = f"{shown(row.id)} stands in row {line} already"
    if SHORTENED.fullmatch(row.id.strip()):
        seen += ": a spreadsheet has shortened the IDs"
        return Problem(path, seen, "Save it again with the column of the IDs as text", row.line)
    return Problem(path, seen, "Name each picture once: take one of the two rows out", row.line)


class Placed(NamedTuple):
    """The pictures of rows. pictures: (ID, name as stored) of each row, where none is a problem; missing: lines of the
    rows without one."""

    container: str
    pictures: list[tuple[str, str]]
    leniences: tuple[Lenience, ...]
    problems: list[Problem]
    missing: frozenset[int] = frozenset()


@dataclass(frozen=True)
class _Try:
    """How the IDs match what one container holds, with its names in one encoding.

    encoding: its place in the encodings of the listing; names: as IDs may have them; twice: problems of names that two
    pictures have.
    """

    container: Container
    listing: Listing
    encoding: int
    pictures: list[Stored]
    names: list[str]
    twice: list[Problem]
    found: Match

    @property
    def left(self) -> list[int]:
        """Pictures that should have a row, and have none."""
        if not self.container.own:
            return []
        return [at for at in self.found.left if not self.pictures[at].hidden and not self.pictures[at].linked]

    @property
    def wrong(self) -> int:
        """How much does not fit."""
        return len(self.found.missing) + len(self.left) + len(self.twice)


def place(layout: Layout, split: Split, rows: Sequence[TableRow], unusable: Sequence[str]) -> Placed:
    """Finds every row's picture; rows without one and pictures without a row are problems.

    unusable: IDs of rows that have another problem already; their pictures are not told too.
    """
    ids = [row.id for row in rows]
    best = None
    for each in _tries(layout, split, ids):
        if best is None or each.wrong < best.wrong:
            best = each
        if not best.wrong:
            break
    assert best is not None
    found, container = best.found, best.container
    known = {os.path.basename(visible(each)) for each in unusable}
    unnamed = [at for at in best.left if os.path.basename(best.names[at]) not in known]
    told = _missing(layout.csv, rows, best, unnamed) if found.missing else _Told([])
    left = [at for at in unnamed if best.names[at] not in told.about]
    problems = [*best.twice, *told.problems]
    if not told.whole:
        problems += _unnamed(layout.csv, [best.pictures[at].name for at in left], best)
    pictures = [
        (row.id.strip(INVISIBLE) if way else row.id, "" if at is None else best.pictures[at].name)
        for row, at, way in zip(rows, found.places, found.ways, strict=True)
    ]
    taken = {at for at in found.places if at is not None}
    leniences = told_of(best.listing, best.encoding, container, {best.pictures[at].name for at in taken})
    leniences += _ways(rows, best)
    missing = frozenset(rows[at].line for at in found.missing)
    return Placed(container.path, pictures, tuple(leniences), problems, missing)


def _tries(layout: Layout, split: Split, ids: Sequence[str]) -> Iterator[_Try]:
    """The IDs against every container, in every encoding that its names may be in, the likeliest first."""
    for container in layout.containers:
        try:
            listing = read_listing(layout, container)
        except AoiError:
            if container == layout.containers[0]:
                raise
            continue  # it was only looked into since the first one does not fit
        prefix = f"{split}_images/" if files.is_zip(container.path) else ""
        for encoding in range(len(listing.encodings)):
            pictures: list[Stored] = []
            names: list[str] = []
            places: dict[str, int] = {}
            twice = []
            for picture in sorted(listing.pictures, key=lambda picture: picture.hidden):
                name = picture.spellings[encoding].removeprefix(prefix)
                if name in places:
                    twice += [] if picture.hidden or picture.linked else [named_twice(container, picture.name)]
                    continue
                places[name] = len(names)
                pictures.append(picture)
                names.append(name)
            hidden = frozenset(at for at, picture in enumerate(pictures) if picture.hidden)
            yield _Try(container, listing, encoding, pictures, names, twice, match(ids, names, hidden))


def named_twice(container: Container, name: str) -> Problem:
    """The problem of a picture whose name another one has."""
    if files.is_zip(container.path):
        return Problem(
            f"{container.path}/{name}", "the zip holds this name twice", "Pack the zip again with one of the two"
        )
    return Problem(files.join(container.path, name), "another picture has this name too", "Take one of the two out")


class _Told(NamedTuple):
    """Problems of rows, names of the pictures that they tell of, and whether they are the one cause of all."""

    problems: list[Problem]
    about: frozenset[str] = frozenset()
    whole: bool = False


def _missing(csv: str, rows: Sequence[TableRow], tried: _Try, unnamed: Sequence[int]) -> _Told:
    """What is told of rows without a picture: the one cause where most have none, else each by itself.

    Rows and pictures that are left, as many of the one as of the other, are told together: they are likely the same.
    unnamed: pictures without a row.
    """
    container, missing = tried.container, [rows[at] for at in tried.found.missing]
    if not any(not picture.hidden for picture in tried.pictures):
        return _Told([no_picture(container, tried.listing)], whole=True)
    if _is_one(len(missing), len(rows)):
        return _Told([_cause(csv, rows, tried)], whole=True)
    line_of = {visible(row.id): row.line for row, at in zip(rows, tried.found.places, strict=True) if at is not None}
    left = [tried.names[at] for at in unnamed]
    stems = list(map(without_ending, left))
    few = len(missing) <= NEAR and len(left) <= NEAR
    problems = []
    alone = []
    about = set()
    for row in missing:
        if (line := line_of.setdefault(visible(row.id), row.line)) != row.line:
            problems.append(repeated_row(csv, row, line))
            continue
        near = get_close_matches(without_ending(row.id), stems, 1, 0.8) if few else []
        if not near:
            alone.append(row)
            continue
        name = left.pop(stems.index(near[0]))
        stems.remove(near[0])
        about.add(name)
        seen = f"no picture {shown(row.id)}, but {shown(name)}, which no row names"
        problems.append(Problem(csv, seen, ALIKE, row.line))
    if alone and len(alone) == len(left):
        seen = f"no picture {some([row.id for row in alone])}, but {some(left)}, which no row names"
        more = f"; {len(alone):,} rows have no picture, and as many pictures no row" if len(alone) > 1 else ""
        return _Told([*problems, Problem(csv, seen + more, ALIKE, alone[0].line)], frozenset(about.union(left)))
    remedy = f"Put the picture into {container.path} or take the row out"
    problems += [Problem(csv, f"no picture {shown(row.id)}", remedy, row.line) for row in alone]
    return _Told(problems, frozenset(about))


def _is_one(faulty: int, all_of_them: int) -> bool:
    """Whether a fault is told once: it is one of the whole set, or no list of so many helps any more."""
    return faulty > MANY or is_whole(faulty, all_of_them)


def _cause(csv: str, rows: Sequence[TableRow], tried: _Try) -> Problem:
    """The one message where most rows have no picture."""
    ids = [rows[at].id for at in tried.found.missing]
    seen = f"{len(ids):,} of {len(rows):,} rows have no picture in {tried.container.path}, such as {some(ids)}"
    there = [tried.names[at] for at in tried.found.left if not tried.pictures[at].hidden]
    seen += f"; without a row are {some(there)}" if there else "; every picture there has another row"
    way, fits = likely([row.id for row in rows], tried.names, tried.found)
    if way:
        seen += f". {fits:,} of these rows would fit by this: {way}"
        return Problem(csv, seen, "Write the IDs as the pictures are named, and see why the other rows do not fit")
    return Problem(csv, seen, "Write the IDs as the pictures are named, or put the pictures of these rows there")


def _unnamed(csv: str, names: Sequence[str], tried: _Try) -> Iterable[Problem]:
    """What is told of pictures without a row."""
    remedy = f"Add a row for it to {os.path.basename(csv)} or take the picture out"
    if _is_one(len(names), len(tried.names)):
        seen = f"{len(names):,} of {len(tried.names):,} pictures have no row in {os.path.basename(csv)}"
        remedy = remedy.replace("it", "each", 1).replace("the picture", "them")
        return [Problem(tried.container.path, f"{seen}, such as {some(names)}", remedy)]
    return [Problem(files.join(tried.container.path, name), "no row names this picture", remedy) for name in names]


def passed_over(listing: Listing) -> list[Lenience]:
    """What is told of files that are neither pictures of a kind that is read nor tables or texts."""
    others = {ending: count for ending, count in listing.others.items() if ending not in BESIDE_PICTURES}
    if not others:
        return []
    kind, count = "files of other kinds, passed over", sum(others.values())
    return [Lenience(kind=kind, count=count, example=counted(others)[:200])]


def no_picture(container: Container, listing: Listing) -> Problem:
    """The problem of a container without a picture, with what is there instead."""
    seen = "no picture is there"
    if listing.others:
        seen += f"; the files there are: {counted(listing.others, EXAMPLES)}"
    return Problem(container.path, seen, f"Put pictures there: {', '.join(SUFFIXES)}")


def _ways(rows: Sequence[TableRow], tried: _Try) -> list[Lenience]:
    """The ways in which IDs were compared, each once."""
    first: dict[str, str] = {}
    for row, at, way in zip(rows, tried.found.places, tried.found.ways, strict=True):
        if way and at is not None:
            first.setdefault(way, f"{shown(row.id)} is {shown(tried.names[at])}")
    counts = Counter(tried.found.ways)
    return [Lenience(kind=way, count=counts[way], example=example) for way, example in first.items()]


def told_of(listing: Listing, encoding: int, container: Container, named: set[str]) -> list[Lenience]:
    """What is to be told of a container: its place, the encoding of its names, what was passed over in it.

    encoding: its place in the encodings of the listing; named: names as stored of the pictures that rows name.
    """
    told = []
    if not container.usual:
        told.append(Lenience(kind="another place of the pictures", count=1, example=os.path.basename(container.path)))
    if listing.encodings[encoding] != AS_STORED:
        spelled = [each.spellings[encoding] for each in listing.pictures if each.spellings[encoding] != each.name]
        name = listing.encodings[encoding]
        told.append(Lenience(kind=f"names in the encoding {name}", count=len(spelled), example=spelled[0]))
    if hidden := [each.spellings[encoding] for each in listing.pictures if each.hidden and each.name not in named]:
        told.append(Lenience(kind="files that programs put there, passed over", count=len(hidden), example=hidden[0]))
    if linked := [each.spellings[encoding] for each in listing.pictures if each.linked]:
        told.append(Lenience(kind="pictures behind a link to a folder", count=len(linked), example=linked[0]))
    return told
