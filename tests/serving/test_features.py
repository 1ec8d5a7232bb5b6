"""Feature look-ups of real gateways: the policy on what is too old, a store that is gone, and look-ups over HTTP."""

import asyncio
import hashlib
import threading

import msgspec
import pytest
import redis_house
import serving_models
from serving_house import bound, folder_of, logged, revision

from everloop.core.clock import HOUR, MINUTE, SECOND
from everloop.core.version import Version
from everloop.features.definitions import FeatureServiceDef, FeatureViewDef, count, mean
from everloop.features.online import Found, OnlineView, advance, push, scope_of
from everloop.features.stores.places import open_place, place_of
from everloop.serving.gateway.features import Features
from everloop.serving.rollout.entries import service_of
from everloop.serving.table import Lookup, Route

NOON = 1_370_088_000 * SECOND
SCOPE = scope_of("shop", "production")
OLD = FeatureViewDef("load", "departures", "origin", [count(over="3h")], event_time="at", key="id")
NEW = FeatureViewDef("load", "departures", "origin", [count(over="3h", where=("delay", ">", 2))], "at", "at", "id")
COST = FeatureViewDef("cost", "departures", "origin", [mean("delay", over="3h")], event_time="at", key="id")
ROWS = [{"id": n, "origin": "JFK", "at": NOON - n * MINUTE, "delay": float(n)} for n in range(1, 5)]


def pinned(*views):
    """A service of these views, with its manifests: what a routing table holds."""
    ids = {view.name: Version("view", view.name, view.manifest()).id for view in views}
    service = FeatureServiceDef("inputs", views, request=["distance"])
    manifests = {ids[view.name]: view.manifest() for view in views}
    return service_of("shop", "inputs", service.manifest(ids), manifests, SCOPE)


def filled(home, *views, until=NOON, rows=ROWS):
    """The views with four facts, complete up to a time."""
    store = open_place(place_of(home, "production"))
    for view in views:
        online = OnlineView.of(SCOPE, Version("view", view.name, view.manifest()).id, view)
        push(store, online, rows)
        if until is not None:
            advance(store, online, until)
    store.close()


def endpoint(place, name, *views, number=1, weight=100, **policy):
    lookup = Lookup(**{**{f: getattr(pinned(*views).lookup, f) for f in Lookup.__struct_fields__}, **policy})
    inputs = [["distance", "FP64"], *([f"{v.name}__{f.name}", "FP64"] for v in views for f in v.features)]
    folder = folder_of(place.home, f"{name}{number}", serving_models.Added())
    return revision(
        folder,
        number,
        weight,
        inputs=inputs,
        caller=[["origin", "BYTES"], ["distance", "FP64"]],
        example={},
        lookup=lookup,
    )


def ask(gateway, name, at=NOON, origin="JFK"):
    return gateway.predict({"origin": origin, "distance": 100.0}, f"shop.{name}", **{"everloop-time": str(at)})


