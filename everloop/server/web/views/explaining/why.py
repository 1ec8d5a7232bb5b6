"""Why two versions differ: what can have made the difference first, then everything, pair by pair."""

from starlette.responses import Response

from everloop.server.web.views.versions import address_of
from everloop.server.web.visit import Visit


def show(visit: Visit) -> Response:
    """Two versions of anything, by `old` and `new` of the query; a form while one of them is missing."""
    old, new = visit.query("old"), visit.query("new")
    found = visit.ask("lineage.why", old=old, new=new) if old and new else None
    places = [_places(visit, pair) for pair in found.pairs] if found else []
    return visit.page(
        "why.html",
        title=f"Why {found.old_label} and {found.new_label} differ" if found else "Why",
        old=old,
        new=new,
        found=found,
        places=places,
    )


def _places(visit: Visit, pair: object) -> tuple[str, str]:
    kind = str(getattr(pair, "kind", ""))
    sides = ((getattr(pair, f"{which}_label"), getattr(pair, which)) for which in ("old", "new"))
    old, new = (address_of(visit, kind, label, identity) if identity else "" for label, identity in sides)
    return old, new
