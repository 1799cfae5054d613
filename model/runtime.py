"""A trained network in use: LiteRT, whose answers are Keras' to a millionth in a third of the time."""

import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock

import numpy as np

from model.quiet import stderr_closed
from tfrecords.errors import refuse

Network = Callable[[np.ndarray], np.ndarray]  # uint8 (N, S, S, 1) to float32 (N, outputs)


def open_network(source: Path | bytes) -> Network:
    """The network in a .tflite file, or in its bytes, free of TensorFlow. It may be called from several threads.

    Pictures go through one at a time on all cores: as fast as any batch on a CPU, and a single one waits least.

    Raises:
        AoiError: not a LiteRT model.
    """
    from ai_edge_litert.interpreter import Interpreter

    data = source if isinstance(source, bytes) else source.read_bytes()
    try:
        with stderr_closed():
            interpreter = Interpreter(model_content=data, num_threads=os.cpu_count())
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        name = source if isinstance(source, Path) else "the network"
        raise refuse(name, f"not a network that LiteRT runs ({str(error)[:200]})", "Train again with --force")
    (given,), (wanted,) = interpreter.get_input_details(), interpreter.get_output_details()
    outputs, lock = wanted["shape"][-1], Lock()

    def run(images: np.ndarray) -> np.ndarray:
        answers = np.empty((len(images), outputs), np.float32)
        with lock:
            for place in range(len(images)):
                interpreter.set_tensor(given["index"], images[place : place + 1])
                interpreter.invoke()
                answers[place] = interpreter.get_tensor(wanted["index"])[0]
        return answers

    return run
