"""Throws generated hostile inputs at the layers that read them, and counts what comes of it.

    .venv/bin/python tests/fuzz/fuzz.py [--cases N] [--seed S] [KIND ...]

Each kind runs in a process of its own, which is watched: a crash, or a case that takes more than HANG_SECONDS,
counts like a wrong answer, and the kind goes on behind it. Exit code 1 if anything was neither right nor rejected.
"""

import argparse
import faulthandler
import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import numpy as np
from oracle import EQUAL, REJECTED, Wrong, listing

MODULES = ("pictures", "jpegs", "bmps", "tiffs", "webps", "tables", "archives", "options", "ingests", "layouts")
MEANING = {
    "pictures": "PNGs",
    "jpegs": "JPEGs",
    "bmps": "BMPs",
    "tiffs": "TIFFs",
    "webps": "WebPs",
    "tables": "CSVs",
    "archives": "zips",
    "options": "settings",
    "ingests": "whole ingests (100 pictures each)",
    "layouts": "sets and lots",
}
CASES = {"ingests": 4}
HANG_SECONDS = 10
HANG_SECONDS_OF = {"ingests": 60}  # two splits, their audit and the same once more
CHECK_EVERY = 1000  # cases between two looks at what was written
ELSE_SHOWN = 20


def run_case(kind, module: str, seed: int, index: int) -> tuple[str, str]:
    """(outcome, what was seen) of one case; the same for the same seed and index."""
    try:
        return kind.run(np.random.default_rng([MODULES.index(module), seed, index])), ""
    except Wrong as error:
        return "wrong", str(error)
    except Exception:
        return "traceback", traceback.format_exc(limit=-4)


def child(module: str, seed: int, start: int, stop: int) -> None:
    """Runs cases start..stop-1 and prints a line of JSON for each."""
    results = os.fdopen(os.dup(1), "w", buffering=1)
    with tempfile.TemporaryDirectory() as box:
        home = Path(box) / "own"
        home.mkdir()
        os.chdir(home)
        kind = importlib.import_module(module).Kind(home)
        before = listing(Path(box), home)
        for index in range(start, stop):
            faulthandler.dump_traceback_later(HANG_SECONDS_OF.get(module, HANG_SECONDS), exit=True)
            outcome, seen = run_case(kind, module, seed, index)
            faulthandler.cancel_dump_traceback_later()
            if (index % CHECK_EVERY == 0 or index == stop - 1) and listing(Path(box), home) != before:
                outcome, seen = "wrong", "something was written outside the folder"
            print(json.dumps([index, outcome, seen]), file=results)


def outcomes(module: str, seed: int, cases: int) -> Iterator[tuple[int, str, str]]:
    """(index, outcome, what was seen) of every case, whatever becomes of the process that runs them."""
    done = 0
    while done < cases:
        command = [sys.executable, __file__, "--child", module, str(seed), str(done), str(cases)]
        with tempfile.TemporaryFile() as errors:
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
                for line in process.stdout:
                    index, outcome, seen = json.loads(line)
                    done = index + 1
                    yield index, outcome, seen
            if done < cases:
                errors.seek(max(0, errors.seek(0, os.SEEK_END) - 2000))
                told = errors.read().decode("utf-8", "replace")
                yield done, "crash", f"exit code {process.returncode}: {told}"
                done += 1


def fuzz(module: str, seed: int, cases: int) -> tuple[Counter, list[str]]:
    """How often each outcome came, and what was seen where it was neither EQUAL nor REJECTED. Prints progress."""
    counts, anything_else = Counter(), []
    began = monotonic()
    for index, outcome, seen in outcomes(module, seed, cases):
        counts[outcome] += 1
        if outcome not in (EQUAL, REJECTED):
            anything_else.append(f"{module}, seed {seed}, case {index}: {outcome}: {seen}")
            if len(anything_else) == ELSE_SHOWN:
                break
        if counts.total() % max(1, cases // 4) == 0:
            print(f"{module}: {counts.total():,} of {cases:,} in {monotonic() - began:.0f} s", flush=True)
    return counts, anything_else


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", metavar="KIND", nargs="*", help=f"of {', '.join(MODULES)} (default: all)")
    parser.add_argument("--cases", metavar="N", type=int, default=10_000, help="of each kind (default 10,000)")
    parser.add_argument("--seed", metavar="S", type=int, default=0)
    arguments = parser.parse_args()
    kinds = arguments.kinds or MODULES
    if unknown := set(kinds) - set(MODULES):
        parser.error(f"no kind {', '.join(sorted(unknown))}")
    with ThreadPoolExecutor(max(1, min(2, os.cpu_count() or 1))) as pool:
        cases = [min(arguments.cases, CASES.get(kind, arguments.cases)) for kind in kinds]
        results = list(pool.map(fuzz, kinds, [arguments.seed] * len(kinds), cases))
    print(f"\n{'kind':<36}{'cases':>8}{'accepted equal':>16}{'rejected with reason':>22}{'anything else':>15}")
    problems = []
    for kind, (counts, anything_else) in zip(kinds, results, strict=True):
        problems += anything_else
        other = counts.total() - counts[EQUAL] - counts[REJECTED]
        name = MEANING.get(kind, kind)
        print(f"{name:<36}{counts.total():>8,}{counts[EQUAL]:>16,}{counts[REJECTED]:>22,}{other:>15,}")
    print(*["", *problems], sep="\n", end="")
    return 1 if problems else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], *(int(number) for number in sys.argv[3:]))
    else:
        sys.exit(main())
