"""Asking endpoints from a terminal: one question, many, and what came of them."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

import httpx2
import typer

from everloop.cli.output import output
from everloop.cli.session import session
from everloop.core.errors import EverloopError, InvalidInput, NotFound, Unavailable

Environment = Annotated[str, typer.Option("--env")]
Question = Annotated[
    str, typer.Option("--data", "-d", help="JSON by column names; when left out the newest question, else its example.")
]
_PATIENCE = 30.0
_THERE = "is `everloop up` running there? Where it has another address, set EVERLOOP_PORT or --server."
_POLL, _FOLLOW = 0.3, 2.0
_ENDED = frozenset(("done", "failed", "cancelled"))


_ALWAYS = ("state", "requests", "errors")
_INSTEAD, _NOT_TAKEN = ("fallbacks", "simpler", "cached", "defaulted"), ("refused", "overloaded", "limited", "unfed")
_RARELY = (*_INSTEAD, *_NOT_TAKEN, "stale", "unlogged")


class _Refused(EverloopError):
    """The endpoint answered with an error of its own."""

    code = "endpoint"


def add_to(endpoints: typer.Typer) -> None:
    """Register the commands of this module."""
    endpoints.command("try")(try_endpoint)
    endpoints.command("load")(load)
    endpoints.command("traffic")(traffic)
    endpoints.command("logs")(logs)
    endpoints.command("score")(score)


def try_endpoint(name: str, data: Question = "") -> None:
    """Ask an endpoint once: a real prediction, logged and counted."""
    with _gateway() as http:
        content = _question(http, name, data)
        started = time.perf_counter()
        answer = _sent(http, "POST", f"{_path(name)}/predict", content)
        milliseconds = (time.perf_counter() - started) * 1e3
    if answer.status_code != 200:
        raise _error(answer)
    output.show({"question": json.loads(content), **answer.json(), "milliseconds": round(milliseconds, 2)})


def load(
    name: str,
    data: Question = "",
    seconds: Annotated[float, typer.Option(min=0.1, max=3600)] = 5.0,
    connections: Annotated[int, typer.Option(min=1, max=256)] = 8,
) -> None:
    """Ask an endpoint as fast as it answers, from several connections; real predictions. This client takes CPU too."""
    with _gateway() as http:
        content = _question(http, name, data)
        url, headers = str(http.base_url), dict(http.headers)
    taken, statuses = asyncio.run(_asked(url, headers, f"{_path(name)}/predict", content, (seconds, connections)))
    taken.sort()
    output.show(
        {
            "requests": len(taken),
            "requests_per_second": round(len(taken) / seconds, 1),
            "p50_milliseconds": round(taken[len(taken) // 2] * 1e3, 2) if taken else None,
            "p99_milliseconds": round(taken[min(int(len(taken) * 0.99), len(taken) - 1)] * 1e3, 2) if taken else None,
            "statuses": {str(status): count for status, count in sorted(statuses.items())},
        }
    )


def traffic(name: str, environment: Environment = "production") -> None:
    """Where an endpoint's requests went: each revision at each gateway, with its failures and latency."""
    with session.client() as client:
        found = client.call("endpoints.show", name=name, environment=environment)
    listed: list[dict[str, Any]] = [
        {"revision": revision.number, "weight": revision.weight, "gateway": gateway}
        | {column: its.get(column, 0) for column in (*_ALWAYS, *_RARELY)}
        | {"p50_ms": its.get("p50_micros", 0) / 1000, "p99_ms": its.get("p99_micros", 0) / 1000}
        | {"engine": ", ".join(sorted({w.get("engine", "") for w in its.get("workers", {}).values()} - {""}))}
        for revision in found.revisions
        for gateway, its in revision.observed.items()
    ]
    told = [name for name in _RARELY if any(row[name] for row in listed)]  # a table of zeros is as wide as a screen
    engine = ["engine"] if any(row["engine"] not in {"", "native"} for row in listed) else []
    columns = ["revision", "weight", "gateway", *_ALWAYS, *told, "p50_ms", "p99_ms", *engine]
    output.rows(listed, columns, empty="no gateway serves it now")


def logs(
    name: str,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    environment: Environment = "production",
) -> None:
    """The newest predictions of an endpoint; `everloop trace ID` tells where one comes from."""
    with session.client() as client:
        found = client.call("predictions.newest", endpoint=name, limit=limit, environment=environment).predictions
        if not found:
            client.call(
                "endpoints.show", name=name, environment=environment
            )  # says so where there is none of this name
    output.rows(found, ["id", "at", "revision", "milliseconds", "fallback"], empty="nothing was predicted yet")


