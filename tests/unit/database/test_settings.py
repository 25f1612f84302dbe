"""What the shipped controller is told by its environment, and what is no way to tell it."""

import pytest

from asyncctl.database.settings import DatabaseSettings
from asyncctl.database.types import Provisioner
from asyncctl.settings import SettingsError


@pytest.mark.parametrize(
    ("text", "served"),
    [
        ("", {"External", "InCluster"}),
        ("External", {"External"}),
        (" InCluster ,External", {"External", "InCluster"}),
    ],
)
def test_the_provisioners_that_are_named_are_served_and_both_where_none_is(text, served):
    settings = DatabaseSettings.from_environment({"ASYNCCTL_DATABASE_PROVISIONERS": text})
    assert {each for each in Provisioner if settings.serves(each)} == served


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("external", "must be InCluster or External or both, separated by a comma"),
        ("External,Other", "must be InCluster or External or both"),
        (",", "names none, and nothing would be served"),
    ],
)
def test_provisioners_that_there_are_not_are_refused_by_the_variables_name(text, said):
    with pytest.raises(SettingsError, match=f"ASYNCCTL_DATABASE_PROVISIONERS.*{said}"):
        DatabaseSettings.from_environment({"ASYNCCTL_DATABASE_PROVISIONERS": text})
