"""All that can be set, in one frozen object; and grids of such objects."""

import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, ValidationError

from flows.api.settings import ApiSettings
from model.settings import EvaluateSettings, PredictSettings, TrainSettings
from pipeline.settings import IngestSettings
from tfrecords.errors import SECRET, AoiError, Problem, refuse
from tfrecords.settings import PreprocessSettings, StageSettings

MOST_POINTS = 200
UNSET = "unset"  # how a setting without a value is written
FORM = (
    'Write [train] once and, below, a setting per line: epochs = 3. Text stands in quotes: weights = "none"; a path '
    "with backslashes in single ones"
)
PLAIN = {  # what pydantic says in words of Python
    "int_type": "It should be a whole number",
    "int_from_float": "It should be a whole number",
    "float_type": "It should be a number",
    "bool_type": "It should be true or false",
    "string_type": "It should be text; in a TOML file text stands in quotes",
    "model_type": "It should be a section: [train] and, below, a setting per line",
}
SWEPT = ("preprocess", "ingest", "train")  # sections that change what a point is measured by


class Settings(StageSettings):
    """One section per stage; `aoi settings` lists them."""

    preprocess: PreprocessSettings = Field(default_factory=PreprocessSettings)
    ingest: IngestSettings = Field(default_factory=IngestSettings)
    train: TrainSettings = Field(default_factory=TrainSettings)
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings)
    predict: PredictSettings = Field(default_factory=PredictSettings)
    api: ApiSettings = Field(default_factory=ApiSettings)


class GridPoint(NamedTuple):
    """One combination of a grid. values: of the axes alone, {"train.alpha": 0.5}; settings: all of them."""

    values: dict[str, Any]
    settings: Settings


def load_settings(config: str | None = None, overrides: Iterable[str] = ()) -> Settings:
    """Defaults, then a TOML file, then NAME=VALUE overrides.

    Raises:
        AoiError: a file that can't be read, an unknown name, a value of the wrong type or range; the known
            names are told.
    """
    values = _read_toml(config, "Name a TOML file with --config") if config else {}
    overrides = list(overrides)
    given = [each.partition("=")[0].strip() for each in overrides]
    return parse_settings(override(values, overrides), config or "--set", given)


def read_grid(path: str) -> dict[str, Any]:
    """The nested values of a TOML file like a settings file, in which a list stands for several values.

    Raises: AoiError for a file that can't be read.
    """
    return _read_toml(path, "Name a TOML file with lists in it")


def parse_grid(grid: Mapping[str, Any], settings: Settings, origin: str) -> list[GridPoint]:
    """All combinations of a grid's lists, over `settings`: axes in the order of `aoi settings`, the last one fastest.

    Raises: AoiError for anything that is no setting's value, told once for all points; a list that is empty or
        has a value twice; no list; too many points.
    """
    axes = {}
    for name, *_ in describe():
        section, _, key = name.partition(".")
        inside = grid.get(section)
        if isinstance(inside, Mapping) and isinstance(inside.get(key), list):
            axes[name] = inside[key]
    remedy = "Write one or more settings as lists, such as alpha = [0.25, 0.5]"
    problems = [Problem(origin, f"{name} is an empty list", remedy) for name, values in axes.items() if not values]
    problems += [
        Problem(
            origin,
            f"{name} is a list, and it changes no model",
            f"Give it one value; lists may stand in {', '.join(SWEPT)}",
        )
        for name in axes
        if name.partition(".")[0] not in SWEPT
    ]
    if problems:
        raise AoiError(problems)
    if (count := math.prod(map(len, axes.values()))) > MOST_POINTS:
        remedy = f"Shorten the lists to at most {MOST_POINTS} combinations, or divide them among several grids"
        raise refuse(origin, f"{count:,} points", remedy)
    points = []
    for values in product(*axes.values()):
        merged = settings.model_dump()
        for section, inside in grid.items():
            merged[section] = {**merged.get(section, {}), **inside} if isinstance(inside, Mapping) else inside
        for name, value in zip(axes, values, strict=True):
            section, _, key = name.partition(".")
            merged[section][key] = value
        try:
            chosen = parse_settings(merged, origin)
        except AoiError as error:
            problems += error.problems
        else:
            points.append(GridPoint({name: _swept(chosen, name) for name in axes}, chosen))
    if problems:
        raise AoiError(dict.fromkeys(problems))
    if not axes:
        raise refuse(origin, "no setting is a list, so there is nothing to compare", remedy)
    if len({point.settings for point in points}) < len(points):
        raise refuse(origin, "two points are the same", "Name every value of a list once")
    return points


