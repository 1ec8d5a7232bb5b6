"""Metric points: written in batches, read as one series. The newest point of each series is kept beside its key."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from operator import itemgetter
from typing import Any, TypeVar, cast

from sqlalchemy import and_, func, or_, select

from everloop.catalog.engine import Tx, insert_into
from everloop.catalog.tables.tracking import logged_metrics, logged_models, points, runs, series
from everloop.catalog.tracking.rows import Page, Point
from everloop.catalog.tracking.search import Term, fetch_page
from everloop.core.clock import Micros

K = TypeVar("K")
Measured = tuple[int, Micros, float, int]
"""Step, time, value and whether it is not a number (the value is 0 then)."""
Newest = tuple[str, int, Micros, float, int]
"""The same after its series' key."""

CHUNK = 500
"""How many keys one IN list holds."""


def log(tx: Tx, project: str, run: int, rows: Sequence[Point]) -> None:
    """Write points of the run with that number; a point that is there already is passed over silently.

    Points that name a logged model are kept with it too, newest per metric and dataset.
    """
    if not rows:
        return
    numbers = _summarised(tx, run, _best(rows))
    _write(tx, [(numbers[p.key], p.step, p.at, p.stored, int(math.isnan(p.value))) for p in rows])
    _log_model_metrics(tx, project, [p for p in rows if p.model])


def newest(tx: Tx, numbers: Collection[int]) -> dict[int, tuple[Point, ...]]:
    """The newest point of every series of these runs, by run number, in the order of their keys."""
    return {
        run: tuple(Point(key, math.nan if nan else value, at, step) for key, step, at, value, nan in rows)
        for run, rows in newest_bare(tx, numbers).items()
    }


def newest_bare(tx: Tx, numbers: Collection[int]) -> dict[int, list[Newest]]:
    """The same without a value made of each, for who writes thousands of them into one answer."""
    found: dict[int, list[Newest]] = defaultdict(list)
    columns = (series.c.run, series.c.key, series.c.step, series.c.at, series.c.value, series.c.nan)
    for part in chunks(numbers):
        statement = select(*columns).where(series.c.run.in_(part)).order_by(series.c.run, series.c.key)
        for run, *row in tx.execute(statement).all():
            found[run].append(cast("Newest", row))
    return dict(found)


def history(tx: Tx, project: str, run: str, key: str, *, limit: int = 25_000, token: str = "") -> Page[Point]:
    """A page of a series in the order of time, then step; a series that was never written is empty."""
    found = bare_history(tx, project, run, key, limit=limit, token=token)
    made = (Point(key, math.nan if nan else value, at, step) for step, at, value, nan in found.rows)
    return Page(tuple(made), found.token)


def bare_history(tx: Tx, project: str, run: str, key: str, *, limit: int = 25_000, token: str = "") -> Page[Measured]:
    """What `history` gives, but bare: a page may have 25,000 points."""
    statement = (
        select(points.c.step, points.c.at, points.c.value, points.c.nan)
        .join(series, series.c.number == points.c.series)
        .join(runs, runs.c.number == series.c.run)
        .where(runs.c.project == project, runs.c.id == run, series.c.key == key)
    )
    terms = [Term(points.c[name]) for name in ("at", "step", "value", "nan")]
    found, following = fetch_page(tx, statement, terms, limit=limit, token=token, query=["history", project, run, key])
    return Page(tuple(cast("Measured", tuple(row)[:4]) for row in found), following)


def whole_history(tx: Tx, run: int, key: str) -> Sequence[Measured]:
    """Every point of a series of the run with that number, as `history` orders them, but bare.

    They come straight from the driver in the order in which they lie, by step; sorting by time what mostly is sorted
    costs next to nothing, and would cost a database as much as reading.
    """
    found = tx.exec_driver_sql(_HISTORY[tx.dialect.name], (run, key)).cursor
    assert found is not None
    rows = list(cast("Sequence[Measured]", found.fetchall()))
    rows.sort(key=itemgetter(1))
    return rows