def test_what_is_too_old_fails_is_replaced_or_served_and_said(place):
    fresh = {"fresh_micros": HOUR}
    routes = [
        Route("shop", "strict", [endpoint(place, "strict", OLD, COST, **fresh)]),
        Route("shop", "blank", [endpoint(place, "blank", OLD, COST, number=2, stale="default", **fresh)]),
        Route("shop", "lenient", [endpoint(place, "lenient", OLD, COST, number=3, stale="serve", **fresh)]),
    ]
    filled(place.home, OLD)
    filled(place.home, COST, until=NOON + 2 * HOUR)
    place.serve(*routes, replay=True)
    gateway = place.gateway().ready()
    for name in ("strict", "blank", "lenient"):
        answer = ask(gateway, name, NOON + HOUR).json()
        assert answer["predictions"] == [100 + 4 + 2.5]
        assert "stale" not in answer
    refused = ask(gateway, "strict", NOON + HOUR + 1)
    assert refused.status_code == 503
    assert "load is filled up to 2013-06-01T12:00:00" in refused.text
    assert "3600 s are allowed" in refused.text
    for name, stands, total in (("blank", "default", 102.5), ("lenient", "serve", 106.5)):
        answer = ask(gateway, name, NOON + HOUR + 1)
        assert answer.json()["predictions"] == [total]
        assert answer.json()["stale"] == {"load": stands}
        assert answer.headers["everloop-stale"] == "load"
    assert [e.stale for e in logged(place.home)] == [{}] * 3 + [{"load": "default"}, {"load": "serve"}]
    stats = place.until(lambda s: s["endpoints"]["shop.lenient"][f"b3:{3:064x}"]["requests"] == 2)["endpoints"]
    assert stats["shop.lenient"][f"b3:{3:064x}"]["stale"] == 1
    assert stats["shop.strict"][f"b3:{1:064x}"]["stale"] == 0
    views = place.until(lambda s: s["views"].get("shop.load", {}).get("rows") == 6)["views"]
    good = {"rows": 6, "unknown": 0, "stale": 0, "unfed": 0, "refused": 0}
    assert views == {"shop.load": good | {"stale": 3}, "shop.cost": good}


def test_what_is_not_answered_well_is_counted_by_view_and_reason(place):
    integers = {"types": {"origin": "BYTES"}}
    filled(place.home, OLD)
    lookup = pinned(OLD)
    lookup = msgspec.structs.replace(lookup, lookup=msgspec.structs.replace(lookup.lookup, **integers))
    place.serve(Route("shop", "delay", [endpoint(place, "delay", OLD, **integers)]), services=[lookup], replay=True)
    gateway = place.gateway().ready()
    assert ask(gateway, "delay").json()["predictions"] == [104]
    assert ask(gateway, "delay", origin="nowhere").json()["predictions"] == [100]  # the values over nothing
    wrong = ask(gateway, "delay", origin=7)
    assert wrong.status_code == 400
    assert "text in the data, not 7" in wrong.text
    assert ask(gateway, "delay", NOON - 40 * HOUR).status_code == 400  # the states do not answer for it any more
    found = look(gateway, {"entities": [{"origin": o} for o in ("JFK", "nowhere", None)], "at": NOON}).json()
    assert found["unknown"] == {"load": 2}
    assert look(gateway, {"entities": {"origin": ["JFK", 7]}, "at": NOON}).status_code == 400
    assert look(gateway, {"entities": [{"airport": "JFK"}]}).status_code == 400
    counted = {"rows": 10, "unknown": 3, "stale": 0, "unfed": 0, "refused": 5}
    assert place.until(lambda s: s["views"].get("shop.load", {}).get("rows") == 10)["views"] == {"shop.load": counted}
    lines = gateway.client.get("/metrics").text.splitlines()
    for reason, rows in counted.items():
        assert f'everloop_feature_view_{reason}_total{{view="shop.load"}} {rows}' in lines
    assert 'everloop_feature_service_errors_total{service="shop.inputs"} 2' in lines


def test_a_whole_number_that_is_sent_as_text_finds_its_entity(place):
    facts = [{"id": n, "origin": 7, "at": NOON - n * MINUTE, "delay": float(n)} for n in range(1, 5)]
    filled(place.home, OLD, rows=facts)
    service = pinned(OLD)
    lookup = msgspec.structs.replace(service.lookup, types={"origin": "INT64"})
    place.serve(
        Route("shop", "delay", [endpoint(place, "delay", OLD, types=lookup.types)]),
        services=[msgspec.structs.replace(service, lookup=lookup)],
        replay=True,
    )
    gateway = place.gateway().ready()
    assert [ask(gateway, "delay", origin=origin).json()["predictions"] for origin in (7, "7", None)] == [
        [104],
        [104],
        [100],
    ]
    refused = ask(gateway, "delay", origin="seven")
    assert (refused.status_code, "a whole number in the data, not 'seven'" in refused.text) == (400, True)
    for entities in ([{"origin": "7"}, {"origin": 7}], {"origin": ["7", 7]}):
        found = look(gateway, {"entities": entities, "at": NOON}).json()
        assert found["unknown"] == {}
        values = (
            found["values"]
            if "values" in found
            else [{"load__count_3h": n} for n in found["columns"]["load__count_3h"]]
        )
        assert values == [{"load__count_3h": 4}] * 2


