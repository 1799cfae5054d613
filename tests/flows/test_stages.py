"""The stages as plain functions: which upstream they take, in which order they go, and HOMEs that move."""

import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from flows.home import Home, Ref, data_name, name_of
from flows.settings import load_settings
from flows.stages import load_stage
from flows.stages.chain import chain
from flows.stages.crossval import crossval
from flows.stages.evaluate import evaluate
from flows.stages.ingest import ingest
from flows.stages.predict import predict
from flows.stages.stage import Job
from flows.stages.train import train
from flows.summary import audit_rows, trained_epochs
from model.manifests import EvaluationManifest, ModelManifest, PredictionManifest
from tfrecords.dataset import DatasetManifest
from tfrecords.errors import AoiError

KIND_OF = {
    "ingest": DatasetManifest,
    "train": ModelManifest,
    "evaluate": EvaluationManifest,
    "predict": PredictionManifest,
}


def recorder(refs):
    """(run function for `chain` that only notes what it is asked, those notes)."""
    calls = []

    def run(stage, **given):
        calls.append((stage, given))
        return refs[stage]

    return run, calls


def run_chain(job, data):
    return chain(lambda stage, **given: load_stage(stage).run(job, **given), job, str(data))


@pytest.fixture(scope="module")
def home(copy_home, tmp_path_factory):
    return copy_home(tmp_path_factory.mktemp("stages") / "home")


@pytest.fixture(scope="module")
def job(home, made):
    """As the whole run was made, in a copy of its HOME."""
    return Job(home, made[2])


# --- The chain ----------------------------------------------------------------------------------------------


def test_the_chain_is_ingest_train_evaluate_predict_and_each_gets_what_came_before(made):
    data, home, settings, refs = made
    run, calls = recorder(refs)
    assert chain(run, Job(home, settings), str(data), "--x=1") == refs
    assert calls == [
        ("ingest", {"data": str(data), "beam": "--x=1"}),
        ("train", {"dataset": refs["ingest"].folder}),
        ("evaluate", {"model": refs["train"].folder}),
        ("predict", {"model": refs["train"].folder, "data": str(data), "beam": "--x=1"}),
    ]


LATE = {
    "train.weights=nowhere.weights.h5": "there is no such weights file",
    "train.fold=5": "train.fold: 5, of a dataset with 5 folds",
    "ingest.folds=21": "the smallest, 0 (plain), has 20",
    "evaluate.normal_class=3": "evaluate.normal_class: 3, of 3 classes",
    "predict.unreadable_label=3": "predict.unreadable_label: 3, of 3 classes",
}


@pytest.mark.parametrize("override", LATE)
def test_what_a_late_stage_would_refuse_is_refused_before_the_first(override, made):
    data, home, _, refs = made
    run, calls = recorder(refs)
    with pytest.raises(AoiError) as refused:
        chain(run, Job(home, load_settings(overrides=[override])), str(data))
    assert LATE[override] in str(refused.value)
    assert not calls


@pytest.mark.parametrize("gone", ["train.csv", "test_images/test_002.png", "train_images/train_002.png"])
def test_an_input_that_a_late_stage_needs_is_missed_before_the_first(gone, data, made):
    (data / gone).unlink()
    run, calls = recorder(made[3])
    with pytest.raises(AoiError, match=Path(gone).name):
        chain(run, Job(made[1], made[2]), str(data))
    assert not calls


def test_a_failed_bound_stops_the_chain_before_predict(made, job):
    data, _, _, refs = made
    strict = load_settings(overrides=["evaluate.minimum_accuracy=1"]).evaluate
    job = replace(job, settings=job.settings.model_copy(update={"evaluate": strict}))
    called = []

    def run(stage, **given):
        called.append(stage)
        return evaluate(job, **given) if stage == "evaluate" else refs[stage]

    with pytest.raises(AoiError) as failed:
        chain(run, job, str(data))
    assert failed.value.exit_code == 1
    assert called == ["ingest", "train", "evaluate"]


# --- References ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", KIND_OF)
def test_a_reference_is_json_and_relative_to_home_and_leads_to_the_artefact(stage, made):
    _, home, _, refs = made
    ref = refs[stage]
    assert Ref(**json.loads(json.dumps(asdict(ref)))) == ref
    assert not Path(ref.folder).is_absolute()
    assert ref.kind == KIND_OF[stage].KIND
    artifact = home.open(ref, KIND_OF[stage])
    assert artifact.fingerprint == ref.fingerprint
    assert name_of(artifact) == "tiny"


def test_asked_again_every_stage_is_found_and_refers_to_the_same(made, job):
    data, _, _, refs = made
    again = run_chain(job, data)
    assert {stage: ref.folder for stage, ref in again.items()} == {stage: ref.folder for stage, ref in refs.items()}
    assert all(ref.cached for ref in again.values())