def _swept(settings: Settings, name: str) -> Any:
    """The value of "train.alpha" as tables show it: of a weights file its name, for results hold no path."""
    section, _, key = name.partition(".")
    value = getattr(getattr(settings, section), key)
    return Path(value).name if name == "train.weights" else value


def override(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Nested values with NAME=VALUE texts put into them. Raises: AoiError for a text or name that is none."""
    changed = {section: dict(inside) if isinstance(inside, Mapping) else inside for section, inside in values.items()}
    for given in overrides:
        name, equals, text = given.partition("=")
        if not equals:
            raise refuse("--set", f"{given!r} is no NAME=VALUE", "Write it as --set train.epochs=3")
        section, dot, key = name.strip().partition(".")
        if not dot or not isinstance(changed.setdefault(section, {}), dict):
            raise refuse("--set", f"{name!r} names no setting", _known(name))
        changed[section][key] = _value(text.strip())
    return changed


def parse_settings(values: Mapping[str, Any], origin: str, overrides: Sequence[str] = ()) -> Settings:
    """Settings from nested values as TOML or JSON gives them. overrides: names of those that --set gave, and not what
    `origin` names. Raises: AoiError, see `load_settings`.
    """
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        problems = []
        for issue in error.errors():
            name = ".".join(str(part) for part in issue["loc"])[:120]
            place = "--set" if any(f"{name}.".startswith(f"{each}.") for each in overrides) else origin
            if issue["type"] == "extra_forbidden":
                problems.append(Problem(place, f"{name} is no setting", _known(name)))
            else:
                remedy = PLAIN.get(issue["type"], issue["msg"].replace("Input should", "It should"))
                shown = "a text that holds a secret" if issue["type"] == SECRET else _shown(issue["input"])
                problems.append(Problem(place, f"{name} is {shown}", remedy))
        raise AoiError(problems)
    except RecursionError:  # an enum tells what it does not know with all that is in it
        raise refuse(origin, "a value has too many others inside it", "Give each setting one number or one word")


def describe() -> Iterator[tuple[str, str, str, str]]:
    """(name, default, type and range, meaning) of every setting, in order."""
    for section, field in Settings.model_fields.items():
        kind: type[StageSettings] = field.annotation  # type: ignore[assignment]
        schema = kind.model_json_schema()
        for key, inner in kind.model_fields.items():
            default = inner.get_default(call_default_factory=True)
            text = UNSET if default is None else str(default)
            yield (
                f"{section}.{key}",
                text,
                _kind(schema["properties"][key], schema.get("$defs", {})),
                inner.description or "",
            )


def _kind(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if "$ref" in schema:  # an enum
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if "enum" in schema:
        return "|".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        schema = schema["anyOf"][0]
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    kind = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true|false"}[schema["type"]]
    if low is None:
        return kind
    return f"{kind} {'>' if 'exclusiveMinimum' in schema else '>='} {low:.15g}" + (
        "" if high is None else f", {'<' if 'exclusiveMaximum' in schema else '<='} {high:.15g}"
    )


def _read_toml(path: str, remedy: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise refuse(path, f"it can't be read ({error.strerror})", remedy)
    except UnicodeDecodeError as error:
        raise refuse(path, f"byte {error.start} is not UTF-8", "Save it as UTF-8")
    except (ValueError, RecursionError) as error:  # not TOML, or deeper and longer than Python reads
        raise refuse(path, f"not TOML ({error})", FORM)


def _value(text: str) -> Any:
    """A TOML value where it is one, else the text itself, so that paths and words need no quotes; None for "unset"."""
    if text == UNSET:
        return None
    try:
        values = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return values["value"] if len(values) == 1 else text


def _shown(value: Any) -> str:
    """The beginning of a value as Python writes it, or its kind where it is too long or deep to be written."""
    try:
        return repr(value)[:100]
    except (ValueError, RecursionError):
        return f"{type(value).__name__} beyond all bounds"


def _known(name: str) -> str:
    names = [known for known, *_ in describe()]
    section = name.partition(".")[0]
    inside = [known for known in names if known.startswith(f"{section}.")]
    return f"Known: {', '.join(inside or names)}"
