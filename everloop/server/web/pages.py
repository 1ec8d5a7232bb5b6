"""What every page shares: the context, the template environment, how values are shown."""

from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from everloop import __version__
from everloop.catalog.context import Context
from everloop.core.clock import SECOND, iso
from everloop.core.ids import is_id, short

OpenContext = Callable[[Request, str], Context]
SECTIONS = (
    ("", "Environments"),
    ("/changes", "Changes"),
    ("/models", "Models"),
    ("/runs", "Runs"),
    ("/data", "Data"),
    ("/features", "Features"),
    ("/endpoints", "Endpoints"),
    ("/alarms", "Alarms"),
    ("/audit", "Audit"),
)
_HEADERS = {
    # pages run our own modules only, are never framed, and never leak their address
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def shown_time(at: int | None) -> str:
    """Microseconds as people read them, in UTC."""
    return iso(at // SECOND * SECOND).replace("T", " ").removesuffix("Z") if at else "-"


def shown_id(identity: str | None) -> str:
    """An id in twelve digits; anything else as it is."""
    return short(identity) if identity and is_id(identity) else (identity or "-")


def number(value: Any) -> str:
    """A number in at most four significant digits, with thousands apart."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    try:
        figure = float(value)
    except (TypeError, ValueError):
        return str(value)
    return f"{figure:,.0f}" if abs(figure) >= 10_000 else f"{figure:.4g}"


_templates = Environment(
    loader=PackageLoader("everloop.server.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {"time": shown_time, "id": shown_id, "number": number}


def page(ctx: Context, template: str, *, title: str, here: str = "", status: int = 200, **values: Any) -> HTMLResponse:
    """Render `template` with what every page needs; `here` is the section that the page belongs to."""
    shared = {
        "project": ctx.project,
        "actor": ctx.actor,
        "version": __version__,
        "sections": SECTIONS,
        "here": here,
        "title": title,
        "replayed": shown_time(ctx.now()) if abs(ctx.now() - ctx.wall()) > 60 * SECOND else "",
    }
    return HTMLResponse(_templates.get_template(template).render({**shared, **values}), status, headers=_HEADERS)
