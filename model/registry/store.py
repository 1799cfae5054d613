"""Where MLflow keeps its records, and the addresses of its pages; free of MLflow itself."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

CHAMPION, CHALLENGER = "champion", "challenger"  # aliases in MLflow, and names of what HOME notes
STORE_VARIABLE = "MLFLOW_TRACKING_URI"
TABLE_METRICS = ("accuracy", "balanced_accuracy", "escape_rate", "overkill_rate")  # columns of the table of runs
TABLE_KEY = "aoi"  # of the view of that table
MODE = "workflowType=machine_learning"  # of MLflow's pages: for model training


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


def experiments_address(ui: str) -> str:
    """Address of the list of experiments. ui: address of MLflow's server, such as http://127.0.0.1:5000.

    MLflow 3 opens every address that does not name a mode in the one that the browser used last, at first that for
    language models, whatever the experiments' tags say.
    """
    return f"{ui}/#/experiments?{MODE}"


def runs_address(ui: str, experiment_id: str) -> str:
    """Address of an experiment's table of runs with TABLE_METRICS as columns."""
    return f"{ui}/#/experiments/{experiment_id}/runs?{MODE}&viewStateShareKey={TABLE_KEY}"


def run_address(ui: str, experiment_id: str, run_id: str) -> str:
    """Address of the page of one run."""
    return f"{ui}/#/experiments/{experiment_id}/runs/{run_id}?{MODE}"


def experiment_tags() -> dict[str, str]:
    """What an experiment must carry for its pages: MLflow's mode for model training, and the view of `runs_address`.

    MLflow's pages know the two by these tags (mlflow/server/js); no function of its Python package sets them.
    """
    # Those alone: MLflow puts other columns, such as the dataset, before them, and they would be out of sight.
    view = {"selectedColumns": [f"metrics.`{metric}`" for metric in TABLE_METRICS]}
    saved = {"name": "Quality", "createdAt": 0, "updatedAt": 0, "state": json.dumps(view)}
    return {
        "mlflow.experimentKind": "custom_model_development",
        f"mlflow.sharedViewState.{TABLE_KEY}": json.dumps(saved),
    }
