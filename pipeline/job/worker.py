"""A Beam worker process of this project: for the job on this machine, and for engines, by Beam's contracts.

python -m pipeline.job.worker JOB                                 ends with its job, the process of that id
aoi-worker --id=ID --provision_endpoint=HOST:PORT ...             Beam's PROCESS: an engine starts it
aoi-worker --port=50000                                           Beam's EXTERNAL: starts a worker for who asks
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Sequence
from typing import Any

from tfrecords.system import end_with

ANSWER_SECONDS = 60  # that an engine has to tell a worker what it is for


def main(argv: Sequence[str] | None = None) -> None:
    """Works until the job or the engine ends it."""
    given = _parser().parse_known_args(argv)[0]
    if given.job is not None:
        _shield(given.job)
        _work()
    elif given.id and given.provision_endpoint:
        os.environ.update(provisions(given.id, given.provision_endpoint, given.control_endpoint))
        _work()
    elif given.port is not None:
        serve(given.port)
    else:
        raise SystemExit("aoi-worker: say --port, or --id and --provision_endpoint as an engine does")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="aoi-worker", description="A worker for Beam's engines, on any machine.")
    parser.add_argument("job", nargs="?", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--port", metavar="N", type=int, help="start workers for engines that ask at this port")
    for name in ("id", "provision_endpoint", "control_endpoint"):
        parser.add_argument(f"--{name}", help="as an engine gives it")
    return parser


def _shield(job: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the job's to answer
    threading.Thread(target=end_with, args=(job,), daemon=True).start()
    logging.getLogger().addHandler(logging.NullHandler())  # of what Beam lacks for services that nobody asked for
    warnings.simplefilter("ignore")


def _work() -> None:
    from apache_beam.runners.worker import sdk_worker_main  # a second, in which the job may end

    # Beam sends what it logs to the job, which passes errors on. All it would write here is that the job has ended.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    sdk_worker_main.main(sys.argv[:1])


def provisions(worker: str, endpoint: str, control: str | None = None) -> dict[str, str]:
    """What Beam's harness reads from its environment, as the engine at `endpoint` tells it to a worker with this id."""
    import grpc
    from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc, endpoints_pb2
    from google.protobuf import json_format, text_format

    with grpc.insecure_channel(endpoint) as channel:
        stub = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        asked = beam_provision_api_pb2.GetProvisionInfoRequest()
        told = stub.GetProvisionInfo(
            asked, metadata=[("worker_id", worker)], timeout=ANSWER_SECONDS, wait_for_ready=True
        ).info

    def at(url: str) -> str:
        return text_format.MessageToString(endpoints_pb2.ApiServiceDescriptor(url=url), as_one_line=True)

    found = {
        "WORKER_ID": worker,
        "PIPELINE_OPTIONS": json_format.MessageToJson(told.pipeline_options),
        "CONTROL_API_SERVICE_DESCRIPTOR": at(control or told.control_endpoint.url),
        "RUNNER_CAPABILITIES": " ".join(told.runner_capabilities),
    }
    if told.logging_endpoint.url:
        found["LOGGING_API_SERVICE_DESCRIPTOR"] = at(told.logging_endpoint.url)
    if told.status_endpoint.url:
        found["STATUS_API_SERVICE_DESCRIPTOR"] = at(told.status_endpoint.url)
    return found


def serve(port: int) -> None:
    """Starts and stops workers for engines that ask at the port, each in a process of its own; until it is stopped."""
    from apache_beam.portability.api import beam_fn_api_pb2
    from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer

    class Pool(BeamFnExternalWorkerPoolServicer):
        """As Beam's, but for the process that it starts: Beam's `python` may be another one."""

        def StartWorker(self, asked: Any, context: Any) -> Any:
            command = [
                *(sys.executable, "-m", "pipeline.job.worker"),
                f"--id={asked.worker_id}",
                f"--provision_endpoint={asked.provision_endpoint.url}",
                f"--control_endpoint={asked.control_endpoint.url}",
            ]
            try:
                self._worker_processes[asked.worker_id] = subprocess.Popen(command, stdin=subprocess.DEVNULL)
            except OSError as error:
                return beam_fn_api_pb2.StartWorkerResponse(error=str(error))
            return beam_fn_api_pb2.StartWorkerResponse()

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))  # so that Beam ends its workers
    address, server = Pool.start(use_process=True, port=port)
    print(f"aoi-worker: waiting at {address} for engines", flush=True)
    try:
        server.wait_for_termination()
    except KeyboardInterrupt:
        server.stop(0)


if __name__ == "__main__":
    main()
