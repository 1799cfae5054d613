"""A trained network in use: LiteRT, whose answers are Keras' to a millionth in a third of the time.

One pass gives features and maps beside the probabilities: in memory the network is made to give what it computes on its
way. The file stays as it is, so files of earlier versions give the same, and other programs see probabilities alone.
"""

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from model.inference.endings import ending_of, giving
from model.inference.formats import Network, Outputs, moments
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

    What is no classifier, as what gives features, gives that in place of probabilities, and no features.

    Raises:
        AoiError: not a LiteRT model.
    """
    data = source if isinstance(source, bytes) else source.read_bytes()
    cores = os.cpu_count() or 1
    try:
        with stderr_closed():  # the first of a process greets there
            _check(data)
            ending = ending_of(data)
            if ending:
                wanted = [ending.probabilities, ending.features, ending.texture, ending.maps]
                data = giving(data, [tensor for tensor in wanted if tensor is not None])
            together = _open(data, cores)
    except (ValueError, RuntimeError) as error:
        name = source if isinstance(source, Path) else "the network"
        raise refuse(name, f"not a network that LiteRT runs ({str(error)[:200]})", "Train again with --force")
    widths, pool = [each["shape"][-1] for each in together.get_output_details()], ThreadPoolExecutor(lanes())
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

    def look(images: np.ndarray, evidence: bool) -> Outputs:
        nonlocal calls
        answers = np.empty((len(images), widths[0]), np.float32)
        features = np.empty((len(images), widths[1] if ending else 0), np.float32)
        texture = np.empty((len(images), 2 * widths[2] if ending else 0), np.float32)
        spoke: list[np.ndarray | None] = [None] * len(images)
        left = iter(range(len(images)))  # whoever is free takes the next

        def work(interpreter: "Interpreter") -> None:
            (given,), wanted = interpreter.get_input_details(), interpreter.get_output_details()
            for place in left:
                interpreter.set_tensor(given["index"], images[place : place + 1])
                interpreter.invoke()
                answers[place] = _read(interpreter, wanted[0])
                if ending:
                    features[place] = _read(interpreter, wanted[1])
                    texture[place] = moments(_read(interpreter, wanted[2]))
                    if evidence and ending.maps is not None:
                        spoke[place] = _read(interpreter, wanted[3]) @ ending.kernel

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
        found = [each for each in spoke if each is not None]
        return Outputs(answers, features, texture, np.stack(found) if found else None)

    return Network(look)


def _read(interpreter: "Interpreter", tensor: dict[str, Any]) -> np.ndarray:
    """A tensor of the picture that was looked at last, float32; of 8 bits too."""
    values: np.ndarray = interpreter.get_tensor(tensor["index"])[0]
    scales, zeros = (tensor["quantization_parameters"][key] for key in ("scales", "zero_points"))
    return (values.astype(np.float32) - zeros[0]) * scales[0] if len(scales) else values


def _check(data: bytes) -> None:
    """Raises: ValueError where the bytes are no LiteRT model."""
    from ai_edge_litert.interpreter import Interpreter

    Interpreter(model_content=data)


def _open(data: bytes, threads: int) -> "Interpreter":
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data, num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter
