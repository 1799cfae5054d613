"""How many bits the values of a set's pictures use."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pipeline.inputs import files
from pipeline.inputs.files import READ_ERRORS
from pipeline.inputs.inputs import Inputs
from pipeline.inputs.rows import Row, Rows
from tfrecords.cores import cores
from tfrecords.pictures.formats import samples
from tfrecords.progress import Progress, silent
from tfrecords.settings import AUTO, DEPTHS, PreprocessSettings

# What `measure_here` is, here or elsewhere.
Measure = Callable[[Rows, str, PreprocessSettings, Progress], Iterator[Sequence[int]]]


def measure_here(
    rows: Rows, container: str, preprocess: PreprocessSettings, progress: Progress
) -> Iterator[Sequence[int]]:
    """The largest value of every picture, in the order of the rows, some at a time; measured on this machine."""
    threads = 32 if files.is_remote(container) else len(cores())
    with files.opened(container) as read, ThreadPoolExecutor(threads) as pool:
        for at, value in enumerate(pool.map(lambda row: most(row, read, preprocess), rows), 1):
            yield [value]
            progress(at, len(rows), "measured")


def most(row: Row, read: Callable[[str], bytes], preprocess: PreprocessSettings) -> int:
    """The largest value of a picture; 0 where it can't be read, which is told where it is converted."""
    try:
        return int(samples(read(row.name), preprocess, checksums=False).max())
    except READ_ERRORS:  # PictureError among them
        return 0


def resolve_depth(
    inputs: Inputs, preprocess: PreprocessSettings, progress: Progress = silent, measure: Measure = measure_here
) -> PreprocessSettings:
    """Settings in which a `bit_depth` of auto is the least that holds the largest value of all training pictures.

    Pictures of 8 bits are not decoded for it. Of a test split auto stays: its depth is the training's to tell.

    progress: counts the pictures looked at.
    """
    if preprocess.bit_depth != AUTO or inputs.split != "train":
        return preprocess
    rows = inputs.rows
    deep = np.array([at for at in np.flatnonzero(rows.bits > 8).tolist() if at not in rows.rejects], int)
    parts = measure(rows.take(deep), inputs.container, preprocess, progress)
    largest = max((value for part in parts for value in part), default=0)
    return preprocess.model_copy(update={"bit_depth": min(depth for depth in DEPTHS if largest < 2**depth)})