@pytest.mark.parametrize("stage", ["ingest", "predict"])
def test_force_makes_it_again_and_the_same(stage, made, job):
    data, _, _, refs = made
    ref = load_stage(stage).run(replace(job, force=True), data=str(data))
    assert not ref.cached
    assert ref.folder == refs[stage].folder


def test_a_home_that_moved_is_as_good_as_before(made, copy_home, tmp_path):
    data, _, settings, refs = made
    old = copy_home(tmp_path / "old")
    moved = Home(tmp_path / "a" / "new place")
    moved.root.parent.mkdir()
    shutil.move(old.root, moved.root)
    again = run_chain(Job(moved, settings), data)
    assert [(ref.folder, ref.cached) for ref in again.values()] == [(ref.folder, True) for ref in refs.values()]
    assert not evaluate(Job(moved, settings, force=True)).cached  # writes to MLflow, whose file names moved with it
    assert not old.root.exists()


def test_crossval_makes_a_model_for_every_fold_and_judges_them_on_all_pictures(made, copy_home, tmp_path):
    data, _, _, refs = made
    home = copy_home(tmp_path / "home")
    options = ["preprocess.image_size_px=32", "train.alpha=0.25", "train.recipe=frozen", "ingest.folds=2"]
    told = []
    job = Job(home, load_settings(overrides=options), progress=lambda *call: told.append(call))
    ingest(job, str(data))
    fold = job.settings.train.model_copy(update={"fold": 1})
    alone = train(replace(job, settings=job.settings.model_copy(update={"train": fold})))  # on another machine, say
    before = (home.root / alone.folder / "manifest.json").stat().st_mtime_ns
    told.clear()
    ref = crossval(job)
    assert (home.root / alone.folder / "manifest.json").stat().st_mtime_ns == before
    members = [path for path in home.committed(ModelManifest) if path.name not in ref.folder + refs["train"].folder]
    assert len(members) == 2
    assert "validation accuracy" in ref.note
    assert told[-1][0] <= told[-1][1]
    evaluation = home.evaluation_of(ref.fingerprint)
    assert evaluation.manifest.metrics["pictures"] == 60  # each by the network that did not see it
    again = crossval(job)
    assert (again.folder, again.cached) == (ref.folder, True)
    assert home.open(predict(job, ref.folder), PredictionManifest).manifest.pictures == 9


# --- The audit ----------------------------------------------------------------------------------------------


def test_a_set_s_audit_is_its_own_and_not_that_of_the_set_before(made, data, tmp_path):
    job = Job(Home(tmp_path / "home"), made[2])
    clean = shutil.copytree(data, tmp_path / "clean")
    shutil.copy(data / "train_images" / "train_001.png", data / "train_images" / "train_004.png")
    findings, job = {}, replace(job, home=Home(tmp_path / "home"))
    for name, folder in (("dirty", data), ("clean", clean), ("dirty again", data)):
        ref = ingest(job, str(folder))
        findings[name] = [row["finding"] for row in audit_rows(job.home, ref)]
    assert findings == {"dirty": ["identical"], "clean": ["none"], "dirty again": ["identical"]}


def test_a_set_whose_audit_is_gone_has_no_findings_to_show(copy_home, made, tmp_path):
    home = copy_home(tmp_path / "home")
    shutil.rmtree(home.root / "audits")
    assert audit_rows(home, made[3]["ingest"]) == []


# --- Which upstream -----------------------------------------------------------------------------------------


def test_a_stage_alone_takes_the_latest_upstream(made, job):
    refs = made[3]
    assert train(job).folder == refs["train"].folder
    assert evaluate(job).folder == refs["evaluate"].folder
    assert predict(job).folder == refs["predict"].folder


def test_data_that_was_used_last_need_not_be_named_again(made, job, data):
    refs = made[3]
    other = ingest(job, str(data))
    assert ingest(job).folder == other.folder != refs["ingest"].folder
    back = ingest(job, str(made[0]))
    assert ingest(job).folder == back.folder == refs["ingest"].folder


NAMED = {
    "relative": lambda home, ref: ref.folder,
    "absolute": lambda home, ref: str(home.root / ref.folder),
    "name": lambda home, ref: Path(ref.folder).name,
    "fingerprint": lambda home, ref: ref.fingerprint,
    "part": lambda home, ref: ref.fingerprint[:6],
}


@pytest.mark.parametrize("how", NAMED)
@pytest.mark.parametrize("stage", KIND_OF)
def test_an_artefact_is_named_by_its_folder_or_any_part_of_its_name(stage, how, made):
    _, home, _, refs = made
    name = NAMED[how](home, refs[stage])
    assert home.choose(KIND_OF[stage], name, "").fingerprint == refs[stage].fingerprint