def test_a_view_that_was_never_filled_is_not_served_and_the_revision_before_answers(place):
    old = endpoint(place, "delay", OLD, weight=50)
    new = endpoint(place, "delay", NEW, number=2, weight=50)
    filled(place.home, OLD)
    filled(place.home, NEW, until=None)
    place.serve(Route("shop", "delay", [new, old]), replay=True)
    gateway = place.gateway().ready()
    answers = [ask(gateway, "delay", NOON, origin) for origin in ("JFK", *(f"A{n}" for n in range(20)))]
    assert {a.status_code for a in answers} == {200}
    assert {a.json()["revision"] for a in answers} == {old.id}
    assert any("everloop-fallback" in a.headers for a in answers)
    filled(place.home, NEW)  # both versions of the view serve side by side
    by_revision = {
        spec: gateway.predict(
            {"origin": "JFK", "distance": 100.0}, **{"everloop-time": str(NOON), "everloop-revision": spec}
        ).json()["predictions"]
        for spec in ("1", "2")
    }
    assert by_revision == {"1": [104], "2": [102]}


def test_a_store_that_is_gone_and_back(place, tmp_path):
    with redis_house.serving(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        (place.home / "bindings.toml").write_text(f'[production]\nonline_store = "{server.url}"\n')
        filled(place.home, OLD)
        before = endpoint(place, "strict", OLD, number=3, weight=0)
        strict = Route("shop", "strict", [endpoint(place, "strict", OLD), before])
        blank = Route("shop", "blank", [endpoint(place, "blank", OLD, number=2, stale="default")])
        place.serve(strict, blank, replay=True)
        gateway = place.gateway().ready()
        assert ask(gateway, "strict").json()["predictions"] == [104]
        server.kill()
        refused = ask(gateway, "strict")
        assert refused.status_code == 503
        assert "does not answer" in refused.text
        answer = ask(gateway, "blank").json()
        assert (answer["predictions"], answer["stale"]) == ([100], {"load": "default"})
        server.start()
        place.until(lambda _: ask(gateway, "strict").status_code == 200)
        assert ask(gateway, "blank").json()["predictions"] == [104]
        counted = place.until(lambda s: s["endpoints"]["shop.blank"][f"b3:{2:064x}"]["requests"] == 2)["endpoints"]
        first = counted["shop.strict"][f"b3:{1:064x}"]
        assert first["unfed"] >= 1
        assert (first["errors"], first["fallbacks"]) == (0, 0)  # no revision's fault
        assert place.until(lambda s: s["views"]["shop.load"]["unfed"] >= 2)["views"]["shop.load"]["stale"] == 0


@pytest.fixture(scope="module")
def looking(tmp_path_factory):
    """A gateway with one service, of which one feature is masked."""
    from serving_house import Place

    place = Place(tmp_path_factory.mktemp("looking"))
    filled(place.home, OLD)
    filled(place.home, COST, until=None)
    service = pinned(OLD, COST)
    service = type(service)(service.project, service.name, service.lookup, ["cost__delay_mean_3h"])
    place.serve(services=[service], tokens={hashlib.sha256(b"secret").hexdigest(): ["shop"]})
    gateway = place.gateway()
    place.until(lambda s: s["sequence"] == 1)
    yield gateway
    place.close()


def look(gateway, body, path="/features/shop/inputs"):
    return gateway.client.post(path, json=body)


def test_values_by_row_and_by_column(looking):
    found = look(looking, {"entities": [{"origin": "JFK"}, {"origin": "nowhere"}], "at": "2013-06-01T12:00:00Z"}).json()
    assert found["values"] == [
        {"load__count_3h": 4, "cost__delay_mean_3h": None},
        {"load__count_3h": 0, "cost__delay_mean_3h": None},
    ]
    assert found["watermarks"] == {"load": NOON, "cost": None}
    assert found["masked"] == ["cost__delay_mean_3h"]
    columns = look(looking, {"entities": {"origin": ["JFK", None]}, "at": NOON}).json()["columns"]
    assert columns["load__count_3h"] == [4, 0]
    assert look(looking, {"entities": []}).json()["values"] == []
    told = looking.client.get("/features/shop/inputs").json()
    assert told["entities"] == ["origin"]
    assert told["views"] == {"load": ["load__count_3h"], "cost": ["cost__delay_mean_3h"]}


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({}, 400, 'no entities{"entities": [{"origin": …}]}'),
        ({"entities": [{"origin": "JFK", "airport": "x"}]}, 400, "no entity 'airport'"),
        ({"entities": {"origin": ["JFK"], "airport": ["x"]}}, 400, "no entity 'airport'"),
        ({"entities": [{"origin": "JFK"}], "when": 3}, 400, "'when' is not known"),
        ({"entities": [{"airport": "JFK"}]}, 400, "needs the entity 'origin'"),
        ({"entities": [{"origin": 1.5}]}, 400, "origin is 1.5"),
        ({"entities": [{"origin": ["JFK"]}]}, 400, "an entity is text or an integer"),
        ({"entities": ["JFK"]}, 400, "no object"),
        ({"entities": {"origin": "JFK"}}, 400, "no list of values"),
        ({"entities": [{"origin": "JFK"}], "at": "yesterday"}, 400, "is no time"),
        ({"entities": [{"origin": "JFK"}], "at": NOON - 40 * HOUR}, 400, "cannot answer"),
        ({"entities": [{"origin": "JFK"}] * 10_001}, 400, "too many"),
        (b"{", 400, "JSON"),
    ],
)
def test_what_is_wrong_with_a_look_up_is_said(looking, body, status, says):
    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    answer = looking.client.post("/features/shop/inputs", **sent)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert says in answer.json()["detail"] + answer.json().get("hint", "")


