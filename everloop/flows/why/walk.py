"""The walk: two versions side by side, up their lineage, until both sides are one.

A version that both sides have is not followed: what led to it cannot make a difference. So the walk costs as much as
there is to tell, and reads manifests, never rows.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from everloop.catalog import refs, steps, versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.governance import changes
from everloop.catalog.making import leaks, recipes
from everloop.catalog.making.recipes import Ingredients
from everloop.catalog.steps import StepRow
from everloop.catalog.versions import VersionRow
from everloop.core.errors import NotFound
from everloop.data.sensitive.masking import hidden_of
from everloop.flows.why import code, fields
from everloop.flows.why.subjects import Subject
from everloop.flows.why.tables import tables
from everloop.flows.why.values import Difference, Pair, Why, is_cause

_MOST_PAIRS = 400
_WORK = ("code", "runtime")


@dataclass(frozen=True, slots=True)
class Side:
    """What is known of one version."""

    row: VersionRow
    label: str
    inputs: Mapping[str, str]
    """Role -> version, of all that it was made of or that it names."""
    step: StepRow | None = None
    made_of: Ingredients | None = None
    reads: Mapping[str, str] = field(default_factory=dict)
    """What its step read that nobody had declared."""
    linked: frozenset[str] = frozenset()
    """Fields of the manifest that name inputs."""


def why(ctx: Context, old: Subject, new: Subject) -> Why:
    """Compare two versions and everything that led to them; nearest first, 400 pairs at most."""
    walk = _Walk(ctx)
    pairs = tuple(walk.pairs(old, new))
    return Why(old.row.id, new.row.id, old.label, new.label, pairs, len(walk.shared))


class _Walk:
    """What was met so far."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.shared: set[str] = set()

    def pairs(self, old: Subject, new: Subject) -> Iterator[Pair]:
        waiting: deque[tuple[tuple[str, ...], str, str]] = deque([((), old.row.id, new.row.id)])
        seen, told = {(old.row.id, new.row.id)}, 0
        while waiting and told < _MOST_PAIRS:
            path, one, other = waiting.popleft()
            if one == other:
                self.shared.add(one)
                continue
            with self.ctx.read() as tx:
                sides = [self._side(tx, identity) if identity else None for identity in (one, other)]
                if not path:
                    sides = [self._headed(tx, side, subject) for side, subject in zip(sides, (old, new), strict=True)]
            a, b = sides
            below = self._below(a, b)
            yield self._pair(path, a, b, below)
            told += 1
            if a is None or b is None:  # what only one side has is not followed: all of it would be new
                continue
            for role, (left, right) in below.items():
                if (left, right) not in seen:
                    seen.add((left, right))
                    waiting.append(((*path, role), left, right))

    def _side(self, tx: Tx, identity: str) -> Side | None:
        project = self.ctx.project
        try:
            row = versions.get(tx, project, identity)
        except NotFound:
            return None
        step = steps.made(tx, project, [identity]).get(identity)
        captured = step is not None and not step.runtime  # its `code` is then the definition of the source
        made_of = recipes.several(tx, project, [step.recipe]).get(step.recipe) if step else None
        named = dict(fields.links(row.manifest)) if row.kind != "snapshot" else dict(row.manifest["entries"])
        held = versions.labels(tx, project, [*named.values(), identity])
        inputs = {path: one for path, one in named.items() if one in held}
        linked = frozenset(inputs)
        taken = set(inputs.values())
        if step is not None and captured:
            inputs["source"], step = step.code, None
        elif step is not None:
            inputs |= {role: one for role, one in step.inputs.items() if one not in taken}
            inputs |= {role: getattr(step, role) for role in _WORK}
        else:
            edges = versions.upstream(tx, project, identity, 1)
            inputs |= {edge.role: edge.from_id for edge in edges if edge.from_id not in taken}
        reads: Mapping[str, str] = {}
        if step is not None and step.status == "leaky":
            reads = next((leak.reads for leak in leaks.of(tx, project, step.recipe) if leak.output == identity), {})
        return Side(row, held[identity], inputs, step, made_of, reads, linked)

    def _headed(self, tx: Tx, side: Side | None, subject: Subject) -> Side | None:
        """The snapshot of an environment, with the data that it has there."""
        if side is None or not subject.environment:
            return side
        prefix = refs.head_ref(subject.environment, "")
        heads = refs.all(tx, self.ctx.project, prefix)
        return Side(
            side.row, subject.label, {**side.inputs, **{f"data/{n.removeprefix(prefix)}": i for n, i in heads.items()}}
        )

    def _below(self, old: Side | None, new: Side | None) -> dict[str, tuple[str, str]]:
        ours, theirs = (side.inputs if side else {} for side in (old, new))
        return {role: (ours.get(role, ""), theirs.get(role, "")) for role in dict.fromkeys([*ours, *theirs])}

    def _pair(
        self, path: tuple[str, ...], old: Side | None, new: Side | None, below: dict[str, tuple[str, str]]
    ) -> Pair:
        there = old or new
        assert there is not None
        if old and new and old.made_of and new.made_of:  # told with the step: of its code what it reaches
            for role in _WORK:
                below.pop(role, None)
        differences = tuple(self._differences(path, old, new))
        inherited = any(a != b for role, (a, b) in below.items() if role not in _WORK)
        own = any(d.matters == "yes" and is_cause(d, made=there.step is not None) for d in differences)
        return Pair(
            path,
            there.row.kind,
            old.row.id if old else "",
            new.row.id if new else "",
            old.label if old else "",
            new.label if new else "",
            differences,
            root=own or not inherited,
            step=there.step.step if there.step else "",
        )

    def _differences(self, path: tuple[str, ...], old: Side | None, new: Side | None) -> Iterator[Difference]:
        if old is None or new is None:
            yield Difference(
                "input",
                path[-1] if path else "",
                old.label if old else "",
                new.label if new else "",
                reason="only one side has it",
            )
            return
        kind = new.row.kind
        if old.row.kind != kind:
            yield Difference("definition", "kind", old.row.kind, kind)
            return
        before, after = old.row.manifest, new.row.manifest
        if kind in ("data", "frame"):
            masked = hidden_of(self.ctx, old.row) | hidden_of(self.ctx, new.row)
            yield from tables(before, after, shown=masked.isdisjoint(after.get("key", ())))
        elif kind == "runtime":
            yield from fields.runtimes(before, after, None)
        elif kind == "code":
            yield from self._files(before, after)
        elif kind not in ("snapshot", "run"):
            yield from fields.fields(kind, before, after, old.linked | new.linked, made=new.step is not None)
            yield from fields.outputs(before, after)
        yield from self._work(old, new)
        if not path:
            yield from self._people(old, new)

    def _work(self, old: Side, new: Side) -> Iterator[Difference]:
        """How the two steps differ: parameters, what they reach, what they read beside it, how they are defined."""
        if old.step is None or new.step is None:
            return
        yield from fields.parameters(old.step.params, new.step.params)
        for name in sorted(old.reads.keys() | new.reads.keys()):
            if old.reads.get(name) != new.reads.get(name):
                ours, theirs = (("read" if side.reads.get(name) else "") for side in (old, new))
                yield Difference("reads", name, ours, theirs, reason="the step read it and nobody declared it")
        if old.made_of is None or new.made_of is None:
            return
        for name in ("facts", "how"):
            ours, theirs = getattr(old.made_of, name), getattr(new.made_of, name)
            yield from (
                Difference("definition", f"step's {one}", fields.text(ours.get(one)), fields.text(theirs.get(one)))
                for one in sorted(ours.keys() | theirs.keys())
                if ours.get(one) != theirs.get(one) and not one.endswith("_id")
            )
        with self.ctx.read() as tx:
            known = versions.manifests(
                tx, self.ctx.project, {old.step.code, new.step.code, old.step.runtime, new.step.runtime}
            )
        files = [known.get(side.step.code, {}).get("files", {}) for side in (old, new) if side.step]
        yield from self._code((files[0], old.made_of.parts), (files[1], new.made_of.parts))
        runtimes = [known.get(side.step.runtime, {}) for side in (old, new) if side.step]
        needed = frozenset(old.made_of.packages) | frozenset(new.made_of.packages)
        yield from fields.runtimes(runtimes[0], runtimes[1], needed)

    def _code(self, old: code.Reached, new: code.Reached) -> Iterator[Difference]:
        found = list(code.reached(self.ctx.store, old, new))
        yield from found
        seen = {code.file_of(files, one.name) for files in (old[0], new[0]) for one in found}
        yield from code.others(self.ctx.store, old[0], new[0], frozenset(seen), "no")

    def _files(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
        """A code version as a whole: which files differ. What a step reaches of them is told at that step."""
        yield from code.others(self.ctx.store, before["files"], after["files"], frozenset(), "unknown")

    def _people(self, old: Side, new: Side) -> Iterator[Difference]:
        who = [f"{side.row.actor}" for side in (old, new)]
        if who[0] != who[1]:
            yield Difference("people", "made by", who[0], who[1], "no", "who made it is no part of it")
        with self.ctx.read() as tx:
            merged = [changes.by_merge(tx, self.ctx.project, side.row.id) for side in (old, new)]
        approved = [", ".join(one.approvers) if one else "" for one in merged]
        if approved[0] != approved[1]:
            yield Difference("people", "approved by", approved[0], approved[1], "no", "an approval changes no content")
