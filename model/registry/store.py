"""Where MLflow keeps its records, and the addresses of its pages; free of MLflow itself."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

CHAMPION, CHALLENGER = "champion", "challenger"  # aliases in MLflow, and names of what HOME notes
STORE_VARIABLE = "MLFLOW_TRACKING_URI"
ROOT_VARIABLE = "MLFLOW_DEFAULT_ARTIFACT_ROOT"
SQLITE = "sqlite:///"  # how SQLAlchemy's address of a SQLite file begins
DATABASES = ("postgresql", "mysql", "mssql", "sqlite")
TABLE_METRICS = ("accuracy", "balanced_accuracy", "escape_rate", "overkill_rate")  # columns of the table of runs
TABLE_KEY = "aoi"  # of the view of that table
MODE = "workflowType=machine_learning"  # of MLflow's pages: for model training


@dataclass(frozen=True)
class Store:
    """A tracking store. uri: its address; artifacts: where files of a database's records go, a folder or an address;
    "" for a store that decides itself. embedded: HOME's own SQLite file, where the store is that.
    """

    uri: str
    artifacts: str
    name: str  # of the data: its experiment and, behind aoi-, its registered model
    embedded: Path | None = None

    @property
    def model(self) -> str:
        """Name of the registered model."""
        return registered_name(self.name)

    @property
    def model_uri(self) -> str:
        """Address of the model that predicts unless another is named."""
        return f"models:/{self.model}@{CHAMPION}"


def registered_name(name: str) -> str:
    """Name of the registered model of the data called `name`."""
    return f"aoi-{name}"


def hidden(address: str) -> str:
    """A URL for people to read: its password, before the host or in its query, as ***."""
    before, at, after = address.rpartition("@")
    head = re.match(r"\w[\w+.-]*://", before)
    begins = head[0] if head else ""
    name, colon, _ = before.removeprefix(begins).partition(":")
    address = f"{begins}{name}{':***' if colon else ''}{at}{after}"
    return re.sub(r"(?<=[?&]password=)[^&#]*", "***", address)


def nameless(address: str) -> str:
    """A URL for browsers, which ask for name and password themselves: without either."""
    return re.sub(r"(?<=://)[^/]*@", "", address)


def without_password(text: str, address: str) -> str:
    """What somebody said of a URL, without its password."""
    text = text.replace(address, hidden(address))
    password = address.rpartition("@")[0].partition("://")[2].partition(":")[2]
    return text.replace(password, "***").replace(unquote(password), "***") if password else text


def store_of(home: Path, name: str) -> Store:
    """MLFLOW_TRACKING_URI where it is set, else a SQLite file and a folder under HOME.

    Files of a database go there too, or to MLFLOW_DEFAULT_ARTIFACT_ROOT: MLflow itself takes the current folder.
    """
    own = str(home.absolute() / "mlartifacts")
    if uri := os.environ.get(STORE_VARIABLE):
        return Store(uri, os.environ.get(ROOT_VARIABLE) or own if is_database(uri) else "", name)
    file = home.absolute() / "mlflow.db"
    return Store(f"{SQLITE}{file}", own, name, embedded=file)


def is_database(address: str) -> bool:
    """Whether a store is a database, rather than a server or a folder."""
    return address.partition(":")[0].partition("+")[0] in DATABASES


def artifact_location(store: Store) -> str | None:
    """Where files of the store's experiment go; None where the store decides."""
    if not store.artifacts:
        return None
    if "://" in store.artifacts:
        return f"{store.artifacts.rstrip('/')}/{store.name}"
    return Path(store.artifacts, store.name).absolute().as_uri()


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
