"""The card in the folder of a model or an export: what its networks are of no use without."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tfrecords.settings import PreprocessSettings

CARD_FILE = "card.json"


@dataclass(frozen=True)
class Card:
    """classes: names in label order. preprocess: what makes of a picture file what the networks see.

    networks: a name, of which the files NAME.keras and NAME.tflite have theirs, to the fold it did not train on;
    mirrors: of those that answer with the mean over mirror images, the name to the mirrorings, as
    `model.inference.classifier.mirrored` takes them.
    """

    classes: Sequence[str]
    preprocess: PreprocessSettings
    networks: Mapping[str, int]
    mirrors: Mapping[str, Sequence[str]] = field(default_factory=dict)


def write_card(folder: Path, card: Card) -> None:
    """Puts the card beside the networks."""
    facts = {
        "classes": list(card.classes),
        "preprocess": card.preprocess.model_dump(),
        "networks": dict(card.networks),
        "mirrors": {name: list(each) for name, each in card.mirrors.items() if each},
    }
    (folder / CARD_FILE).write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_card(folder: Path) -> Card:
    """The card of a model or an export."""
    facts = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    mirrors = facts.get("mirrors", {})  # cards of earlier versions have none
    return Card(tuple(facts["classes"]), PreprocessSettings(**facts["preprocess"]), facts["networks"], mirrors)
