"""Products in one HOME: each has a champion of its own, and it is always clear whose model answers."""

import csv
import shutil
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from flows.cli import main
from flows.home import Ref
from flows.products import Champions, choose_model, choose_product, products, rollback
from flows.stages.evaluate import evaluate
from flows.stages.export import export
from flows.stages.ingest import ingest
from flows.stages.predict import predict
from flows.stages.stage import Job
from flows.stages.train import train
from model.manifests import ExportManifest, PredictionManifest
from model.registry.store import CHALLENGER, CHAMPION, store_of
from model.registry.tracking import connect
from model.settings import Recipe
from tfrecords.errors import AoiError

OLD = ("champion", "challenger", "former-champions")  # notes of version 0.1, for all products


def frozen(settings, **more):
    """Settings of a training that takes a second."""
    return settings.model_copy(update={"train": settings.train.model_copy(update={"recipe": Recipe.FROZEN, **more})})


@pytest.fixture(scope="module")
def shop(made, copy_home, look_alike, tmp_path_factory):
    """A HOME with two products: "tiny" of the whole run, then "other", whose files are named alike."""
    data, _, settings, refs = made
    home = copy_home(tmp_path_factory.mktemp("products") / "home")
    job = Job(home, frozen(settings))
    dataset = ingest(job, str(look_alike))
    model = train(job, dataset.folder)
    judged = evaluate(job, model.folder)
    return SimpleNamespace(
        home=home, job=job, judged=judged, models={"tiny": refs["train"], "other": model}, data=data, other=look_alike
    )


@pytest.fixture
def own(shop, copy_home, tmp_path):
    """A copy of that HOME that a test may change, with the job in it."""
    return Job(copy_home(tmp_path / "home", shop.home), shop.job.settings)


def aliases(home, product):
    """Champion and challenger of a product in MLflow, as fingerprints."""
    client = connect(store_of(home.root, product))
    found = {}
    for alias, version in client.get_registered_model(f"aoi-{product}").aliases.items():
        run = client.get_run(client.get_model_version(f"aoi-{product}", version).run_id)
        found[alias] = run.data.tags["aoi.training"]
    return found


# --- Two products -------------------------------------------------------------------------------------------


def test_their_files_have_the_same_names_and_no_content_in_common(shop):
    datasets = [
        path for path in (shop.home.root / "datasets").iterdir() if path.name.startswith(("tiny-train", "other-train"))
    ]
    tables = []
    for path in datasets:
        with open(path / "rows.csv", newline="") as file:
            tables.append({row["id"]: row["sha256"] for row in csv.DictReader(file)})
    one, other = tables
    assert set(one) == set(other)
    assert not set(one.values()) & set(other.values())


def test_the_second_product_is_judged_against_nothing_of_the_first(shop):
    assert shop.judged.note.splitlines()[0] == "champion of other: there was no champion to compare with"
    for product, model in shop.models.items():
        assert Champions(shop.home, product).noted(CHAMPION).fingerprint == model.fingerprint
        assert Champions(shop.home, product).noted(CHALLENGER) is None
        assert Champions(shop.home, product).former() == []
        assert aliases(shop.home, product) == {CHAMPION: model.fingerprint}
    assert products(shop.home) == ["other", "tiny"]


def test_a_new_model_is_judged_against_the_champion_of_its_product_alone(own, shop, made):
    dataset = made[3]["ingest"].folder
    job = Job(own.home, frozen(own.settings, seed=3))
    newer = train(job, dataset)
    note = evaluate(job, newer.folder).note
    assert note.split(":")[0] in ("champion of tiny", "challenger of tiny")
    assert "common pictures" in note
    assert Champions(own.home, "other").noted(CHAMPION).fingerprint == shop.models["other"].fingerprint
    assert aliases(own.home, "other") == {CHAMPION: shop.models["other"].fingerprint}


# --- Whose champion answers ---------------------------------------------------------------------------------

