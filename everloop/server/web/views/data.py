"""Data: the datasets, one version with its profile, a masked sample, and what differs between two versions."""

import base64
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from starlette.responses import Response

from everloop.core.errors import PermissionDenied
from everloop.server.web.charts import Chart, histogram, line_chart, spark_bars
from everloop.server.web.visit import Visit

_HISTORY = 100
_SAMPLE = 8
_TOP = 6
_LISTED, _IMAGES, _EDGE, _LARGE = 50, 12, 192, 1024
"""Files of a page of a folder, those of them that are drawn, and the sides of a thumbnail and of a picture alone."""
_LOOKED_BACK, _LINES = 12, 6
"""Versions over which drift is drawn, and columns: those that moved most."""
_PAIRS = 12
"""Pairs of columns that are shown as going together."""


@dataclass(frozen=True, slots=True)
class ColumnView:
    """A column of a profile, ready to show."""

    name: str
    type: str
    meaning: str
    """What the catalogue says of it."""
    role: str
    tag: str
    nulls: float
    """Share of rows without a value."""
    distinct: int
    low: Any
    high: Any
    mean: float | None
    path: str
    """A small histogram as SVG path data; empty for texts."""
    label: str
    top: tuple[tuple[str, int, float], ...]
    """Most frequent values with rows and share."""


@dataclass(frozen=True, slots=True)
class DriftedColumn:
    """How far a column lies from where it was, ready to show."""

    name: str
    test: str
    distance: float
    nulls_before: float
    nulls: float
    paths: tuple[str, ...]
    """Histograms before and after as SVG path data, over the range of both."""
    values: tuple[tuple[str, float, float], ...]
    """The values whose shares moved most: value, share before, share after."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """The files of a folder, ready to show."""

    files: int
    bytes: int
    start: int
    """How many lie before those listed."""
    listed: tuple[Any, ...]
    images: tuple[Any, ...]
    hint: str
    """Why some are not shown."""

    @property
    def before(self) -> int | None:
        """Where the page before this one begins, if there is one."""
        return max(0, self.start - _LISTED) if self.start else None

    @property
    def after(self) -> int | None:
        """Where the next page begins, if there is one."""
        end = self.start + len(self.listed)
        return end if self.listed and end < self.files else None


def index(visit: Visit) -> Response:
    """The newest version of every dataset, and where each is the head."""
    environments = visit.ask("environments.list", sandboxes=False).environments
    heads: dict[str, list[str]] = {}
    for environment in environments:
        for identity in environment.heads.values():
            heads.setdefault(identity, []).append(environment.name)
    return visit.page("data.html", title="Data", here="/data", items=visit.ask("data.list").items, heads=heads)


def show(visit: Visit) -> Response:
    """One version of a dataset: the newest, or `?version=`; with `?against=` also what differs."""
    name = visit.part("name")
    history = visit.ask("data.list", name=name, limit=_HISTORY).items
    chosen = visit.whole("version")
    found = visit.ask("data.show", version=f"data/{name}@{chosen}" if chosen else f"data/{name}")
    described = visit.ask("catalogue.show", asset=f"data/{name}")
    meanings = {column.name: column.description for column in described.columns}
    against = visit.whole("against")
    difference, drifted = None, []
    if against is not None:
        difference = visit.ask("data.compare", old=f"data/{name}@{against}", new=found.id)
        drifted = [_drifted(one) for one in visit.ask("data.drift", old=difference.old, new=found.id).columns]
    return visit.page(
        "dataset.html",
        title=f"{name} v{found.number}",
        here="/data",
        data=found,
        history=history,
        columns=[_column(column, found, meanings.get(column["name"], "")) for column in found.columns],
        sample=visit.ask("data.sample", version=found.id, rows=_SAMPLE),
        against=against,
        difference=difference,
        drifted=drifted,
        course=_course(visit, history) if visit.query("course") else None,
        contract=visit.ask("data.contract", name=name),
        described=described,
        pictures=_pictures(visit, found.id) if _is_folder(found) else None,
        together=[_together(found.associations, kind) for kind in ("numbers", "values")],
        sampled=found.associations.get("rows", 0),
    )


def _course(visit: Visit, history: Sequence[Any]) -> Chart | None:
    """How far each of the newest versions lies from the one before it, for the columns that moved most."""
    steps: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for old, new in pairwise(reversed(history[: _LOOKED_BACK + 1])):
        for column in visit.ask("data.drift", old=old.id, new=new.id).columns:
            steps[column["name"]].append((new.number, column["distance"]))
    most = sorted(steps, key=lambda name: -max(distance for _, distance in steps[name]))[:_LINES]
    drawn = {name: steps[name] for name in most}
    return line_chart(drawn, x="version", y="distance from the version before", zero=True) if drawn else None


def failing(visit: Visit) -> Response:
    """The rows that break an expectation, to be saved."""
    name, version = visit.part("name"), visit.whole("version")
    found = visit.ask(
        "data.failing",
        name=name,
        expectation=visit.query("expectation"),
        version=f"data/{name}@{version}" if version else "",
        format=visit.query("as", "csv"),
    )
    headers = {
        "Content-Disposition": f'attachment; filename="{name}-v{found.number}-failing.{found.format}"',
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }
    media = "text/csv; charset=utf-8" if found.format == "csv" else "application/vnd.apache.parquet"
    return Response(base64.b64decode(found.content), media_type=media, headers=headers)


def _is_folder(found: Any) -> bool:
    return {"path", "size", "media_type", "digest"} == {column["name"] for column in found.columns}


def file(visit: Visit) -> Response:
    """One file of a folder's version, as far as a page can show it without running what is in it."""
    name, path, version = visit.part("name"), visit.part("path"), visit.whole("version")
    spec = f"data/{name}@{version}" if version else f"data/{name}"
    return visit.page(
        "data_file.html",
        title=path,
        here="/data",
        name=name,
        version=version,
        file=visit.ask("data.preview", version=spec, path=path, edge=_LARGE),
    )


