"""Silence for libraries that write past every logging setting."""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def stderr_closed() -> Iterator[None]:
    """Leads the file descriptor of stderr nowhere meanwhile: TensorFlow and LiteRT greet there from C++."""
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def import_tensorflow() -> None:
    """Imports TensorFlow without its greetings. It takes seconds, so only where there is work for it."""
    with stderr_closed():
        import tensorflow

        tensorflow.config.list_physical_devices("GPU")
