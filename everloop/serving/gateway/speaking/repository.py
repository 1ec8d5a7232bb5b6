"""The repository extension: which models there are, made ready and let go.

What may be served is decided by reviews, never by a caller. So `load` makes an endpoint's workers ready and waits for
them, and `unload` ends them until the next `load` or question: memory is freed, and nobody's answer changes.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from everloop.core.errors import InvalidInput, Unavailable
from everloop.serving.gateway.fleet import Fleet, Live

_STATES = {"ready": "READY", "starting": "LOADING", "failed": "UNAVAILABLE", "asleep": "UNAVAILABLE"}
_LOAD_SECONDS = 60.0


def index(fleet: Fleet, reach: Callable[[str], bool], *, only_ready: bool = False) -> list[dict[str, str]]:
    """The live revisions of the projects that a caller reaches, as `{name, version, state, reason}`."""
    listed = [
        {"name": address, "version": str(live.revision.number), "state": _STATES[live.state], "reason": live.reason}
        for address, route in sorted(fleet.routes.items())
        if reach(address)
        for live in route.live
    ]
    return [entry for entry in listed if entry["state"] == "READY" or not only_ready]


def wants_ready(request: Any) -> bool:
    """Whether an index request asks for ready models only; raises `InvalidInput`."""
    if not isinstance(request, Mapping) or not isinstance(request.get("ready", False), bool):
        raise InvalidInput("the request is not an object", hint='{"ready": true}, or no body at all')
    return bool(request.get("ready", False))


async def load(fleet: Fleet, name: str) -> None:
    """Make every live revision of an endpoint ready; raises `NotFound`, `Unavailable`."""
    lives = fleet.route(name).live
    for live in lives:
        live.wake()
    for live in lives:
        if not await live.become_ready(_LOAD_SECONDS) and live.revision.weight:
            raise Unavailable(_why(live, name))


async def unload(fleet: Fleet, name: str) -> None:
    """Let an endpoint's workers answer what they were asked, and end them; raises `NotFound`.

    Workers that another endpoint asks too stay: its answers are not to wait for them.
    """
    for live in fleet.route(name).live:
        await asyncio.gather(*(crew.sleep() for crew in live.workers.values() if fleet.only_of(crew, name)))


def _why(live: Live, name: str) -> str:
    return live.reason or f"{name} did not become ready in time"
