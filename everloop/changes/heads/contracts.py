"""Data in a delta: `data/<name>` from one head to the next, and the contract that must hold of it.

Snapshots hold definitions; heads lie beside them. In the delta of a change they stand together, and a merge moves
both. Each dataset that a change moves needs its contract as a check: the expectations of the target's own
definition, which a worker counts over the proposed version and records as evidence, like any other check.
"""

from collections.abc import Iterable, Iterator, Mapping

from everloop.catalog import refs, versions
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.catalog.refs import head_ref
from everloop.checks.request import CheckRequest
from everloop.core.snapshot import Delta

PREFIX = "data/"
CONTRACT = "contract"
"""Stands for the function of a check that is a dataset's contract: no code of the project runs."""
_DEFINITIONS = ("source", "dataset")


def heads_among(tx: Tx, project: str, environment: str, keys: Iterable[str]) -> dict[str, str]:
    """The environment's heads of the data keys among `keys`, as entries; a dataset without one has none."""
    wanted = [key for key in keys if key.startswith(PREFIX)]
    found = {key: refs.get(tx, project, head_ref(environment, key.removeprefix(PREFIX))) for key in wanted}
    return {key: identity for key, identity in found.items() if identity is not None}


def definitions_of(entries: Mapping[str, str]) -> dict[str, str]:
    """Entries without the data heads among them: what a snapshot holds."""
    return {key: identity for key, identity in entries.items() if not key.startswith(PREFIX)}


def definitions_in(delta: Delta) -> Delta:
    """A delta without the data heads that it moves."""
    return {key: pair for key, pair in delta.items() if not key.startswith(PREFIX)}


def proposed_heads(delta: Delta) -> dict[str, str]:
    """The data versions that a delta brings, by dataset."""
    return {key.removeprefix(PREFIX): new for key, (_, new) in delta.items() if key.startswith(PREFIX) and new}


def contract_of(entries: Mapping[str, str], dataset: str) -> str:
    """The definition that promises something of a dataset in these entries; empty when nobody does."""
    return next((entries[key] for kind in _DEFINITIONS if (key := f"{kind}/{dataset}") in entries), "")


def contracts_due(
    tx: Tx, project: str, target: Mapping[str, str], delta: Delta
) -> Iterator[tuple[str, str, str, Mapping[str, object]]]:
    """For each dataset that the delta moves and somebody expects something of: name, version, definition, manifest."""
    for dataset, identity in proposed_heads(delta).items():
        definition = contract_of(target, dataset)
        manifest = versions.manifests(tx, project, [definition]).get(definition, {}) if definition else {}
        if manifest.get("expect"):
            yield dataset, identity, definition, manifest


def is_contract(request: CheckRequest) -> bool:
    """Whether a request asks for a dataset's contract."""
    return request.function == CONTRACT


def move_heads(tx: Tx, ctx: Context, environment: str, delta: Delta, change: int) -> None:
    """Move the heads that a merged delta names, in the transaction of the merge. Raises `Conflict`."""
    for key, (old, new) in delta.items():
        if not key.startswith(PREFIX):
            continue
        name = head_ref(environment, key.removeprefix(PREFIX))
        reason = f"change #{change}"
        if new is None:
            assert old is not None
            refs.delete(tx, ctx.project, name, old=old, actor=ctx.actor.name, at=ctx.now(), reason=reason)
        else:
            refs.move(
                tx, ctx.project, name, old=old, new=new, actor=ctx.actor.name, at=ctx.now(), reason=reason,
                change=str(change),
            )  # fmt: skip
