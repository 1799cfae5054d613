"""How many bits the values of a set's pictures use."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pipeline.inputs import files
from pipeline.inputs.files import READ_ERRORS
from pipeline.inputs.inputs import Inputs
from tfrecords.pictures.formats import samples
from tfrecords.progress import Progress, silent
from tfrecords.settings import AUTO, DEPTHS, PreprocessSettings


def resolve_depth(inputs: Inputs, preprocess: PreprocessSettings, progress: Progress = silent) -> PreprocessSettings:
    """Settings in which a `bit_depth` of auto is the least that holds the largest value of all training pictures.

    Pictures of 8 bits are not decoded for it. Of a test split auto stays: its depth is the training's to tell.

    progress: counts the pictures looked at.
    """
    if preprocess.bit_depth != AUTO or inputs.split != "train":
        return preprocess
    rows = inputs.rows
    names = [rows.names[at] for at in np.flatnonzero(rows.bits > 8).tolist() if at not in rows.rejects]
    largest = 255
    threads = 32 if files.is_remote(inputs.container) else os.cpu_count() or 1
    with files.opened(inputs.container) as read, ThreadPoolExecutor(threads) as pool:

        def most(name: str) -> int:
            try:
                return int(samples(read(name), preprocess, checksums=False).max())
            except READ_ERRORS:  # PictureError among them; it is told where the picture is converted
                return 0

        for at, value in enumerate(pool.map(most, names), 1):
            largest = max(largest, value)
            progress(at, len(names), "measured")
    return preprocess.model_copy(update={"bit_depth": min(depth for depth in DEPTHS if largest < 2**depth)})
