"""The worker that is started before the gateway is loaded."""

import os
import socket
import time

import psutil
import pytest
import serving_models
from serving_house import Place, folder_of, one_row, revision

from everloop.core.errors import Unavailable
from everloop.serving.gateway.passing import hand
from everloop.serving.gateway.starting import spare
from everloop.serving.gateway.starting.shared import Shared
from everloop.serving.table import INLINE, Route


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    yield place
    spare.dismiss()
    place.close()


def model(place, name, *requirements, **more):
    folder = folder_of(place.home, name, serving_models.Constant(1.0))
    (place.home / name / "requirements.txt").write_text("".join(f"{line}\n" for line in requirements))
    return revision(folder, 1, **more)


def become(process):
    """The process, once the kernel tells its words: it ends a fork a moment before."""
    its, end = psutil.Process(process.pid), time.monotonic() + 30
    while "--fd" not in its.cmdline():
        assert time.monotonic() < end
        time.sleep(0.01)
    return its


def ahead(place):
    """What a spare for this home imports; None: there is no spare."""
    spare.begin(["gateway", "--home", str(place.home)])
    if not spare._spare:
        return None
    ((process, _),) = spare._spare
    words = become(process).cmdline()
    spare.dismiss()
    return words[words.index("--fd") + 2 :]


def test_it_imports_what_the_first_awake_model_requires(place):
    assert ahead(place) is None  # there is no table
    asleep = Route("shop", "asleep", [model(place, "m0", "xgboost==3.0.0")], least=0)
    within = Route("shop", "within", [model(place, "m1", "scikit-learn==1.8.0", loader=INLINE)])
    place.serve(asleep, within)
    assert ahead(place) is None
    place.serve(asleep, within, Route("shop", "delay", [model(place, "m2", "numpy==2.0.0", "scikit-learn==1.8.0")]))
    assert ahead(place) == ["sklearn.ensemble"]
    (place.home / "m2" / "requirements.txt").write_text("os\nscikit-learn-extra==1\n")
    assert ahead(place) is None
    (place.home / "serving" / "routes.json").write_bytes(b'{"payload": "e30="}')
    assert ahead(place) is None


def test_it_becomes_the_first_models_worker(place):
    place.serve(Route("shop", "delay", [model(place, "m1", "scikit-learn==1.8.0")]))
    gateway = place.gateway().ready()
    assert gateway.predict(one_row()).json()["predictions"] == [1.0]
    (worker,) = psutil.Process(gateway.process.pid).children()
    assert "sklearn.ensemble" in worker.cmdline()
    assert place.until(lambda s: s["endpoints"]["shop.delay"][f"b3:{1:064x}"]["pid"] == worker.pid)


def test_it_does_not_know_the_gateways_secret(place, monkeypatch):
    monkeypatch.setenv(hand.VARIABLE, "secret")
    place.serve(Route("shop", "delay", [model(place, "m1", "scikit-learn==1.8.0")]))
    spare.begin(["gateway", "--home", str(place.home)])
    ((process, _),) = spare._spare
    environment = become(process).environ()
    assert hand.VARIABLE not in environment
    assert environment["OMP_NUM_THREADS"] == "1"
    spare.dismiss()
    assert process.poll() is not None
    assert os.environ[hand.VARIABLE] == "secret"


def test_what_cannot_be_handed_over_is_an_error():
    shared, (ours, theirs) = Shared(), socket.socketpair()
    with ours:
        theirs.close()  # no process can be given what is closed, however new it is
        with pytest.raises(Unavailable, match="the process that models share takes none"):
            shared.take(theirs)
    shared.close()
    shared.kill()
