"""A version judged by its contract: its rows, the datasets it refers to, the version before it, the author's code.

What is about the rows alone is counted in one pass (`data.checking`). The rest needs the catalog: `references` reads
the other dataset's head, `row_change` and `drift` the previous version, `custom` runs the author's function in a
process of its own. Each result pins the other versions that it saw.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from everloop.catalog.context import Context
from everloop.catalog.versions import VersionRow
from everloop.core.errors import InvalidInput, NotFound
from everloop.data.checking import EXAMPLES, check_expectations, failing_table
from everloop.data.codec import manifest_of, paths_of, scan_sql
from everloop.data.contracts.custom import run_custom
from everloop.data.contracts.distances import distance, told
from everloop.data.engine import connect, quoted, select
from everloop.data.expect import MASK, RELATIONS, Expectation, ExpectationResult
from everloop.data.heads import find_version, head
from everloop.data.profiles import profile_of
from everloop.data.sensitive.masking import in_force


def check_version(
    ctx: Context,
    version: str,
    expectations: Sequence[Expectation],
    *,
    environment: str = "",
    previous: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> tuple[ExpectationResult, ...]:
    """Check every expectation of a version, in the order given.

    `environment` is where references find the other datasets' heads; `previous` is the version that changes are
    measured from (without one they hold: there is nothing to compare); `tags` mask columns beside the version's own.
    Raises `NotFound`, `InvalidInput`.
    """
    manifest = manifest_of(ctx, version)
    manifest = {**manifest, "tags": {**manifest["tags"], **in_force(ctx, version), **(tags or {})}}
    alone = [e for e in expectations if e.kind not in RELATIONS]
    results: dict[Expectation, ExpectationResult] = {}
    if alone:  # without any, no part is fetched or folded
        counted = check_expectations(
            paths_of(ctx, manifest), alone, tags=manifest["tags"], key=manifest["key"], now=ctx.now()
        )
        results = dict(zip(alone, counted, strict=True))
    judged = _Version(ctx, version, manifest, environment, previous)
    return tuple(results[e] if e in results else judged.check(e) for e in expectations)


def failing_rows(
    ctx: Context, version: str, expectation: Expectation, *, environment: str = "", limit: int
) -> pa.Table | None:
    """The rows of a version that break an expectation, `limit` at most; None for one that tells no rows."""
    found = _Version(ctx, version, manifest_of(ctx, version), environment, None).failing(expectation, limit)
    return None if found is None else found.select([n for n in found.column_names if not n.startswith("everloop:")])


@dataclass(frozen=True, slots=True)
class _Version:
    ctx: Context
    id: str
    manifest: Any
    environment: str
    previous: str | None

    def check(self, e: Expectation) -> ExpectationResult:
        columns = dict(map(tuple, self.manifest["schema_fields"]))
        absent = next((c for c in e.columns if c not in columns), None)
        if absent is not None:
            return ExpectationResult(e, passed=False, observed=f"there is no column {absent!r}")
        if e.kind == "references":
            return self._references(e)
        if e.kind == "row_change":
            return self._row_change(e)
        if e.kind == "drift":
            return self._drift(e)
        return run_custom(e, self._files(), self.manifest["tags"], self._root())

    def _files(self) -> list[Path]:
        return paths_of(self.ctx, self.manifest)

    def _root(self) -> Path:
        root = self.ctx.ports.get("root")
        return Path(root) if root else Path.cwd()

    def _other(self, dataset: str) -> str | None:
        """The head that references are looked up in; without an environment the newest version."""
        if self.environment:
            return head(self.ctx, self.environment, dataset)
        try:
            return find_version(self.ctx, dataset).id
        except NotFound:
            return None

    def _references(self, e: Expectation) -> ExpectationResult:
        dataset, theirs = str(e.param("dataset")), tuple(e.param("to") or e.columns)
        other = self._other(dataset)
        if other is None:
            return ExpectationResult(e, passed=False, observed=f"{self.environment or 'nobody'} has no data/{dataset}")
        found = manifest_of(self.ctx, other)
        known = dict(map(tuple, found["schema_fields"]))
        absent = next((c for c in theirs if c not in known), None)
        if absent is not None:
            return ExpectationResult(e, passed=False, observed=f"data/{dataset} has no column {absent!r}")
        joined, given = self._dangling(e, theirs, found)
        shown = list(dict.fromkeys([*self.manifest["key"], *e.columns]))
        with connect(self.ctx.home / "scratch") as engine:
            row = engine.execute(select("count(*)", joined, given)).fetchone()
            failing = int(row[0]) if row else 0
            listed = ", ".join(f"a.{quoted(c)}::varchar" for c in shown)
            rows = engine.execute(select(listed, joined, given, f"limit {EXAMPLES}")).fetchall() if failing else []
        examples = tuple(
            {c: MASK if c in self.manifest["tags"] else str(v) for c, v in zip(shown, values, strict=True)}
            for values in rows
        )
        observed = f"{failing} of {self.manifest['rows']} rows refer to nothing" if failing else "all are there"
        return ExpectationResult(e, failing == 0, observed, failing, examples, {dataset: other})

    def _dangling(self, e: Expectation, theirs: tuple[str, ...], other: Any) -> tuple[str, str]:
        """Where the rows are (as `a`) that refer to nothing, and the condition of those that refer at all."""
        matched = " and ".join(f"a.{quoted(c)} = b.{quoted(t)}" for c, t in zip(e.columns, theirs, strict=True))
        given = " and ".join(f"a.{quoted(c)} is not null" for c in e.columns)
        here, there = scan_sql(self._files()), scan_sql(paths_of(self.ctx, other))
        return f"{here} a anti join {there} b on {matched}", given

    def failing(self, e: Expectation, limit: int) -> pa.Table | None:
        """The rows that break it, all columns; None where none can be told."""
        if e.kind == "references" and (other := self._other(str(e.param("dataset")))) is not None:
            joined, given = self._dangling(e, tuple(e.param("to") or e.columns), manifest_of(self.ctx, other))
            with connect(self.ctx.home / "scratch") as engine:
                return engine.sql(select("a.*", joined, given, f"limit {limit}")).to_arrow_table()
        if e.kind == "custom":
            with tempfile.TemporaryDirectory() as folder:
                rows = Path(folder, "rows.parquet")
                run_custom(e, self._files(), {}, self._root(), rows)
                return pq.read_table(rows).slice(0, limit) if rows.exists() else None
        return None if e.kind in RELATIONS else failing_table(self._files(), e, limit)

    def _row_change(self, e: Expectation) -> ExpectationResult:
        if self.previous is None:
            return ExpectationResult(e, passed=True, observed="there is no version before it")
        rows, before = int(self.manifest["rows"]), int(manifest_of(self.ctx, self.previous)["rows"])
        share = (rows - before) / before if before else (1.0 if rows else 0.0)
        low, high = e.param("at_least"), e.param("at_most")
        fits = (low is None or share >= float(low)) and (high is None or share <= float(high))
        return ExpectationResult(e, fits, f"{before} → {rows} rows ({share:+.2%})", pinned={"previous": self.previous})

    def _drift(self, e: Expectation) -> ExpectationResult:
        against = str(e.param("against") or "previous")
        base = self.previous if against == "previous" else self._named(against).id
        if base is None:
            return ExpectationResult(e, passed=True, observed="there is no version before it")
        column, test = e.columns[0], str(e.param("test"))
        old = profile_of(self.ctx, base).columns.get(column)
        new = profile_of(self.ctx, self.id).columns[column]
        if old is None or old.masked or new.masked:
            why = "was no such column before" if old is None else "is masked: no distribution of it is kept"
            return ExpectationResult(e, passed=False, observed=f"{column} {why}")
        found = distance(old, new, test)
        if found is None:
            return ExpectationResult(e, passed=False, observed=f"{test} says nothing about {new.type}")
        fits = found <= float(e.param("at_most"))
        return ExpectationResult(e, fits, f"{told(test)} {found:.4f}", pinned={against: base})

    def _named(self, spec: str) -> VersionRow:
        row = find_version(self.ctx, spec, self.environment)
        if row.kind != "data":
            raise InvalidInput(f"{spec} is no data version", hint="drift is measured from one, as flights@7")
        return row
