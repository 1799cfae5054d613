"""What a stage is: one function, what it makes, and what it can be told."""

import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

from flows.home import Home, Ref
from flows.settings import Settings
from tfrecords.artifacts.manifest import Manifest
from tfrecords.dataset import Dataset
from tfrecords.progress import Progress, silent


class Training(NamedTuple):
    """A model that a stage makes beside others. name: of it, for people."""

    name: str
    settings: Settings
    dataset: Dataset


Order = Callable[[Sequence[Training]], Generator[int]]


def one_by_one(trainings: Sequence[Training]) -> Generator[int]:
    """Places of trainings in the order in which to make them: as they stand."""
    yield from range(len(trainings))


@dataclass(frozen=True)
class Job:
    """What every stage is given.

    force: make again what is there; progress: hears of what is done; order: gives places of trainings in the order in
    which to make them, each once. Another process may have made one by then, see `flows.serving.sharing`.
    """

    home: Home
    settings: Settings = field(default_factory=Settings)
    force: bool = False
    progress: Progress = silent
    order: Order = one_by_one


class Option(NamedTuple):
    """Something that a stage can be told beside its settings.

    On the command line --NAME, or a word of its own where it has no default; in Prefect a parameter. read: from the
    text on the command line to the value; choices: the only texts that are taken; given: whether a deployment gets the
    value of its name that `aoi serve` was started with.
    """

    help: str
    metavar: str = "NAME"
    read: Callable[[str], Any] | None = None
    choices: tuple[str, ...] = ()
    given: bool = True


Options = Mapping[str, tuple[inspect.Parameter, Option]]


@dataclass(frozen=True)
class Stage:
    """One stage: the command line, the Prefect flows and the runner are made from this.

    run: (job, options...) to the reference of what was made; its annotations carry an Option each. makes: kinds of
    artefacts. has_settings: whether settings change anything. shortcuts: options of the command line that stand for a
    setting. overridden: the option that --set changes in place of the settings. show: what the command line prints of
    the result beside its place.
    """

    run: Callable[..., Ref]
    makes: tuple[type[Manifest], ...]
    has_settings: bool = True
    shortcuts: Mapping[str, str] = field(default_factory=dict)
    overridden: str = ""
    show: Callable[[Home, Ref], str] | None = None

    def options(self) -> Options:
        """What it can be told beside its settings, see `options_of`."""
        return options_of(self.run)


def options_of(function: Callable[..., Any]) -> Options:
    """Name of each parameter that is annotated with an Option, to the parameter with its plain type, and the Option."""
    hints = get_type_hints(function, include_extras=True)
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if get_origin(hints[name]) is Annotated:
            kind, option = get_args(hints[name])
            found[name] = (parameter.replace(annotation=kind), option)
    return found


DATA = Option("folder with pictures and CSVs, or with a folder per class (default: used last)", metavar="DIR")
BEAM = Option(
    'Beam\'s own options, as one string: "--direct_running_mode=multi_processing --direct_num_workers=2"',
    metavar="OPTIONS",
)
PRODUCT = Option("the product whose champion answers (default: named as the data's folder, else the only one)")
