"""One run: what it measured, where it comes from, what it printed, what the machine did; each tab is an address."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from starlette.responses import Response

from everloop.catalog import versions
from everloop.core.errors import NotFound
from everloop.models.tracking.editing import NOTE, RESERVED
from everloop.models.tracking.origin import UNCOMMITTED
from everloop.server.web.charts import Chart
from everloop.server.web.differences import FileDifference, Line, code_files
from everloop.server.web.views.tracking.curves import POSITIONS, SMALL, SMOOTHINGS, Look, curve, look
from everloop.server.web.visit import Visit

TABS = {
    "": "Overview",
    "system": "System",
    "artifacts": "Files",
    "console": "Console",
    "code": "Code",
    "traces": "Traces",
}
SYSTEM = "system/"
"""Beginning of the metrics that say what the machine did."""
_CHARTS, _FEW = 24, 8
_CONSOLE = 500
_PACKAGES = 400
_DIFF_LINES = 2000


@dataclass(frozen=True, slots=True)
class Group:
    """Charts of metrics whose names begin alike."""

    title: str
    charts: tuple[Chart, ...]


def show(visit: Visit) -> Response:
    """What it measured, with which parameters, and where it comes from."""
    found = visit.ask("runs.show", run=visit.part("run"))
    run = found.run
    mine = [name for name in run.metrics if not name.startswith(SYSTEM)]
    every = visit.query("charts") == "all"
    how = look(visit)
    groups, left = _groups(visit, run, mine, how, most=None if every else _CHARTS)
    return page(
        visit,
        "",
        run,
        found=found,
        metrics={name: run.metrics[name] for name in mine},
        tags={name: value for name, value in run.tags.items() if not name.startswith(RESERVED)},
        ours={name: value for name, value in run.tags.items() if name.startswith(RESERVED) and name != NOTE},
        groups=groups,
        left=left,
        how=how,
        origin=visit.ask("runs.origin", run=run.id),
        seals=visit.ask("runs.seals", run=run.id).seals,
    )


def system(visit: Visit) -> Response:
    """What the machine did while it ran."""
    run = visit.ask("runs.show", run=visit.part("run")).run
    mine = [name for name in run.metrics if name.startswith(SYSTEM)]
    how = look(visit)
    if not visit.query("x"):
        how = replace(how, x="relative")
    groups, left = _groups(visit, run, mine, how, most=None)
    return page(
        visit, "system", run, how=how, groups=groups, metrics={name: run.metrics[name] for name in mine}, left=left
    )


def console(visit: Visit) -> Response:
    """What it printed: the last lines, or those from `?after=` on."""
    run = visit.ask("runs.show", run=visit.part("run")).run
    after = visit.whole("after")
    where: dict[str, Any] = {"tail": True} if after is None else {"after": after}
    found = visit.ask("runs.console", run=run.id, limit=_CONSOLE, **where)
    return page(visit, "console", run, found=found, after=after, step=_CONSOLE)


def code(visit: Visit) -> Response:
    """Code and environment: what differs from the commit or from the version before, and the packages."""
    run = visit.ask("runs.show", run=visit.part("run")).run
    origin = visit.ask("runs.origin", run=run.id)
    ctx, links = visit.ctx, (origin.code, origin.before, origin.runtime)
    with ctx.read() as tx:
        held = versions.manifests(tx, ctx.project, [link.id for link in links if link is not None])
    now, before, runtime = (
        held.get(link.id, {}) if link else {} for link in (origin.code, origin.before, origin.runtime)
    )
    uncommitted: tuple[Line, ...] = ()
    if origin.uncommitted:
        text = visit.ask("runs.preview", run=run.id, path=UNCOMMITTED).text
        uncommitted = tuple(_line(line) for line in text.splitlines()[:_DIFF_LINES])
    files: Sequence[FileDifference] = ()
    if now and before:
        files = tuple(code_files(ctx, before.get("files", {}), now.get("files", {})))
    return page(
        visit,
        "code",
        run,
        origin=origin,
        uncommitted=uncommitted,
        files=files,
        sources=sorted(now.get("files", {})),
        runtime=runtime,
        packages=_packages(runtime),
        requirements=_requirements(visit, run.id),
    )


def act(visit: Visit) -> Response:
    """Name, note and tags; hide and show again."""
    run, wanted, form = visit.part("run"), visit.part("act"), visit.form
    if wanted in ("delete", "restore"):
        visit.ask(f"runs.{wanted}", runs=(run,))
    elif wanted == "seal":
        visit.ask("runs.seal", run=run)
    elif wanted == "rename":
        visit.ask("runs.edit", run=run, name=form.get("name", "").strip())
    elif wanted == "note":
        visit.ask("runs.edit", run=run, note=form.get("note", "").strip())
    elif wanted == "tag":
        visit.ask("runs.edit", run=run, tags={form.get("key", "").strip(): form.get("value", "")})
    elif wanted == "untag":
        visit.ask("runs.edit", run=run, remove=(form.get("key", ""),))
    else:
        raise NotFound(f"nothing can be done to a run by {wanted!r}", hint="use the buttons of its page")
    return visit.go("runs", run)


def page(visit: Visit, tab: str, run: Any, **values: Any) -> Response:
    """Render a tab of the run's page."""
    template = {"": "run.html", "artifacts": "run_files.html"}.get(tab, f"run_{tab}.html")
    return visit.page(
        template,
        title=run.name,
        here="/runs",
        run=run,
        tab=tab,
        tabs=TABS,
        positions=POSITIONS,
        smoothings=SMOOTHINGS,
        measured=any(name.startswith(SYSTEM) for name in run.metrics),
        live=run.status in ("RUNNING", "SCHEDULED"),
        may_write=visit.may("runs.edit", run=run.id),
        **values,
    )


def _groups(visit: Visit, run: Any, metrics: Sequence[str], how: Look, *, most: int | None) -> tuple[list[Group], int]:
    """Charts of the metrics that have a course, by the beginning of their names; and how many were left out."""
    found: dict[str, list[Chart]] = {}
    drawn = 0
    for place, name in enumerate(metrics):
        if most is not None and drawn >= most:
            return _together(found), len(metrics) - place
        chart = curve(visit, [(run, name)], name, how, most=SMALL)
        if chart is not None:
            start = name.removeprefix(SYSTEM)
            title = start.partition("/")[0] if "/" in start else ""
            found.setdefault(title, []).append(chart)
            drawn += 1
    return _together(found), 0


def _together(found: Mapping[str, Sequence[Chart]]) -> list[Group]:
    """A group each; few charts are one group."""
    every = [chart for charts in found.values() for chart in charts]
    if len(every) <= _FEW:
        return [Group("", tuple(every))] if every else []
    return [Group(title, tuple(charts)) for title, charts in sorted(found.items())]


def _line(text: str) -> Line:
    if text.startswith(("diff ", "@@", "+++", "---", "index ")):
        return Line("@", text)
    return Line(text[:1] if text[:1] in "+-" else " ", text[1:])


def _packages(runtime: Mapping[str, Any]) -> list[tuple[str, str]]:
    held = runtime.get("packages", {})
    return [(name, str(one.get("version", ""))) for name, one in sorted(held.items())[:_PACKAGES]]


def _requirements(visit: Visit, run: str) -> str:
    """The requirements that a client logged with a model, where it did."""
    for path in ("model/requirements.txt", "requirements.txt"):
        try:
            return str(visit.ask("runs.preview", run=run, path=path).text)
        except NotFound:
            continue
    return ""
