"""Data heads: the newest version of a dataset in an environment, moved by a standing grant when its contract holds."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from everloop import data
from everloop.catalog import facts, refs, versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.core.clock import Micros, parse_time
from everloop.core.errors import InvalidInput, NotFound, PolicyRefused
from everloop.core.grants import SANDBOX
from everloop.core.ids import short
from everloop.data.expect import Expectation, ExpectationResult

_PREFIX = re.compile(r"b3:[0-9a-f]+")
_BARE_PREFIX = re.compile(r"[0-9a-f]{6,64}")
_NUMBER = re.compile(r"v?[0-9]{1,9}")

PARENT = "production"
"""Whose heads a sandbox reads where it has none of its own, unless it was made from another environment."""


def head(ctx: Context, environment: str, dataset: str, *, parent: str = PARENT) -> str | None:
    """The id of the newest version of `dataset` there. A sandbox without a head of its own reads its parent's."""
    with ctx.read() as tx:
        own = refs.get(tx, ctx.project, refs.head_ref(environment, dataset))
        if own is None and environment.startswith(SANDBOX):
            own = refs.get(tx, ctx.project, refs.head_ref(parent, dataset))
    return own


def find_version(ctx: Context, spec: str, environment: str = "") -> versions.VersionRow:
    """The data version that a person means.

    `spec` is an id or the beginning of one, `name@7`, `name@staging` (an environment's head), `name@2026-01-31` or
    `name@2026-01-31T12:00Z` (the head that `environment` had then), or a bare name: the head of `environment`, without
    one the newest version. `data/` may stand before a name. Raises `NotFound`, `InvalidInput`.
    """
    if _PREFIX.fullmatch(spec):
        return _found(ctx, spec)
    name, _, at = spec.removeprefix("data/").partition("@")
    if not at and "/" not in spec:
        return _found(ctx, (head(ctx, environment, name) if environment else None) or f"data/{name}", bare=spec)
    if not at or _NUMBER.fullmatch(at):
        return _found(ctx, spec if "/" in spec else f"data/{spec}")
    moment = _moment(at)
    where = (environment or PARENT) if moment is not None else at
    with ctx.read() as tx:
        ref = refs.head_ref(where, name)
        identity = refs.get(tx, ctx.project, ref) if moment is None else refs.at(tx, ctx.project, ref, moment)
    if identity is None:
        when = "" if moment is None else f" on {at}"
        raise NotFound(
            f"{where} had no head of data/{name}{when}" if when else f"{where} has no head of data/{name}",
            hint="name@7, name@environment or name@2026-01-31T12:00Z; `everloop data list NAME` shows its versions",
        )
    return _found(ctx, identity)


def _found(ctx: Context, spec: str, *, bare: str = "") -> versions.VersionRow:
    with ctx.read() as tx:
        try:
            return versions.find(tx, ctx.project, spec)
        except (NotFound, InvalidInput):
            if not _BARE_PREFIX.fullmatch(bare):
                raise
            return versions.find(tx, ctx.project, f"b3:{bare}")


def _moment(text: str) -> Micros | None:
    """The time that a text tells; None when it tells none, and so names an environment."""
    try:
        return parse_time(text)
    except ValueError:
        return None


def advance_head(
    ctx: Context, environment: str, dataset: str, version: str, expectations: Sequence[Expectation] = ()
) -> tuple[ExpectationResult, ...]:
    """Check a version's expectations and move the environment's head to it by compare-and-swap.

    The results are recorded as a fact either way. Raises `PolicyRefused` when a blocking expectation fails (the
    version stays, for inspection) or when the environment's policy leaves data to changes, and `Conflict` when
    somebody else moved the head meanwhile. A protected environment's own contract counts beside `expectations`.
    """
    name = refs.head_ref(environment, dataset)
    with ctx.read() as tx:
        old = refs.get(tx, ctx.project, name)
        held = _definitions(tx, ctx.project, environment, dataset)
    expectations = _expected(held, expectations)
    before = old if old != version else None
    results = data.check_version(ctx, version, expectations, environment=environment, previous=before)
    blocking = [result for result in results if result.blocks]
    if old == version and not blocking:
        return results
    reviewed = held.get("policy", {}).get("data") == "change"
    moves = not blocking and not reviewed
    payload = {
        "environment": environment,
        "version": version,
        "old": old,
        "moved": moves,
        "results": [result.payload() for result in results],
    }
    with ctx.write() as tx:
        facts.append(tx, ctx.project, ctx.fact("data.checked", f"data/{dataset}", payload))
        if moves:
            refs.move(
                tx,
                ctx.project,
                name,
                old=old,
                new=version,
                actor=ctx.actor.name,
                at=ctx.now(),
                reason="blocking expectations hold",
            )
    if blocking:
        raise PolicyRefused(
            f"data/{dataset} stays where it is in {environment}: {_told(blocking)}",
            hint=f"the version is kept for inspection: everloop data show {short(version)}",
            version=version,
            results=[result.payload() for result in results],
        )
    if reviewed:
        raise PolicyRefused(
            f"data/{dataset} stays where it is in {environment}: its policy moves heads by changes only",
            hint=f"the version is kept; propose it: everloop data propose {short(version)} --to {environment}",
            version=version,
            results=[result.payload() for result in results],
        )
    return results


def _definitions(tx: Tx, project: str, environment: str, dataset: str) -> dict[str, Mapping[str, Any]]:
    """What a protected environment's own snapshot says of a dataset: its policy and definition, by kind."""
    snapshot = None if environment.startswith(SANDBOX) else refs.get(tx, project, refs.env_ref(environment))
    if snapshot is None:
        return {}
    entries = versions.manifests(tx, project, [snapshot])[snapshot]["entries"]
    keys = {"policy": f"policy/{environment}", "source": f"source/{dataset}", "dataset": f"dataset/{dataset}"}
    ids = {kind: entries[key] for kind, key in keys.items() if key in entries}
    manifests = versions.manifests(tx, project, set(ids.values()))
    return {kind: manifests[identity] for kind, identity in ids.items()}


def _expected(held: Mapping[str, Mapping[str, Any]], given: Sequence[Expectation]) -> tuple[Expectation, ...]:
    """What the environment itself expects, and what is given beside it: a proposal's contract cannot weaken it."""
    manifest = held.get("source") or held.get("dataset") or {}
    promised = [Expectation.from_manifest(e) for e in manifest.get("expect", ())]
    return tuple(dict.fromkeys([*promised, *given]))


def _told(blocking: Sequence[ExpectationResult]) -> str:
    return "; ".join(f"{result.expectation} fails ({result.observed})" for result in blocking)
