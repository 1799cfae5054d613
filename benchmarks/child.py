"""The process of one contestant: python -m benchmarks.child MODULE:FUNCTION GIVEN OUT, with GIVEN in JSON."""

import importlib
import json
import sys
from pathlib import Path


def main(call: str, given: str, out: str) -> None:
    """Runs it and leaves in the file OUT what it returned, with the peak of this process' memory."""
    module, _, name = call.partition(":")
    told = getattr(importlib.import_module(module), name)(**json.loads(given))
    Path(out).write_text(json.dumps({**told, "own_peak_mb": _own_peak_mb()}))


def _own_peak_mb() -> float:
    # Not getrusage, whose peak is that of the process which started this one where that was larger.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
