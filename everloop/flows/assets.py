"""Assets as values: what a project makes, from what, by which function; and the order to make it in.

A parameter of the function without a default names an upstream asset; one with a default is tunable.
Pure: nothing here imports more than `core` and other values.
"""

import difflib
import graphlib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from everloop.core.errors import DefinitionError, InvalidInput
from everloop.core.ports import Resources
from everloop.core.version import split_key
from everloop.flows.control import NEVER, Approval, Each, Environment, Retry
from everloop.flows.search.definitions import Search


@dataclass(frozen=True, slots=True)
class Asset:
    """One thing that a project makes.

    `function` is None for an asset that is given to a run (a captured source): it must not have upstreams.
    """

    key: str
    """`kind/name` of the version that comes out: `data/departures`, `model/delay`, `value/threshold`."""
    function: Callable[..., Any] | None
    upstream: Mapping[str, str] = field(default_factory=dict)
    """For each parameter without a default: the key, or the bare name, of the asset that it gets."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Tunable parameters and their defaults; JSON-ready."""
    resources: Resources = field(default_factory=Resources)
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the codec or the runner needs to know (keys, label, service); JSON-ready, part of the recipe."""
    runner: str = ""
    """`module:attribute` of a callable `(asset, inputs, params, facts) -> value`; empty: the function itself."""
    codec: str = ""
    """`module:attribute` of the codec; empty: the one of the asset's kind."""
    place: str = ""
    """`file:line` of the definition, for messages."""
    retry: Retry = NEVER
    each: Each | None = None
    """Run once for each item of a list."""
    only_if: str = ""
    """An asset whose value says whether this one is made (`unless`: is not made); else it is skipped."""
    unless: str = ""
    joins: bool = False
    """Made also when some of its inputs were skipped: it gets None for them."""
    approval: Approval | None = None
    """Not made by a function but decided by a person."""
    search: Search | None = None
    """Run many times with other parameters; the best is what it gives."""
    compute: str = ""
    """The profile that it runs on, by name; empty: the default one, where there is one."""
    environment: Environment | None = None
    """Its own, where it names one; else that of the run."""
    limits: Resources | None = None
    """What it asked for itself, within its profile; `resources` are what it gets."""

    @property
    def needs(self) -> tuple[str, ...]:
        """What must have ended before: inputs and conditions."""
        return (*self.upstream.values(), *(one for one in (self.only_if, self.unless) if one))

    @property
    def kind(self) -> str:
        """The part of the key before the slash."""
        return self.key.partition("/")[0]

    @property
    def name(self) -> str:
        """The part of the key after the slash."""
        return self.key.partition("/")[2]


def define(
    function: Callable[..., Any],
    *,
    kind: str = "value",
    name: str = "",
    upstream: Mapping[str, str] | None = None,
    resources: Resources | None = None,
    facts: Mapping[str, Any] | None = None,
    runner: str = "",
    codec: str = "",
    retry: Retry | None = None,
    each: Each | None = None,
    only_if: str = "",
    unless: str = "",
    joins: bool = False,
    search: Search | None = None,
) -> Asset:
    """Read an asset off a function's signature.

    `upstream` renames: {parameter: key or bare name}; a parameter that it leaves out is taken by its own
    name. Raises `DefinitionError` for `*args`, `**kwargs`, positional-only parameters or a name that is none.
    """
    place = place_of(function)
    named = dict(upstream or {})
    if each is not None:
        named[each.parameter] = each.over
    needs: dict[str, str] = {}
    params: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise DefinitionError(
                f"{place}: {_title(function)} takes {parameter}, which names nothing",
                hint="a parameter without a default names an upstream asset, one with a default is tunable",
            )
        if parameter.default is parameter.empty or parameter.name in named:
            needs[parameter.name] = named.pop(parameter.name, parameter.name)
        else:
            params[parameter.name] = parameter.default
    if named:
        missing = next(iter(named))
        raise DefinitionError(
            f"{place}: {_title(function)} has no parameter {missing!r}", hint=suggest(missing, needs.keys() | params)
        )
    if search is not None:
        _searchable(f"{place}: {_title(function)}", search, params, each)
    key = key_of(kind, name or _title(function), place)
    how = (retry or NEVER, each, only_if, unless, joins)
    said = (resources or Resources(), dict(facts or {}), runner, codec, place)
    return Asset(key, function, needs, params, *said, *how, search=search)


def wire(assets: Iterable[Asset]) -> dict[str, Asset]:
    """Index assets by key, with every bare upstream name resolved to a key.

    Raises `DefinitionError` for two assets of one name, an unknown upstream (with the nearest names) or a cycle.
    """
    by_name: dict[str, Asset] = {}
    for asset in assets:
        _check_key(asset.key, asset.place)
        other = by_name.get(asset.name)
        if other is not None:
            where = f", which {other.place} also defines" if other.place else ""
            raise DefinitionError(
                f"{_at(asset)}two assets are named {asset.name!r}: {asset.key}{where}",
                hint="rename one of them; names are unique in a project",
            )
        by_name[asset.name] = asset
    keys = {asset.key for asset in by_name.values()}
    wired = {asset.key: _resolved(asset, by_name, keys) for asset in by_name.values()}
    order(wired, wired)
    return wired


