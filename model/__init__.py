"""The classifier: build, train, evaluate, predict, and the record of it in MLflow."""
