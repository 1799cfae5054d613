"""What the sections share: contestants in processes of their own, by turns; medians; the machine."""

import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tfrecords.errors import MISSED, refuse

PACKAGES = (
    *("aoi", "tensorflow", "keras", "ai-edge-litert", "apache-beam", "prefect", "mlflow", "numpy"),
    *("opencv-python-headless", "isal", "scikit-learn"),
)
SAMPLE_SECONDS = 0.1
MB = 1 << 20
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Contestant:
    """Somebody to measure. call: "module:function", run in a process of its own with the keyword arguments `given`.

    The function returns a dict of numbers, which stand beside `seconds` (start of the process to its end) and
    `memory_mb` (peak of all its processes together).
    """

    name: str
    call: str
    given: Mapping[str, Any]


def run_alone(contestant: Contestant) -> dict[str, Any]:
    """One measurement of a contestant. Raises: AoiError where it fails, with the last it said."""
    with tempfile.TemporaryDirectory() as folder:
        out, log = Path(folder, "out.json"), Path(folder, "log")
        command = [sys.executable, "-m", "benchmarks.child", contestant.call, json.dumps(dict(contestant.given))]
        with open(log, "wb") as file:
            began = time.perf_counter()
            process = subprocess.Popen(
                [*command, str(out)],
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
            peak = _Peak(process.pid)
            try:
                code = process.wait()
            finally:
                process.kill()
                sampled = peak.stop()
            seconds = time.perf_counter() - began
        if code or not out.exists():
            said = log.read_text(errors="replace").strip().splitlines()[-1:] or [""]
            seen = f"the contestant ended with exit code {code} ({said[0][:300]})"
            raise refuse(f"{contestant.call} {contestant.name}", seen, "Mend it and run again", exit_code=MISSED)
        told = json.loads(out.read_text())
        # A sample may miss the top, and the process' own account its workers: the larger of both.
        memory = max(sampled, told.pop("own_peak_mb"))
        return {"seconds": seconds, "memory_mb": memory, **told}


class _Peak:
    """Watches the memory of a process with all below it: the peak of the sum, shared pages counted once."""

    def __init__(self, pid: int):
        self._pid, self._peak, self._ended = pid, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self._peak = max(self._peak, sum(_share_mb(pid) for pid in _family(self._pid)))

    def stop(self) -> float:
        self._ended.set()
        self._thread.join()
        return self._peak


def _family(pid: int) -> list[int]:
    """A process and all below it, as far as they still run."""
    try:
        children = [Path(task, "children").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []
    return [pid, *(one for child in " ".join(children).split() for one in _family(int(child)))]


def _share_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def by_turns(
    contestants: Sequence[Contestant], rounds: int, tell: Tell, run: Callable = run_alone
) -> list[dict[str, Any]]:
    """Measures A B C A B C ..., so that a slow minute of the machine meets all of them.

    Returns: a row per contestant: name, given, rounds (every measurement), median, low, high (each a dict by figure).
    """
    measured: dict[str, list[dict]] = {contestant.name: [] for contestant in contestants}
    for number in range(rounds):
        for contestant in contestants:
            tell(f"{contestant.name}, round {number + 1} of {rounds}")
            measured[contestant.name].append(run(contestant))
    return [row(contestant.name, measured[contestant.name]) for contestant in contestants]


def row(name: str, rounds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Several measurements of one contestant as a row, see `by_turns`."""
    figures = {key: [one[key] for one in rounds] for key in rounds[0]}
    summary = {
        word: {key: None if None in values else how(values) for key, values in figures.items()}
        for word, how in (("median", statistics.median), ("low", min), ("high", max))
    }
    return {"name": name, "rounds": [dict(one) for one in rounds], **summary}


def median(rows: Sequence[Mapping[str, Any]], name: str, figure: str) -> float:
    """The median of a figure of the row with that name."""
    return _named(rows, name)["median"][figure]


def rate(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    """Pictures a second over all rounds of that row together, each of as many: for rounds that differ by chance."""
    return statistics.harmonic_mean([told["pictures_per_s"] for told in _named(rows, name)["rounds"]])


def _named(rows: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    return next(row for row in rows if row["name"] == name)


def goal(what: str, value: float, bound: float, more: bool = True, unit: str = "") -> dict[str, Any]:
    """A goal: what was reached, the bound, whether it is a least (more) or a most, and whether it is reached."""
    reached = value >= bound if more else value <= bound
    return {"what": what, "value": value, "bound": bound, "more": more, "unit": unit, "reached": bool(reached)}


def machine() -> dict[str, Any]:
    """What the figures hold for; nothing that names this very machine."""
    import psutil

    return {
        "date": date.today().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not there"


def aoi(words: Sequence[str]) -> None:
    """Runs our command line in a process of its own, for what a section has to have. Raises: AoiError."""
    run_alone(Contestant(" ".join(words[:1]), "benchmarks.core:command", {"words": list(words)}))


def command(words: Sequence[str]) -> dict[str, float]:
    """A contestant: our own command line, `aoi WORDS`."""
    from flows.cli import main

    if code := main(words):
        raise SystemExit(code)
    return {}


def imported(module: str) -> dict[str, float]:
    """A contestant: an import, in seconds; here, since this module itself imports next to nothing."""
    began = time.perf_counter()
    importlib.import_module(module)
    return {"import_s": time.perf_counter() - began}


def asked_for_help() -> dict[str, float]:
    """A contestant: `aoi --help` in a process of its own, as a shell starts it."""
    began = time.perf_counter()
    script = "import sys; from flows.cli import main; sys.exit(main(['--help']))"
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)
    return {"help_s": time.perf_counter() - began}
