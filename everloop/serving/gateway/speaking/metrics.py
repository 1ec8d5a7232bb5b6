"""What a gateway counts, in Prometheus' text format (version 0.0.4), at `/metrics`.

Counters are those of the page and of the guardrails. Of our latency buckets every fourth end is told.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from everloop.core.errors import EverloopError
from everloop.serving.gateway.fleet import Fleet, Live
from everloop.serving.gateway.lookups import Lookups
from everloop.serving.gateway.passing.relay import Scope
from everloop.serving.gateway.speaking.asking import Desk
from everloop.serving.gateway.speaking.replies import Reply, need_method, problem
from everloop.serving.gateway.stats import upper

PATH = "/metrics"
_KIND = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
_COUNTERS = {
    "requests": "Requests that a revision was chosen for.",
    "rows": "Rows that were answered.",
    "errors": "Requests that a revision failed.",
    "fallbacks": "Failed requests that another revision answered.",
    "simpler": "Failed requests that the fallback's own graph answered.",
    "cached": "Failed requests that an earlier answer stood in for.",
    "defaulted": "Failed requests that the declared default stood in for.",
    "refused": "Malformed questions.",
    "overloaded": "Requests that were not taken, because too much waited.",
    "limited": "Requests that were not taken, because the caller asked more than it may.",
    "unlogged": "Answers without an id, because the log was full.",
    "stale": "Answers from features that were too old.",
    "unfed": "Requests that the online store did not answer.",
}
_OF_SERVICES = {
    "requests": "Look-ups of a feature service that were asked for by themselves.",
    "rows": "Entities that they named.",
    "errors": "Those look-ups that were not answered.",
}
_OF_VIEWS = {
    "rows": "Rows that a feature view was asked for.",
    "unknown": "Rows of entities that the view holds no fact of.",
    "stale": "Rows that were asked for while the view was too old or never filled.",
    "unfed": "Rows that were asked for while the online store did not answer.",
    "refused": "Rows of look-ups that were refused: a wrong entity, or a time that is too long ago.",
}
_EDGES = range(27, 88, 4)
"""Buckets whose ends are told: from 0.5 ms to 17 s, each twice as long as the one before."""


def reply(desk: Desk, lookups: Lookups, scope: Scope) -> Reply:
    """Every counter of the endpoints that the caller reaches, and of the look-ups of whole projects."""
    headers = dict(scope["headers"])
    try:
        desk.door.check(headers, desk.fleet.table, "")
        need_method(scope, "GET", "HEAD")
        reach = desk.door.reach(headers, desk.fleet.table)
    except EverloopError as error:
        return problem(error)
    lines = (*_lines(desk.fleet, reach), *_features(lookups, reach))
    return Reply(200, "".join(lines).encode(), (_KIND,))


def _lines(fleet: Fleet, reach: Callable[[str], bool]) -> Iterator[str]:
    routes = [(address, route) for address, route in sorted(fleet.routes.items()) if reach(address)]
    lives = [(address, live) for address, route in routes for live in route.live]
    for name, text in _COUNTERS.items():
        yield from _family(f"everloop_{name}_total", "counter", text)
        for address, live in lives:
            yield _sample(f"everloop_{name}_total", _labels(address, live), getattr(live.counters, name))
    yield from _family("everloop_latency_seconds", "histogram", "Time from a request's arrival to its answer.")
    for address, live in lives:
        yield from _histogram("everloop_latency_seconds", _labels(address, live), live.counters.latency)
    yield from _family("everloop_weight_ratio", "gauge", "Share of the traffic that a revision is meant to have.")
    for address, live in lives:
        yield _sample("everloop_weight_ratio", _labels(address, live), live.revision.weight / 100)
    for name, text in {"waiting": "Requests without an answer yet.", "processes": "Worker processes."}.items():
        yield from _family(f"everloop_{name}", "gauge", text)
        for address, live in lives:
            for part, crew in live.workers.items():
                value = crew.waiting if name == "waiting" else len(crew.pids)
                yield _sample(f"everloop_{name}", {**_labels(address, live), "part": part or "model"}, value)
    yield from _family("everloop_worker_restarts_total", "counter", "Worker processes that died and were replaced.")
    for address, live in lives:
        for part, crew in live.workers.items():
            labels = {**_labels(address, live), "part": part or "model"}
            yield _sample("everloop_worker_restarts_total", labels, crew.restarts)
    yield from _nodes(lives)


def _nodes(lives: list[tuple[str, Live]]) -> Iterator[str]:
    for name in ("requests", "errors", "retries", "defaults"):
        family = f"everloop_node_{name}_total"
        yield from _family(family, "counter", f"The {name} of each node of a graph, by its number.")
        for address, live in lives:
            for number, counted in live.nodes.items():
                yield _sample(family, {**_labels(address, live), "node": str(number)}, getattr(counted, name))


def _features(lookups: Lookups, reach: Callable[[str], bool]) -> Iterator[str]:
    """Feature services by `project.service`, feature views by `project.view`."""
    for what, texts, told in (
        ("service", _OF_SERVICES, lookups.told()),
        ("view", _OF_VIEWS, lookups.features.told()),
    ):
        mine = {name: counted for name, counted in told.items() if reach(name.partition(".")[0])}
        for counter, text in texts.items():
            family = f"everloop_feature_{what}_{counter}_total"
            yield from _family(family, "counter", text)
            for name, counted in mine.items():
                yield _sample(family, {what: name}, counted[counter])


def _labels(address: str, live: Live) -> dict[str, str]:
    return {"endpoint": address, "revision": str(live.revision.number)}


def _family(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def _sample(name: str, labels: Mapping[str, str], value: Any) -> str:
    said = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{name}{{{said}}} {value}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _histogram(name: str, labels: Mapping[str, str], counts: list[int]) -> Iterator[str]:
    for edge in _EDGES:
        yield _sample(f"{name}_bucket", {**labels, "le": f"{upper(edge) / 1e6:g}"}, sum(counts[: edge + 1]))
    total = sum(counts)
    yield _sample(f"{name}_bucket", {**labels, "le": "+Inf"}, total)
    # a bucket's middle stands for its answers: the sum is right to an eighth
    middle = sum(
        count * (upper(index) + (upper(index - 1) if index else 0)) / 2e6 for index, count in enumerate(counts)
    )
    yield _sample(f"{name}_sum", labels, f"{middle:.6f}")
    yield _sample(f"{name}_count", labels, total)
