"""From a dataset to a trained network."""
