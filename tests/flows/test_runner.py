"""What people set on a deployment stays when `aoi serve` registers it again; what its command line may name."""

import re

import pytest

from flows.serving.runner import merged, read_crons
from tfrecords.errors import AoiError

OURS = {"home": "/home", "data": "/lot7"}


@pytest.mark.parametrize(
    ("found", "registered"),
    [
        (OURS, OURS),
        ({**OURS, "data": "/theirs"}, {**OURS, "data": "/theirs"}),
        ({**OURS, "force": True}, {**OURS, "force": True}),
        ({"home": "/home"}, {"home": "/home"}),
        ({"home": "/home", "data": None}, {"home": "/home", "data": None}),
    ],
    ids=["untouched", "changed", "added", "removed", "emptied"],
)
def test_parameters_that_people_changed_stay(found, registered):
    assert merged(OURS, OURS, found) == registered


def test_parameters_that_nobody_changed_follow_the_command_line():
    assert merged({"home": "/moved"}, OURS, OURS) == {"home": "/moved"}
    assert merged({"home": "/home", "data": "/lot8"}, OURS, {**OURS, "force": True}) == {
        "home": "/home",
        "data": "/lot8",
        "force": True,
    }


def test_crons_by_deployment_each_once():
    given = ["aoi/full=0 2 * * *", "aoi/full = 0 14 * * 1-5", "aoi/full=0 2 * * *", "aoi/ingest=@daily", "aoi/train="]
    assert read_crons(given) == {
        "aoi/full": ["0 2 * * *", "0 14 * * 1-5"],
        "aoi/ingest": ["@daily"],
        "aoi/train": [],
    }


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("aoi/full", "is no DEPLOYMENT=CRON"),
        ("0 2 * * *", "is no DEPLOYMENT=CRON"),
        ("full=0 2 * * *", "'full' is no deployment. Known: aoi/full, aoi/ingest,"),
        ("aoi/full=daily", "'daily' is no cron of aoi/full"),
        ("aoi/full=0 25 * * *", "is no cron"),
        ("aoi/full=* * * * * *", "is no cron"),
        ("aoi/full=R 2 * * *", "is no cron"),
    ],
)
def test_what_is_no_cron_is_refused_with_an_example(text, seen):
    with pytest.raises(AoiError, match=rf"--cron: .*{re.escape(seen)}"):
        read_crons([text])


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(AoiError, match="2 problems"):
        read_crons(["aoi/ful=0 2 * * *", "aoi/full=0 2 * * *", "aoi/full=2"])
