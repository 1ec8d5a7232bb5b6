"""Search over everything that the visitor may read."""

from starlette.responses import Response

from everloop.server.web.views.versions import address_of
from everloop.server.web.visit import Visit

_MOST = 50


def search(visit: Visit) -> Response:
    """What fits the words of `?q=`, the best first; `?kind=` keeps one kind."""
    query, kind = visit.query("q").strip(), visit.query("kind")
    found = visit.ask("catalogue.search", query=query, kind=kind, limit=_MOST) if query else None
    hits = found.hits if found else []
    return visit.page(
        "search.html",
        title=f"Search: {query}" if query else "Search",
        query=query,
        kind=kind,
        total=found.total if found else 0,
        hits=[(hit, _address(visit, hit.asset)) for hit in hits],
    )


def _address(visit: Visit, asset: object) -> str:
    kind, name, number = getattr(asset, "kind", ""), getattr(asset, "name", ""), getattr(asset, "number", 0)
    if kind in {"data", "model"}:
        return address_of(visit, kind, f"{kind}/{name} v{number}", "")
    if kind == "endpoint":
        return visit.at("endpoints", name)
    return visit.at("versions", f"{kind}/{name}")
