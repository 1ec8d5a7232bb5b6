"""Fallbacks at request time: in their order, flagged, logged, counted; the cache bounded and emptied by an erasure."""

import time

import numpy as np
import pytest
import serving_models
from serving_house import folder_of, logged, one_row, revision

from everloop.core.errors import DefinitionError, Unavailable
from everloop.serving.columns import describe
from everloop.serving.definitions import EndpointDef
from everloop.serving.erasure.caches import AnswerCaches
from everloop.serving.gateway.instead.cache import EPOCH, Cache, key_of
from everloop.serving.rollout.declared import Cached, Default, Simpler
from everloop.serving.table import Instead, Route

DEFAULT = Instead("default", values=[["prediction", {"float": "7.5"}]])
CACHED = Instead("cached", ttl_micros=60_000_000, most=100)


def served(place, *ways, model=None, deadline=10.0):
    """A gateway on an endpoint that is asked through `Moody` (it misbehaves on demand), and a simple graph beside."""
    moody = folder_of(place.home, "moody", model or serving_models.Moody())
    simple = folder_of(place.home, "simple", serving_models.Constant(3.0))
    simpler = revision(simple, 2, 0)
    ways = [Instead("simpler", simpler.id) if way == "simpler" else way for way in ways]
    route = Route("shop", "delay", [simpler, revision(moody, 1)], instead=ways, deadline_micros=int(deadline * 1e6))
    place.serve(route)
    gateway = place.gateway().ready()
    place.until(lambda said: {its["state"] for its in said["endpoints"]["shop.delay"].values()} == {"ready"})
    return gateway


def counters(place, number):
    return place.stats()["endpoints"]["shop.delay"][f"b3:{number:064x}"]


def test_each_way_in_its_order(place):
    gateway = served(place, CACHED, "simpler", DEFAULT)
    good = gateway.predict(one_row(5.0))
    assert "everloop-fallback" not in good.headers
    failed = gateway.predict(one_row(-1.0))  # the model raises, and nothing is cached
    assert failed.status_code == 200
    assert failed.headers["everloop-fallback-kind"] == "simpler"
    assert (failed.json()["predictions"], failed.json()["fallback_kind"]) == ([3.0], "simpler")
    place.until(lambda _: counters(place, 1)["simpler"] == 1)
    entry = logged(place.home)[-1]
    assert (entry.path["fallback"], entry.fallback, entry.revision) == ("simpler", f"b3:{1:064x}", f"b3:{2:064x}")


def test_an_earlier_answer_stands_in_while_the_model_cannot(place, tmp_path):
    gateway = served(place, CACHED, DEFAULT, model=serving_models.Switched(str(tmp_path / "broken")))
    first = gateway.predict(one_row(5.0)).json()
    (tmp_path / "broken").touch()
    answer = gateway.predict(dict(reversed(one_row(5.0).items())))  # the same question, said in another order
    assert answer.json()["predictions"] == first["predictions"]
    assert answer.json()["fallback_kind"] == "cached"
    assert answer.json()["prediction_id"] != first["prediction_id"]  # a prediction of its own
    other = gateway.predict(one_row(6.0))
    assert (other.json()["predictions"], other.headers["everloop-fallback-kind"]) == ([7.5], "default")
    pinned = gateway.predict(one_row(6.0), **{"Everloop-Revision": "1"})
    assert pinned.status_code == 500  # who insists on a revision is told how it is
    place.until(lambda _: (counters(place, 1)["cached"], counters(place, 1)["defaulted"]) == (1, 1))
    metrics = gateway.client.get("/metrics").text
    assert 'everloop_cached_total{endpoint="shop.delay",revision="1"} 1' in metrics
    assert [e.path.get("fallback") for e in logged(place.home)] == [None, "cached", "default"]
    assert logged(place.home)[-1].columns()["distance"].tolist() == [6.0]


def test_a_model_that_hangs_is_given_up_in_time_for_the_others(place):
    gateway = served(place, DEFAULT, deadline=6.0)
    started = time.monotonic()
    answer = gateway.predict(one_row(-3.0))
    assert answer.json()["fallback_kind"] == "default"
    assert (
        time.monotonic() - started > 2.9
    )  # half of the time is the model's, the rest is for what answers in its stead


def test_an_erasure_empties_every_gateway(place, context, tmp_path):
    gateway = served(place, CACHED, DEFAULT, model=serving_models.Switched(str(tmp_path / "broken")))
    gateway.predict(one_row(5.0))
    place.until(lambda said: said["kept"] == 1)
    assert AnswerCaches(context).erase("somebody") == 1
    assert place.stats()["kept"] == 0
    (tmp_path / "broken").touch()
    assert gateway.predict(one_row(5.0)).json()["fallback_kind"] == "default"
    gateway.process.send_signal(19)  # it stands still: nobody may say that it forgot
    try:
        with pytest.raises(Unavailable):
            AnswerCaches(context, patience=0.5).erase("somebody")
    finally:
        gateway.process.send_signal(18)


def test_the_cache_is_bounded_and_forgets(tmp_path):
    cache = Cache(tmp_path)

    def put(name, rows=1):
        answer = {"p": np.zeros(rows)}
        cache.put(key_of("shop.delay", {"x": [name]}, ("x",)), describe(answer), answer, rows, 10)

    for number in range(30):
        put(number)
    put("many", 6)
    put("too many", 11)
    assert cache.rows == 10
    held = [n for n in (*range(30), "many") if cache.get(key_of("shop.delay", {"x": [n]}, ("x",)), 60)]
    assert held == [26, 27, 28, 29, "many"]
    put("many", 2)  # the same question again takes its own place
    assert cache.rows == 6
    assert cache.get(key_of("shop.delay", {"x": ["many"]}, ("x",)), 0.0) is None
    assert cache.get(key_of("shop.other", {"x": ["many"]}, ("x",)), 60) is None
    assert key_of("a", {"x": [1, 2], "z": [3]}, ("x",)) == key_of("a", {"x": np.array([1, 2])}, ("x", "y"))
    (tmp_path / EPOCH).write_text("7")
    cache.follow()
    assert (cache.rows, cache.epoch) == (0, 7)


def test_definitions():
    ways = ["previous", Simpler("plain"), Cached("1m", most=5), Default({"prediction": 0.5, "why": "none"})]
    endpoint = EndpointDef("delay", "delay", fallback=ways)
    assert [step["fallback"] for step in endpoint.manifest()["fallback"]] == [
        "previous",
        "simpler",
        "cached",
        "default",
    ]
    assert endpoint.upstream == ("model/delay", "model/plain")
    assert EndpointDef("d", "m", fallback=["previous"]).manifest()["fallback"] == "previous"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: EndpointDef("d", "m", fallback=[]),
        lambda: EndpointDef("d", "m", fallback=["previous", "previous"]),
        lambda: EndpointDef("d", "m", fallback=["hope"]),
        lambda: EndpointDef("d", "m", fallback=Simpler(7)),
        lambda: Cached("0s"),
        lambda: Cached(most=0),
        lambda: Default({}),
        lambda: Default({"a": None}),
    ],
)
def test_wrong_definitions_are_refused(wrong):
    with pytest.raises(DefinitionError):
        wrong()
