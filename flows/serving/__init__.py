"""`aoi serve` and `aoi deploy`: the stages as Prefect deployments, the servers beside them, lots from a folder."""
