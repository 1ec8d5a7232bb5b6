"""A version: an immutable, content-addressed description of something that matters."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from everloop.core.errors import InvalidInput
from everloop.core.ids import checked_name, manifest_id

Kind = Literal[
    "check",
    "code",
    "compute",
    "data",
    "dataset",
    "endpoint",
    "evidence",
    "frame",
    "model",
    "monitor",
    "objective",
    "policy",
    "retrain",
    "revision",
    "run",
    "runtime",
    "service",
    "snapshot",
    "source",
    "trainer",
    "value",
    "view",
]
KINDS: frozenset[str] = frozenset(get_args(Kind))
"""What each kind is:

definitions, held by snapshots: `source`, `dataset` (contract and code), `view`, `service`, `trainer`
(a model function), `objective`, `check`, `endpoint`, `monitor`, `retrain`, `policy`, `compute` (a
profile of what steps may use, and its price), `code` (the project's files), and `model` (a trained one);
content: `data` (rows), `frame` (a training frame), `value` (any other step output), `runtime`
(packages and platform), `evidence` (a check's report), `revision` (a closed endpoint revision),
`run` (the seal of a tracking run);
`snapshot`: a flat map of definitions.
"""


@dataclass(frozen=True, slots=True)
class Version:
    """`manifest` in canonical JSON gives the `id`; the name is a label, never part of identity.

    A manifest always holds `schema` (an integer) and `kind`; both are added here when absent.
    """

    kind: str
    name: str
    manifest: Mapping[str, Any]
    inputs: tuple[tuple[str, str], ...] = ()
    """Lineage edges to make with it: (role, version id) of what this was made from."""
    id: str = field(init=False)

    def __post_init__(self) -> None:
        """Check the kind and name, complete the manifest, compute the id."""
        if self.kind not in KINDS:
            msg = f"{self.kind!r} is not a kind of version"
            raise InvalidInput(msg, hint="one of " + ", ".join(sorted(KINDS)))
        checked_name(self.name)
        whole = {"schema": 1, **self.manifest, "kind": self.kind}
        object.__setattr__(self, "manifest", whole)
        object.__setattr__(self, "id", manifest_id(whole))

    @property
    def key(self) -> str:
        """`kind/name`."""
        return f"{self.kind}/{self.name}"


def split_key(key: str) -> tuple[str, str]:
    """Split `kind/name`, checking both; raises `InvalidInput`."""
    kind, slash, name = key.partition("/")
    if not slash or kind not in KINDS:
        msg = f"{key!r} is not of the form kind/name"
        raise InvalidInput(msg, hint="for example model/delay; kinds: " + ", ".join(sorted(KINDS)))
    return kind, checked_name(name)
