"""`mlflow models serve` on a machine without this project: python tests/elsewhere/elsewhere.py (`make elsewhere`).

Trains a small model, then lets MLflow, in an environment of its own, make the model's environment from the model's
requirements, with uv and with virtualenv, and asks the server over HTTP in every form that MLflow takes. Needs uv, a
package registry and two free ports; a few minutes.
"""

import base64
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path

MANAGERS = {"uv": 5491, "virtualenv": 5492}  # with the port of each
START_SECONDS = 600
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # this machine is asked without a proxy


def main() -> int:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        aoi = [Path(sys.executable).with_name("aoi")]
        subprocess.run([*aoi, "sample", root / "data", "--train", "120", "--test", "5"], check=True)
        quick = ("train.weights=none", "train.alpha=0.25", "train.epochs=1", "preprocess.image_size_px=32")
        options = [word for setting in quick for word in ("--set", setting)]
        subprocess.run([*aoi, "run", "--data", root / "data", "--home", root / "home", *options], check=True)
        subprocess.run(["uv", "venv", "--quiet", "--seed", "--python", sys.executable, root / "bare"], check=True)
        packages = [f"mlflow=={version('mlflow')}", "virtualenv"]
        install = ["uv", "pip", "install", "--quiet", "--python", root / "bare" / "bin" / "python", *packages]
        subprocess.run(install, check=True)
        for manager, port in MANAGERS.items():
            largest = served(root, manager, port)
            print(f"{manager}: every form answered; largest difference from predictions.csv {largest:.2g}", flush=True)
    return 0


def served(root: Path, manager: str, port: int) -> float:
    """The largest difference between a probability that a server gives and that of predictions.csv."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")} | {
        "PATH": f"{root / 'bare' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": f"sqlite:///{root / 'home' / 'mlflow.db'}",
        "MLFLOW_ENV_ROOT": str(root / "environments"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = [
        "mlflow",
        "models",
        "serve",
        "-m",
        "models:/aoi-data@champion",
        "--env-manager",
        manager,
        "-p",
        str(port),
    ]
    log = root / f"{manager}.log"
    with open(log, "wb") as output:
        server = subprocess.Popen(
            command, cwd=root, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait(server, f"http://127.0.0.1:{port}/ping", log)
        return max(difference(root, port, form) for form in FORMS)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def wait(server: subprocess.Popen, address: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with DIRECT.open(address, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise SystemExit(f"no answer from {address}:\n{log.read_text()[-3000:]}")


FORMS = {
    "dataframe_split": lambda texts: {"columns": ["png"], "data": [[text] for text in texts]},
    "dataframe_records": lambda texts: [{"png": text} for text in texts],
    "inputs": lambda texts: texts,
    "instances": lambda texts: texts,
}


def difference(root: Path, port: int, form: str) -> float:
    (file,) = (root / "home" / "predictions").glob("*/predictions.csv")
    with open(file, encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    texts = [base64.b64encode((root / "data" / "test_images" / row["ID"]).read_bytes()).decode() for row in rows]
    body = json.dumps({form: FORMS[form](texts)}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"})
    with DIRECT.open(request, timeout=60) as answer:
        answers = json.load(answer)["predictions"]
    largest = 0.0
    for row, given in zip(rows, answers, strict=True):
        assert row["name"] == given["name"], (form, row, given)
        classes = given.keys() - {"label", "name"}
        largest = max(largest, *(abs(float(row[name]) - given[name]) for name in classes))
    assert largest <= 1e-6, (form, largest)
    return largest


if __name__ == "__main__":
    sys.exit(main())