@pytest.mark.parametrize(("named", "count"), [("tiny", 2), ("nothing-like-it", 0)])
def test_a_name_of_none_or_several_is_refused_with_those_that_there_are(named, count, made):
    _, home, _, refs = made
    with pytest.raises(AoiError) as refused:
        home.choose(DatasetManifest, named, "")
    assert f"{count} of the datasets" in str(refused.value)
    assert Path(refs["ingest"].folder).name in str(refused.value)
    assert refused.value.problems[0].file == "--dataset"


def test_a_folder_of_another_kind_is_refused(made):
    _, home, _, refs = made
    with pytest.raises(AoiError, match="a dataset of schema version 1, not a model"):
        home.choose(ModelManifest, refs["ingest"].folder, "")


@pytest.mark.parametrize(
    ("stage", "given", "told"),
    [
        ("ingest", {}, "no data was used here yet"),
        ("train", {}, "no finished dataset yet. Run aoi ingest"),
        ("crossval", {}, "no finished dataset yet. Run aoi ingest"),
        ("sweep", {"grid": {"train": {"seed": [0, 1]}}}, "no data was used here yet"),
        ("evaluate", {}, "no finished model yet. Run aoi train"),
        ("predict", {}, "no data was used here yet"),
        ("predict", {"data": "pictures"}, "no finished model yet. Run aoi train and aoi evaluate"),
        ("export", {}, "no finished model yet. Run aoi train and aoi evaluate"),
    ],
)
def test_a_stage_without_its_upstream_says_what_to_run_first(stage, given, told, tmp_path):
    with pytest.raises(AoiError) as refused:
        load_stage(stage).run(Job(Home(tmp_path / "home")), **given)
    assert told in str(refused.value)
    assert not (tmp_path / "home").exists()


def test_an_upstream_that_lost_a_file_is_refused_by_the_file_s_name(made, copy_home, tmp_path):
    home = copy_home(tmp_path / "home")
    (home.root / made[3]["train"].folder / "model.keras").unlink()
    with pytest.raises(
        AoiError, match=r"model\.keras: missing instead of \d+ bytes\. Make the model again: aoi train --force"
    ):
        evaluate(Job(home, made[2]))


def test_a_changed_manifest_of_the_dataset_is_told_by_its_file(made, copy_home, tmp_path):
    home = copy_home(tmp_path / "home")
    manifest = home.root / made[3]["ingest"].folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"records": ', '"records": 1'))
    with pytest.raises(AoiError, match=re.escape(f"{manifest}: it was changed after it was written")):
        evaluate(Job(home, made[2]))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/data/aidea", "aidea"),
        ("/data/lot 7/", "lot-7"),
        ("/data/-x-", "x"),
        ("/data/(7)", "7"),
        ("gs://bucket/some/lot.7/", "lot-7"),
        ("/", "data"),
    ],
)
def test_data_is_named_after_its_folder_in_plain_letters(path, name):
    assert data_name(path) == name


def test_data_whose_names_have_no_plain_letters_is_told_apart():
    names = {
        data_name(f"/data/{folder}")
        for folder in ("瑕疵", "外殼", "面板A", "面板B", "外殼A", "défaut", "dfaut", "data")
    }
    assert len(names) == 8
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in names)
    assert data_name("/data/de\u0301faut") == data_name("/data/d\u00e9faut/")


@pytest.mark.parametrize("wanted, told", [(3, "3 epochs"), (40, "3 of 40 epochs"), (None, "3 epochs")])
def test_the_summary_tells_the_epochs_that_were_trained(made, opened, tmp_path, wanted, told):
    (tmp_path / "history.csv").write_text("epoch,val_loss\n1,0.5\n2,0.4\n3,0.4\n")
    model = opened(made[1], made[3]["train"])
    settings = model.manifest.settings
    settings = settings.model_copy(update={"train": settings.train.model_copy(update={"epochs": wanted})})
    manifest = model.manifest.model_copy(update={"settings": settings})
    assert trained_epochs(replace(model, path=tmp_path, manifest=manifest)) == told


# --- Names of files ------------------------------------------------------------------------------------------

RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


def test_every_name_in_home_is_one_that_every_system_takes(made):
    home = made[1].root
    names = [path.relative_to(home) for path in home.rglob("*")]
    assert len(names) > 50
    for name in names:
        assert len(str(name)) < 160  # of the 260 that Windows allows with the folder before it
        for part in name.parts:
            assert not re.search(r'[<>:"/\\|?*\x00-\x1f]|[. ]$', part), name
            assert not RESERVED.fullmatch(part), name
