"""A real Ray of two nodes on this machine."""

import secrets
from dataclasses import replace

import polars as pl
import pytest
from feature_cases import START
from shop_house import Shop

from everloop.core.clock import HOUR
from everloop.core.errors import InvalidInput, Unavailable
from everloop.core.settings import forget_ray_token, use_ray_token
from everloop.features import definitions as el
from everloop.features.batch.history import history
from everloop.features.definitions import FeatureServiceDef, FeatureViewDef

ray = pytest.importorskip("ray")

from ray.cluster_utils import Cluster as Nodes  # noqa: E402 - only where Ray is installed

from everloop.features.batch.cluster import Cluster, history_across  # noqa: E402


def view_of(name, entity):
    features = (el.count(over="1d"), el.stddev("x", over="12d"), el.last("kind", kind="text"), el.last_k("x", 3))
    return FeatureViewDef(name, "facts", entity, features, event_time="event", known_time="known", key="id")


SERVICE = FeatureServiceDef("s", [view_of("one", "place"), view_of("two", ("place", "kind"))])


@pytest.fixture
def asked(tmp_path):
    event = [START + i * HOUR for i in range(400)]
    facts = {
        "id": range(400),
        "place": [i % 7 - 3 if i % 11 else None for i in range(400)],
        "kind": [("a", "b", None, "", "ü")[i % 5] for i in range(400)],
    }
    facts |= {
        "x": [i * 0.37 % 5 if i % 13 else None for i in range(400)],
        "event": event,
        "known": [e + i % 3 * HOUR for i, e in enumerate(event)],
    }
    path = tmp_path / "facts.parquet"
    pl.DataFrame(facts).write_parquet(path)
    spine = {
        "q": range(90),
        "place": [i % 9 - 4 if i % 10 else None for i in range(90)],
        "kind": [("a", "b", None, "", "ü", "nowhere")[i % 6] for i in range(90)],
    }
    return pl.DataFrame(spine | {"at": [START + i * 5 * HOUR for i in range(90)]}), {"facts": path}


@pytest.fixture
def two_nodes(monkeypatch):
    """The address of a cluster of two nodes, and its token; this process holds that of another cluster."""
    token = secrets.token_hex(32)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")  # put back in the end
    use_ray_token(token)
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        nodes.add_node(num_cpus=1)
        nodes.wait_for_nodes()
        use_ray_token("0" * 64)
        yield nodes.address, token
    finally:
        nodes.shutdown()
        monkeypatch.undo()
        forget_ray_token()


@pytest.mark.slow
def test_two_nodes_give_the_bytes_of_one_machine(asked, two_nodes):
    """Composite keys and nulls in them, more parts than entities, one part, and no question at all."""
    spine, sources = asked
    alone = history(SERVICE, spine, sources, at="at")
    assert alone["two__count_1d"].sum() > 0
    for parts in (5, 40, 1):
        found = history_across(Cluster(*two_nodes, parts=parts), SERVICE, spine, sources, at="at")
        assert found.schema == alone.schema
        assert repr(found.rows()) == repr(alone.rows())  # floats to the last bit, -0.0 and NaN apart
    nothing = history_across(Cluster(*two_nodes, parts=3), SERVICE, spine[:0], sources, at="at")
    assert nothing.equals(history(SERVICE, spine[:0], sources, at="at"))
    assert nothing.schema == alone.schema


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command_line_asks_two_nodes(tmp_path, two_nodes):
    address, token = two_nodes
    shop = Shop(tmp_path / "shop", policy="solo")
    try:
        shop.build()
    finally:
        shop.close()
    times = pl.datetime_range(pl.datetime(2024, 1, 3), pl.datetime(2024, 1, 12), "5h", eager=True)
    places = ["a", "b", "c", "nowhere"] * len(times)
    pl.DataFrame({"place": places[: len(times)], "asked": times}).write_csv(shop.folder / "asked.csv")
    words = ("features", "history", "inputs", "asked.csv", "--at", "asked", "--env", "sandbox/ada/main", "--out")
    shop.cli(*words, "one.parquet", check=True)
    across = ("two.parquet", "--ray", address, "--parts", "3")
    shop.cli(*words, *across, check=True, timeout=300, RAY_AUTH_TOKEN=token)
    frames = [pl.read_parquet(shop.folder / f"{name}.parquet") for name in ("one", "two")]
    assert frames[0].height == len(times)
    assert frames[0].equals(frames[1])
    refused = shop.cli(*words, "three.parquet", "--ray", "auto")
    assert (refused.returncode, "needs an address" in refused.stderr) == (2, True)


def test_a_cluster_is_named_and_answers(asked):
    spine, sources = asked
    with pytest.raises(InvalidInput):
        history_across(Cluster("auto"), SERVICE, spine, sources, at="at")


@pytest.mark.slow
def test_views_over_views_too(asked):
    spine, sources = asked
    reads = SERVICE.views[:1]
    above = FeatureViewDef("three", "facts", "kind", [el.max("one__count_1d", over="12d")], "event", "known", "id")
    service = FeatureServiceDef("s", [replace(above, reads=reads)])
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        found = history_across(Cluster(nodes.address, parts=3), service, spine, sources, at="at")
        assert found.equals(history(service, spine, sources, at="at"))
    finally:
        nodes.shutdown()


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_an_error(asked):
    spine, sources = asked
    with pytest.raises(Unavailable):
        history_across(Cluster("127.0.0.1:1"), SERVICE, spine, sources, at="at")
