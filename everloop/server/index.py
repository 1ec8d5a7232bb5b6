"""Finding a route by its path in one look: hundreds of routes tried in turn cost more than many a call."""

from collections.abc import Sequence

from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send


class Index(BaseRoute):
    """The routes of a list whose paths have no parameters, by path and method. What it does not hold, it passes on."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        """Of several routes with one path and method, the first counts, as in the list."""
        self._held: dict[tuple[str, str], Route] = {}
        for route in routes:
            if isinstance(route, Route) and "{" not in route.path:
                for method in route.methods or ():
                    self._held.setdefault((route.path, method), route)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """The match of the route that is held, or none."""
        found = self._found(scope)
        return (Match.NONE, {}) if found is None else found.matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand over to the route that is held."""
        found = self._found(scope)
        assert found is not None
        await found.handle(scope, receive, send)

    def _found(self, scope: Scope) -> Route | None:
        if scope["type"] != "http":
            return None
        return self._held.get((scope["path"], scope["method"]))
