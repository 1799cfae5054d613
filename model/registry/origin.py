"""Who made a run, and with which code: tags under the names that MLflow's pages read."""

import getpass
import os
import subprocess
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

USER, SOURCE, SOURCE_TYPE = "mlflow.user", "mlflow.source.name", "mlflow.source.type"
COMMIT, DIRTY, VERSION = "mlflow.source.git.commit", "mlflow.source.git.dirty", "aoi.version"
TAGS = (USER, SOURCE, SOURCE_TYPE, COMMIT, DIRTY, VERSION)


def origin() -> dict[str, str]:
    """The values of TAGS. Git's two are there where this code lies in a git checkout; DIRTY: it was changed since."""
    tags = {USER: _user(), SOURCE: "aoi", SOURCE_TYPE: "LOCAL", VERSION: version("aoi")}
    with suppress(OSError, subprocess.CalledProcessError):  # no git on this machine, or no checkout
        _git("ls-files", "--error-unmatch", Path(__file__).name)  # a checkout around an installed package is not ours
        tags[COMMIT] = _git("rev-parse", "HEAD")
        tags[DIRTY] = str(bool(_git("status", "--porcelain", "--untracked-files=no"))).lower()
    return tags


def _user() -> str:
    with suppress(ImportError, KeyError, OSError):  # the user of a container may have no name
        return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    return "unknown"


def _git(*words: str) -> str:
    """What git says in the folder of this file. Raises: OSError, CalledProcessError."""
    command = ["git", "-C", str(Path(__file__).parent), *words]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout.strip()
