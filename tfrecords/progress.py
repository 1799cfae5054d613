"""How long work tells what is done. One type for all stages."""

from collections.abc import Callable

# Called with (done, total, note), the note naming the kind of work. The first call of a kind of work comes before the
# work begins, with what is done already: 0, or more where an interrupted try goes on. Rates are measured from it.
Progress = Callable[[int, int, str], None]


def silent(done: int, total: int, note: str) -> None:
    """The progress that nobody watches."""
