"""What a place of files offers, and the words for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson

from everloop.core.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Found:
    """A file where it lies: its name there, and what changes when it is written again."""

    name: str
    size: int
    """Bytes; -1 where the place does not say."""
    stamp: tuple[str, ...]

    def state(self) -> list[str]:
        """Name, size and stamp, ready for canonical JSON."""
        return [self.name, str(self.size), *self.stamp]


@dataclass(frozen=True, slots=True)
class Here:
    """A file on the local disk, and the name by which people know it."""

    path: Path
    name: str


class Place(Protocol):
    """Files that match a pattern, somewhere."""

    def listed(self) -> list[Found]:
        """The files that match now, in the order of their names; raises `NotFound` when there is none."""
        ...

    def fetched(self, found: Found, folder: Path) -> Here:
        """The file on the local disk: itself, or a copy in `folder`. Raises `DataError` when it changed meanwhile."""
        ...


def bound(bindings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The table that a binding of the environment holds (or JSON text of one); empty without a name.

    Raises `InvalidInput`, which never shows the value.
    """
    if not name:
        return {}
    value = bindings.get(name)
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            value = ""
    if value is None:
        raise InvalidInput(
            f"this environment has no binding {name!r}", hint="set it in bindings.toml, as a table of options"
        )
    if not isinstance(value, Mapping):
        raise InvalidInput(f"the binding {name!r} is no table of options", hint="see docs/sources.md")
    return dict(value)


def redacted(text: str, secrets: Mapping[str, Any]) -> str:
    """`text` in one line, without any value of `secrets` in it."""
    line = next(iter(text.strip().splitlines()), "")
    for value in secrets.values():
        inner = value.values() if isinstance(value, Mapping) else [value]
        for secret in sorted(map(str, inner), key=len, reverse=True):
            if len(secret) >= 4:
                line = line.replace(secret, "•••")
    return line