def score(
    name: str,
    dataset: Annotated[str, typer.Argument(help="A name, name@7, or an id; with --by a name, whose head is read.")],
    *,
    environment: Environment = "production",
    revision: Annotated[str, typer.Option(help="Number or id of a live revision.")] = "",
    to: Annotated[str, typer.Option("--to", help="Name of the dataset of scores; scores.NAME when left out.")] = "",
    by: Annotated[list[str] | None, typer.Option("--by", help="Columns that tell rows apart: score new rows.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes for each part of the graph.")] = 2,
    processes: Annotated[int, typer.Option(min=1, max=64, help="That read, look up, run the graph, write.")] = 1,
    cluster: Annotated[bool, typer.Option("--cluster", help="Models answer on the workers' Ray cluster.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what a feed brings, until Ctrl-C.")] = False,
) -> None:
    """Score a dataset with the graph and revision that answer callers; a worker does it, and goes on after a kill."""
    if follow and not by:
        raise InvalidInput("--follow needs --by: which columns tell rows apart", hint="the id of the feed's events")
    asked = {"endpoint": name, "dataset": dataset, "environment": environment, "revision": revision, "name": to}
    means = {"workers": workers, "processes": processes, "cluster": cluster}
    with session.client() as client:
        while True:
            task = client.call("endpoints.score", **asked, by=by or [], **means).task
            found = client.call("tasks.show", task=task)
            while found.state not in _ENDED:
                time.sleep(_POLL)
                found = client.call("tasks.show", task=task)
            output.show(found)
            if not follow:
                return
            time.sleep(_FOLLOW)


def _gateway() -> httpx2.Client:
    settings = session.settings
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = settings.server or f"http://{host}:{settings.port}"
    headers = {"content-type": "application/json"}
    if settings.token:
        headers["authorization"] = f"Bearer {settings.token}"
    return httpx2.Client(base_url=url.rstrip("/"), headers=headers, timeout=_PATIENCE)


def _path(name: str) -> str:
    return f"/endpoints/{session.settings.project}/{name}"


def _question(http: httpx2.Client, name: str, data: str) -> bytes:
    """What to ask, checked to be JSON; when nothing was given what was asked last, else the endpoint's own example."""
    if data:
        try:
            json.loads(data)
        except ValueError as error:
            raise InvalidInput(f"--data is no JSON: {error}", hint="for example '{\"distance\": 500.0}'") from None
        return data.encode()
    answer = _sent(http, "GET", f"{_path(name)}/openapi.json", b"")
    if answer.status_code == 404:
        raise NotFound(f"there is no endpoint {name!r} there", hint="everloop endpoints list")
    if answer.status_code != 200:
        raise _error(answer)
    asked = answer.json()["paths"][f"{_path(name)}/predict"]["post"]["requestBody"]
    example: dict[str, Any] = asked["content"]["application/json"]["examples"]["row"]["value"]
    return json.dumps(_asked_last(name, example) or example).encode()


def _asked_last(name: str, example: Mapping[str, Any]) -> dict[str, Any]:
    """The newest question that this caller may read whole: an example knows no entity. Empty where there is none."""
    try:
        with session.client() as client:
            found = client.call("predictions.newest", endpoint=name, limit=1).predictions
            last = client.call("predictions.get", id=found[0].id) if found else None
    except EverloopError:
        return {}
    if last is None or last.masked:
        return {}
    known = {**last.inputs, **last.keys}
    return {column: known[column] for column in example} if example.keys() <= known.keys() else {}


def _sent(http: httpx2.Client, method: str, path: str, content: bytes) -> httpx2.Response:
    try:
        return http.request(method, path, content=content)
    except httpx2.TransportError as error:
        raise Unavailable(f"no answer from {http.base_url}: {error}", hint=_THERE) from error


def _error(answer: httpx2.Response) -> EverloopError:
    try:
        said = answer.json()["message"]
    except (ValueError, KeyError, TypeError):
        said = answer.text[:300]
    return _Refused(f"{answer.status_code}: {said}", hint="everloop endpoints show says how it is")


async def _asked(
    url: str, headers: dict[str, str], path: str, content: bytes, how: tuple[float, int]
) -> tuple[list[float], Counter[int]]:
    """Seconds of each answer, and how many of each status; 0 stands for no answer."""
    seconds, connections = how
    taken: list[float] = []
    statuses: Counter[int] = Counter()
    end = time.perf_counter() + seconds
    limits: Any = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=_PATIENCE, limits=limits) as http:

        async def caller() -> None:
            while (started := time.perf_counter()) < end:
                try:
                    answer = await http.post(path, content=content)
                except httpx2.TransportError:
                    statuses[0] += 1
                    await asyncio.sleep(0.1)
                    continue
                statuses[answer.status_code] += 1
                taken.append(time.perf_counter() - started)

        await asyncio.gather(*(caller() for _ in range(connections)))
    return taken, statuses
