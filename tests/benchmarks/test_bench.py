"""The benchmarks at sizes where the figures mean nothing: plans, the papers, and contestants that work."""

import json
import time
from pathlib import Path
from statistics import median

import pytest

from benchmarks import bench, core, report
from benchmarks.core import Contestant, by_turns, goal, row
from benchmarks.pictures import by_class, draw, repeat
from tfrecords.errors import AoiError, refuse


def result(**sections):
    machine = {"date": "2026-01-31", "processor": "a processor", "cores": 2, "memory_gb": 8, "system": "Linux"}
    machine["versions"] = {"python": "3.12.0"}
    return {"machine": machine, "command": "python -m benchmarks", "seconds": 60.0, "sections": sections}


CONVERT = {
    "size": {"pictures": 100, "growth": [10, 20]},
    "tables": {
        "many": [
            row("ours", [{"seconds": 1.0, "pictures_per_s": 100.0}, {"seconds": 2.0, "pictures_per_s": 50.0}]),
            row("plain loop", [{"seconds": 4.0, "pictures_per_s": 25.0}]),
        ]
    },
    "goals": [goal("as fast as the plain loop", 3.0, 1.7, unit="x"), goal("memory", 1.2, 1.1, more=False, unit="x")],
}


# --- The plan -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quick", [True, False])
def test_a_plan_has_every_section_in_order_and_those_asked_for_alone(quick):
    assert tuple(bench.plan(quick)) == bench.SECTIONS
    assert tuple(bench.plan(quick, ["train", "read"], "somewhere")) == ("read", "train")
    for section in ("audit", "train", "predict"):
        assert bench.plan(quick, data="somewhere")[section]["data"] == "somewhere"


def test_quick_and_full_differ_in_sizes_alone():
    quick, full = bench.plan(True), bench.plan(False)
    assert {name: set(size) for name, size in quick.items()} == {name: set(size) for name, size in full.items()}
    assert all(size.get("rounds", size.get("steps")) >= 3 for size in full.values())


def test_an_unknown_section_is_refused_with_those_that_there_are():
    with pytest.raises(AoiError, match=r"'reed' is no section\. Known: convert, plan"):
        bench.plan(True, ["reed"])


def test_a_section_that_fails_leaves_those_before_it_and_says_where(tmp_path, monkeypatch, capsys):
    def fail(work, size, tell):
        raise refuse("here", "no more room", "Make room")

    monkeypatch.setattr("benchmarks.convert.measure", lambda work, size, tell: CONVERT)
    monkeypatch.setattr("benchmarks.read.measure", fail)
    out = tmp_path / "out.json"
    bench.run(True, ["convert"], None, out)
    assert not (partial := tmp_path / "out.partial.json").exists()
    before = out.read_bytes()
    with pytest.raises(AoiError, match="no more room"):
        bench.run(True, ["convert", "read"], None, out)
    assert out.read_bytes() == before
    assert str(partial) in capsys.readouterr().err
    assert json.loads(partial.read_text())["sections"] == {"convert": CONVERT}


# --- Figures ------------------------------------------------------------------------------------------------


def test_a_row_has_the_middle_and_the_ends_of_its_rounds():
    told = row("one", [{"seconds": 3.0}, {"seconds": 1.0}, {"seconds": 2.0}])
    assert (told["median"], told["low"], told["high"]) == ({"seconds": 2.0}, {"seconds": 1.0}, {"seconds": 3.0})
    assert row("never", [{"to": None}])["median"] == {"to": None}


@pytest.mark.parametrize(("value", "more", "reached"), [(1.0, True, True), (0.9, True, False), (0.9, False, True)])
def test_a_goal_says_whether_it_is_reached(value, more, reached):
    assert goal("what", value, 1.0, more)["reached"] is reached


def test_contestants_take_turns():
    order = []
    both = [Contestant("A", "", {}), Contestant("B", "", {})]

    def run(contestant):
        order.append(contestant.name)
        return {"seconds": 1.0}

    rows = by_turns(both, 3, lambda what: None, run)
    assert order == ["A", "B"] * 3
    assert [(row["name"], len(row["rounds"])) for row in rows] == [("A", 3), ("B", 3)]


def test_a_contestant_runs_in_a_process_of_its_own_with_time_and_memory():
    told = core.run_alone(Contestant("json", "benchmarks.core:imported", {"module": "json"}))
    assert told["import_s"] >= 0
    assert told["seconds"] > told["import_s"]
    assert 5 < told["memory_mb"] < 500


def test_a_contestant_that_fails_is_named_with_what_it_said():
    with pytest.raises(AoiError, match=r"exit code 1.*No module named 'not_there'"):
        core.run_alone(Contestant("one", "benchmarks.core:imported", {"module": "not_there"}))


# --- Papers -------------------------------------------------------------------------------------------------


def test_the_paper_shows_medians_with_their_spread_and_goals_reached_and_missed(tmp_path):
    report.write(result(convert=CONVERT), tmp_path / "figures.json")
    text = (tmp_path / "figures.md").read_text()
    for line in (
        "| convert | as fast as the plain loop | >= 1.7 x | 3 x | reached |",
        "| convert | memory | <= 1.1 x | 1.2 x | **missed** |",
        "| ours | 1.5 (1-2) | 75 (50-100) |",
        "| plain loop | 4 | 25 |",
        "Machine: a processor, 2 cores, 8 GB, Linux.",
        "![Pictures per second](figures.png)",
    ):
        assert line in text
    assert (tmp_path / "figures.png").read_bytes().startswith(b"\x89PNG")


def test_a_figure_that_was_not_reached_is_an_empty_cell():
    table = list(report._rows([row("full", [{"to_0.99_s": None}]), row("frozen", [{"to_0.99_s": 12.0}])]))
    assert table[2:] == ["| full |  |", "| frozen | 12 |"]


def test_every_section_has_a_title_and_its_chart_a_table():
    assert set(report.TITLES) == set(bench.SECTIONS)
    assert {(section, table) for section, (table, _) in report.CHARTS.items()} <= set(report.NOTES)


# --- Sections at a tiny size --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("work")


def test_repeated_pictures_have_names_of_their_own_and_labels_of_the_drawn(work):
    folder = repeat(draw(work, 30), work, train=70, test=3)
    lines = (folder / "train.csv").read_text().splitlines()
    assert len(lines) == 71
    assert lines[1].partition(",")[2] == lines[31].partition(",")[2]
    assert len(list((folder / "train_images").iterdir())) == 70
    assert len(list((folder / "test_images").iterdir())) == 3
    assert sum(1 for path in by_class(folder, work / "classes").rglob("*.png")) == 70


def test_the_pairs_are_found_by_both_contestants(work):
    size = bench.plan(True)["audit"] | {"hashes": 300, "slow": 300}
    told = bench.bench({"audit": size}, work, lambda section, what: None)["sections"]["audit"]
    assert len({one["median"]["found"] for one in told["tables"]["pairs"]}) == 1


def test_rows_without_pixels_are_planned(work):
    size = {"rows": [1000], "large": 2000, "rounds": 1}
    told = bench.bench({"plan": size}, work, lambda section, what: None)["sections"]["plan"]
    assert [one["median"]["rows"] for one in told["tables"]["growth"]] == [1000, 2000]


def test_convert_and_its_paper_from_a_real_run(work, tmp_path):
    size = {"drawn": 60, "pictures": 60, "slow": 60, "few": 60, "growth": [60], "rounds": 1}
    said = []
    told = bench.bench({"convert": size}, work, lambda section, what: said.append((section, what)))
    assert said[0] == ("convert", "ours, in_memory, round 1 of 1")
    assert json.loads(json.dumps(told)) == told
    section = told["sections"]["convert"]
    assert set(section["tables"]) == {"many", "formats", "few", "growth"}
    for one in section["tables"]["many"]:
        assert one["median"]["pictures_per_s"] > 0
        assert one["median"]["memory_mb"] > 0
    report.write(told | {"command": "python -m benchmarks", "seconds": 1.0}, tmp_path / "convert.json")
    assert str(work) not in json.dumps(told)


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")  # of the legacy generator
@pytest.mark.parametrize("reader", ["generator", "directory", "files", "ours", "memory"])
@pytest.mark.parametrize("shift", [0.0, 0.05], ids=["still", "shift"])
def test_every_reader_gives_every_picture_of_an_epoch(work, reader, shift):
    from benchmarks import read

    data = repeat(draw(work, 60), work, 60)
    home = work / "home"
    if not home.exists():
        core.aoi(["ingest", "--data", str(data), "--home", str(home)])
    places = {"data": str(data), "folders": str(by_class(data, work / "by-class")), "home": str(home)}
    told = read.read(reader, shift, 0.0, **places)
    assert told["pictures"] == 60
    assert told["later_per_s"] > 0
    images = next(iter(getattr(read, f"_{reader}")(shift=shift, **places)(1)))
    assert tuple(images.shape[1:3]) == (224, 224)


def test_steps_of_our_loop_and_of_one_batch_repeated_take_turns_and_a_slow_reader_shows(work, monkeypatch):
    import tensorflow as tf
    from small import small

    from benchmarks.train import OURS, REPEATED, loop
    from tfrecords.records import reader

    def waits():
        for number in range(99):
            time.sleep(0.5)
            yield number

    def slow(*given):
        def epoch(*which):
            batches = reader_batches(*given)(*which)
            wait = tf.data.Dataset.from_generator(waits, output_signature=tf.TensorSpec((), tf.int32))
            both = tf.data.Dataset.zip(wait, batches).map(lambda _, batch: batch)
            return both.apply(tf.data.experimental.assert_cardinality(batches.cardinality()))

        return epoch

    reader_batches = reader.training_batches
    monkeypatch.setattr(reader, "training_batches", slow)
    monkeypatch.setattr("model.network.build.convolutions", small)
    data = repeat(draw(work, 60), work, 60)
    settings = ["preprocess.image_size_px=32", "train.alpha=0.25", "train.weights=none", "train.batch_size=8"]
    home = work / "small-home"
    core.aoi(["ingest", "--data", str(data), "--home", str(home), "--set", settings[0]])
    told = loop(str(home), settings, steps=60)
    ours, repeated = ([step["pictures_per_s"] for step in told[name]] for name in (OURS, REPEATED))
    assert len(ours) == len(repeated) == 5  # of seven batches without the first and the smaller last
    assert median(ours) < median(repeated)  # ours wait for the reader, half a second each
    assert told["wait_share"] > 0.01
    assert told["start_share"] > 0
