"""The one error that the command line, Prefect and MLflow all show alike."""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass

SHOWN = 10
REFUSED, MISSED = 2, 1
SECRET = "secret"  # type of a validation error whose input is not to be shown


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, what was seen there, and what to do about it.

    file: the file, picture id or setting; row: its line in that file, counted from 1 with the header.
    """

    file: str
    seen: str
    remedy: str
    row: int | None = None

    def __str__(self) -> str:
        where = self.file if self.row is None else f"{self.file}, row {self.row}"
        return printable(f"{where}: {self.seen}. {self.remedy}.")


class AoiError(Exception):
    """A refusal that its reader can act on; never a bug of ours.

    Args:
        problems: everything that is wrong, told at once (str() shows the first ten and the count).
        exit_code: REFUSED for input and settings; MISSED for a result under a bound, or for what may pass, such
            as a full disk: then what is finished stays for the next try.
    """

    def __init__(self, problems: Iterable[Problem], exit_code: int = REFUSED):
        self.problems = tuple(problems)
        self.exit_code = exit_code
        super().__init__(self.problems, exit_code)

    def __str__(self) -> str:
        lines = [str(problem) for problem in self.problems[:SHOWN]]
        if len(self.problems) == 1:
            return lines[0]
        left = len(self.problems) - len(lines)
        more = [f"  ... and {left} more"] if left else []
        return "\n".join([f"{len(self.problems)} problems:", *(f"  {line}" for line in lines), *more])


def refuse(file: object, seen: str, remedy: str, row: int | None = None, exit_code: int = REFUSED) -> AoiError:
    """The AoiError of a single problem, to be raised by the caller."""
    return AoiError([Problem(str(file), seen, remedy, row)], exit_code)


def sentence(text: str) -> str:
    """A remedy of a picture as it stands in a table, made the beginning of a sentence."""
    return text[:1].upper() + text[1:]


def problems_csv(problems: Iterable[Problem]) -> str:
    """All problems as CSV text: file, row, seen, remedy."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["file", "row", "seen", "remedy"])
    for item in problems:
        writer.writerow([printable(item.file), item.row, printable(item.seen), printable(item.remedy)])
    return text.getvalue()


def install(extra: str) -> str:
    """How packages come that only some sites need: aoi is in no package index."""
    return f"pip install '.[{extra}]', in a copy of this project"


def printable(text: str) -> str:
    """`text` on one line for any terminal and file: what does not print is written out, as \\x1b or \\udce9."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
