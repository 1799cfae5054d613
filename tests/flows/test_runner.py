"""What people set on a deployment stays when `aoi serve` registers it again."""

import pytest

from flows.runner import merged

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
