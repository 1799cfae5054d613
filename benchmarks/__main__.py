"""The command line of the benchmarks: `python -m benchmarks`."""

import argparse
import sys
from pathlib import Path

from benchmarks.bench import SECTIONS, run
from flows.cli import quiet_libraries
from tfrecords.errors import AoiError


def main() -> int:
    """Measures what was asked for and prints the paper. Returns the exit code."""
    quiet_libraries()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure every stage against what others would use; half an hour or more.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: minutes, to see that all works; no figures to quote"
    )
    parser.add_argument(
        "--only", metavar="NAME", nargs="+", default=[], help=f"sections: {', '.join(SECTIONS)} (default all)"
    )
    parser.add_argument("--data", metavar="DIR", help="set for the training section (default: sample pictures)")
    parser.add_argument(
        "--out",
        metavar="FILE.json",
        type=Path,
        default=Path("aoi-bench.json"),
        help="the figures; beside it the paper .md and the chart .png (default aoi-bench.json)",
    )
    arguments = parser.parse_args()
    try:
        print(run(arguments.quick, arguments.only, arguments.data, arguments.out), end="")
    except AoiError as error:
        print(f"python -m benchmarks: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