def plan(assets: Mapping[str, Asset], targets: Iterable[str]) -> list[Asset]:
    """What must exist for `targets` (keys or bare names), upstream first; equal input gives equal order.

    Raises `DefinitionError` for an unknown target, an unknown upstream, or a cycle (shown as a path).
    """
    by_name = {asset.name: asset for asset in assets.values()}
    known = {asset.key for asset in by_name.values()}
    wired = {key: _resolved(asset, by_name, known) for key, asset in assets.items()}
    keys: list[str] = []
    for target in targets:
        found = wired.get(target) or (wired.get(by_name[target].key) if target in by_name else None)
        if found is None:
            raise DefinitionError(
                f"{target!r} is not an asset of this project", hint=suggest(target, [*wired, *by_name])
            )
        keys.append(found.key)
    return order(wired, keys)


def order(assets: Mapping[str, Asset], targets: Iterable[str]) -> list[Asset]:
    """Topological order of resolved assets; raises `DefinitionError` on a cycle."""
    graph: dict[str, list[str]] = {}
    waiting = list(targets)[::-1]
    while waiting:
        key = waiting.pop()
        if key not in graph:
            graph[key] = list(assets[key].needs)
            waiting.extend(reversed(graph[key]))
    try:
        return [assets[key] for key in graphlib.TopologicalSorter(graph).static_order()]
    except graphlib.CycleError as error:
        path = error.args[1][::-1]
        raise DefinitionError(
            f"{_at(assets[path[0]])}the assets depend on each other in a circle: {' -> '.join(path)}",
            hint="break the circle: an asset cannot be made from itself (an arrow reads: needs)",
        ) from None


def levels(steps: Iterable[Asset]) -> list[list[Asset]]:
    """Group a plan into waves whose members do not depend on each other, for people and progress."""
    depth: dict[str, int] = {}
    waves: list[list[Asset]] = []
    for step in steps:
        depth[step.key] = 1 + max((depth[u] for u in step.needs if u in depth), default=-1)
        if depth[step.key] == len(waves):
            waves.append([])
        waves[depth[step.key]].append(step)
    return waves


def suggest(word: str, known: Iterable[str]) -> str:
    """A hint that names the nearest of `known`."""
    names = sorted(set(known))
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(near) + "?"
    return "there is " + ", ".join(names[:8]) if names else "the project defines no assets yet"


def key_of(kind: str, name: str, place: str = "") -> str:
    """`kind/name`; raises `DefinitionError` for a name that is none."""
    key = f"{kind}/{name}"
    _check_key(key, place)
    return key


def place_of(function: Callable[..., Any]) -> str:
    """`file:line` of a function, for messages."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else f"{_title(function)}:0"


def _resolved(asset: Asset, by_name: Mapping[str, Asset], keys: Collection[str]) -> Asset:
    def found(wanted: str, role: str) -> str:
        if wanted in keys or not wanted:
            return wanted
        if wanted in by_name:
            return by_name[wanted].key
        hint = suggest(wanted, keys if "/" in wanted else by_name)
        raise DefinitionError(
            f"{_at(asset)}{asset.key} needs {wanted!r} ({role}), which nothing defines",
            hint=f"{hint}; give the parameter a default if it is meant to be tunable",
        )

    upstream = {name: found(wanted, f"parameter {name!r}") for name, wanted in asset.upstream.items()}
    only_if, unless = found(asset.only_if, "only_if"), found(asset.unless, "unless")
    same = (upstream, only_if, unless) == (asset.upstream, asset.only_if, asset.unless)
    return asset if same else replace(asset, upstream=upstream, only_if=only_if, unless=unless)


def _searchable(who: str, search: Search, params: Mapping[str, Any], each: Each | None) -> None:
    """Raise `DefinitionError` for a space that is not of this step."""
    if each is not None:
        raise DefinitionError(f"{who} cannot be searched and spread over a list", hint="search a step that calls both")
    strange = next((name for name in search.space if name not in params), None)
    if strange is not None:
        raise DefinitionError(
            f"{who} searches {strange!r}, which is no parameter with a default", hint=suggest(strange, params)
        )


def _check_key(key: str, place: str) -> None:
    try:
        split_key(key)
    except InvalidInput as error:
        raise DefinitionError(f"{place}: {error}" if place else str(error), hint=error.hint) from None


def _at(asset: Asset) -> str:
    return f"{asset.place}: " if asset.place else ""


def _title(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
