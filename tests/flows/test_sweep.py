"""`aoi sweep`: every point of a grid through the real stages, a table, and MLflow's parent with the points in it."""

import csv
from dataclasses import replace
from types import SimpleNamespace

import pytest

from flows.cli import main
from flows.home import Home
from flows.settings import parse_grid
from flows.stages.evaluate import evaluate
from flows.stages.stage import Job
from flows.stages.sweep import make_sweep, sweep
from model.evaluation.sweep import Point, read_table
from model.manifests import ModelManifest, SweepManifest
from model.registry.store import CHAMPION, store_of
from model.registry.tracking import COPY_TAG, MLFLOW_PARENT_RUN_ID, connect
from tfrecords.dataset import DatasetManifest
from tfrecords.errors import AoiError

BASE = {"train": {"recipe": "frozen", "frozen_copies": 1}, "preprocess": {"image_size_px": 64}}
EQUALIZE, HEADS = ["clahe", "none"], ["gap", "flatten"]
GRID = {"train": {**BASE["train"], "head": HEADS}, "preprocess": {**BASE["preprocess"], "equalize": EQUALIZE}}
NOTED = ("dataset", "model", "evaluation", "champion-tiny")


def rows(home, ref):
    with open(home.root / ref.folder / "table.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def nested(home, parent):
    """The runs under a parent run, in the order that they began."""
    client = connect(store_of(home.root, "tiny"))
    experiment = client.get_experiment_by_name("tiny").experiment_id
    wanted = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}'"
    return client.search_runs([experiment], wanted, order_by=["attributes.start_time ASC"])


@pytest.fixture(scope="module")
def swept(made, copy_home, tmp_path_factory):
    """A sweep over four points on a copy of the whole run's HOME."""
    data, _, settings, _ = made
    home = copy_home(tmp_path_factory.mktemp("sweep") / "home")
    before = {name: home.recall(name) for name in NOTED}
    told = []
    job = Job(home, settings, progress=lambda *call: told.append(call))
    ref = sweep(job, GRID, str(data))
    return SimpleNamespace(home=home, job=job, ref=ref, told=told, before=before, data=data, settings=settings)


def test_the_table_has_a_row_a_point_with_what_its_evaluation_measured(swept):
    table = rows(swept.home, swept.ref)
    axes = [(row["preprocess.equalize"], row["train.head"]) for row in table]
    assert axes == [(equalize, head) for equalize in EQUALIZE for head in HEADS]
    for row in table:
        model = swept.home.find(ModelManifest, row["model"])
        metrics = swept.home.evaluation_of(row["model"]).manifest.metrics
        assert model.manifest.settings.train.head == row["train.head"]
        for key in ("accuracy", "balanced_accuracy", "macro_f1"):
            assert float(row[key]) == pytest.approx(metrics[key], abs=1e-6)
        assert int(row["mistakes"]) == round((1 - metrics["accuracy"]) * metrics["pictures"])
        assert float(row["training_seconds"]) > 0
    gap, flatten = (int(row["parameters"]) for row in table[:2])
    assert flatten - gap == 3 * 256 * 3  # three more places of 256 features for three classes
    assert [row["standing"] for row in table].count("best") == 1


def test_points_that_can_share_a_dataset_do(swept):
    assert len({row["model"] for row in rows(swept.home, swept.ref)}) == 4
    assert len(swept.home.committed(DatasetManifest)) == 2 + 2  # those of the whole run, training and test


def test_it_says_which_point_it_is_at(swept):
    assert [done for done, _, _ in swept.told] == sorted(done for done, _, _ in swept.told)
    assert {total for _, total, _ in swept.told} == {4}
    assert swept.told[-1][2] == "preprocess.equalize=none train.head=flatten: pictures, 100 %"


def test_the_champion_and_what_is_latest_stay_until_a_point_s_model_is_evaluated_by_itself(swept):
    assert {name: swept.home.recall(name) for name in NOTED} == swept.before
    best = rows(swept.home, swept.ref)[0]["model"]
    judged = evaluate(Job(swept.home, swept.settings), best)
    assert judged.cached
    assert judged.note.startswith(CHAMPION)
    assert swept.home.recall("champion-tiny")["fingerprint"] == best


def test_a_point_under_the_bound_fails_nothing(made, copy_home, tmp_path):
    data, _, settings, refs = made
    home = copy_home(tmp_path / "home")
    strict = settings.model_copy(update={"evaluate": settings.evaluate.model_copy(update={"minimum_accuracy": 1.0})})
    ref = sweep(Job(home, strict), {"train": {"fold": [0]}}, str(data))
    (row,) = rows(home, ref)
    assert row["model"] == refs["train"].fingerprint
    assert home.evaluation_of(row["model"]).manifest.passed is False