def history_at_steps(
    tx: Tx, project: str, identities: Sequence[str], key: str, *, start: int | None, end: int | None, most: int
) -> list[Point]:
    """Points of one metric of several runs at about `most` steps, the same for all runs, between two steps.

    The first and last step and the greatest and least step of each run are always among them, so that a chart neither
    begins late nor ends early.
    """
    mine = and_(runs.c.project == project, runs.c.id.in_(identities), series.c.key == key)
    between = [
        *([points.c.step >= start] if start is not None else []),
        *([points.c.step <= end] if end is not None else []),
    ]
    joined = points.join(series, series.c.number == points.c.series).join(runs, runs.c.number == series.c.run)
    steps = [
        row.step
        for row in tx.execute(
            select(points.c.step).select_from(joined).where(mine, *between).distinct().order_by(points.c.step)
        )
    ]
    wanted = set(sampled(steps, most))
    if len(wanted) < len(steps):
        ends = select(func.min(points.c.step), func.max(points.c.step)).select_from(joined).where(mine, *between)
        wanted |= {step for row in tx.execute(ends.group_by(runs.c.number)) for step in row}
    found: list[Point] = []
    for part in chunks(sorted(wanted)):
        statement = (
            select(runs.c.id, points.c.step, points.c.at, points.c.value, points.c.nan)
            .select_from(joined)
            .where(mine, points.c.step.in_(part))
        )
        found.extend(_point(key, row, row.id) for row in tx.execute(statement))
    place = {identity: index for index, identity in enumerate(identities)}
    return sorted(found, key=lambda point: (place[point.run], point.step, point.at, point.stored))


