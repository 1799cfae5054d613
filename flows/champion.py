"""Which model answers: the champion of a product as it changes, or one that is named."""

import json
import sys
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from flows.home import Home, Ref, name_of
from flows.products import Champions, choose_model, choose_product
from model.inference.answers import Answering
from model.manifests import Evaluation, Export, ExportManifest, Model
from model.registry.store import CHAMPION, registered_name
from model.settings import Precision, PredictSettings, Runtime
from tfrecords.artifacts.artifact import read
from tfrecords.artifacts.manifest import MANIFEST
from tfrecords.errors import refuse

FOLLOW_SECONDS = 1.0
OPERATING = "operating.json"  # of an evaluation


@dataclass(frozen=True)
class Served:
    """A model that answers, with all that belongs to it.

    operating: what its evaluation says of the operating point; exported: what answers in its place, in 8 bits.
    """

    model: Model
    evaluation: Evaluation | None
    operating: dict[str, Any] | None
    exported: Export | None
    settings: PredictSettings
    answering: Answering
    trained: str

    @cached_property
    def who(self) -> dict[str, Any]:
        """Name and version of the model in MLflow, and its fingerprint."""
        name, version = registered_name(name_of(self.model)), self.model.manifest.mlflow.version
        return {"name": name, "version": version or None, "fingerprint": self.model.fingerprint}

    def describe(self) -> dict[str, Any]:
        """What people and machines may want to know of it; JSON."""
        classifier = self.answering.classifier
        proven = self.settings.runtime == Runtime.LITERT and not self.settings.shift_copies
        return {
            "model": self.who,
            "classes": list(classifier.classes),
            "preprocess": classifier.preprocess.model_dump(mode="json"),
            "predict": self.settings.model_dump(mode="json", include={"runtime", "shift_copies"}),
            "operating": self.operating,
            "promise": self.operating.get("promise") if self.operating and proven else None,
            "trained": self.trained,
        }

    @cached_property
    def reference(self) -> dict[str, Any]:
        """What is usual of the model's pictures and answers, see `model.decisions.drift`."""
        known = self.evaluation.manifest.reference if self.evaluation else {}
        return known | (self.exported.manifest.reference if self.exported else {})


class Champion:
    """The model that answers now. It changes when HOME notes another champion, or another evaluation of it.

    model: the name of one that answers always; none: the champion of `product`. Raises: AoiError for none.
    """

    def __init__(self, home: Home, product: str | None, model: str | None, settings: PredictSettings):
        if settings.runtime == Runtime.KERAS:
            remedy = "Use litert, whose answers are the same, or litert-int8"
            raise refuse("predict.runtime", "this command runs without Keras", remedy)
        self._home, self._settings, self._model = home, settings, model
        self._product = None if model else choose_product(home, product)
        self._ended, self._told = threading.Event(), ""
        self.now = self._load()
        self._noted = self._note()
        self._following = threading.Thread(target=self._follow, name="champion", daemon=True)

    def follow(self) -> None:
        """Looks for another champion from now on, in a thread."""
        self._following.start()

    def close(self) -> None:
        """Stops looking."""
        self._ended.set()

    def look(self) -> None:
        """Lets another model answer where there is one; who has taken `now` keeps it."""
        try:
            noted = self._note()
            if noted != self._noted:
                self.now = self._load()
                self._noted = noted
                print(f"answers     {self.now.model.path}", flush=True)
            self._told = ""
        except Exception as error:  # gone or damaged in whatever way: who answers goes on, and so does this look
            if str(error) != self._told:
                print(f"aoi: {self.now.model.path.name} goes on answering: {error}", file=sys.stderr)
            self._told = str(error)

    def _follow(self) -> None:
        while not self._ended.wait(FOLLOW_SECONDS):
            self.look()

    def _note(self) -> tuple[Ref | None, dict[str, Any] | None]:
        """What HOME notes of the champion and its evaluation: small files, looked at every second."""
        champion = Champions(self._home, self._product).noted(CHAMPION) if self._product else None
        fingerprint = champion.fingerprint if champion else self.now.model.fingerprint
        return champion, self._home.recall(f"evaluation-{fingerprint}")

    def _load(self) -> Served:
        model = choose_model(self._home, self._model, self._product)
        evaluation = self._home.evaluation_of(model.fingerprint)
        exported = _int8_of(self._home, model) if self._settings.runtime == Runtime.LITERT_INT8 else None
        point = evaluation.manifest.operating.point if evaluation else None
        answering = Answering((exported or model).path, point, self._settings.shift_copies)
        answering.warm_up()
        file = evaluation.path / OPERATING if evaluation else None
        operating = json.loads(file.read_text(encoding="utf-8")) if file else None
        trained = datetime.fromtimestamp((model.path / MANIFEST).stat().st_mtime, UTC).isoformat(timespec="seconds")
        return Served(model, evaluation, operating, exported, self._settings, answering, trained)


def _int8_of(home: Home, model: Model) -> Export:
    """The model's export in 8 bits. Raises: AoiError where there is none."""
    for path in home.committed(ExportManifest):
        exported = read(path, ExportManifest)
        if exported.manifest.precision == Precision.INT8 and exported.manifest.model == model.made_from:
            return exported
    remedy = f"Run aoi export --model {model.path.name} --precision int8"
    raise refuse(home.folder(ExportManifest), f"no export of {model.path.name} in 8 bits", remedy)
