"""Hostile settings: TOML files and --set options with every wrong type, and files that are no TOML."""

import math
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from oracle import DAMAGED, EITHER, WHOLE, accepted, refused, require

from flows.settings import describe, load_settings
from tfrecords.errors import AoiError

KINDS = {name: kind for name, _, kind, _ in describe()}  # such as "train.alpha": "number > 0, <= 2"
WORDS = {
    name: [int(word) if word.isdigit() else word for word in kind.split("|")]
    for name, kind in KINDS.items()
    if "|" in kind and kind != "true|false"
}
UNSET = {name for name, default, _, _ in describe() if default == "unset"}  # by default, and by None
PART = r"\d+(,\d+){3}|\d*\.\d+(,\d*\.\d+){3}"  # of a picture, of whole numbers or of shares
# TOML literals by type; none of them is right for a setting of another type, but whole numbers for numbers.
LITERALS = {
    "whole number": ("7", "-1", "0x10", "99999999999999999999", "0x" + "f" * 6000),
    "number": ("2.5", "-0.5", "1e3", "nan", "inf", "-inf", "1e400"),
    "text": ('"7"', '""', "'words'", '"\\u001b[2J"', '"' + "x" * 5000 + '"', '"""a\nb"""'),
    "true|false": ("true", "false"),
    "date": ("1979-05-27", "07:32:00", "1979-05-27T07:32:00Z"),
    "list": ("[]", "[1, 2]", '["a"]', "[[[]]]", "[" * 60 + "]" * 60, "[" * 3000 + "]" * 3000),
    "table": ("{}", "{a = 1}", "{a = {b = [1]}}"),
}


@dataclass(frozen=True)
class Case:
    """A settings file's bytes, or None, and the options after --set. expected: WHOLE, DAMAGED or EITHER."""

    name: str
    data: bytes | None
    overrides: tuple[str, ...]
    expected: str


def type_of(name: str) -> str:
    """The key of LITERALS that a setting takes."""
    return next((kind for kind in ("whole number", "number", "true|false") if KINDS[name].startswith(kind)), "text")


def types_of(name: str) -> set[str]:
    """The keys of LITERALS among which a setting may find what it takes."""
    numbers = any(isinstance(word, int) for word in WORDS.get(name, ()))
    return {type_of(name)} | ({"whole number"} if numbers or type_of(name) == "number" else set())


def same(name: str, told: Any, value: Any) -> bool:
    """Whether a setting is what was given. Blanks in a part of a picture say nothing."""
    if name == "preprocess.crop" and isinstance(value, str):
        value = value.replace(" ", "") or None
    return bool(told == value)


def within(name: str, value: Any) -> bool:
    """Whether a value lies in the range and type that `aoi settings` shows."""
    if value is None:
        return name in UNSET
    if name in WORDS:
        return any(value == word and isinstance(value, type(word)) for word in WORDS[name])
    kind = type_of(name)
    if kind == "true|false":
        return isinstance(value, bool)
    if name == "preprocess.crop":
        return isinstance(value, str) and re.fullmatch(PART, value.replace(" ", "") or "0,0,1,1") is not None
    if kind == "text":
        return isinstance(value, str)
    if type(value) is not int and (kind == "whole number" or type(value) is not float or not math.isfinite(value)):
        return False
    checks = {">=": value.__ge__, "<=": value.__le__, ">": value.__gt__, "<": value.__lt__}
    for sign, bound in re.findall(r"([<>]=?) ([^\s,]+)", KINDS[name]):
        number = float(bound)
        if checks[sign](int(number) if type(value) is int and number.is_integer() else number) is False:
            return False
    return True


def as_toml(values: dict[str, str]) -> bytes:
    """Settings' names and TOML literals as a file with a section a stage."""
    sections: dict[str, list[str]] = {}
    for name, literal in values.items():
        section, _, key = name.partition(".")
        sections.setdefault(section, []).append(f"{key} = {literal}")
    return "\n".join(line for section, lines in sections.items() for line in (f"[{section}]", *lines)).encode()


def right(rng: np.random.Generator, name: str) -> str:
    """A literal that the setting takes."""
    if name == "train.devices":  # another number may not divide train.batch_size
        return str(rng.choice(['"auto"', "1"]))
    if name == "train.alpha":  # another width may not be one of train.backbone
        return "1.0"
    if name in WORDS:
        word = WORDS[name][rng.integers(len(WORDS[name]))]
        return str(word) if isinstance(word, int) else f'"{word}"'
    if name == "preprocess.crop":
        return str(rng.choice(['"10,20,300,200"', '"0, 0, 1, 1"', '"0.1,0.1,0.5,0.5"']))
    if type_of(name) == "true|false":
        return str(rng.choice(["true", "false"]))
    if type_of(name) == "text":
        return f'"{rng.bytes(int(rng.integers(1, 40))).hex()}"'
    bounds = re.findall(r"([<>]=?) ([^\s,]+)", KINDS[name])
    low = next((float(bound) for sign, bound in bounds if sign[0] == ">"), 0.0)
    high = next((float(bound) for sign, bound in bounds if sign[0] == "<"), low + 1000)
    if type_of(name) == "whole number":
        return str(int(rng.integers(int(low), int(high) + all(sign != "<" for sign, _ in bounds))))
    return repr(float(low + (high - low) * rng.uniform(0.001, 0.999)))


