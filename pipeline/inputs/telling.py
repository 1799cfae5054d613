"""How faults of many rows or pictures are told: all of them, or the one cause, with some examples."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from tfrecords.errors import Problem

EXAMPLES = 3  # in one message
LISTED = 10  # rows of one fault, of which each is told by itself; of more, one is told with their number


def is_whole(faulty: int, all_of_them: int) -> bool:
    """Whether so many have a fault that it is one of the whole set: then one message tells more than a list."""
    return 1 < faulty == all_of_them or (faulty > LISTED and 2 * faulty >= all_of_them)


def once(problems: Iterable[Problem]) -> Iterator[Problem]:
    """The problems; of a fault that more than LISTED rows have, the first alone, with how many others have it.

    Two rows have the same fault where it has the same remedy.
    """
    problems = list(problems)
    rows: dict[tuple[str, str], list[int]] = {}
    for problem in problems:
        rows.setdefault((problem.file, problem.remedy), []).append(problem.row or 0)
    told: set[tuple[str, str]] = set()
    for problem in problems:
        key = (problem.file, problem.remedy)
        if len(rows[key]) <= LISTED:
            yield problem
        elif key not in told:
            told.add(key)
            others = ", ".join(map(str, rows[key][1:4]))
            seen = f"{problem.seen}; {len(rows[key]) - 1:,} more rows have this fault, such as {others}"
            yield Problem(problem.file, seen, problem.remedy, problem.row)


def counted(others: Mapping[str, int], most: int | None = None) -> str:
    """ "20 .gif, 1 without an ending": how many files there are of each ending, of the first `most`."""
    return ", ".join(f"{count:,} {ending or 'without an ending'}" for ending, count in [*others.items()][:most])


def some(names: Sequence[str]) -> str:
    """The first of these names, as examples."""
    return ", ".join(shown(name)[:80] for name in names[:EXAMPLES])


def shown(name: str) -> str:
    """A name, in quotes where a reader would not see all of it."""
    return name if name == name.strip() and name.isprintable() else repr(name)
