"""What every page shares: the template environment, how values are shown, the headers of an answer."""

import json
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context as Rendering
from starlette.responses import HTMLResponse

from everloop import __version__
from everloop.core.clock import DAY, HOUR, MINUTE, SECOND, iso
from everloop.core.ids import is_id, short
from everloop.server.web.charts import strip

SECTIONS = (
    ("", "Environments"),
    ("/changes", "Changes"),
    ("/models", "Models"),
    ("/runs", "Runs"),
    ("/flows", "Flows"),
    ("/data", "Data"),
    ("/features", "Features"),
    ("/endpoints", "Endpoints"),
    ("/alarms", "Alarms"),
    ("/audit", "Audit"),
)
HEADERS = {
    # pages run our own modules only, are never framed, and never leak their address
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; media-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_TONES = {
    "good": {
        "won",
        "passed",
        "equal",
        "merged",
        "live",
        "settled",
        "ready",
        "finished",
        "ok",
        "resolved",
        "active",
        "done",
    },
    "warn": {
        *("lost", "undecided", "open", "missing", "waiting", "running", "queued"),
        *("canary", "starting", "suspect", "acknowledged", "cannot tell", "parked", "warned"),
    },
    "bad": {
        "failed",
        "error",
        "alarm",
        "reverted",
        "fault",
        "drift",
        "breach",
        "performance",
        "killed",
        "blocked",
        "lost",
        "refused",
        "stopped",
        "spent",
    },
}


def shown_time(at: int | str | None) -> str:
    """Microseconds, or ISO 8601 text, as people read them: to the second, in UTC."""
    if not at:
        return "-"
    text = iso(at // SECOND * SECOND) if isinstance(at, int) else at
    return text[:19].replace("T", " ")


def ago(at: int | None, now: int) -> str:
    """How long ago `at` was: `3 min ago`."""
    if not at:
        return "never"
    gap = now - at
    if gap < 0:
        return shown_time(at)
    for size, unit in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if gap >= 2 * size:
            return f"{gap // size} {unit} ago"
    return "just now" if gap < 90 * SECOND else f"{gap // SECOND} s ago"


def day_and_time(text: str) -> str:
    """ISO 8601 text as `11-20 22:03`: for rows so many that seconds and the year would be noise."""
    return f"{text[5:10]} {text[11:16]}"


def span(seconds: float | None) -> str:
    """How long something took: `85 ms`, `4.2 s`, `3 m 20 s`, `2 h 05 m`, `3 d 04 h`."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} m"
    return f"{whole // 86_400} d {whole % 86_400 // 3600:02d} h"


def without(query: str, *names: str, **more: Any) -> str:
    """A query without these names, and with others instead."""
    kept = [(name, value) for name, value in parse_qsl(query) if name not in names and name not in more]
    return urlencode([*kept, *((name, value) for name, value in more.items() if value not in ("", None))])


def shown_id(identity: str | None) -> str:
    """An id in twelve digits; anything else as it is."""
    return short(identity) if identity and is_id(identity) else (identity or "-")


def number(value: Any) -> str:
    """A number in at most four significant digits, with thousands apart; a text that is no number as it is."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    try:
        figure = float(value)
    except (TypeError, ValueError):
        return str(value)
    return f"{figure:,.0f}" if abs(figure) >= 10_000 else f"{figure:.4g}"


def share(part: float) -> str:
    """A share as a percentage."""
    return f"{100 * part:.3g} %"


def size(count: int) -> str:
    """Bytes in the unit that suits them."""
    figure = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if figure < 1000 or unit == "GB":
            return f"{figure:.0f} {unit}" if unit == "B" or figure >= 100 else f"{figure:.1f} {unit}"
        figure /= 1000
    raise AssertionError


def counted(count: int, noun: str) -> str:
    """A number with its noun: `1 policy`, `2 policies`."""
    if count == 1 or noun in {"code", "data"}:
        return f"{count} {noun}"
    return f"{count} {noun[:-1]}ies" if noun.endswith("y") else f"{count} {noun}s"


def tone(state: Any) -> str:
    """The class of a badge: how good a state is; empty when it says nothing."""
    return next((kind for kind, states in _TONES.items() if str(state).lower() in states), "")


def address(*parts: Any, **query: Any) -> str:
    """A path of these parts, each quoted whole, and a query of those values that are not empty."""
    path = "".join("/" + quote(str(part), safe="@") for part in parts)
    asked = urlencode({name: value for name, value in query.items() if value not in ("", None, False)}, doseq=True)
    return path + (f"?{asked}" if asked else "")


@pass_context
def _here(rendering: Rendering, *parts: Any, **query: Any) -> str:
    """`address` within the project of the page."""
    return address(rendering["project"], *parts, **query)


_templates = Environment(
    loader=PackageLoader("everloop.server.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {
    "time": shown_time,
    "id": shown_id,
    "day_and_time": day_and_time,
    "number": number,
    "span": span,
    "without": without,
    "size": size,
    "share": share,
    "strip": strip,
    "tone": tone,
    "counted": counted,
    "json": lambda value: json.dumps(value, separators=(",", ":"), allow_nan=False),
    "pretty": lambda value: json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True),
}
_templates.globals |= {"at": _here, "ago": ago, "sections": SECTIONS, "release": __version__}


def render(template: str, values: dict[str, Any], *, status: int = 200) -> HTMLResponse:
    """Render a template; every text is escaped unless it says itself that it is HTML."""
    return HTMLResponse(_templates.get_template(template).render(values), status, headers=HEADERS)
