"""Keras models as files whose bytes depend on the model alone."""

import io
import json
import re
import zipfile
from pathlib import Path

import keras

from tfrecords.errors import refuse
from tfrecords.system import rename


def save(model: keras.Model, path: Path) -> None:
    """Writes a .keras file whose bytes depend on the model alone: Keras puts clock and addresses into its zip."""
    whole = path.with_suffix(".tmp.keras")
    model.save(whole)
    buffer = io.BytesIO()
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(buffer, "w") as target:
        for name in sorted(source.namelist()):
            data = source.read(name)
            if name == "metadata.json":
                data = json.dumps({**json.loads(data), "date_saved": ""}).encode()
            if name == "config.json":
                data = _renumber(data)
            target.writestr(zipfile.ZipInfo(name), data)
    whole.write_bytes(buffer.getvalue())
    rename(whole, path)


def _renumber(config: bytes) -> bytes:
    """Object ids, which are memory addresses, by order of appearance."""
    order: dict[bytes, int] = {}
    return re.sub(rb'("shared_object_id": )(\d+)', lambda m: m[1] + b"%d" % order.setdefault(m[2], len(order)), config)


def load(path: Path, compile: bool = False) -> keras.Model:
    """The model in a .keras file, without running code from it (Keras' safe mode).

    compile: with its optimizer, to train on.

    Raises:
        AoiError: not a readable model file.
    """
    try:
        return keras.saving.load_model(path, compile=compile, safe_mode=True)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise refuse(path, f"not a model that can be loaded ({str(error)[:200]})", "Train again with --force")
