"""What differs between two versions of a table: from manifests and layers where they tell, else exact, by DuckDB.

Parts that both have are not read. The others are grouped where their ranges of keys overlap; a part that rests on the
very part before it says in its header what differs, so that only the other groups are read.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb

from everloop.catalog import placements
from everloop.catalog.context import Context
from everloop.core.errors import InvalidInput
from everloop.data.codec import manifest_of, paths_of, scan_sql
from everloop.data.content.files import local_object
from everloop.data.content.layers import Figures, outline
from everloop.data.content.pairs import Cluster, clusters
from everloop.data.engine import connect, literal, quoted, select
from everloop.data.expect import MASK

EXAMPLES = 10


@dataclass(frozen=True, slots=True)
class DataDiff:
    """From `old` to `new`. Rows are matched by the key; without one (or where it repeats) as whole rows."""

    old: str
    new: str
    rows_old: int
    rows_new: int
    columns_added: Mapping[str, str]
    """Logical type by name."""
    columns_removed: Mapping[str, str]
    columns_retyped: Mapping[str, tuple[str, str]]
    parts_shared: int
    parts_new: int
    added: int = 0
    removed: int = 0
    changed: int = 0
    """Rows of one key with other values (in the columns that both have)."""
    changes: Mapping[str, int] | None = None
    """By column, how many rows changed there."""
    examples: tuple[Mapping[str, str], ...] = ()
    """Some changed rows: the key, and `old → new` where they differ; masked where tagged."""

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        moved = self.columns_added or self.columns_removed or self.columns_retyped
        return not (self.added or self.removed or self.changed or moved)


def compare(ctx: Context, old: str, new: str, *, examples: bool = True) -> DataDiff:
    """Compare two data versions by their ids. Counts are exact; parts that both have are not read.

    Without `examples` no part is read whose layers tell how it differs. Raises `NotFound`, `InvalidInput`.
    """
    before, after = manifest_of(ctx, old), manifest_of(ctx, new)
    if old != new and ("external" in before or "external" in after):
        raise InvalidInput("a version that stays in a warehouse is not compared", hint='capture it with keep="here"')
    if list(before["key"]) != list(after["key"]):
        raise InvalidInput(
            f"the versions have different keys: {', '.join(before['key'])} and {', '.join(after['key'])}",
            hint="compare versions of one dataset",
        )
    was, now = dict(map(tuple, before["schema_fields"])), dict(map(tuple, after["schema_fields"]))
    ours, theirs = _not_shared(before, after)
    shared = len(before["parts"]) - len(ours)
    shape = DataDiff(
        old=old,
        new=new,
        rows_old=before["rows"],
        rows_new=after["rows"],
        columns_added={n: t for n, t in now.items() if n not in was},
        columns_removed={n: t for n, t in was.items() if n not in now},
        columns_retyped={n: (was[n], t) for n, t in now.items() if n in was and was[n] != t},
        parts_shared=shared,
        parts_new=len(theirs),
    )
    if not ours and not theirs:
        return shape
    both = [name for name in was if name in now and was[name] == now[name]]
    sides = _Sides(ctx, before, after, tuple(both))
    told, rest = sides.told(ours, theirs)
    with connect(ctx.home / "scratch") as engine:
        if rest.old or rest.new:
            shape = sides.rows(engine, rest).counted(shape)
        shape = _added(shape, [figures for _, figures in told])
        if shape.changed and examples:
            shape = replace(shape, examples=sides.examples(engine, shape, told, rest))
    return shape


@dataclass(frozen=True, slots=True)
class _Sides:
    ctx: Context
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    both: tuple[str, ...]

    def told(self, ours: list[Any], theirs: list[Any]) -> tuple[list[tuple[Cluster, Figures]], Cluster]:
        """Groups of parts whose layers tell what differs, and all other parts."""
        rest = Cluster()
        key = list(self.before["key"])
        if not key or any(name not in self.both for name in key):
            return [], Cluster(ours, theirs)
        with self.ctx.read() as tx:
            placed = placements.resolve(tx, self.ctx.project, [part["logical"] for part in (*ours, *theirs)])
        found = []
        for cluster in clusters(self.before, ours, theirs):
            figures = self._figures(cluster, placed)
            if figures is not None:
                found.append((cluster, figures))
            else:
                rest.old.extend(cluster.old)
                rest.new.extend(cluster.new)
        return found, rest

    def _figures(self, cluster: Cluster, placed: Mapping[str, str]) -> Figures | None:
        if len(cluster.old) != 1 or len(cluster.new) != 1:
            return None
        old, new = (placed.get(parts[0]["logical"]) for parts in (cluster.old, cluster.new))
        if old is None or new is None:
            return None
        outlined = outline(local_object(self.ctx.store, new, self.ctx.home / "cache"))
        if outlined is not None and outlined[0] == old:
            return outlined[1]
        outlined = outline(local_object(self.ctx.store, old, self.ctx.home / "cache"))
        if outlined is None or outlined[0] != new or outlined[1] is None:
            return None
        back = outlined[1]
        return Figures(back.removed, back.added, back.changed, back.columns)

    def rows(self, engine: duckdb.DuckDBPyConnection, cluster: Cluster) -> "_Rows":
        """The rows of a group of parts, to be compared."""
        old, new = _view(self.ctx, self.before, cluster.old), _view(self.ctx, self.after, cluster.new)
        return _Rows(engine, old, new, tuple(self.before["key"]), self.both)

    def examples(
        self,
        engine: duckdb.DuckDBPyConnection,
        shape: DataDiff,
        told: list[tuple[Cluster, Figures]],
        rest: Cluster,
    ) -> tuple[Mapping[str, str], ...]:
        """Rows that changed: of the parts that were read anyway, and of as few others as give enough of them."""
        parts, enough = Cluster(list(rest.old), list(rest.new)), shape.changed - sum(f.changed for _, f in told)
        for cluster, figures in told:
            if enough < EXAMPLES and figures.changed:
                parts.old.extend(cluster.old)
                parts.new.extend(cluster.new)
                enough += figures.changed
        tags = {**self.before["tags"], **self.after["tags"]}
        return self.rows(engine, parts).examples(list(shape.changes or {}), tags)


def _added(shape: DataDiff, told: list[Figures]) -> DataDiff:
    """The diff with what layers tell."""
    changes = Counter(shape.changes or {})
    for figures in told:
        changes.update(figures.columns)
    ordered = {name: changes[name] for name in sorted(changes, key=lambda name: (-changes[name], name))}
    return replace(
        shape,
        added=shape.added + sum(figures.added for figures in told),
        removed=shape.removed + sum(figures.removed for figures in told),
        changed=shape.changed + sum(figures.changed for figures in told),
        changes=ordered if told or shape.changes is not None else None,
    )


def _not_shared(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    common = Counter(p["logical"] for p in before["parts"]) & Counter(p["logical"] for p in after["parts"])
    return _without(before["parts"], common), _without(after["parts"], common)


def _without(parts: Iterable[Any], common: Mapping[str, int]) -> list[Any]:
    left, rest = dict(common), []
    for part in parts:
        if left.get(part["logical"], 0):
            left[part["logical"]] -= 1
        else:
            rest.append(part)
    return rest


def _view(ctx: Context, manifest: Mapping[str, Any], parts: list[Any]) -> str:
    if parts:
        return scan_sql(paths_of(ctx, {**manifest, "parts": parts}))
    whole: list[Path] = paths_of(ctx, {**manifest, "parts": manifest["parts"][:1]})
    return f"({select('*', scan_sql(whole), 'false')})"


@dataclass(frozen=True, slots=True)
class _Rows:
    engine: duckdb.DuckDBPyConnection
    old: str
    new: str
    key: tuple[str, ...]
    both: tuple[str, ...]

    def counted(self, shape: DataDiff) -> DataDiff:
        if not self.key or any(k not in self.both for k in self.key) or self._repeats():
            added, removed = self._except(self.new, self.old), self._except(self.old, self.new)
            return replace(shape, added=added, removed=removed)
        values = [c for c in self.both if c not in self.key]
        joined = f"{self.old} a full join {self.new} b on {self._matched()}"
        here, there = f"a.{quoted(self.key[0])} is not null", f"b.{quoted(self.key[0])} is not null"
        figures = [f"count(*) filter (where not ({here}))", f"count(*) filter (where not ({there}))"]
        moved = [f"(a.{quoted(c)} is distinct from b.{quoted(c)})" for c in values]
        any_moved = " or ".join(moved) or "false"
        figures += [f"count(*) filter (where {here} and {there} and ({any_moved}))"]
        figures += [f"count(*) filter (where {here} and {there} and {m})" for m in moved]
        added, removed, changed, *by_column = self.engine.execute(select(", ".join(figures), joined)).fetchone() or ()
        changes = {c: n for c, n in zip(values, by_column, strict=True) if n}
        return replace(shape, added=added, removed=removed, changed=changed, changes=changes)

    def _matched(self) -> str:
        return " and ".join(f"a.{quoted(k)} = b.{quoted(k)}" for k in self.key)

    def _repeats(self) -> bool:
        columns = ", ".join(map(quoted, self.key))
        return any(
            self.engine.execute(select("1", side, rest=f"group by {columns} having count(*) > 1 limit 1")).fetchone()
            for side in (self.old, self.new)
        )

    def _except(self, left: str, right: str) -> int:
        columns = ", ".join(map(quoted, self.both)) or "1"
        inner = f"({select(columns, left)} except all {select(columns, right)})"
        row = self.engine.execute(select("count(*)", inner)).fetchone()
        return int(row[0]) if row else 0

    def examples(self, columns: list[str], tags: Mapping[str, str]) -> tuple[Mapping[str, str], ...]:
        moved = " or ".join(f"(a.{quoted(c)} is distinct from b.{quoted(c)})" for c in columns)
        shown = [f"{_text('a', k)} as k{i}" for i, k in enumerate(self.key)]
        for i, c in enumerate(columns):
            differs = f"a.{quoted(c)} is distinct from b.{quoted(c)}"
            shown.append(f"case when {differs} then {_text('a', c)} || {literal(' → ')} || {_text('b', c)} end as c{i}")
        order = ", ".join(f"a.{quoted(k)}" for k in self.key)
        joined = f"{self.old} a join {self.new} b on {self._matched()}"
        found = self.engine.execute(select(", ".join(shown), joined, moved, f"order by {order} limit {EXAMPLES}"))
        names = [*self.key, *columns]
        return tuple(
            {n: MASK if n in tags else str(v) for n, v in zip(names, row, strict=True) if v is not None}
            for row in found.fetchall()
        )


def _text(side: str, column: str) -> str:
    return f"coalesce({side}.{quoted(column)}::varchar, 'null')"
