"""Whose sign-in link `everloop up` prints."""

import pytest

from everloop.cli.system import sign_in_link
from everloop.core.errors import NotFound
from everloop.core.settings import Settings
from everloop.workspace.initial import initialise
from everloop.workspace.opened import Workspace


def test_a_link_for_somebody_who_is_there(tmp_path):
    settings = Settings(home=tmp_path / "home", project="p")
    initialise(settings, "ada", "team", tmp_path)
    with Workspace.open(settings) as workspace:
        assert sign_in_link(workspace, "ada").startswith("/")
        with pytest.raises(NotFound) as refused:
            sign_in_link(workspace, "root")
    assert "--user" in refused.value.hint
    assert "ada" in refused.value.hint