def test_mlflow_has_the_points_under_one_parent_ready_to_be_compared(swept):
    parent_id = swept.home.open(swept.ref, SweepManifest).manifest.mlflow.run_id
    children = nested(swept.home, parent_id)
    assert [run.data.params["train.head"] for run in children] == HEADS * 2
    assert [run.data.params["preprocess.equalize"] for run in children] == ["clahe", "clahe", "none", "none"]
    for run in children:
        assert {"accuracy", "balanced_accuracy", "macro_f1", "parameters", "training_seconds"} <= set(run.data.metrics)
    client = connect(store_of(swept.home.root, "tiny"))
    parent = client.get_run(parent_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.params["train.head"] == "gap, flatten"
    assert parent.data.params["train.recipe"] == "frozen"
    assert parent.data.metrics["points"] == 4
    assert len(parent.inputs.dataset_inputs) == 2
    assert {file.path for file in client.list_artifacts(parent_id, "sweep")} == {
        "sweep/table.csv",
        "sweep/parallel.png",
    }


def test_asked_again_it_is_found_and_printed(swept, capsys, tmp_path):
    grid = tmp_path / "grid.toml"
    grid.write_text("""
        [preprocess]
        image_size_px = 64
        equalize = ["clahe", "none"]
        [train]
        head = ["gap", "flatten"]
        recipe = "frozen"
        frozen_copies = 1
        """)
    options = ["--home", str(swept.home.root), "--data", str(swept.data)]
    for name in ("alpha", "epochs", "learning_rate"):
        options += ["--set", f"train.{name}={getattr(swept.settings.train, name)}"]
    assert main(["sweep", str(grid), *options]) == 0
    printed = capsys.readouterr()
    assert f"was there: {swept.ref.folder}" in printed.err
    assert "the champion is as it was" in printed.err
    lines = printed.out.splitlines()
    assert lines[1].split()[:3] == ["preprocess.equalize", "train.head", "accuracy"]
    assert [line.split()[1] for line in lines[2:6]] == HEADS * 2
    assert sum("* best" in line for line in lines) == 1
    assert str(swept.home.root / swept.ref.folder) in lines[-1]


def test_a_run_that_has_a_parent_stays_there_and_is_copied_under_the_next(swept):
    first = swept.home.open(swept.ref, SweepManifest).manifest.mlflow.run_id
    smaller = {**GRID, "train": {**GRID["train"], "head": ["gap"]}}
    ref = sweep(swept.job, smaller, str(swept.data))
    own = nested(swept.home, first)
    copies = nested(swept.home, swept.home.open(ref, SweepManifest).manifest.mlflow.run_id)
    assert len(own) == 4
    assert [run.data.tags[COPY_TAG] for run in copies] == [own[0].info.run_id, own[2].info.run_id]
    for copy, run in zip(copies, (own[0], own[2]), strict=True):
        assert copy.data.params == run.data.params
        assert copy.data.metrics == run.data.metrics


def test_seconds_are_in_the_table_and_in_no_digest(swept, tmp_path):
    def point(row, given, seconds):
        model = swept.home.find(ModelManifest, row["model"])
        record = model.manifest.mlflow.model_copy(update={"seconds": seconds})
        timed = replace(model, manifest=model.manifest.model_copy(update={"mlflow": record}))
        dataset = swept.home.find(DatasetManifest, model.manifest.dataset.fingerprint)
        return Point(given.values, dataset, timed, swept.home.evaluation_of(row["model"]))

    table, grid = rows(swept.home, swept.ref), parse_grid(GRID, swept.settings, "grid")
    made = []
    for seconds in (1.0, 100.0):
        points = [point(*pair, seconds) for pair in zip(table[:2], grid, strict=False)]
        made.append(make_sweep(Job(Home(tmp_path / str(seconds))), points, "tiny")[0])
    assert made[0].digest == made[1].digest
    assert [row["training_seconds"] for row in read_table(made[0])] == ["1.0", "1.0"]
    assert [row["training_seconds"] for row in read_table(made[1])] == ["100.0", "100.0"]


LATE = {
    "a fold that is not there": ({"train": {"fold": [0, 5]}}, "train.fold: 5, of a dataset with 5 folds"),
    "weights that are not there": ({"train": {"weights": ["none", "gone.h5"]}}, "there is no such weights file"),
    "more folds than pictures": ({"ingest": {"folds": [5, 21]}}, "the smallest, 0 (plain), has 20"),
    "no such class": ({"train": {"seed": [0, 1]}, "evaluate": {"normal_class": 3}}, "normal_class: 3, of 3 classes"),
}


@pytest.mark.parametrize("case", LATE)
def test_what_the_last_point_would_trip_over_is_refused_before_the_first(case, made, tmp_path):
    data, home, settings, _ = made
    grid, told = LATE[case]
    new = replace(home, root=tmp_path / "home")
    with pytest.raises(AoiError) as refused:
        sweep(Job(new, settings), grid, str(data))
    assert told in str(refused.value)
    assert not new.root.exists()


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        ({"alpha": [0.25, 0.5]}, r"not the weights of mobilenet of alpha 0\.5"),
        ({"backbone": ["mobilenet", "mobilenet_v2"]}, r"not the weights of mobilenet_v2 of alpha 0\.25"),
    ],
    ids=["width", "backbone"],
)
def test_weights_of_another_network_are_found_before_the_first_point(made, tmp_path, axes, told):
    from model.network.backbones import BackboneName
    from model.network.convolutions import convolutions

    data, home, settings, _ = made
    path = tmp_path / "quarter.weights.h5"
    convolutions(BackboneName.MOBILENET, 0.25, 32, 3).save_weights(path)
    new = replace(home, root=tmp_path / "home")
    grid = {"train": {**axes, "weights": str(path)}}
    with pytest.raises(AoiError, match=told):
        sweep(Job(new, settings), grid, str(data))
    assert not new.root.exists()
