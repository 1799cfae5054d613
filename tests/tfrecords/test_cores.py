"""The cores that this process may use, and threads that are kept on some of them."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tfrecords.cores import cores, kept_on


def test_a_thread_is_kept_on_cores_and_then_goes_anywhere_again():
    allowed = cores()
    with kept_on(allowed[:1]), ThreadPoolExecutor(1) as pool:
        if sys.platform == "linux":
            assert cores() == pool.submit(cores).result() == allowed[:1]
    assert cores() == allowed


@pytest.mark.parametrize("gone", [[], [1000]])
def test_a_thread_goes_anywhere_where_the_cores_are_gone(gone):
    allowed = cores()
    with kept_on(gone):
        assert cores() == allowed
    assert cores() == allowed
