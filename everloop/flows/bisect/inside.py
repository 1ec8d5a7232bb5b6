"""What a guilty factor consists of, and versions that have only some of it: parameters, packages, ranges of keys, code.

Every mixture is a real version: a table whose parts in some ranges of the key are those of the other side, a runtime
with some of the other side's packages, a code version with some of its files. So it runs, and is cached, as any other.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Any

from everloop.catalog import versions
from everloop.catalog.context import Context
from everloop.core.ids import short
from everloop.core.version import Version
from everloop.flows.bisect.history import NAME, Commits, Place, between, put_new
from everloop.flows.bisect.narrow import Narrowed, narrow
from everloop.flows.bisect.running import Runs
from everloop.flows.bisect.settings import Setting, Sides


@dataclass(frozen=True, slots=True)
class _Inside:
    """The items of a factor, and the good side with some of them swapped."""

    items: tuple[str, ...]
    with_: Any


def narrowed(
    ctx: Context, sides: Sides, factor: str, runs: Runs, total: float, *, place: Place | None = None
) -> dict[str, Narrowed]:
    """Find what of a factor makes its difference `total`, by the place where it was looked for.

    Nothing for a factor that has no inside that can be swapped apart. Code is narrowed to a commit, and in that to
    files, where both sides were built in the git history at `place`; else to a build, or to files.
    """
    if factor == "code":
        with between(ctx, sides, place) if place is not None else nullcontext(None) as commits:
            if commits is not None:
                return _committed(ctx, sides, commits, runs, total)
        builds = _builds(ctx, sides)
        if len(builds) > 2:  # each build between the two is one step; a range of them is what came in between
            return {"code": _along(sides, [label for label, _ in builds[1:]], lambda n: builds[n][1], runs, total)}
    found = _within(ctx, sides, factor, runs, total)
    return {factor: found} if found is not None else {}


def _committed(ctx: Context, sides: Sides, commits: Commits, runs: Runs, total: float) -> dict[str, Narrowed]:
    found = {"code": _along(sides, commits.labels, commits.code, runs, total)}
    (one, *more), place = found["code"].items, commits.labels.index(found["code"].items[0])
    ends = commits.code(place), commits.code(place + 1)
    effect = found["code"].effect
    if more or effect is None or ends[0] is None or ends[1] is None:
        return found
    alone = replace(sides, good=replace(sides.good, code=ends[0]), bad=replace(sides.bad, code=ends[1]))
    files = _within(ctx, alone, "code", runs, effect.mean) if effect.mean else None
    return found | ({" ".join(one.split()[:2]): files} if files is not None and len(files.probes) > 1 else {})


def _within(ctx: Context, sides: Sides, factor: str, runs: Runs, total: float) -> Narrowed | None:
    inside = _INSIDES[factor](ctx, sides)
    if not inside.items:
        return None

    def measure(items: Sequence[str], seed: int) -> float | None:
        changed, plain = runs(inside.with_(items), seed + 1), runs(sides.good, seed + 1)
        return None if changed is None or plain is None else changed - plain

    return narrow(inside.items, measure, total)


def _along(
    sides: Sides, labels: Sequence[str], code: Callable[[int], str | None], runs: Runs, total: float
) -> Narrowed:
    """The step with which the metric changed: what a range of steps did is the difference of its two ends.

    `code` gives the code version after so many steps.
    """
    place = {label: n for n, label in enumerate(labels)}

    def measure(items: Sequence[str], seed: int) -> float | None:
        ends = [code(place[items[-1]] + 1), code(place[items[0]])]
        if None in ends:
            return None
        after, before = (runs(replace(sides.good, code=str(one)), seed + 1) for one in ends)
        return None if after is None or before is None else after - before

    return narrow(labels, measure, total)


def _builds(ctx: Context, sides: Sides) -> list[tuple[str, str]]:
    """Recorded code versions from the good one to the bad one, as (label, id)."""
    with ctx.read() as tx:
        good, bad = (versions.get(tx, ctx.project, side.code) for side in (sides.good, sides.bad))
        if good.name != bad.name or bad.number <= good.number:
            return []
        rows = versions.history(tx, ctx.project, "code", bad.name, limit=200, before=bad.number + 1)
    chosen = [row for row in reversed(rows) if row.number >= good.number]
    return [(f"{row.key} v{row.number} by {row.actor}", row.id) for row in chosen]


def _parameters(_ctx: Context, sides: Sides) -> _Inside:
    good, bad = sides.good.parameters, sides.bad.parameters
    found = {
        f"{step}.{name}": (step, name)
        for step in sorted(good.keys() | bad.keys())
        for name in sorted(good.get(step, {}).keys() | bad.get(step, {}).keys())
        if good.get(step, {}).get(name) != bad.get(step, {}).get(name)
    }

    def swapped(items: Sequence[str]) -> Setting:
        params = {step: dict(values) for step, values in good.items()}
        for step, name in (found[item] for item in items):
            if name in bad.get(step, {}):
                params.setdefault(step, {})[name] = bad[step][name]
            else:
                params.get(step, {}).pop(name, None)
        return replace(sides.good, parameters=params)

    return _Inside(tuple(found), swapped)


def _environment(ctx: Context, sides: Sides) -> _Inside:
    good, bad = _manifests(ctx, sides.good.environment, sides.bad.environment)
    ours, theirs = good["packages"], bad["packages"]
    differ = [name for name in sorted(ours.keys() | theirs.keys()) if ours.get(name) != theirs.get(name)]
    relevant = [name for name in differ if name in sides.needed] if sides.needed is not None else differ

    def swapped(items: Sequence[str]) -> Setting:
        kept = {name: one for name, one in ours.items() if name not in items}
        mixed = {**kept, **{name: theirs[name] for name in items if name in theirs}}
        made = Version("runtime", NAME, {**good, "packages": mixed})
        return replace(sides.good, environment=put_new(ctx, made))

    return _Inside(tuple(relevant), swapped)


def _data(ctx: Context, sides: Sides) -> _Inside:
    return _tables(ctx, sides, "data")


def _evaluation(ctx: Context, sides: Sides) -> _Inside:
    return _tables(ctx, sides, "evaluation")


def _tables(ctx: Context, sides: Sides, factor: str) -> _Inside:
    """Ranges of keys whose parts differ, of every table that differs; a table that cannot be parted is one item."""
    good, bad = getattr(sides.good, factor), getattr(sides.bad, factor)
    found: dict[str, tuple[str, int | None]] = {}
    groups: dict[str, list[tuple[list[Any], list[Any], bool]]] = {}
    manifests: dict[str, Mapping[str, Any]] = {}
    for key in good.keys() & bad.keys():
        if good[key] == bad[key]:
            continue
        old, new = _manifests(ctx, good[key], bad[key])
        manifests[key] = old
        if old.get("key") and old.get("key") == new.get("key") and old.get("schema_fields") == new.get("schema_fields"):
            groups[key] = list(_groups(old["parts"], new["parts"]))
            ranges = [n for n, (_, _, same) in enumerate(groups[key]) if not same]
            found.update({f"{key} {_range(*groups[key][n][:2])}": (key, n) for n in ranges})
        else:
            found[key] = (key, None)

    def swapped(items: Sequence[str]) -> Setting:
        chosen = dict(good)
        for key in {found[item][0] for item in items}:
            wanted = {found[item][1] for item in items if found[item][0] == key}
            if None in wanted:
                chosen[key] = bad[key]
                continue
            parts = [
                one for n, (ours, theirs, _) in enumerate(groups[key]) for one in (theirs if n in wanted else ours)
            ]
            whole = {**manifests[key], "parts": parts, "rows": sum(part["rows"] for part in parts)}
            chosen[key] = put_new(ctx, Version("data", f"{NAME}.{key.partition('/')[2]}", whole))
        return replace(sides.good, data=chosen) if factor == "data" else replace(sides.good, evaluation=chosen)

    return _Inside(tuple(found), swapped)


def _code(ctx: Context, sides: Sides) -> _Inside:
    good, bad = (manifest["files"] for manifest in _manifests(ctx, sides.good.code, sides.bad.code))
    differ = [path for path in sorted(good.keys() | bad.keys()) if good.get(path) != bad.get(path)]

    def swapped(items: Sequence[str]) -> Setting:
        kept = {path: one for path, one in good.items() if path not in items}
        made = Version("code", NAME, {"files": {**kept, **{path: bad[path] for path in items if path in bad}}})
        return replace(sides.good, code=put_new(ctx, made))

    return _Inside(tuple(path for path in differ if path.endswith(".py")), swapped)


_INSIDES: Mapping[str, Any] = {
    "data": _data,
    "evaluation": _evaluation,
    "parameters": _parameters,
    "environment": _environment,
    "code": _code,
}


def _groups(old: Sequence[Any], new: Sequence[Any]) -> Iterator[tuple[list[Any], list[Any], bool]]:
    ours, theirs = ([str(part["logical"]) for part in side] for side in (old, new))
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        yield list(old[i1:i2]), list(new[j1:j2]), tag == "equal"


def _range(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> str:
    """A range by the digests of its first parts: keys may be personal, and are shown by `everloop why`."""
    return f"parts {short((new or old)[0]['logical'])}" + (f" and {len(new) - 1} more" if len(new) > 1 else "")


def _manifests(ctx: Context, *ids: str) -> list[Mapping[str, Any]]:
    with ctx.read() as tx:
        return [versions.get(tx, ctx.project, identity).manifest for identity in ids]
