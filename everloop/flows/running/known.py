"""What the catalog knows of a plan's steps, read together: a run of many steps must not ask for each.

What others record meanwhile is looked for again after a moment; whoever waited for another one's work asks anew.
"""

import threading
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from everloop.catalog import steps, versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.making import leaks
from everloop.catalog.making.leaks import Leak
from everloop.catalog.steps import StepRow
from everloop.flows.running.finding import placed

FRESH = 0.1
"""Seconds for which an answer is good."""
_DEPTH = 5
"""How many executions of each step are read ahead; older ones are asked for one by one."""


class Known:
    """Executions and manifests of one project, as they were a moment ago."""

    def __init__(self, ctx: Context, keys: Collection[str]) -> None:
        """Read ahead for the steps with these keys."""
        self._ctx = ctx
        self._keys = frozenset(keys)
        self._lock = threading.Lock()
        self._rows: dict[str, StepRow] = {}
        self._manifests: dict[str, Mapping[str, Any]] = {}
        self._placed: dict[str, dict[str, str]] = {}
        self._asked: set[str] = set()
        self._leaks: dict[str, list[Leak]] = {}
        self._deep: frozenset[str] = frozenset()
        self._last = 0
        self._until = 0.0

    def find(self, recipe: str, step: str, *, anew: bool = False) -> tuple[StepRow | None, list[Leak]]:
        """The latest successful execution of a recipe, or else what its executions read beside it."""
        with self._lock:
            if anew or time.monotonic() > self._until:
                self._refresh()
            row = self._rows.get(recipe)
            whole = recipe in self._asked or (step in self._keys and step not in self._deep)
            if row is None and (anew or not whole):
                with self._ctx.read() as tx:
                    row = steps.lookup(tx, self._ctx.project, recipe)
                    if row is None:
                        self._leaks[recipe] = leaks.of(tx, self._ctx.project, recipe)
                self._asked.add(recipe)
                if row is not None:
                    self._rows[recipe] = row
            return row, [] if row is not None else self._leaks.get(recipe, [])

    def ask(self, recipes: Collection[str]) -> None:
        """Read ahead for these recipes."""
        with self._lock, self._ctx.read() as tx:
            found = steps.lookup_many(tx, self._ctx.project, recipes)
            self._take(tx, found, [row.output for row in found.values()])
            self._leaks |= leaks.several(tx, self._ctx.project, set(recipes) - found.keys())
            self._asked.update(recipes)

    def manifest(self, identity: str) -> Mapping[str, Any] | None:
        """The manifest of a version; None when the project has none such."""
        with self._lock:
            if identity not in self._manifests:
                with self._ctx.read() as tx:
                    self._manifests |= versions.manifests(tx, self._ctx.project, [identity])
            return self._manifests.get(identity)

    def placed(self, identity: str, manifest: Mapping[str, Any]) -> dict[str, str]:
        """Where the parts of a version lie."""
        if not ("parts" in manifest or "schema_fields" in manifest):
            return {}
        with self._lock:
            if identity not in self._placed:
                with self._ctx.read() as tx:
                    self._placed[identity] = placed(tx, self._ctx.project, [manifest])
            return self._placed[identity]

    def forget_places(self, identity: str) -> None:
        """Ask again where the parts of a version lie."""
        with self._lock:
            self._placed.pop(identity, None)

    def made(self, identity: str, manifest: Mapping[str, Any], row: StepRow | None = None) -> None:
        """Take note of what this run made, whose record may not be written yet."""
        with self._lock:
            self._manifests[identity] = manifest
            if row is not None and row.status == "done":
                self._rows[row.recipe] = row

    def _refresh(self) -> None:
        with self._ctx.read() as tx:
            if self._until == 0.0:
                found = steps.newest(tx, self._ctx.project, self._keys, _DEPTH)
                self._leaks = leaks.of_steps(tx, self._ctx.project, self._keys)
                self._last = max(number for number, _ in found) if found else steps.last(tx)
                held: dict[str, int] = {}
                for _, row in found:
                    held[row.step] = held.get(row.step, 0) + 1
                self._deep = frozenset(step for step, count in held.items() if count >= _DEPTH)
            else:
                self._last, found = steps.since(tx, self._ctx.project, self._keys, self._last)
                for _, row in found:
                    if row.status == "leaky":
                        self._leaks[row.recipe] = leaks.of(tx, self._ctx.project, row.recipe)
            rows = [row for _, row in sorted(found, key=lambda one: one[0]) if row.status == "done"]
            newest = {row.step: row.output for row in rows}  # older ones are asked for when they are wanted
            self._take(tx, {row.recipe: row for row in rows}, newest.values())
        self._until = time.monotonic() + FRESH

    def _take(self, tx: Tx, found: Mapping[str, StepRow], outputs: Iterable[str | None]) -> None:
        self._rows |= found
        wanted = {identity for identity in outputs if identity and identity not in self._manifests}
        self._manifests |= versions.manifests(tx, self._ctx.project, wanted)