def some(rng: np.random.Generator) -> list[str]:
    return [str(name) for name in rng.choice(list(KINDS), int(rng.integers(1, 5)), replace=False)]


def whole(rng: np.random.Generator) -> Case:
    values = {name: right(rng, name) for name in some(rng)}
    if rng.random() < 0.3:
        return Case("right options", None, tuple(f"{name}={value}" for name, value in values.items()), WHOLE)
    return Case("right values", as_toml(values), (), WHOLE)


def wrong_type(rng: np.random.Generator) -> Case:
    names = some(rng)
    values = {name: right(rng, name) for name in names}
    kinds = [kind for kind in LITERALS if kind not in types_of(names[0])]
    kind = str(rng.choice(kinds))
    literal = LITERALS[kind][rng.integers(len(LITERALS[kind]))]
    values[names[0]] = literal
    if rng.random() < 0.2 and "\n" not in literal and type_of(names[0]) != "text":
        return Case(f"option {kind}", None, (f"{names[0]}={literal}",), DAMAGED)
    return Case(f"{kind} for {names[0]}", as_toml(values), (), DAMAGED)


def any_literal(rng: np.random.Generator) -> Case:
    values = {}
    for name in some(rng):
        kind = LITERALS[str(rng.choice(list(LITERALS)))]
        values[name] = kind[rng.integers(len(kind))]
    return Case("any values", as_toml(values), (), EITHER)


def wrong_name(rng: np.random.Generator) -> Case:
    names = ("nope", "train.nope", "nope.epochs", "train.epochs.x", '"".x', '"\\u001b[2J"', "train.EPOCHS", "x" * 9999)
    name = names[rng.integers(len(names))]
    if rng.random() < 0.3:
        return Case("unknown option", None, (f"{name}=1",), DAMAGED)
    return Case("unknown name", f"{name} = 1".encode(), (), DAMAGED)


def wrong_section(rng: np.random.Generator) -> Case:
    section = name.partition(".")[0] if (name := str(rng.choice(list(KINDS)))) else ""
    literals = [literal for kind in LITERALS if kind != "table" for literal in LITERALS[kind]]
    texts = [f"{section} = {literals[rng.integers(len(literals))]}", f"[[{section}]]\nx = 1", f"[{section}.{section}]"]
    texts += [f"[{section}]\n{name.partition('.')[2]}.{'.'.join('a' * int(rng.integers(1, 1500)))} = 1"]
    return Case("wrong section", texts[rng.integers(len(texts))].encode(), (), DAMAGED)


def no_toml(rng: np.random.Generator) -> Case:
    texts = (b"\xff\xfe", b"{}", b"[train", b"= 1", b"\0", b"a = 1\na = 2", b"<html>", b"x = " + b"[" * 100_000)
    text = texts[rng.integers(len(texts))]
    return Case("no TOML", text if rng.random() < 0.7 else whole(rng).data or text, (), EITHER)


def changed(rng: np.random.Generator) -> Case:
    data = bytearray(any_literal(rng).data)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(data)))
        data[at : at + int(rng.integers(2))] = (
            rng.bytes(1) if rng.random() < 0.4 else b'=[]{}".\n# 1a'[rng.integers(12) :][:1]
        )
    return Case("changed bytes", bytes(data), (), EITHER)


def any_option(rng: np.random.Generator) -> Case:
    name = some(rng)[0] if rng.random() < 0.6 else bytes(rng.integers(32, 127, 6, np.uint8)).decode()
    text = rng.bytes(int(rng.integers(0, 12))).decode("utf-8", "surrogateescape")
    return Case("any option", None, (f"{name}={text}" if rng.random() < 0.9 else name,), EITHER)


MAKERS: tuple[Callable[[np.random.Generator], Case], ...] = (
    *(whole, whole, wrong_type, wrong_type, wrong_type, any_literal, any_literal),
    *(wrong_name, wrong_section, no_toml, changed, any_option),
)


def make(rng: np.random.Generator) -> Case:
    """Any case; all its chances come from `rng`."""
    return MAKERS[rng.integers(len(MAKERS))](rng)


def check(path: Path, case: Case) -> str:
    """EQUAL or REJECTED, for case.data as the file at `path`, which an accepted one must agree with."""
    if case.data is not None:
        path.write_bytes(case.data)
    try:
        settings = load_settings(str(path) if case.data is not None else None, case.overrides)
    except AoiError as error:
        return refused(case.expected, error)
    told = settings.model_dump()
    for section, values in (tomllib.loads(case.data.decode()) if case.data is not None else {}).items():
        for key, value in values.items():
            require(
                same(f"{section}.{key}", told[section][key], value),
                f"{section}.{key} is not what the file says: {case.name}",
            )
            require(within(f"{section}.{key}", value), f"a wrong {section}.{key} was accepted: {case.name}")
    for section, values in told.items():
        for key, value in values.items():
            require(within(f"{section}.{key}", value), f"a wrong {section}.{key} came of it: {case.name}")
    settings.model_dump_json()
    return accepted(case.expected, case.name)


class Kind:
    """Settings, one file or option at a time."""

    def __init__(self, root: Path):
        self.path = root / "data" / "settings.toml"
        self.path.parent.mkdir()

    def run(self, rng: np.random.Generator) -> str:
        return check(self.path, make(rng))
