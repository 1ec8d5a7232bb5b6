"""Settings: flag over environment over file; what is wrong is named with its origin."""

from dataclasses import fields
from pathlib import Path

import pytest

from everloop.core.errors import InvalidInput
from everloop.core.settings import Settings, is_loopback, load


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path):
    file = tmp_path / "everloop.toml"
    file.write_text('port = 1\nhost = "a"\nproject = "f"\nfsync = true\n')
    loaded = load({"port": 3, "host": None}, {"EVERLOOP_PORT": "2", "EVERLOOP_HOST": "b", "EVERLOOP_HOME": "h"}, file)
    assert (loaded.port, loaded.host, loaded.project, loaded.fsync, loaded.home) == (3, "b", "f", True, Path("h"))
    assert load({}, {}, tmp_path / "absent.toml") == load({}, {}) == Settings()


@pytest.mark.parametrize(
    ("flags", "environ", "text", "named"),
    [
        ({"port": "x"}, {}, "", "flag"),
        ({}, {"EVERLOOP_PORT": "x"}, "", "environment"),
        ({}, {"EVERLOOP_REPLAY": "perhaps"}, "", "environment"),
        ({}, {}, "colour = 1", "colour"),
        ({}, {}, "port = ", "everloop.toml"),
        ({}, {}, 'port = "x"', "everloop.toml"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, flags, environ, text, named):
    file = tmp_path / "everloop.toml"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=named):
        load(flags, environ, file)


def test_there_are_at_most_fifteen():
    assert len(fields(Settings)) <= 15


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.3.2.1", "::1", "[::1]"])
def test_these_mean_this_machine_only(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "192.168.1.4", "localhost.example.org", "127.0.0.1.nip.io"])
def test_these_may_be_reached_from_elsewhere(host):
    assert not is_loopback(host)
