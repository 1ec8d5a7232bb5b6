"""What one caller may ask: spread over a period, and in each whole one."""

import hashlib
from types import SimpleNamespace

import graph_models
import pytest
import serving_models
from serving_house import folder_of, one_row, revision

from everloop.core.errors import DefinitionError, Overloaded
from everloop.serving.definitions import EndpointDef
from everloop.serving.definitions import Limits as Wanted
from everloop.serving.gateway.speaking.limits import Limits
from everloop.serving.table import Route


def route(**limits):
    said = Wanted(**limits).manifest()
    champion = SimpleNamespace(counters=SimpleNamespace(limited=0))
    return SimpleNamespace(route=Route("shop", "delay", [], limits=said), champion=champion)


def refused(limits, where, caller, now):
    with pytest.raises(Overloaded) as caught:
        limits.take(where, caller, now)
    return caught.value.details["seconds"]


def test_a_rate_fills_evenly_and_is_each_callers_own():
    limits, where = Limits(), route(rate="2/s")
    for caller in ("a", "b"):
        for _ in range(2):
            limits.take(where, caller, 100.0)
        assert refused(limits, where, caller, 100.0) == pytest.approx(0.5)
    limits.take(where, "a", 100.5)
    assert refused(limits, where, "a", 100.6) == pytest.approx(0.4)
    for _ in range(2):
        limits.take(where, "a", 300.0)  # never more than one period's worth
    refused(limits, where, "a", 300.0)
    assert where.champion.counters.limited == 4


def test_a_quota_counts_in_whole_periods():
    limits, where = Limits(), route(quota="3/m")
    for now in (70.0, 71.0, 119.0):
        limits.take(where, "a", now)
    assert refused(limits, where, "a", 119.5) == pytest.approx(0.5)
    limits.take(where, "a", 120.0)


def test_wrong_limits_are_refused_and_right_ones_are_in_the_definition():
    for wrong in ({"rate": "many"}, {"quota": "0/d"}, {"rate": "5/y"}):
        with pytest.raises(DefinitionError):
            Wanted(**wrong)
    said = EndpointDef("delay", "m", limits=Wanted("50/s", "1000/d")).manifest()["limits"]
    assert said == {"rate": [50, 1_000_000], "quota": [1000, 86_400_000_000]}
    assert "limits" not in EndpointDef("delay", "m").manifest()


def test_a_caller_beyond_its_limit_hears_when_to_come_again(place):
    x = {"inputs": [["x", "FP64"]], "caller": [["x", "FP64"]], "example": {"x": [1.0]}}
    model = revision(folder_of(place.home, "m1", graph_models.Plus(1)), 1, **x)
    tokens = {hashlib.sha256(b"known").hexdigest(): ["shop"]}
    place.serve(Route("shop", "delay", [model], limits=Wanted(quota="2/d").manifest()), tokens=tokens)
    gateway = place.gateway().ready()
    statuses = [gateway.predict({"x": 1}).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    tensor = {"name": "x", "shape": [1], "datatype": "FP64", "data": [1]}
    answer = gateway.client.post("/v2/models/shop.delay/infer", json={"inputs": [tensor]})
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 1
    assert "its quota of 2 in a day is used up" in answer.json()["error"]
    assert gateway.predict({"x": 1}).json()["error_code"] == "REQUEST_LIMIT_EXCEEDED"
    assert gateway.predict({"x": 1}, authorization="Bearer known").status_code == 200
    assert gateway.predict({"x": 1}, authorization="Bearer made-up").status_code == 429
    counted = place.until(lambda s: s["endpoints"]["shop.delay"][f"b3:{1:064x}"]["limited"] == 4)
    assert counted["endpoints"]["shop.delay"][f"b3:{1:064x}"]["errors"] == 0


def test_both_ways_count_on_one_account_and_a_failure_is_one_request(place):
    ordinary = {"content-encoding": "identity"}  # all that is particular about its questions
    moody = revision(folder_of(place.home, "m1", serving_models.Moody()), 1)
    steady = revision(folder_of(place.home, "m2", serving_models.Constant(7.0)), 2, weight=0)
    place.serve(Route("shop", "delay", [moody, steady], limits=Wanted(quota="4/d").manifest()))
    gateway = place.gateway().ready()
    place.until(lambda s: all(one["state"] == "ready" for one in s["endpoints"]["shop.delay"].values()))
    assert gateway.predict(one_row()).status_code == 200
    assert gateway.predict(one_row(), **ordinary).status_code == 200
    for headers in ({}, ordinary):  # the model fails, the revision before answers
        reply = gateway.predict(one_row(-1.0), **headers)
        assert reply.json()["predictions"] == [7.0]
    assert [gateway.predict(one_row(), **headers).status_code for headers in ({}, ordinary)] == [429, 429]
    place.until(lambda s: s["endpoints"]["shop.delay"][f"b3:{1:064x}"]["limited"] == 2)
