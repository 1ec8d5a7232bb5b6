"""Ten thousand endpoints in one gateway, two hundred of them at work: what an idle one costs."""

import time

import psutil
import pytest
from serving_house import Place, folder_of, revision
from serving_models import Constant

from everloop.serving.table import Route

LIVE = 200


def served(home, count):
    """A gateway with so many endpoints, each of a model of its own; only the first ones' files are there."""
    place = Place(home)
    for number in range(LIVE):
        folder_of(home, f"m{number}", Constant(float(number)))
    routes = [
        Route(
            "shop", f"e{n}", [revision(str(home / f"m{n}"), 1, id=f"b3:{n:064x}")], least=0, idle_micros=3_600_000_000
        )
        for n in range(count)
    ]
    place.serve(*routes)
    gateway = place.gateway()
    gateway.client.timeout = 240
    return place, gateway.ready(240)


def idle(gateway, seconds=3.0):
    """Bytes of the gateway after nobody asked for a while."""
    time.sleep(seconds)
    return psutil.Process(gateway.process.pid).memory_info().rss


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_idle_endpoint_costs_little_and_wakes_nothing(tmp_path):
    few, gateway = served(tmp_path / "few", 10)
    small = idle(gateway)
    few.close()
    many, gateway = served(tmp_path / "many", 10_000)
    try:
        large = idle(gateway)
        assert psutil.Process(gateway.process.pid).children() == []
        assert (large - small) / 9_990 <= 50_000
        for number in range(0, LIVE, 40):
            answer = gateway.predict({"distance": 1.0, "hour": 1, "carrier": "A"}, address=f"shop.e{number}")
            assert answer.json()["predictions"] == [float(number)]
        assert len(psutil.Process(gateway.process.pid).children()) == LIVE // 40
    finally:
        many.close()
