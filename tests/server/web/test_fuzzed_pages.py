"""Every page and every form, asked for anything: whatever comes back, it is an answer and never a failure of ours.

Addresses are those of the routes; the names of their queries and fields are read out of the pages' source, so that a
new page is asked too. What is put there is drawn from things that exist, from words that pages know and from nonsense.
"""

import ast
import http.client
import re
from pathlib import Path
from urllib.parse import quote, urlencode

import page_world
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.routing import Route

from everloop.catalog.tracking import experiments, points, runs
from everloop.catalog.tracking.rows import Point
from everloop.server import web
from everloop.server.web.routes import web_routes

ROUTES = tuple(
    (method, one.path)
    for one in web_routes(lambda *_: pytest.fail("nobody asks here"), "shop")
    if isinstance(one, Route) and one.path.startswith("/{project}")
    for method in sorted(one.methods - {"HEAD"})
)
STREAMS = re.compile(r"/\{project\}(/.*)?/(events|live)")
ODD = ("NaN", "Infinity", "-Infinity", "1e308", "-1e308", "5e-324", "0", "-0.0", "1e290")


def names_asked_for():
    """The names by which pages read queries and fields: the first text in calls of these methods."""
    found = set()
    for path in Path(web.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {"query", "whole", "zoom", "getlist", "get", "every"}
                and node.args
                and isinstance(node.args[0], ast.Constant)
                and isinstance(node.args[0].value, str)
            ):
                found.add(node.args[0].value)
    return tuple(sorted(found | {"steps", "seconds", "times"}))


NAMES = names_asked_for()
WORDS = st.sampled_from(
    (
        *("", "0", "1", "-1", "9" * 15, "9" * 40, "x", "None", *ODD),
        *("curves", "parallel", "scatter", "differences", "metrics.m", "params.p", "time", "relative", "0.9", "log"),
        *("production", "staging", "flights", "delay", "model/delay", "data/flights@1", "model/delay@9", "2026-01-02"),
        *("champion", "best", "name", "desc", "metrics.m > 1", "params.p = 'x' AND (", "tags.`a b` LIKE '%'", "all"),
        *("0..1", "1e200..1e289", "-1e9..1e9", "nan..nan", "9..1", "metrics.m:-1..5", "metrics.m:nan..1", "1d", "1h"),
        *("b3:" + "0" * 64, "b3:0", "../x", "%2e%2e/x", "code/shop", "distance", "csv", "true", "e30", "W10", "7d"),
    )
)
TEXTS = WORDS | st.text(max_size=12) | st.integers().map(str) | st.floats().map(str) | st.just("ü" * 3000)
PAIRS = st.lists(st.tuples(st.sampled_from(NAMES) | st.text(max_size=4), TEXTS), max_size=7)
DRAWN = st.tuples(st.sampled_from(ROUTES), PAIRS, TEXTS, st.integers(0, 3))
CHECKS = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large)


@pytest.fixture(scope="module")
def asked(tmp_path_factory, serve):
    """A world of its own, because forms change it, and what is in it: part of an address to its values."""
    world = page_world.make_world(tmp_path_factory.mktemp("fuzzed"))
    now, made = world.workspace.clock.wall(), []
    with world.workspace.catalog.write() as tx:
        home = experiments.create(tx, "shop", "odd", at=now)
        for number, value in enumerate(ODD):
            run = runs.create(tx, "shop", experiment=home, actor="ada", at=now, name=f"odd-{number}")
            runs.log_params(tx, run, [("p", value)])
            curve = [Point("m", float(one), now + step, step) for step, one in enumerate((*ODD, value))]
            points.log(tx, "shop", run.number, curve)
            made.append(run.id)
    known = {
        "run": made[0],
        "runs": ",".join(made),
        "metric": "m",
        **dict.fromkeys(("x", "y", "column"), "metrics.m"),
        "q": "metrics.m > 0",
        "number": "1",
        "version": "1",
        "old": "model/delay@1",
        "new": "model/delay@2",
        "spec": "model/delay",
        "name": ("delay", "flights", "production"),
        "id": (world.alarm, world.prediction),
        "view": "origin_load",
        "environment": "production",
        "experiment": home,
        "path": "plot.png",
    }
    with serve(world.workspace) as url:
        yield url, {"Cookie": f"everloop_session={world.session('ada')}", "Origin": url}, known
    world.workspace.close()


def ask(asked, drawn):
    url, headers, known = asked
    (method, route), pairs, fill, keep = drawn

    def part(match):
        name, _, kind = match[1].partition(":")
        held = known.get(name, "1") if keep else ("1" if kind == "int" else fill)
        value = held if isinstance(held, str) else held[keep % len(held)]
        return quote(value.encode("utf-8", "replace"), safe="")

    path = re.sub(r"\{([^}]+)\}", part, route.replace("{project}", "shop"))
    words = [(name, value.encode("utf-8", "replace")) for name, value in pairs]
    held = [(name, known[name]) for name in sorted(known)[:: keep % 3 + 1] if keep and isinstance(known[name], str)]
    query = urlencode([(name.encode("utf-8", "replace"), value) for name, value in (*words, *held)])
    target, body = (f"{path}?{query}", None) if method == "GET" else (path, query)
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    try:
        connection.request(method, target, body, headers)
        answer = connection.getresponse()
        told = b"" if answer.headers.get_content_type() == "text/event-stream" else answer.read()
    finally:
        connection.close()
    assert answer.status < 500, (method, target, body, told[-500:])
    return answer.status


def test_the_lists_are_not_empty():
    assert len(ROUTES) > 60
    assert {"runs", "view", "x", "colour", "brush", "old", "note", "number", "comment"} <= set(NAMES)


@settings(max_examples=150, deadline=None, suppress_health_check=CHECKS)
@given(drawn=DRAWN)
def test_no_page_is_a_failure(asked, drawn):
    ask(asked, drawn)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=10_000, deadline=None, suppress_health_check=CHECKS)
@given(drawn=DRAWN)
def test_no_page_is_a_failure_at_length(asked, drawn):
    ask(asked, drawn)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route[0]} {route[1]}")
def test_every_page_knows_what_to_do_with_nothing_and_with_nonsense(asked, route):
    nonsense = [(name, "\x00x") for name in NAMES]
    for pairs, fill, keep in (([], "1", 1), ([], "\x00", 0), (nonsense, "x" * 300, 0)):
        ask(asked, (route, pairs, fill, keep))


VIEWS = ("view=scatter&x=metrics.m&y=metrics.m", "view=scatter&x=params.p&y=params.p", "view=scatter&x=params.p&logx=1")
MORE = (
    "view=parallel&colour=metrics.m",
    "view=parallel&column=params.p&brush=params.p:-1..5",
    "view=parallel&brush=metrics.m:-Infinity..1e309",
    "view=curves",
    "view=curves&smooth=0.9&y=log",
    "view=curves&x=time",
    "view=curves&x=time&times=-1e9..1e280",
    "view=",
)


@pytest.mark.parametrize("view", VIEWS + MORE)
def test_runs_with_values_that_no_axis_can_show_are_compared(asked, view):
    url, headers, known = asked
    made = known["runs"].split(",")
    for some in (made, made[:2], made[3:5], made[5:7]):
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
        connection.request("GET", f"/shop/compare?runs={','.join(some)}&{view}", headers=headers)
        answer = connection.getresponse()
        told = answer.read().decode()
        connection.close()
        assert answer.status == 200, (some, told[-300:])
        assert "nan%" not in told
        assert "inf%" not in told
