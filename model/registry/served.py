"""What a model in MLflow brings along, so that it runs where this project is not installed."""

from importlib.metadata import version

import model
import tfrecords

# What serving imports, and no more: neither TensorFlow nor Beam. MLflow brings the server.
PACKAGES = (
    *("ai-edge-litert", "isal", "mlflow", "numpy", "opencv-python-headless", "pandas", "pillow", "pydantic"),
    "simplejpeg",
)


def requirements() -> list[str]:
    """The packages that serving imports, in the versions that are installed here."""
    return [f"{package}=={version(package)}" for package in PACKAGES]


def code_paths() -> list[str]:
    """Folders of the packages that serving imports modules of. MLflow leaves out their __pycache__."""
    return [package.__path__[0] for package in (model, tfrecords)]
