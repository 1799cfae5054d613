"""How long work tells what it has done."""

from collections.abc import Callable

Progress = Callable[[int, int, str], None]  # items done, items in all, what is done with them


def silent(done: int, total: int, note: str) -> None:
    """No progress to anyone."""