# (--model, --product, the data's folder) -> the product whose champion answers
ANSWERS = {
    "the model that is named, whatever the data": (("other", "tiny", "/lots/tiny"), "other"),
    "else the product that is named": ((None, "other", "/lots/tiny"), "other"),
    "else the product named as the data's folder": ((None, None, "/lots/tiny"), "tiny"),
    "on a bucket too": ((None, None, "gs://lots/other/"), "other"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_which_champion_answers(case, shop):
    (model, product, data), expected = ANSWERS[case]
    name = shop.models[model].folder if model else None
    assert choose_model(shop.home, name, product, data).fingerprint == shop.models[expected].fingerprint


@pytest.mark.parametrize("data", [None, "/lots/lot-7"])
def test_the_only_product_of_a_home_answers_for_any_data(data, made):
    _, home, _, refs = made
    assert choose_model(home, None, None, data).fingerprint == refs["train"].fingerprint


@pytest.mark.parametrize(
    ("product", "data", "told"),
    [
        (None, "/lots/lot-7", "2 products in {home}, and none has the name of the data, lot-7"),
        (None, None, "2 products in {home}"),
        ("neu", "/lots/tiny", "'neu' is no product in {home}"),
    ],
)
def test_where_no_product_is_meant_the_list_of_them_is_told(product, data, told, shop):
    with pytest.raises(AoiError) as refused:
        choose_product(shop.home, product, data)
    assert refused.value.exit_code == 2
    assert str(refused.value) == f"--product: {told.format(home=shop.home.root)}. Name one of: other, tiny."


def test_a_product_without_a_champion_says_what_to_run(own):
    (own.home.root / "latest" / "champion-other.json").unlink()
    with pytest.raises(AoiError, match=r"no champion of other yet\. Run aoi evaluate first, or name a model"):
        choose_model(own.home, None, "other")


def test_predict_answers_with_the_data_s_own_product_and_says_so(own, shop):
    for product, data in (("tiny", shop.data), ("other", shop.other), ("tiny", shop.data)):
        ref = predict(own, data=str(data))
        made = own.home.open(ref, PredictionManifest).manifest
        assert made.model.fingerprint == shop.models[product].fingerprint
        assert ref.note.splitlines()[0] == f"model: {shop.models[product].folder}, champion of {product}"


def test_predict_says_so_too_where_another_product_s_model_was_asked_for(own, shop):
    for given in ({"product": "other"}, {"model": shop.models["other"].folder}):
        ref = predict(own, data=str(shop.data), **given)
        assert own.home.open(ref, PredictionManifest).manifest.model.fingerprint == shop.models["other"].fingerprint
        assert ref.note.splitlines()[0] == f"model: {shop.models['other'].folder}, champion of other"


def test_predict_names_a_model_that_is_no_champion(own, shop):
    (own.home.root / "latest" / "champion-other.json").unlink()
    ref = predict(own, model=shop.models["other"].folder, data=str(shop.other))
    assert ref.note.splitlines()[0] == f"model: {shop.models['other'].folder} of other"


def test_a_lot_of_another_name_needs_its_product(own, shop, tmp_path):
    lot = shutil.copytree(shop.data, tmp_path / "lot-7")
    with pytest.raises(AoiError, match=r"none has the name of the data, lot-7\. Name one of: other, tiny"):
        predict(own, data=str(lot))
    ref = predict(own, product="tiny", data=str(lot))
    assert own.home.open(ref, PredictionManifest).manifest.model.fingerprint == shop.models["tiny"].fingerprint


def test_export_takes_a_product_s_champion(own, shop):
    with pytest.raises(AoiError, match="2 products"):
        export(own)
    ref = export(own, product="other")
    assert own.home.open(ref, ExportManifest).manifest.model.fingerprint == shop.models["other"].fingerprint


def test_the_command_line_refuses_with_the_list_and_takes_the_product(own, shop, tmp_path, capsys):
    lot = shutil.copytree(shop.other, tmp_path / "lot-7")
    given = ["predict", "--home", str(own.home.root), "--data", str(lot)]
    assert main(given) == 2
    assert "Name one of: other, tiny" in capsys.readouterr().err
    assert main([*given, "--product", "other"]) == 0
    assert f"model: {shop.models['other'].folder}, champion of other" in capsys.readouterr().err
    assert main(["rollback", "--home", str(own.home.root)]) == 2
    assert "--product: 2 products" in capsys.readouterr().err


# --- Rolled back --------------------------------------------------------------------------------------------


def test_a_product_is_rolled_back_without_the_other(own, shop):
    job = Job(own.home, frozen(own.settings, seed=3))
    newer = train(job, own.home.recall("dataset")["folder"])  # that of the other product, which came last
    evaluate(job, newer.folder)
    champions = Champions(own.home, "other")
    champions.note(CHAMPION, choose_model(own.home, newer.folder, None))  # whatever the verdict was
    champions.note_former([shop.models["other"]])
    with pytest.raises(AoiError, match=r"--product: 2 products .* Name one of: other, tiny"):
        rollback(own.home, None)
    with pytest.raises(AoiError, match="no champion of tiny before the present one"):
        rollback(own.home, "tiny")
    ref, product = rollback(own.home, "other")
    assert (ref.fingerprint, product) == (shop.models["other"].fingerprint, "other")
    assert aliases(own.home, "other")[CHAMPION] == shop.models["other"].fingerprint
    assert Champions(own.home, "tiny").noted(CHAMPION).fingerprint == shop.models["tiny"].fingerprint
    assert champions.former() == []


# --- Notes of version 0.1 -----------------------------------------------------------------------------------


@pytest.fixture
def older(own, shop):
    """The HOME as version 0.1 left it: one champion, of "tiny", and former ones of both products."""
    for note in (own.home.root / "latest").glob("champion-*.json"):
        note.unlink()
    tiny, other = (asdict(shop.models[product]) for product in ("tiny", "other"))
    own.home.remember("champion", tiny)
    own.home.remember("challenger", other)
    own.home.remember("former-champions", {"champions": [other, tiny, other]})
    return own


def contents(home):
    return [(home.root / "latest" / f"{name}.json").read_bytes() for name in OLD]


def test_they_count_for_the_product_of_the_model_that_they_name_and_for_no_other(older, shop):
    tiny, other = (Champions(older.home, product) for product in ("tiny", "other"))
    assert tiny.noted(CHAMPION) == Ref(**asdict(shop.models["tiny"]))
    assert other.noted(CHAMPION) is None
    assert (tiny.noted(CHALLENGER), other.noted(CHALLENGER)) == (None, shop.models["other"])
    assert (tiny.former(), other.former()) == ([shop.models["tiny"]], [shop.models["other"]] * 2)
    assert choose_model(older.home, None, "tiny").fingerprint == shop.models["tiny"].fingerprint
    with pytest.raises(AoiError, match="no champion of other yet"):
        choose_model(older.home, None, "other")


def test_a_product_that_gets_its_champion_now_leaves_them_as_they_are(older, shop):
    before = contents(older.home)
    judged = evaluate(older, shop.models["other"].folder)
    assert judged.note.splitlines()[0] == "champion of other: there was no champion to compare with"
    assert contents(older.home) == before
    for product, model in shop.models.items():
        assert Champions(older.home, product).noted(CHAMPION).fingerprint == model.fingerprint


def test_they_are_rolled_back_by_product(older, shop):
    before = contents(older.home)
    assert rollback(older.home, "other")[0].fingerprint == shop.models["other"].fingerprint
    assert rollback(older.home, "tiny")[0].fingerprint == shop.models["tiny"].fingerprint
    assert contents(older.home) == before
    assert Champions(older.home, "tiny").former() == []
    assert Champions(older.home, "other").former() == [shop.models["other"]]
    with pytest.raises(AoiError, match="no champion of tiny before the present one"):
        rollback(older.home, "tiny")


def test_a_product_may_be_named_as_its_folder_is_written(shop):
    assert choose_product(shop.home, "lots/tiny/") == "tiny"
