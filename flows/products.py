"""Products and their champions. A product is what the name of its data names: NAME in MLflow's model aoi-NAME."""

from contextlib import suppress
from dataclasses import asdict, dataclass

from flows.home import Home, Ref, data_name, name_of
from model.manifests import Model, ModelManifest
from model.registry.store import CHALLENGER, CHAMPION, store_of
from tfrecords.errors import AoiError, refuse

FORMER = "former-champions"


@dataclass(frozen=True)
class Champions:
    """What HOME notes of one product: its champion, its challenger, and the champions before."""

    home: Home
    product: str

    def noted(self, alias: str) -> Ref | None:
        """The model that is champion or challenger; None where there is none."""
        if noted := self.home.noted(f"{alias}-{self.product}"):
            return noted
        noted = self.home.noted(alias)  # version 0.1 had one champion for all products
        return noted if noted and product_of(noted) == self.product else None

    def note(self, alias: str, model: Model) -> Ref:
        """Makes a model champion or challenger."""
        return self.home.finished(model, True, f"{alias}-{self.product}")

    def former(self) -> list[Ref]:
        """The champions before the present one, the latest last."""
        noted = self.home.recall(f"{FORMER}-{self.product}")
        if noted is None:
            refs = [Ref(**note) for note in (self.home.recall(FORMER) or {"champions": []})["champions"]]
            return [ref for ref in refs if product_of(ref) == self.product]
        return [Ref(**note) for note in noted["champions"]]

    def note_former(self, refs: list[Ref]) -> None:
        """Sets the champions before the present one."""
        self.home.remember(f"{FORMER}-{self.product}", {"champions": [asdict(ref) for ref in refs]})


def product_of(model: Ref) -> str:
    """The product of a model, from its folder's name (NAME-FINGERPRINT)."""
    return model.folder.rpartition("/")[2].rpartition("-")[0]


def products(home: Home) -> list[str]:
    """Names of all products that HOME has a model of, sorted."""
    return sorted({path.name.rpartition("-")[0] for path in home.committed(ModelManifest)})


def choose_product(home: Home, product: str | None, data: str | None = None) -> str:
    """The product that is named, else the one named as the data's folder, else the only one of HOME.

    Raises: AoiError (exit code 2) with the list, where none of these is there.
    """
    known = products(home)
    listed = f"Name one of: {', '.join(known)}"
    if not known:
        raise refuse(home.root, "no finished model yet", "Run aoi train and aoi evaluate first")
    if product is not None:
        given, product = product, product if product in known else data_name(product)  # as the folder is written
        if product not in known:
            raise refuse("--product", f"{given!r} is no product in {home.root}", listed)
        return product
    if data is not None and data_name(data) in known:
        return data_name(data)
    if len(known) > 1:
        seen = f"{len(known)} products in {home.root}" + (
            f", and none has the name of the data, {data_name(data)}" if data else ""
        )
        raise refuse("--product", seen, listed)
    return known[0]


def choose_model(home: Home, model: str | None, product: str | None, data: str | None = None) -> Model:
    """The model that is named, else the champion of a product, see `choose_product`.

    Raises: AoiError where there is none.
    """
    if model is not None:
        return home.named(ModelManifest, model)
    chosen = choose_product(home, product, data)
    champion = Champions(home, chosen).noted(CHAMPION)
    if champion is None:
        raise refuse(home.root, f"no champion of {chosen} yet", "Run aoi evaluate first, or name a model")
    return home.open(champion, ModelManifest)


def describe_model(home: Home, model: Model) -> str:
    """'models/neu-1cba, champion of neu': which model answers, for people."""
    product, folder = name_of(model), home.ref(model, True).folder
    for alias in (CHAMPION, CHALLENGER):
        noted = Champions(home, product).noted(alias)
        if noted and noted.fingerprint == model.fingerprint:
            return f"{folder}, {alias} of {product}"
    return f"{folder} of {product}"


def crown(champions: Champions, challenger: Model, alias: str) -> None:
    """Notes a model that was judged as champion, and the one before as former; or as challenger."""
    before = champions.noted(CHAMPION)
    if alias == CHAMPION and before:
        champions.note_former([*champions.former(), before])
    champions.note(alias, challenger)


def rollback(home: Home, product: str | None) -> tuple[Ref, str]:
    """Makes the champion before the present one champion again, here and in MLflow.

    product: whose; none: the only one of HOME. Returns: the champion, and its product. Raises: AoiError for none.
    """
    from model.registry import tracking

    champions = Champions(home, choose_product(home, product))
    former = champions.former()
    while former:
        *former, last = former
        with suppress(AoiError):  # one that was deleted since can't come back
            back = home.open(last, ModelManifest)
            store = store_of(home.root, champions.product)
            tracking.move_alias(store, back.manifest.mlflow.run_id, CHAMPION, "rolled back to")
            champions.note_former(former)
            return champions.note(CHAMPION, back), champions.product
    seen = f"no champion of {champions.product} before the present one"
    raise refuse(home.root, seen, "Train and evaluate another model")
