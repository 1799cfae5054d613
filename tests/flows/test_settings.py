"""Settings: defaults, a TOML file, NAME=VALUE overrides, and refusals that tell what would be right."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from flows.settings import MOST_POINTS, Settings, describe, load_settings, override, parse_grid, read_grid
from model.network.backbones import BackboneName
from tfrecords.errors import AoiError

NAMES = [name for name, *_ in describe()]


def toml(folder, text):
    path = folder / "these.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def refused(*overrides, config=None):
    with pytest.raises(AoiError) as error:
        load_settings(config, overrides)
    assert error.value.exit_code == 2
    return str(error.value)


# --- Where values come from ---------------------------------------------------------------------------------


def test_nothing_given_is_the_seed_s_recipe(monkeypatch):
    monkeypatch.delenv("AOI_WEIGHTS")
    settings = load_settings()
    assert (settings.train.batch_size, settings.train.alpha) == (16, 1.0)
    assert (settings.train.epochs, settings.train.budget_steps) == (None, None)  # finds its own length
    assert (settings.train.weights, settings.preprocess.image_size_px, settings.ingest.folds) == ("imagenet", 224, 5)
    assert settings.preprocess.equalize == "clahe"


def test_weights_come_from_the_environment_where_it_names_them(monkeypatch):
    monkeypatch.setenv("AOI_WEIGHTS", "/weights/mine.weights.h5")
    assert load_settings().train.weights == "/weights/mine.weights.h5"
    assert load_settings(overrides=["train.weights=none"]).train.weights == "none"


def test_a_file_goes_before_defaults_and_set_before_the_file_and_the_last_set_wins(tmp_path):
    config = toml(tmp_path, "[train]\nepochs = 7\nseed = 7\nfold = 1\n[ingest]\nfolds = 4\n")
    settings = load_settings(config, ["train.seed=8", "train.fold=2", "train.fold=3"])
    assert (settings.train.epochs, settings.train.seed, settings.train.fold, settings.ingest.folds) == (7, 8, 3, 4)
    assert settings.train.batch_size == 16


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("train.epochs=3", 3),
        (" train.epochs = 3 ", 3),
        ("train.learning_rate=1e-4", 1e-4),
        ("train.learning_rate=1", 1.0),
        ("train.weights=none", "none"),
        ('train.weights="none"', "none"),
        ("train.weights=folder/a=b weights.h5", "folder/a=b weights.h5"),
        ("train.weights=C:\\weights\\net.h5", "C:\\weights\\net.h5"),
        ("preprocess.equalize=histogram", "histogram"),
        ("train.backbone=efficientnet_v2_b0", BackboneName.EFFICIENTNET_V2_B0),
        ("evaluate.normal_class=2", 2),
    ],
)
def test_a_value_is_what_it_looks_like_and_words_need_no_quotes(override, value):
    section, key = override.partition("=")[0].strip().split(".")
    assert getattr(getattr(load_settings(overrides=[override]), section), key) == value


def test_a_word_of_a_closed_set_comes_through_json_and_back():
    settings = load_settings(overrides=["train.backbone=mobilenet_v2"])
    assert json.loads(settings.model_dump_json())["train"]["backbone"] == "mobilenet_v2"
    assert Settings.model_validate_json(settings.model_dump_json()) == settings
    assert Settings.model_validate(json.loads(json.dumps(settings.model_dump()))) == settings


def test_settings_can_t_be_changed_once_they_are_made():
    with pytest.raises(ValueError, match="frozen"):
        load_settings().train.epochs = 3


# --- What is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "known"),
    [
        ("train.epoch=3", "train.epochs"),
        ("train.=3", "train.epochs"),
        ("train.a.b=3", "train.epochs"),
        ("training.epochs=3", "train.epochs"),
        ("epochs=3", "train.epochs"),
        ("=3", "preprocess.image_size_px"),
        (".epochs=3", "preprocess.image_size_px"),
        ("predict.label=1", "predict.unreadable_label"),
    ],
)
def test_an_unknown_name_is_told_with_the_known_ones(override, known):
    message = refused(override)
    assert "setting" in message
    assert "Known: " in message
    assert known in message


def test_within_a_known_section_only_its_own_names_are_listed():
    message = refused("ingest.fold=3")
    assert set(re.findall(r"\w+\.\w+", message)) == {"ingest.fold"} | {
        name for name in NAMES if name.startswith("ingest.")
    }


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.epochs=0", ("train.epochs is 0", "greater than or equal to 1")),
        ("train.epochs=3.5", ("train.epochs is 3.5", "whole number")),
        ("train.epochs=true", ("train.epochs is True", "whole number")),
        ('train.epochs="3"', ("train.epochs is '3'", "whole number")),
        ("train.epochs=many", ("train.epochs is 'many'", "whole number")),
        ("train.epochs=", ("train.epochs is ''", "whole number")),
        ("train.epochs=[3]", ("train.epochs is [3]", "whole number")),
        ("train.weights=3", ("train.weights is 3", "text")),
        ("train.learning_rate=nan", ("train.learning_rate is nan", "finite number")),
        ("preprocess.max_megapixels=inf", ("preprocess.max_megapixels is inf", "finite number")),
        ("preprocess.bit_depth=9", ("preprocess.bit_depth is 9", "'auto', 8, 10, 12, 14 or 16")),
        ("preprocess.crop=10,20,300", ("preprocess.crop is '10,20,300'", "left,top,width,height")),
        ("preprocess.crop=10,20,0,200", ("preprocess.crop is '10,20,0,200'", "10,20,300,200")),
        ("preprocess.crop=-1,0,9,9", ("preprocess.crop is '-1,0,9,9'", "10,20,300,200")),
        ("preprocess.crop=0.1,0.1,0.5,5", ("preprocess.crop is '0.1,0.1,0.5,5'", "0.1,0.1,0.5,0.5")),
        ("preprocess.crop=0.6,0.1,0.5,0.5", ("preprocess.crop is '0.6,0.1,0.5,0.5'", "within it")),
        ("preprocess.crop=0.6,0.1,0.0,0.5", ("preprocess.crop is '0.6,0.1,0.0,0.5'", "within it")),
        ("train.dropout=1", ("train.dropout is 1", "less than 1")),
        ("train.shift_fraction=-0.1", ("train.shift_fraction is -0.1", "greater than or equal to 0")),
        ("preprocess.equalize=CLAHE", ("preprocess.equalize is 'CLAHE'", "'clahe', 'histogram' or 'none'")),
        ("preprocess.image_size_px=31", ("preprocess.image_size_px is 31", "greater than or equal to 32")),
        ("train.backbone=resnet", ("train.backbone is 'resnet'", "'mobilenet', 'mobilenet_v2',")),
        ("train.alpha=0.01", ("train.alpha is 0.01", "greater than or equal to 0.03125")),
        ("ingest.folds=1", ("ingest.folds is 1", "greater than or equal to 2")),
        ("evaluate.minimum_accuracy=99", ("evaluate.minimum_accuracy is 99", "less than or equal to 1")),
        ("train.epochs=" + "9" * 5000, ("train.epochs is",)),
        ("train.epochs=" + "[" * 5000, ("train.epochs is",)),
        ("train.epochs", ("no NAME=VALUE", "--set train.epochs=3")),
    ],
)
def test_a_value_of_the_wrong_kind_or_range_is_told_with_what_is_right(override, told):
    message = refused(override)
    for words in told:
        assert words in message
    assert len(message) < 500


def test_tables_within_tables_beyond_all_bounds_are_refused(tmp_path):
    message = refused(config=toml(tmp_path, f"[train]\nflips{'.a' * 1400} = 1"))
    assert "too many others inside it. Give each setting one number or one word" in message


def test_a_width_that_the_backbone_has_not_is_refused_with_those_it_has():
    message = refused("train.backbone=efficientnet_v2_b0", "train.alpha=0.5")
    assert "train.alpha is 0.5. It should be 1, the only width of efficientnet_v2_b0" in message


def test_everything_that_is_wrong_is_told_at_once(tmp_path):
    config = toml(tmp_path, "[train]\nepochs = 0\nspeed = 3\n[ingest]\nfolds = 'five'\n")
    message = refused("train.seed=-1", config=config)
    assert message.startswith("4 problems:")
    for name in ("train.epochs", "train.speed", "ingest.folds", "train.seed"):
        assert name in message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("epochs: 3", "not TOML"),
        ("[train]\nepochs = 3\nepochs = 4", "not TOML"),
        ("x = " + "[" * 5000, "not TOML"),
        ("x = " + "9" * 5000, "not TOML"),
        ("train = 3", "train is 3"),
        ("epochs = 3", "epochs is no setting"),
        ("[train.epochs]\nvalue = 3", "train.epochs is {'value': 3}"),
    ],
)
def test_a_file_that_is_no_settings_is_refused_by_its_name(text, told, tmp_path):
    config = toml(tmp_path, text)
    message = refused(config=config)
    assert config in message
    assert told in message


@pytest.mark.parametrize("name", ["nowhere.toml", "."])
def test_a_file_that_can_t_be_read_is_refused_by_its_name(name, tmp_path):
    assert "can't be read" in refused(config=str(tmp_path / name))


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "latin.toml").write_bytes(b"[train]\nweights = '\xe9'\n")
    assert "is not UTF-8. Save it as UTF-8" in refused(config=str(tmp_path / "latin.toml"))


def test_a_file_as_notepad_saves_it_is_read(tmp_path):
    (tmp_path / "marked.toml").write_bytes(b"\xef\xbb\xbf[train]\nepochs = 3\n")
    assert load_settings(str(tmp_path / "marked.toml")).train.epochs == 3


@pytest.mark.parametrize("text", ["[train]\nweights = none", '[train]\nweights = "C:\\new\\x.h5"'])
def test_text_that_is_not_written_as_toml_has_it_is_told_with_how_it_is(tmp_path, text):
    assert 'weights = "none"' in refused(config=toml(tmp_path, text))


def test_what_gave_a_wrong_value_is_named(tmp_path):
    config = toml(tmp_path, "[train]\nepochs = 1\nalpha = 9")
    told = refused("train.epochs=0", config=config)
    assert "--set: train.epochs is 0" in told
    assert f"{config}: train.alpha is 9" in told


def test_a_setting_is_unset_again_by_the_word_that_the_list_has(tmp_path):
    config = toml(tmp_path, '[train]\nepochs = 1\n[ingest]\nlocation = "/shards"')
    chosen = load_settings(config, ["train.epochs=unset", "ingest.location=unset"])
    assert (chosen.train.epochs, chosen.ingest.location) == (None, None)


@pytest.mark.parametrize("place", ["s3://", "s3:/bucket", "ftp://host/folder", "https://host/folder", "gs:///folder"])
def test_a_location_that_is_no_place_for_shards_is_refused(place):
    told = refused(f"ingest.location={place}")
    assert "a folder or a URL such as s3://bucket/folder" in told


# --- Grids --------------------------------------------------------------------------------------------------


def grid(folder, text, overrides=(), settings=None):
    """The points of a TOML file with --set over it, as the command line makes them."""
    return parse_grid(override(read_grid(toml(folder, text)), overrides), settings or load_settings(), "grid")


def test_a_list_is_an_axis_and_the_last_setting_changes_fastest(tmp_path):
    points = grid(tmp_path, "[train]\nseed = [0, 1]\nalpha = [1, 0.5]\nepochs = 7\n[preprocess]\nequalize = ['none']\n")
    assert [tuple(point.values.items()) for point in points] == [
        (("preprocess.equalize", "none"), ("train.alpha", alpha), ("train.seed", seed))
        for alpha in (1.0, 0.5)
        for seed in (0, 1)
    ]
    assert [(point.settings.train.alpha, point.settings.train.seed) for point in points] == [
        (1.0, 0),
        (1.0, 1),
        (0.5, 0),
        (0.5, 1),
    ]
    assert {point.settings.train.epochs for point in points} == {7}


def test_a_grid_goes_over_the_settings_and_set_over_the_grid(tmp_path):
    settings = load_settings(overrides=["train.epochs=3", "train.batch_size=8"])
    points = grid(
        tmp_path, "[train]\nepochs = 7\nalpha = [0.5, 1.0]\n", ["train.alpha=0.25", "train.seed=[1, 2]"], settings
    )
    assert [(p.settings.train.epochs, p.settings.train.batch_size, p.settings.train.alpha) for p in points] == [
        (7, 8, 0.25)
    ] * 2
    assert [point.values for point in points] == [{"train.seed": 1}, {"train.seed": 2}]


def test_a_weights_file_is_shown_by_its_name(tmp_path):
    points = grid(tmp_path, "[train]\nweights = ['none', '/some/where/mine.weights.h5']\n")
    assert [point.values["train.weights"] for point in points] == ["none", "mine.weights.h5"]
    assert points[1].settings.train.weights == "/some/where/mine.weights.h5"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[train]\nepochs = 3", "no setting is a list"),
        ("", "no setting is a list"),
        ("[train]\nepochs = []", "train.epochs is an empty list"),
        ("[train]\nepochs = [1, 0]", "train.epochs is 0"),
        ("[train]\nepochs = [1, 'many']\nalpha = [9, 1]", "train.alpha is 9"),
        ("[train]\nepochs = [[1, 2]]", "train.epochs is [1, 2]"),
        ("[train]\nepoch = [1, 2]", "train.epoch is no setting"),
        ("[training]\nepochs = [1, 2]", "training is no setting"),
        ("train = [1, 2]", "train is [1, 2]"),
        ("[[train]]\nepochs = 1", "train is [{'epochs': 1}]"),
        ("[train]\nalpha = [0.5, 1.0, 1]", "two points are the same"),
        ("[evaluate]\nmax_escape_rate = [0.1, 0.2]", "evaluate.max_escape_rate is a list, and it changes no model"),
        ("[predict]\nshift_copies = [1, 2]", "predict.shift_copies is a list, and it changes no model"),
        ("[train]\nseed = " + str(list(range(MOST_POINTS + 1))), f"{MOST_POINTS + 1} points"),
    ],
)
def test_a_grid_that_is_none_is_refused_by_setting(text, told, tmp_path):
    with pytest.raises(AoiError) as error:
        grid(tmp_path, text)
    assert error.value.exit_code == 2
    assert {problem.file for problem in error.value.problems} == {"grid"}
    assert told in str(error.value)


@pytest.mark.parametrize(("text", "told"), [("[train]\nseed = [1", "not TOML"), (None, "can't be read")])
def test_a_grid_that_can_t_be_read_is_refused_by_file(text, told, tmp_path):
    path = str(tmp_path / "gone.toml") if text is None else toml(tmp_path, text)
    with pytest.raises(AoiError, match=told) as error:
        read_grid(path)
    assert error.value.exit_code == 2
    assert error.value.problems[0].file == path


def test_set_leaves_the_grid_that_it_goes_over_as_it_was():
    grid = {"train": {"seed": [0, 1]}}
    assert override(grid, ["train.seed=[2, 3]", "train.epochs=1"]) == {"train": {"seed": [2, 3], "epochs": 1}}
    assert grid == {"train": {"seed": [0, 1]}}


def test_what_is_wrong_in_a_grid_is_told_once_and_not_for_every_point(tmp_path):
    with pytest.raises(AoiError) as error:
        grid(tmp_path, "[train]\nepochs = [0, 1, 2]\nseed = [-1, 1, 2]\nfold = -2\n")
    assert sorted(problem.seen for problem in error.value.problems) == [
        "train.epochs is 0",
        "train.fold is -2",
        "train.seed is -1",
    ]


# --- For any text -------------------------------------------------------------------------------------------

SOME = bounded(max_examples=150)
VALUES = st.one_of(
    st.text(max_size=30),
    st.from_regex(r"[-+]?[0-9a-fox_.e\[\]{}\"'=,:#T-]{0,20}", fullmatch=True),
    st.floats().map(repr),
    st.integers().map(str),
)


def settings_or_refusal(*given_to):
    try:
        settings = load_settings(*given_to)
    except AoiError as error:
        assert str(error)
        return
    assert isinstance(settings, Settings)
    again = json.loads(json.dumps(settings.model_dump(), allow_nan=False))
    assert Settings.model_validate(again) == settings  # so that Prefect and the manifest can keep it


@SOME
@given(st.lists(st.text(max_size=40), max_size=3))
def test_any_text_after_set_gives_settings_or_a_refusal(overrides):
    settings_or_refusal(None, overrides)


@SOME
@given(st.sampled_from(NAMES), VALUES)
def test_any_value_of_a_known_name_gives_settings_or_a_refusal(name, value):
    settings_or_refusal(None, [f"{name}={value}"])


@SOME
@given(st.sampled_from([name.split(".") for name in NAMES]), VALUES)
def test_any_file_gives_settings_or_a_refusal(tmp_path_factory, name, value):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(f"[{name[0]}]\n{name[1]} = {value}\n".encode("utf-8", "surrogatepass"))
    settings_or_refusal(str(path))


# --- What users are told ------------------------------------------------------------------------------------


def test_every_setting_is_described_with_default_and_range():
    rows = list(describe())
    dumped = Settings().model_dump()
    assert [name for name, *_ in rows] == [f"{section}.{key}" for section in dumped for key in dumped[section]]
    for name, default, kind, meaning in rows:
        section, key = name.split(".")
        value = dumped[section][key]
        assert default == ("unset" if value is None else str(value)), name
        assert kind, name
        assert len(meaning) > 10, name
        assert "\n" not in meaning, name


def test_every_number_has_a_bound_on_both_sides():
    for name, _, kind, _ in describe():
        if kind.startswith(("number", "whole number")):
            assert "<" in kind, name


@pytest.mark.parametrize("crop", ["10,20,300,200", "0.1,0.1,0.5,0.5", "0.7,0.3,0.3,0.7", "0.0,0.0,1.0,1.0"])
def test_a_part_of_a_picture_is_named_in_pixels_or_in_shares(crop):
    chosen = load_settings(overrides=[f"preprocess.crop={crop}", "preprocess.bit_depth=12"]).preprocess
    assert (chosen.crop, chosen.bit_depth) == (crop, 12)
    assert load_settings(overrides=["preprocess.crop=10, 20, 300, 200"]).preprocess.crop == "10,20,300,200"
    assert load_settings(overrides=["preprocess.crop="]).preprocess.crop is None
