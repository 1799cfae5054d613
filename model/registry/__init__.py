"""The record of trainings in MLflow, and which model is champion."""

import os

# Ahead of MLflow's import, which reads it: neither this process nor one that it starts reports its use to anyone.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
