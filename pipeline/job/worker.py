"""A Beam worker process that ends with its job: python -m pipeline.worker JOB."""

import os
import sys
import threading
import time


def main(job: int) -> None:
    """Works for the job, the process with that id, which started this one."""
    threading.Thread(target=_end_with, args=(job,), daemon=True).start()
    from apache_beam.runners.worker import sdk_worker_main  # a second, in which the job may end

    sdk_worker_main.main(sys.argv[:1])


def _end_with(job: int) -> None:
    while os.getppid() == job:
        time.sleep(0.2)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
