"""A trained network in use: LiteRT, whose answers are Keras' to a millionth in a third of the time.

One pass gives features and maps beside the probabilities: in memory the network is made to give what it computes on its
way. The file stays as it is, so files of earlier versions give the same, and other programs see probabilities alone.
"""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, get_ident

import numpy as np

from model.inference.endings import ending_of, giving
from model.inference.formats import Network, Outputs, moments
from model.quiet import stderr_closed
from tfrecords.cores import cores, kept_on
from tfrecords.errors import refuse

MOST_LANES = 8  # pictures side by side at most: each takes the memory of a network more
AT_WORK: list[int] = []  # the threads of this process that work on pictures, as often as they said so


@contextmanager
def at_work() -> Iterator[None]:
    """Tells that this thread works on a picture: it takes a core before and after the network too."""
    AT_WORK.append(get_ident())
    try:
        yield
    finally:
        AT_WORK.remove(get_ident())


def _is_alone() -> bool:
    """Whether no other thread works on pictures. The thread that asks does, so never two are alone."""
    return {*AT_WORK} == {get_ident()}


def lanes() -> int:
    """How many pictures go through a network side by side on this machine: one per core where there are few."""
    count = len(cores())
    return count // _threads(count)


def _threads(count: int) -> int:
    """Cores per picture of those that go side by side, of so many cores."""
    return math.ceil(count / MOST_LANES)


def open_network(source: Path | bytes) -> Network:
    """The network in a .tflite file, or in its bytes, free of TensorFlow. It may be called from several threads.

    What is no classifier, as what gives features, gives that in place of probabilities, and no features.

    Raises:
        AoiError: not a LiteRT model.
    """
    data = source if isinstance(source, bytes) else source.read_bytes()
    try:
        with stderr_closed():  # the first of a process greets there
            _check(data)
            ending = ending_of(data)
            if ending:
                wanted = [ending.probabilities, ending.features, ending.texture, ending.maps]
                data = giving(data, [tensor for tensor in wanted if tensor is not None])
            opened = _Lanes(data)
    except (ValueError, RuntimeError) as error:
        name = source if isinstance(source, Path) else "the network"
        raise refuse(name, f"not a network that LiteRT runs ({str(error)[:200]})", "Train again with --force")

    def run(images: np.ndarray, evidence: bool) -> Outputs:
        answers = np.empty((len(images), opened.widths[0]), np.float32)
        features = np.empty((len(images), opened.widths[1] if ending else 0), np.float32)
        texture = np.empty((len(images), 2 * opened.widths[2] if ending else 0), np.float32)
        spoke: list[np.ndarray | None] = [None] * len(images)

        def look(lane: _Lane, place: int) -> None:
            lane.run(images[place : place + 1])
            answers[place] = lane.output(0)
            if ending:
                features[place] = lane.output(1)
                texture[place] = moments(lane.output(2))
                if evidence and ending.maps is not None:
                    spoke[place] = lane.output(3) @ ending.kernel

        opened.look(len(images), look)
        found = [each for each in spoke if each is not None]
        return Outputs(answers, features, texture, np.stack(found) if found else None)

    return Network(run)


class _Lane:
    """An interpreter of a network, for one thread at a time."""

    def __init__(self, data: bytes, threads: int):
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_content=data, num_threads=threads)
        self._interpreter.allocate_tensors()
        (self._given,) = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()

    @property
    def widths(self) -> list[int]:
        """The last dimension of each output."""
        return [output["shape"][-1] for output in self._outputs]

    def run(self, picture: np.ndarray) -> None:
        """Computes the outputs of a picture, uint8 (1, S, S, C)."""
        self._interpreter.set_tensor(self._given["index"], picture)
        self._interpreter.invoke()

    def output(self, number: int) -> np.ndarray:
        """An output of the picture that was run last, float32; of 8 bits too."""
        tensor = self._outputs[number]
        values: np.ndarray = self._interpreter.get_tensor(tensor["index"])[0]
        scales, zeros = (tensor["quantization_parameters"][key] for key in ("scales", "zero_points"))
        return (values.astype(np.float32) - zeros[0]) * scales[0] if len(scales) else values


class _Lanes:
    """The interpreters of a network, in which its pictures go side by side.

    A single picture goes through on all cores, since it waits least so. Several go through side by side, a core each
    where there are few, whether one call brings them or several threads, of which some may still read theirs: cores
    that share a picture wait for each other at every layer, which takes up to a quarter of their time. The answers are
    the same.
    """

    def __init__(self, data: bytes):
        """data: of a .tflite file. Raises: ValueError, RuntimeError where LiteRT does not run it."""
        self._first, *others = cores()
        self._data, self._threads = data, _threads(1 + len(others))
        with kept_on(others):  # all threads but the one that asks
            self._all_cores = _Lane(data, 1 + len(others))
        self._pool, self._free = ThreadPoolExecutor(lanes()), SimpleQueue[_Lane]()
        self._lock, self._opened = Lock(), 0
        self.widths = self._all_cores.widths

    def look(self, pictures: int, look: Callable[[_Lane, int], None]) -> None:
        """Has each of so many pictures looked at: calls `look` with a lane and the picture's place."""
        left = iter(range(pictures))  # whoever is free takes the next

        def share(lane: _Lane) -> None:
            for place in left:
                look(lane, place)

        def share_in_a_lane(_: int = 0) -> None:
            with self._lane() as lane:
                share(lane)

        with at_work():
            if pictures > 1:
                list(self._pool.map(share_in_a_lane, range(min(lanes(), pictures))))
            elif _is_alone():
                with kept_on([self._first]):
                    share(self._all_cores)
            else:
                share_in_a_lane()

    @contextmanager
    def _lane(self) -> Iterator[_Lane]:
        """A lane for one thread; opened for the first who finds none free."""
        with self._lock:
            missing = self._free.empty() and self._opened < lanes()
            self._opened += missing
        lane = _Lane(self._data, self._threads) if missing else self._free.get()
        try:
            yield lane
        finally:
            self._free.put(lane)


def _check(data: bytes) -> None:
    """Raises: ValueError where the bytes are no LiteRT model."""
    from ai_edge_litert.interpreter import Interpreter

    Interpreter(model_content=data)