def history_thinned(
    tx: Tx, project: str, run: str, key: str, *, start: int | None, end: int | None, most: int
) -> list[Point]:
    """At most `most` points of a series by step, between two steps, so chosen that a curve keeps its shape.

    The series is cut into stretches of equally many points; of each come the first, the last, the least and the
    greatest, so that no spike is lost and both ends are exact. All points come when they are few enough. The
    database hands the series over in pieces: a long one is never held whole.
    """
    numbered = select(series.c.number).join(runs, runs.c.number == series.c.run)
    number = tx.execute(numbered.where(runs.c.project == project, runs.c.id == run, series.c.key == key)).scalar()
    mine = [points.c.series == number]
    mine += [points.c.step >= start] if start is not None else []
    mine += [points.c.step <= end] if end is not None else []
    count = tx.execute(select(func.count()).select_from(points).where(*mine)).scalar_one()
    size = math.ceil(count / max(1, most // 4)) if count > most else max(1, count)
    columns = (points.c.step, points.c.at, points.c.value, points.c.nan)
    ordered = select(*columns).where(*mine).order_by(points.c.step, points.c.at, points.c.value, points.c.nan)
    kept: list[Any] = []
    for stretch in tx.execute(ordered, execution_options={"yield_per": size}).partitions():
        kept += stretch if count <= most else _shape(stretch)
    if len(kept) > most:  # fewer than four were asked for
        kept = [kept[0], kept[-1]]
    return [_point(key, row, run) for row in kept]


def _shape(stretch: Sequence[Any]) -> list[Any]:
    """The first, last, least and greatest of some rows, in their order; NaN is neither least nor greatest."""
    places = [place for place, row in enumerate(stretch) if not row.nan]
    chosen = {0, len(stretch) - 1}
    if places:
        chosen |= {pick(places, key=lambda place: stretch[place].value) for pick in (min, max)}
    return [stretch[place] for place in sorted(chosen)]


def sampled(steps: Sequence[int], most: int) -> Sequence[int]:
    """At most `most` of the sorted `steps`, evenly, with the first and the last; all of them when they are few."""
    if len(steps) <= most:
        return steps
    if most < 2:
        return steps[-1:]
    last = len(steps) - 1
    return sorted({steps[index * last // (most - 1)] for index in range(most)})


def chunks(keys: Collection[K]) -> Iterable[list[K]]:
    """The keys in lists that one statement can hold."""
    every = list(keys)
    return (every[start : start + CHUNK] for start in range(0, len(every), CHUNK))


def _best(rows: Sequence[Point]) -> list[Point]:
    """The newest point of each key, in the order of the keys: writers that lock rows in one order never deadlock."""
    best: dict[str, Point] = {}
    for point in rows:
        held = best.get(point.key)
        if held is None or (point.step, point.at) > (held.step, held.at) or point.rank > held.rank:
            best[point.key] = point
    return [best[key] for key in sorted(best)]


def _summarised(tx: Tx, run: int, best: Sequence[Point]) -> dict[str, int]:
    """Write the newest points into the series' rows, made where they are missing; the series' numbers by key."""
    home = tx.exec_driver_sql(_HOME[tx.dialect.name], (run,)).one()
    numbers: dict[str, int] = {}
    for start in range(0, len(best), CHUNK):
        part = best[start : start + CHUNK]
        values = [(p.key, p.step, p.at, p.stored, int(math.isnan(p.value))) for p in part]
        if tx.dialect.name == "sqlite":
            places = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * len(part))
            arguments = [field for row in values for field in (*home, run, *row)]
            found = tx.exec_driver_sql(f"{_SERIES} VALUES {places} {_NEWER}", tuple(arguments))
        else:
            found = tx.exec_driver_sql(
                f"{_SERIES} {_SERIES_ARRAYS} {_NEWER}", (*home, run, *map(list, zip(*values, strict=True)))
            )
        numbers.update((key, number) for key, number in found)
    if len(numbers) < len(best):  # some hold a newer point
        numbers.update(_known(tx, run, [p.key for p in best if p.key not in numbers]))
    return numbers


def _write(tx: Tx, written: Sequence[tuple[int, int, Micros, float, int]]) -> None:
    """Insert rows of points, straight through the driver: this is the path of every measurement."""
    if tx.dialect.name == "sqlite":
        tx.exec_driver_sql(_POINTS_ROWS, list(written))
        return
    for start in range(0, len(written), 10_000):
        columns = zip(*written[start : start + 10_000], strict=True)
        tx.exec_driver_sql(_POINTS_ARRAYS, tuple(map(list, columns)))


_HOME = {
    "sqlite": "SELECT project, experiment FROM runs WHERE number = ?",
    "postgresql": "SELECT project, experiment FROM runs WHERE number = %s",
}
_MINE = "SELECT step, at, value, nan FROM metric_points WHERE series = (SELECT number FROM metric_series WHERE run = "
_ORDER = ") ORDER BY step, at, value, nan"
_HISTORY = {"sqlite": f"{_MINE}? AND key = ?{_ORDER}", "postgresql": f"{_MINE}%s AND key = %s{_ORDER}"}
_SERIES = "INSERT INTO metric_series (project, experiment, run, key, step, at, value, nan)"
_SERIES_ARRAYS = (
    "SELECT %s::text, %s::bigint, %s::bigint, * "
    "FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::float8[], %s::smallint[])"
)
_NEWER = (
    "ON CONFLICT (run, key) DO UPDATE SET step = excluded.step, at = excluded.at, value = excluded.value, "
    "nan = excluded.nan WHERE (excluded.step, excluded.at, 1 - excluded.nan, excluded.value) "
    "> (metric_series.step, metric_series.at, 1 - metric_series.nan, metric_series.value) RETURNING key, number"
)
"""The order of `Point.rank`."""
_POINTS_ROWS = "INSERT INTO metric_points (series, step, at, value, nan) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_POINTS_ARRAYS = (
    "INSERT INTO metric_points (series, step, at, value, nan) "
    "SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::float8[], %s::smallint[]) "
    "ON CONFLICT DO NOTHING"
)


def _known(tx: Tx, run: int, keys: Collection[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in chunks(keys):
        statement = select(series.c.key, series.c.number).where(series.c.run == run, series.c.key.in_(part))
        found.update({row.key: row.number for row in tx.execute(statement)})
    return found


def _log_model_metrics(tx: Tx, project: str, rows: Sequence[Point]) -> None:
    """Keep the newest measure of each logged model by metric and dataset; models that are not known are passed over."""
    if not rows:
        return
    statement = select(logged_models.c.id, logged_models.c.number).where(
        logged_models.c.project == project, logged_models.c.id.in_({p.model for p in rows})
    )
    numbers = {row.id: row.number for row in tx.execute(statement)}
    best: dict[tuple[int, str, str, str], Point] = {}
    for point in rows:
        if point.model in numbers:
            place = (numbers[point.model], point.key, point.dataset, point.digest)
            held = best.get(place)
            if held is None or point.rank >= held.rank:
                best[place] = point
    written = [
        {
            "parent": parent,
            "key": key,
            "dataset": dataset,
            "digest": digest,
            "run": p.run,
            "step": p.step,
            "at": p.at,
            "value": p.stored,
            "nan": int(math.isnan(p.value)),
        }
        for (parent, key, dataset, digest), p in best.items()
    ]
    if not written:
        return
    put = insert_into(tx, logged_metrics)
    fresh = {name: put.excluded[name] for name in ("run", "step", "at", "value", "nan")}
    held_step, held_at = logged_metrics.c.step, logged_metrics.c.at
    newer = or_(held_step < fresh["step"], and_(held_step == fresh["step"], held_at <= fresh["at"]))
    keys = ["parent", "key", "dataset", "digest"]
    tx.execute(put.on_conflict_do_update(index_elements=keys, set_=fresh, where=newer), written)


def _point(key: str, row: Any, run: str = "") -> Point:
    at: Micros = row.at
    return Point(key, math.nan if row.nan else row.value, at, row.step, run=run)