def test_look_ups_are_counted_and_unknown_services_are_not_there(looking):
    assert look(looking, {"entities": []}, "/features/shop/nothing").status_code == 404
    assert looking.client.delete("/features/shop/inputs").status_code == 405
    look(looking, {"entities": [{"origin": "JFK"}] * 3})
    told = looking.place.until(lambda s: s["features"].get("shop.inputs", {}).get("rows", 0) >= 3)
    assert told["features"]["shop.inputs"]["p99_micros"] > 0


def test_beyond_loopback_a_look_up_needs_the_projects_token(place):
    filled(place.home, OLD)
    place.serve(services=[pinned(OLD)], tokens={hashlib.sha256(b"t").hexdigest(): ["other"]})
    gateway = place.gateway(listener=bound("0.0.0.0"))
    place.until(lambda s: s["sequence"] == 1)
    body = {"entities": [{"origin": "JFK"}]}
    assert look(gateway, body).status_code == 401
    refused = gateway.client.post("/features/shop/inputs", json=body, headers={"authorization": "Bearer t"})
    assert refused.status_code == 403


@pytest.mark.parametrize(("url", "elsewhere"), [("redis://127.0.0.1:1/0", True), (None, False)])
def test_a_server_is_asked_from_a_thread_and_a_folder_at_once(place, url, elsewhere):
    if url:
        (place.home / "bindings.toml").write_text(f'[production]\nonline_store = "{url}"\n')
    else:
        filled(place.home, OLD)
    features = Features(place.home)

    def asked(store, service, entities, at):
        return Found((threading.get_ident(), service.service.name, entities, at), (NOON,))

    told = asyncio.run(features.ask(pinned(OLD).lookup, asked, {"origin": ["JFK"]}, 1, NOON))
    features.close()
    assert told.values[1:] == ("inputs", {"origin": ["JFK"]}, NOON)
    assert (told.values[0] != threading.get_ident()) == elsewhere