def _pictures(visit: Visit, version: str) -> Pictures:
    """A page of the files of a folder's version, images as thumbnails; none where they may not be seen."""
    start = visit.whole("files") or 0
    listed = visit.ask("data.files", version=version, offset=start, limit=_LISTED)
    images = [file for file in listed.items if file.media_type.startswith("image/")][:_IMAGES]
    shown: list[Any] = []
    hint = ""
    for file in images:
        try:
            one = visit.ask("data.preview", version=version, path=file.path, edge=_EDGE)
        except PermissionDenied as error:
            hint = error.message
            break
        if one.image:
            shown.append(one)
        hint = hint or one.note
    return Pictures(listed.files, listed.bytes, start, tuple(listed.items), tuple(shown), hint)


def _drifted(one: dict[str, Any]) -> DriftedColumn:
    sides = [one["old"], one["new"]]
    paths: tuple[str, ...] = ()
    if all(side["quantiles"] for side in sides):
        edges = [edge for side in sides for edge in side["quantiles"]]
        bins = [histogram(side["quantiles"], span=(min(edges), max(edges))) for side in sides]
        paths = tuple(spark_bars([share for _, _, share in found]) if len(found) > 1 else "" for found in bins)
    tops = [dict(map(tuple, side["top"])) for side in sides]
    values = sorted({*tops[0], *tops[1]}, key=lambda value: -abs(tops[1].get(value, 0) - tops[0].get(value, 0)))
    return DriftedColumn(
        one["name"],
        one["test"],
        one["distance"],
        sides[0]["nulls"],
        sides[1]["nulls"],
        paths,
        tuple((value, tops[0].get(value, 0.0), tops[1].get(value, 0.0)) for value in values[:_TOP]),
    )


def _together(found: dict[str, Any], kind: str) -> tuple[tuple[str, str, float], ...]:
    """The pairs of columns that go together most, by the size of their figure."""
    pairs = found.get(kind, {}).get("pairs", ())
    return tuple((a, b, value) for a, b, value in sorted(pairs, key=lambda pair: -abs(pair[2]))[:_PAIRS])


def _covered(edges: list[int]) -> str:
    """A small histogram of a column of times."""
    bins = histogram([float(edge) for edge in edges])
    return spark_bars([share for _, _, share in bins]) if len(bins) > 1 else ""


def _column(column: dict[str, Any], found: Any, meaning: str) -> ColumnView:
    rows = max(column.get("rows") or 0, 1)
    bins = histogram(column.get("quantiles") or [])
    roles = [
        role
        for role, held in (("key", found.key), ("event time", [found.event_time]), ("known", [found.known_time]))
        if column["name"] in held
    ]
    return ColumnView(
        column["name"],
        column["type"],
        meaning,
        ", ".join(roles),
        found.tags.get(column["name"], ""),
        (column.get("nulls") or 0) / rows,
        column.get("distinct") or 0,
        column.get("min"),
        column.get("max"),
        column.get("mean"),
        spark_bars([share for _, _, share in bins]) if len(bins) > 1 else _covered(column.get("coverage") or []),
        f"{bins[0][0]:.4g} to {bins[-1][1]:.4g} in {len(bins)} bins" if bins else "rows over time",
        tuple((str(value), count, count / rows) for value, count in (column.get("top") or [])[:_TOP]),
    )
