"""A trained network in use: LiteRT, whose answers are Keras' to a millionth in a third of the time."""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from model.inference.formats import Network
from model.quiet import stderr_closed
from tfrecords.errors import refuse

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter  # LiteRT takes its time, and not every stage needs it

MOST_LANES = 8  # pictures side by side at most: each takes the memory of a network more


def open_network(source: Path | bytes) -> Network:
    """The network in a .tflite file, or in its bytes, free of TensorFlow. It may be called from several threads.

    A single picture goes through on all cores, since it waits least so. Several go through side by side, a core each
    where there are few: cores that share a picture wait for each other at every layer, which takes up to a quarter of
    their time. The answers are the same.

    Raises:
        AoiError: not a LiteRT model.
    """
    data = source if isinstance(source, bytes) else source.read_bytes()
    cores = os.cpu_count() or 1
    threads = math.ceil(cores / MOST_LANES)
    lanes = cores // threads
    try:
        with stderr_closed():  # the first of a process greets there
            together = _open(data, cores)
    except (ValueError, RuntimeError) as error:
        name = source if isinstance(source, Path) else "the network"
        raise refuse(name, f"not a network that LiteRT runs ({str(error)[:200]})", "Train again with --force")
    (wanted,) = together.get_output_details()
    side_by_side: list[Interpreter] = []  # opened by the first who asks for several pictures
    outputs, lock, pool = wanted["shape"][-1], Lock(), ThreadPoolExecutor(lanes)

    def run(images: np.ndarray) -> np.ndarray:
        answers = np.empty((len(images), outputs), np.float32)
        left = iter(range(len(images)))  # whoever is free takes the next

        def work(interpreter: "Interpreter") -> None:
            (given,), (wanted,) = interpreter.get_input_details(), interpreter.get_output_details()
            for place in left:
                interpreter.set_tensor(given["index"], images[place : place + 1])
                interpreter.invoke()
                answers[place] = interpreter.get_tensor(wanted["index"])[0]

        with lock:
            if len(images) < 2:
                work(together)
            else:
                side_by_side.extend(_open(data, threads) for _ in range(lanes - len(side_by_side)))
                list(pool.map(work, side_by_side))
        return answers

    return run


def _open(data: bytes, threads: int) -> "Interpreter":
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data, num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter
