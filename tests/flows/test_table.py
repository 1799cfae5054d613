"""The list of stages: command line, flows and deployments are made from it; a new stage is one file and one line."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated

import pytest

from flows import cli, stages
from flows.home import Ref
from flows.serving import deployments, runner
from flows.stages import SUMMARIES, load_stage, load_stages
from flows.stages.stage import Job, Option, Stage
from tfrecords.artifacts.manifest import Manifest

NO_STAGES = {"__init__", "chain", "stage"}
RUN = {"settings", "force", "home"}  # what every flow takes
SAMPLES = [(name, option) for name, stage in load_stages().items() for option in stage.options()]


@pytest.fixture
def usage(capsys):
    """A function that gives the help of a command, or of all."""

    def told(*words):
        with pytest.raises(SystemExit) as end:
            cli.main([*words, "--help"])
        assert end.value.code == 0
        return capsys.readouterr().out

    return told


@pytest.fixture
def fresh(monkeypatch):
    """A function that loads flows.serving.deployments anew, beside the one that other tests use."""

    def load():
        spec = importlib.util.spec_from_file_location("deployments_anew", deployments.__file__)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load


# --- What there is ------------------------------------------------------------------------------------------


def test_the_list_names_every_file_of_a_stage_and_no_other():
    files = {path.stem for path in Path(stages.__file__).parent.glob("*.py")}
    assert files - NO_STAGES == set(SUMMARIES)


@pytest.mark.parametrize("name", SUMMARIES)
def test_every_stage_says_what_it_runs_and_makes(name):
    stage = load_stage(name)
    assert stage.run.__name__ == name
    assert stage.run.__doc__
    assert stage.makes
    for kind in stage.makes:
        assert issubclass(kind, Manifest)
        assert kind.KIND
        assert kind.FOLDER


def test_kinds_and_their_folders_are_told_apart():
    kinds = {kind for stage in load_stages().values() for kind in stage.makes}
    assert len({kind.KIND for kind in kinds}) == len({kind.FOLDER for kind in kinds}) == len(kinds)


# --- Command line and flows ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SUMMARIES)
def test_every_stage_is_a_command_with_its_summary_and_a_flow(name, usage):
    assert SUMMARIES[name] in " ".join(usage().split())
    assert SUMMARIES[name] in " ".join(usage(name).split())
    assert deployments.DEPLOYED[name].name == f"aoi-{name}"


@pytest.mark.parametrize(("name", "option"), SAMPLES)
def test_every_option_of_a_stage_is_one_of_its_command_and_a_parameter_of_its_flow(name, option, usage):
    parameter, described = load_stage(name).options()[option]
    shown = "".join(usage(name).split())  # lines are broken within words too
    assert (described.metavar if described.read else f"--{option}") in shown
    assert "".join(described.help.split()) in shown
    taken = deployments.DEPLOYED[name].parameters
    assert option in taken.properties
    assert described.help in taken.properties[option]["description"]
    assert (option in (taken.required or [])) == (parameter.default is parameter.empty)


@pytest.mark.parametrize("name", SUMMARIES)
def test_a_flow_takes_the_stage_s_options_and_what_every_flow_takes_and_nothing_else(name):
    stage = load_stage(name)
    expected = set(stage.options()) | (RUN if stage.has_settings else RUN - {"settings"})
    assert set(deployments.DEPLOYED[name].parameters.properties) == expected


@pytest.mark.parametrize("name", SUMMARIES)
def test_a_command_has_set_and_config_where_settings_count_and_nowhere_else(name, usage):
    shown = usage(name)
    assert ("--set NAME=VALUE" in shown) == ("--config FILE.toml" in shown) == load_stage(name).has_settings
    assert "--force" in shown
    assert "--home" in shown


@pytest.mark.parametrize("name", SUMMARIES)
def test_a_shortcut_is_an_option_that_stands_for_a_setting(name, usage):
    for option, setting in load_stage(name).shortcuts.items():
        assert f"short for --set {setting}=NAME" in " ".join(usage(name).split())
        assert f"--{option}" in usage(name)


# --- Deployments --------------------------------------------------------------------------------------------


def deployed(home, data=None):
    """The deployments that the runner serves, by name."""
    made = [runner._deployment(name, home, data) for name in runner.DEPLOYED]
    return {deployment.name: deployment for deployment in made}


def test_every_flow_is_a_deployment_of_the_flow_aoi_that_leads_back_to_it():
    found = deployed("/some/home")
    assert set(found) == {"full", *SUMMARIES}
    for name, deployment in found.items():
        assert deployment.flow_name == "aoi"
        assert deployment.parameters == {"home": "/some/home"}
        module, _, attribute = deployment.entrypoint.rpartition(".")
        assert (module, getattr(deployments, attribute)) == ("flows.serving.deployments", deployments.DEPLOYED[name])


def test_the_folder_that_serve_was_given_is_the_default_of_those_that_take_one():
    for name, deployment in deployed("/some/home", "/some/data").items():
        takes = name in ("full", "ingest", "predict", "sweep")  # evaluate's data is a lot that somebody labelled
        assert deployment.parameters == {"home": "/some/home"} | ({"data": "/some/data"} if takes else {})


# --- One more -----------------------------------------------------------------------------------------------

TIMES = Option("how often to count", metavar="N")


class CountManifest(Manifest):
    KIND = "count"
    FOLDER = "counts"


def count(job: Job, times: Annotated[str, TIMES] = "once") -> Ref:
    """Counts, and makes nothing."""
    return Ref("count", f"counts/{times}", "0" * 16, job.force)


@pytest.fixture
def added(monkeypatch):
    """One more stage: a file, and a line in the list."""
    module = ModuleType("flows.stages.count")
    module.STAGE = Stage(count, makes=(CountManifest,), has_settings=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(SUMMARIES, "count", "counts, for a test")


def test_a_stage_that_is_added_to_the_list_gets_a_command(added, usage, capsys, tmp_path):
    assert re.search(r"^    count +counts, for a test$", usage(), re.M)
    assert "--times N" in usage("count")
    assert cli.main(["count", "--home", str(tmp_path), "--times", "twice"]) == 0
    assert f"count       {tmp_path / 'counts' / 'twice'}" in capsys.readouterr().out


def test_a_stage_that_is_added_to_the_list_gets_a_flow_and_a_deployment(added, fresh, monkeypatch):
    anew = fresh()
    assert set(anew.DEPLOYED) == {"full", *SUMMARIES}
    assert set(anew.count.parameters.properties) == {"times", "force", "home"}
    assert anew.count.validate_parameters({"times": "twice"})["times"] == "twice"
    monkeypatch.setattr(runner, "DEPLOYED", anew.DEPLOYED)
    assert "count" in deployed("/some/home")


def test_what_a_stage_that_is_added_makes_is_verified(added, capsys, tmp_path):
    folder = tmp_path / "counts" / f"some-{'0' * 16}"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    assert cli.main(["verify", "--home", str(tmp_path)]) == 2
    assert "Make the count again with --force" in capsys.readouterr().err
