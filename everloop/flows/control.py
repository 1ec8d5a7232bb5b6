"""How a step is run, as values: tried again, spread over the items of a list, left out, held for a person.

Pure, and outside the recipe: none of this changes what a step makes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from everloop.core.errors import DefinitionError

TRIED_AGAIN = ("Unavailable", "ConnectionError", "TimeoutError")
"""What is tried again unless a step says otherwise: its place died, nobody answered, its time was over."""
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_PIN = re.compile(r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*==\s*([A-Za-z0-9.!+_-]+)\s*")
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")


@dataclass(frozen=True, slots=True)
class Retry:
    """Try a step again after some errors: up to `times` more, after `wait` seconds, then `factor` times as long."""

    times: int = 0
    wait: float = 1.0
    factor: float = 2.0
    most: float = 300.0
    """The longest wait, in seconds."""
    on: tuple[str, ...] = TRIED_AGAIN
    """Names of exceptions, or of classes that they derive from (`Exception` means every error of the step).

    A step that ran into its memory limit raised `MemoryError`, one that was too slow `TimeoutError`.
    """

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.times < 0 or self.wait < 0 or self.factor < 1 or not all(self.on):
            raise DefinitionError(
                f"a step cannot be tried again like this: {self}", hint="times and wait from 0, factor from 1"
            )

    def seconds(self, failed: int) -> float:
        """How long to wait after so many failures (from 1)."""
        return float(min(self.wait * self.factor ** (failed - 1), self.most))


NEVER = Retry()
"""What a step does that says nothing: its first error is its last."""


@dataclass(frozen=True, slots=True)
class Environment:
    """Packages that a step has in other versions than this process: everything else is as it is here."""

    packages: tuple[tuple[str, str], ...]
    """(distribution, exact version), sorted."""


def environment(*pins: str) -> Environment:
    """An environment of a step's own: `environment("scikit-learn==1.6.1", "numpy==2.2.6")`.

    Exact versions, for nothing is resolved: what a package needs in another version than is installed is named too.
    Raises `DefinitionError` for anything else.
    """
    found = dict[str, str]()
    for pin in pins:
        match = _PIN.fullmatch(pin)
        if match is None:
            raise DefinitionError(f"{pin!r} is no package in an exact version", hint='el.environment("numpy==2.2.6")')
        found[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2]
    if not found:
        raise DefinitionError("an environment of its own holds packages", hint='el.environment("numpy==2.2.6")')
    return Environment(tuple(sorted(found.items())))


@dataclass(frozen=True, slots=True)
class Each:
    """Run a step once for each item of a list, which its `parameter` gets."""

    parameter: str
    over: str
    """The asset that gives the list, by key or bare name."""
    tolerate: float = 0.0
    """The share of items that may fail; their place in the output holds None, and they are reported."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not self.parameter.isidentifier() or not self.over or not 0 <= self.tolerate <= 1:
            raise DefinitionError(
                f"a step cannot be spread like this: {self}", hint='el.map("part", over="parts", tolerate=0.1)'
            )


@dataclass(frozen=True, slots=True)
class Approval:
    """A step that waits for a person; the run parks meanwhile and holds no worker."""

    role: str = "approver"
    """Whoever decides must count as one."""
    within: float = 7 * 86400.0
    """Seconds after which nobody decides any more: the step is refused."""
    own: bool = False
    """Whether who started the run may approve it."""


def map(parameter: str, *, over: str, tolerate: float = 0.0) -> Each:  # noqa: A001 - reads as authors say it: el.map(…)
    """Spread a step over a list: `parameter` gets one item of what the asset `over` gives.

    Each item is cached on its own. The output is the list of what came out, in the same order. Items that fail do not
    stop the others; the step fails in the end when more than the share `tolerate` of them did.
    """
    return Each(parameter, over, tolerate)


def seconds_of(amount: str | float | None) -> float | None:
    """`"10m"` in seconds; a number is seconds already. Raises `DefinitionError`."""
    return _measured(amount, _UNITS, 'a time is a number of seconds or a text such as "90s", "10m", "2h", "3d"')


def bytes_of(amount: str | int | None) -> int | None:
    """`"2GB"` in bytes; a number is bytes already. Raises `DefinitionError`."""
    found = _measured(amount, _SIZES, 'an amount of memory is a number of bytes or a text such as "500MB", "2GiB"')
    return None if found is None else int(found)


def _measured(amount: str | float | None, units: Mapping[str, float], hint: str) -> float | None:
    if amount is None:
        return None
    if isinstance(amount, str):
        match = _AMOUNT.fullmatch(amount.strip())
        if match is None or match[2] not in units:
            raise DefinitionError(f"{amount!r} is no amount", hint=hint)
        found = float(match[1]) * units[match[2]]
    else:
        found = float(amount)
    if not 0 < found < float("inf"):
        raise DefinitionError(f"{amount!r} is no amount", hint=hint)
    return found
