"""What the tests share: a tiny set of real PNG files in AIdea's layout, and a HOME with everything made from it."""

import contextlib
import hashlib
import json
import os
import shutil
import socket
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["AOI_WEIGHTS"] = "none"  # no test downloads anything
os.environ.pop("MLFLOW_TRACKING_URI", None)

import hypothesis
import pytest
from filelock import FileLock
from tiny import write_data

# The same examples every time, however slow the machine: `make fuzz` is where chance has its place.
hypothesis.settings.register_profile(
    "suite",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("suite")

# The files that take longest begin first: else one process works on when the others have ended.
LONGEST = (
    "test_papers.py",
    "flows/test_serve.py",
    "model/test_backbones.py",
    "model/test_tracking.py",
    "model/test_train.py",
    "flows/test_deployments.py",
    "model/test_devices.py",
    "benchmarks/test_bench.py",
    "flows/test_products.py",
    "flows/test_stages.py",
    "flows/test_sweep.py",
    "model/test_promise.py",
    "pipeline/test_store.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {Path(__file__).parent / name: at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(LONGEST)))


# Small enough to train in a second, large enough to learn.
QUICK = ("preprocess.image_size_px=32", "train.alpha=0.25", "train.epochs=2", "train.learning_rate=0.003")


def write_font(path: Path, letters: str, family: str = "Test Sans", style: str = "Regular") -> str:
    """A font file that has a box for each of the letters. Returns its path."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for point in ((100, 700), (900, 700), (900, 0)):
        pen.lineTo(point)
    pen.closePath()
    names = {c: f"box{ord(c):x}" for c in letters}
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", *names.values()])
    font.setupCharacterMap({ord(c): name for c, name in names.items()})
    box = pen.glyph()
    font.setupGlyf(dict.fromkeys((".notdef", *names.values()), box))
    font.setupHorizontalMetrics(dict.fromkeys((".notdef", *names.values()), (1000, 100)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": family, "styleName": style})
    font.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    font.setupPost()
    font.save(path)
    return str(path)


@pytest.fixture
def fonts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function: (file name, letters, family, style) of all fonts that the machine has from now on. None at first."""
    from tfrecords import lettering

    def install(*told: tuple[str, ...]) -> list[str]:
        files = [write_font(tmp_path / name, *rest) for name, *rest in told]
        monkeypatch.setattr(lettering, "installed_fonts", lambda: tuple(files))
        return files

    install()
    return install


@pytest.fixture(scope="session")
def free_ports():
    """A function that gives so many ports which stay free until they are used."""

    def free(count: int) -> list[int]:
        found, port = [], 20_000 + os.getpid() % 1_000 * 10  # below those that a system hands out to whoever asks
        while len(found) < count:
            with contextlib.suppress(OSError), socket.socket() as tried:
                tried.bind(("127.0.0.1", port))
                found.append(port)
            port += 1
        return found

    return free


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A fresh set that a test may spoil."""
    return write_data(tmp_path / "data")


@pytest.fixture(scope="session")
def look_alike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set of another product, "other": files named as in `made` with other contents; for reading only."""
    return write_data(tmp_path_factory.mktemp("look-alike") / "other", train=60, test=9, seed=5000)


# What reading leaves in a HOME: locks, Python's compiled code, MLflow's note that a registered model was loaded.
OF_READERS = shutil.ignore_patterns("*.lock", "__pycache__", "registered_model_meta")


def files_of(folder: Path) -> dict[Path, str]:
    """Every file below a folder with its hash, but for those of readers."""
    paths = (path for path in folder.rglob("*") if not OF_READERS("", path.parts) and path.is_file())
    return {path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory):
    """(data folder, Home, settings, references) of one whole run. One for all processes of the suite, so for reading
    only: a test that writes has a copy, see `copy_home`.
    """
    from flows.home import Home, Ref
    from flows.settings import load_settings
    from flows.stages import load_stage
    from flows.stages.chain import chain
    from flows.stages.stage import Job

    root = tmp_path_factory.getbasetemp()
    root = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "made"
    folder, home, settings = root / "tiny", Home(root / "home"), load_settings(overrides=QUICK)
    with FileLock(f"{root}.lock"):
        if not (root / "refs.json").exists():
            write_data(folder, train=60, test=9)
            job = Job(home, settings)
            refs = chain(lambda stage, **given: load_stage(stage).run(job, **given), job, str(folder))
            (root / "refs.json").write_text(json.dumps({stage: asdict(ref) for stage, ref in refs.items()}))
    refs = {stage: Ref(**ref) for stage, ref in json.loads((root / "refs.json").read_text()).items()}
    before = files_of(root)
    yield folder, home, settings, refs
    assert files_of(root) == before, "a test wrote where all others read"


@pytest.fixture(scope="session")
def opened():
    """A function that opens a reference of any kind in a Home."""
    from flows.stages import load_stages

    kinds = {kind.KIND: kind for stage in load_stages().values() for kind in stage.makes}
    return lambda home, ref: home.open(ref, kinds[ref.kind])


@pytest.fixture(scope="session")
def copy_home(made):
    """A function that copies the HOME of `made`, or another one, to a folder that is a test's own."""
    from mlflow.tracking._tracking_service import utils

    from flows.home import Home

    def copy(folder: Path, home: Home = made[1]) -> Home:
        utils._artifact_repos_cache.clear()  # by run, and the copy has the same runs elsewhere
        return Home(Path(shutil.copytree(home.root, folder, ignore=OF_READERS)))

    return copy
