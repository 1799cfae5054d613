"""What every hostile input must end in: the right answer, or a reason that a person can act on."""

import sys
from pathlib import Path

from tfrecords.errors import REFUSED, AoiError, problems_csv

WHOLE, DAMAGED, EITHER = "whole", "damaged", "either"  # what a generator knows of the input that it made
PEAK_BYTES = 1 << 30  # that one case may take
EQUAL, REJECTED = "equal", "rejected"  # what came of it


class Wrong(AssertionError):
    """Neither the right answer nor a reason; its text says what was seen."""


def require(holds: bool, seen: str) -> None:
    """Raises Wrong, with what was seen, unless `holds`."""
    if not holds:
        raise Wrong(seen)


def accepted(expected: str, what: str) -> str:
    """EQUAL, for an answer that was compared already. Raises Wrong where the input was made damaged."""
    require(expected != DAMAGED, f"accepted, though damaged: {what}")
    return EQUAL


def rejected(expected: str, reason: str) -> str:
    """REJECTED, for a reason on one printable line. Raises Wrong where the input was made whole."""
    require(bool(reason.strip()) and reason.isprintable(), f"no reason to read: {reason!r}")
    require(expected != WHOLE, f"rejected, though whole: {reason}")
    return REJECTED


def refused(expected: str, error: AoiError) -> str:
    """REJECTED, for an error whose every problem says where, what and what to do, and that any file can hold."""
    require(error.exit_code == REFUSED and bool(error.problems), f"not a refusal: {error!r}")
    for problem in error.problems:
        require(all(part.strip() for part in (problem.file, problem.seen, problem.remedy)), f"says little: {problem!r}")
        rejected(EITHER, str(problem))
    problems_csv(error.problems).encode("utf-8")
    return rejected(expected, str(error.problems[0]))


def listing(folder: Path, but: Path) -> list[tuple[str, int]]:
    """(name, size) of all below `folder`, leaving out `but` and what lies in it."""
    return sorted(
        (path.relative_to(folder).as_posix(), path.lstat().st_size if path.is_file() else 0)
        for path in folder.rglob("*")
        if path != but and but not in path.parents
    )


def peak_bytes() -> int:
    """The most memory that this process ever took; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def require_little_memory(before: int, name: str) -> None:
    """Raises Wrong where a case took more than 1 GiB. before: `peak_bytes` before it, which may be of other tests."""
    taken = peak_bytes() - before
    require(taken < PEAK_BYTES, f"{taken >> 20} MiB taken: {name}")
