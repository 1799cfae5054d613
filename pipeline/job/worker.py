"""A Beam worker process that ends with its job: python -m pipeline.job.worker JOB."""

import logging
import os
import signal
import sys
import threading
import warnings

from tfrecords.system import end_with


def main(job: int) -> None:
    """Works for the job, the process with that id, until the job stops it or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the job's to answer
    threading.Thread(target=end_with, args=(job,), daemon=True).start()
    logging.getLogger().addHandler(logging.NullHandler())  # of what Beam lacks for services that nobody asked for
    warnings.simplefilter("ignore")
    from apache_beam.runners.worker import sdk_worker_main  # a second, in which the job may end

    # Beam sends what it logs to the job, which passes errors on. All it would write here is that the job has ended.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    sdk_worker_main.main(sys.argv[:1])


if __name__ == "__main__":
    main(int(sys.argv[1]))
