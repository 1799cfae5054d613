"""Where MLflow keeps its records; free of MLflow itself."""

import os
from dataclasses import dataclass
from pathlib import Path

CHAMPION, CHALLENGER = "champion", "challenger"  # aliases in MLflow, and names of what HOME notes
STORE_VARIABLE = "MLFLOW_TRACKING_URI"


@dataclass(frozen=True)
class Store:
    """A tracking store. uri: its address; artifacts: folder for files of an embedded one, else ""."""

    uri: str
    artifacts: str
    name: str  # of the data: its experiment and, behind aoi-, its registered model

    @property
    def model(self) -> str:
        """Name of the registered model."""
        return f"aoi-{self.name}"

    @property
    def model_uri(self) -> str:
        """Address of the model that predicts unless another is named."""
        return f"models:/{self.model}@{CHAMPION}"


def store_of(home: Path, name: str) -> Store:
    """MLFLOW_TRACKING_URI where it is set, else a SQLite file and a folder under HOME."""
    home = home.absolute()
    remote = os.environ.get(STORE_VARIABLE)
    return (
        Store(remote, "", name) if remote else Store(f"sqlite:///{home / 'mlflow.db'}", str(home / "mlartifacts"), name)
    )
