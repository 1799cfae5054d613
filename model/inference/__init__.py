"""Trained networks in use: runtimes, export, prediction, the model in MLflow."""
