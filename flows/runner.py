"""The process that `aoi serve` starts to run what is asked of the deployments: python -m flows.runner HOME [DATA]."""

import sys

from prefect import serve
from prefect.deployments.runner import EntrypointType

from flows.deployments import DEPLOYED, FLOW


def main(home: str, data: str | None = None) -> None:
    """Registers aoi/full, aoi/ingest, ... and runs them on request, until SIGTERM.

    data: folder that they use where none is given; none: the one used last in HOME.
    """
    deployments = []
    for name, flow in DEPLOYED.items():
        parameters = {"home": home}
        if data and "data" in flow.parameters.properties:
            parameters["data"] = data
        # One flow name over all, so that every stage is aoi/STAGE; by module, since files move with the package.
        named = flow.with_options(name=FLOW)
        deployments.append(named.to_deployment(name, parameters=parameters, entrypoint_type=EntrypointType.MODULE_PATH))
    serve(*deployments, print_starting_message=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
