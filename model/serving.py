"""The loader that models logged by version 0.1 name. Newer ones name `model.inference.pyfunc`."""

from model.inference.pyfunc import _load_pyfunc

__all__ = ["_load_pyfunc"]
