"""Rollouts from a terminal: arguments that make no sense are said with a hint, before anything is asked."""

import json
import os
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    assert everloop(folder, "init")[0] == 0
    (folder / "binary").write_bytes(b"\xff\xfe\x00")
    (folder / "lines").write_text('{"prediction": "p", "value": 1}\n[1]\n')
    return folder


def everloop(folder, *words):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EVERLOOP_")}
    done = subprocess.run(
        [sys.executable, "-m", "everloop", "--json", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("feedback", "delay", "clicks", "nowhere"), "nowhere cannot be read: No such file"),
        (("feedback", "delay", "clicks", "."), "cannot be read: Is a directory"),
        (("feedback", "delay", "clicks", "binary"), "no text in UTF-8"),
        (("feedback", "delay", "clicks", "lines"), "line 2 is no JSON object"),
        (("share", "delay", "deep=20", "deep=30"), "one percentage for each challenger"),
        (("share", "delay", "=20"), "are no shares"),
        (("logs", "delay"), "no endpoint 'delay'"),
        (("push", "delay", "clicks", "--revision", "1", "--count", "3", "--total", "nan"), "can be added up"),
        (("score", "delay", "flights", "--follow"), "--follow needs --by"),
    ],
)
def test_what_makes_no_sense_is_said_with_a_hint(home, words, part):
    code, said = everloop(home, "endpoints", *words)
    assert code > 0
    assert part in said
    assert json.loads(said)["hint"]
    assert "fault of Everloop" not in said
