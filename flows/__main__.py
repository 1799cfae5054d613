"""Where the command `aoi` begins and ends: `flows.cli`, with an answer to Ctrl-C before its import and after it."""

import gc
import os
import sys
import warnings
from collections.abc import Sequence

from flows import interrupts


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns: the exit code, as `flows.cli.main`."""
    interrupts.leave_at_once()
    gc.set_threshold(50_000)  # nearly all that imports make stays; to look for garbage 70 times meanwhile takes time
    if not sys.warnoptions:  # nothing of ours is said by warnings, and others' are not for who uses this
        warnings.simplefilter("ignore")
        os.environ.setdefault("PYTHONWARNINGS", "ignore")  # of processes that a command starts
    from flows.cli import main as command  # a tenth of a second

    try:
        try:
            interrupts.raise_once()
            return command(argv)
        finally:
            interrupts.leave_at_once()
    except KeyboardInterrupt:  # before or after what `command` answers itself
        return interrupts.tell()


if __name__ == "__main__":
    sys.exit(main())
