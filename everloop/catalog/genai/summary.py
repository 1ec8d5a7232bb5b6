"""How the figures of a trace follow from its spans: tokens, cost, state. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Amounts = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Node:
    """A span in its tree, with the amounts it states (tokens by kind, or cost)."""

    id: str
    parent: str
    amounts: Amounts


def total(nodes: Sequence[Node]) -> dict[str, float]:
    """The sum over the outermost spans that state amounts: a parent's include those of the spans below it.

    A span whose parent did not arrive counts as outermost; a circle of parents (a hostile body) ends where it began.
    """
    known = {node.id: node for node in nodes}
    stated: dict[str, bool] = {}
    found: dict[str, float] = {}
    for node in nodes:
        if node.amounts and not _stated(node.parent, known, stated):
            for kind, amount in node.amounts.items():
                found[kind] = found.get(kind, 0) + amount
    return found


def _stated(identity: str, known: Mapping[str, Node], cache: dict[str, bool]) -> bool:
    """Whether this span or one above it states amounts; each span is walked over once, whatever the depth."""
    path: list[str] = []
    while identity in known and identity not in cache:
        cache[identity] = bool(known[identity].amounts)
        if cache[identity]:
            break
        path.append(identity)
        identity = known[identity].parent
    answer = cache.get(identity, False)
    cache.update(dict.fromkeys(path, answer))
    return answer


def state(statuses: Iterable[str]) -> str | None:
    """What the statuses of a trace's ended root spans make of it; None while there is none."""
    known = set(statuses)
    if not known:
        return None
    return "ERROR" if "ERROR" in known else "OK"
