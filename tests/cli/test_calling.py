"""Asking a real gateway from the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "serving"))

import serving_models
from serving_house import Place, folder_of, revision

from everloop.serving.table import Route


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("called"))
    model = revision(folder_of(place.home, "m1", serving_models.Moody()), 1)
    place.serve(Route("shop", "delay", [model]))
    yield place.gateway().ready()
    place.close()


def told(gateway, *words):
    done = subprocess.run(
        [sys.executable, "-m", "everloop", "--json", "--project", "shop", "--server", gateway.url, "endpoints", *words],
        env={**os.environ, "EVERLOOP_TOKEN": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, json.loads(done.stdout or done.stderr)


def test_one_question_is_its_own_example_or_what_was_given(gateway):
    code, said = told(gateway, "try", "delay")
    assert (code, said["question"]) == (0, {"distance": 100.0, "hour": 3, "carrier": "AA"})
    assert said["predictions"] == [{"echo": 100.0, "carrier": "AA"}]
    assert said["prediction_id"]
    code, said = told(gateway, "try", "delay", "--data", '{"distance": 7, "hour": 1, "carrier": "UA"}')
    assert (code, said["predictions"][0]["echo"]) == (0, 7.0)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("try", "nobody"), "no endpoint"),
        (("try", "delay", "--data", "{"), "no JSON"),
        (("try", "delay", "--data", '{"distance": "far"}'), "400"),
        (("try", "delay", "--data", '{"distance": -1, "hour": 1, "carrier": "UA"}'), "no negative distances"),
    ],
)
def test_what_goes_wrong_is_said_with_a_hint(gateway, words, part):
    code, said = told(gateway, *words)
    assert code > 0
    assert part in said["detail"]
    assert said["hint"]


def test_many_questions_are_counted(gateway):
    code, said = told(gateway, "load", "delay", "--seconds", "0.5", "--connections", "3")
    assert code == 0
    assert said["statuses"] == {"200": said["requests"]}
    assert 0 < said["p50_milliseconds"] <= said["p99_milliseconds"]
