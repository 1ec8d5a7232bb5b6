"""Ten thousand endpoints in one gateway, two hundred of them at work: what an idle one costs, and what fits at once."""

import asyncio
import time

import httpx2
import psutil
import pytest
from serving_house import Place, folder_of, one_row, revision
from serving_models import Constant, Heavy

from everloop.core.errors import DefinitionError
from everloop.serving.definitions import EndpointDef, Workers
from everloop.serving.table import Route

LIVE = 200
BUDGET = 400
"""MiB of the gateway's workers."""


def named(n):
    return f"b3:{n:064x}"


def served(home, count, *, models=None, shared="", options=None):
    """A gateway with so many endpoints, each of a model of its own; only the first ones' files are there."""
    place = Place(home)
    for number in range(LIVE):
        folder_of(home, f"m{number}", (models or Constant)(float(number)))
    more = {"least": 0, "idle_micros": 3_600_000_000, "shared": shared, "deadline_micros": 60_000_000}
    routes = [Route("shop", f"e{n}", [revision(str(home / f"m{n}"), 1, id=named(n))], **more) for n in range(count)]
    place.serve(*routes)
    gateway = place.gateway(**(options or {}))
    gateway.client.timeout = 240
    return place, gateway.ready(240)


def idle(gateway, seconds=3.0):
    """Bytes of the gateway after nobody asked for a while."""
    time.sleep(seconds)
    return psutil.Process(gateway.process.pid).memory_info().rss


def workers(gateway):
    return psutil.Process(gateway.process.pid).children()


async def all_of(gateway, numbers, at_once=16):
    """What each of these endpoints answers."""
    room = asyncio.Semaphore(at_once)

    async def one(client, number):
        async with room:
            return await client.post(f"/endpoints/shop/e{number}/predict", json=one_row())

    async with httpx2.AsyncClient(base_url=gateway.url, timeout=120) as client:
        return await asyncio.gather(*(one(client, number) for number in numbers))


def answered(gateway, numbers):
    answers = asyncio.run(all_of(gateway, numbers))
    assert {answer.status_code for answer in answers} == {200}, next(a.text for a in answers if a.status_code != 200)
    assert [answer.json()["predictions"] for answer in answers] == [[float(number)] for number in numbers]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_idle_endpoint_costs_little_and_wakes_nothing_and_two_hundred_are_live_in_a_budget(tmp_path):
    few, gateway = served(tmp_path / "few", 10)
    small = idle(gateway)
    few.close()
    many, gateway = served(tmp_path / "many", 10_000, shared="small", options={"memory": str(BUDGET)})
    try:
        large = idle(gateway)
        assert workers(gateway) == []
        assert (large - small) / 9_990 <= 50_000
        answered(gateway, range(LIVE))
        (worker,) = workers(gateway)  # of all of them
        assert worker.memory_info().rss <= BUDGET << 20
        told = many.until(
            lambda s: sum(s["endpoints"][f"shop.e{n}"][named(n)]["requests"] for n in range(LIVE)) == LIVE
        )
        states = [told["endpoints"][f"shop.e{n}"][named(n)]["state"] for n in range(LIVE)]
        assert states == ["ready"] * LIVE  # at once
        answered(gateway, range(LIVE))
    finally:
        many.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_of_models_that_do_not_fit_together_those_asked_last_are_loaded(tmp_path):
    budget = 300
    many, gateway = served(tmp_path, LIVE, models=Heavy, shared="large", options={"memory": str(budget)})
    try:
        answered(gateway, range(LIVE))  # 1.6 GB of models
        (worker,) = workers(gateway)

        def fits(stats):
            return worker.memory_info().rss <= budget << 20

        told = many.until(fits)
        last, first = (told["endpoints"][f"shop.e{n}"][named(n)]["state"] for n in (LIVE - 1, 0))
        assert (last, first) == ("ready", "asleep")
        answered(gateway, [0, LIVE - 1, 1])
        assert worker.is_running()
    finally:
        many.close()


def shared(place, *models, **more):
    for n, model in enumerate(models):
        folder_of(place.home, f"s{n}", model)
    routes = [
        Route("shop", f"e{n}", [revision(str(place.home / f"s{n}"), 1, id=named(n))], shared="small", **more)
        for n in range(len(models))
    ]
    place.serve(*routes)
    return place.gateway().ready()


def test_models_share_a_process_answer_side_by_side_and_go_alone(place):
    gateway = shared(place, Constant(0.0), Constant(1.0), Constant(2.0))
    answered(gateway, range(3))
    (worker,) = workers(gateway)
    folder = str(place.home / "s0")
    place.serve(Route("shop", "e0", [revision(folder, 1, id=named(0))], shared="small"))  # the others are gone
    place.until(lambda s: set(s["endpoints"]) == {"shop.e0"})
    answered(gateway, [0])
    assert [child.pid for child in workers(gateway)] == [worker.pid]


def test_a_model_that_cannot_be_loaded_leaves_those_beside_it(place):
    gateway = shared(place, Constant(0.0), Constant(1.0))
    (worker,) = workers(gateway)
    (place.home / "broken").mkdir()
    routes = [
        Route("shop", f"e{n}", [revision(str(place.home / f"s{n}"), 1, id=named(n))], shared="small") for n in (0, 1)
    ]
    broken = Route("shop", "e2", [revision(str(place.home / "broken"), 1, id=named(2))], shared="small")
    place.serve(*routes, broken)
    place.until(lambda s: named(2) in s["problems"])
    answered(gateway, [0, 1])
    assert [child.pid for child in workers(gateway)] == [worker.pid]


def test_a_shared_process_that_dies_is_healed_with_all_its_models(place):
    gateway = shared(place, Constant(0.0), Constant(1.0))
    (worker,) = workers(gateway)
    worker.kill()
    place.until(lambda s: all(s["endpoints"][f"shop.e{n}"][named(n)]["restarts"] == 1 for n in (0, 1)))
    place.until(lambda s: all(s["endpoints"][f"shop.e{n}"][named(n)]["state"] == "ready" for n in (0, 1)))
    answered(gateway, [0, 1])
    (newer,) = workers(gateway)
    assert newer.pid != worker.pid


def test_an_author_names_the_process_that_models_share():
    said = EndpointDef("delay", "m", workers=Workers(least=0, shared="small")).manifest()["workers"]
    assert said["shared"] == "small"
    for wrong in ({"most": 4}, {"cores": 2}):
        with pytest.raises(DefinitionError):
            Workers(shared="small", **wrong)
