"""What the model's tests share."""

import pytest
from lively import lively_network, noise


@pytest.fixture(scope="package")
def pictures():
    """Noise of any contrast: uint8 (40, 32, 32, 1)."""
    return noise()


@pytest.fixture(scope="package")
def network(pictures):
    """A network of three classes whose answers differ from picture to picture."""
    return lively_network(pictures)
