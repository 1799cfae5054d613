"""A trained network in use: LiteRT, whose answers are Keras' to a millionth in a third of the time."""

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from model.inference.formats import Network
from model.quiet import stderr_closed
from tfrecords.errors import refuse

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter  # LiteRT takes its time, and not every stage needs it

MOST_LANES = 8  # pictures side by side at most: each takes the memory of a network more


def lanes() -> int:
    """How many pictures go through a network side by side on this machine: one per core where there are few."""
    cores = os.cpu_count() or 1
    return cores // _threads(cores)


def _threads(cores: int) -> int:
    """Cores per picture of those that go side by side."""
    return math.ceil(cores / MOST_LANES)


def open_network(source: Path | bytes) -> Network:
    """The network in a .tflite file, or in its bytes, free of TensorFlow. It may be called from several threads.

    A single picture goes through on all cores, since it waits least so. Several go through side by side, a core each
    where there are few, whether one call brings them or several threads: cores that share a picture wait for each
    other at every layer, which takes up to a quarter of their time. The answers are the same.

    Raises:
        AoiError: not a LiteRT model.
    """
    data = source if isinstance(source, bytes) else source.read_bytes()
    cores = os.cpu_count() or 1
    try:
        with stderr_closed():  # the first of a process greets there
            together = _open(data, cores)
    except (ValueError, RuntimeError) as error:
        name = source if isinstance(source, Path) else "the network"
        raise refuse(name, f"not a network that LiteRT runs ({str(error)[:200]})", "Train again with --force")
    (wanted,) = together.get_output_details()
    outputs, pool = wanted["shape"][-1], ThreadPoolExecutor(lanes())
    free: SimpleQueue[Interpreter] = SimpleQueue()
    lock, calls, opened = Lock(), 0, 0

    @contextmanager
    def lane() -> Iterator["Interpreter"]:
        """An interpreter of the lanes for one thread; opened for the first who finds none free."""
        nonlocal opened
        with lock:
            missing = free.empty() and opened < lanes()
            opened += missing
        interpreter = _open(data, _threads(cores)) if missing else free.get()
        try:
            yield interpreter
        finally:
            free.put(interpreter)

    def run(images: np.ndarray) -> np.ndarray:
        nonlocal calls
        answers = np.empty((len(images), outputs), np.float32)
        left = iter(range(len(images)))  # whoever is free takes the next

        def work(interpreter: "Interpreter") -> None:
            (given,), (wanted,) = interpreter.get_input_details(), interpreter.get_output_details()
            for place in left:
                interpreter.set_tensor(given["index"], images[place : place + 1])
                interpreter.invoke()
                answers[place] = interpreter.get_tensor(wanted["index"])[0]

        def share(number: int) -> None:
            with lane() as interpreter:
                work(interpreter)

        with lock:
            alone, calls = not calls, calls + 1
        try:
            if len(images) > 1:
                list(pool.map(share, range(min(lanes(), len(images)))))
            elif alone:  # nobody else can be, until this call ends
                work(together)
            else:
                share(0)
        finally:
            with lock:
                calls -= 1
        return answers

    return run


def _open(data: bytes, threads: int) -> "Interpreter":
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data, num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter
