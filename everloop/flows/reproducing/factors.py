"""What was not as the record says: the likely causes when something else comes out, most telling first."""

from collections.abc import Iterator, Mapping
from typing import Any

from everloop.catalog.making.recipes import Ingredients
from everloop.flows.identity import explain

_HASH_SEED = "0"
"""Every step's process gets it."""


def told(recorded: Mapping[str, Any], made_of: Ingredients | None, seen: Mapping[str, Any]) -> Iterator[str]:
    """Compare a recorded step with what the process that ran it again saw of itself.

    `recorded` is the runtime's manifest; where the recipe's ingredients are known, packages that the step does not need
    are passed over.
    """
    now = seen.get("runtime") or recorded
    if made_of is None:
        yield from differing(recorded, now)
    else:
        yield from (f"code {change}" for change in explain(made_of.parts, seen.get("parts", made_of.parts)))
        if made_of.how.get("runner") != seen.get("runner", made_of.how.get("runner")):
            yield "the platform's own part of the step: another version of Everloop"
        yield from _needed(made_of.packages, seen.get("packages", made_of.packages))
        yield from _machine(recorded, now)
    if seen.get("hash_seed", _HASH_SEED) != _HASH_SEED:
        yield f"hash seed: {_HASH_SEED} then, {seen['hash_seed'] or 'random'} now"


def reads(recorded: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """What the step read undeclared that is not as it was."""
    words = {"environ": "environment variable", "file": "file", "folder": "names in the folder", "module": "module"}
    for name in sorted(recorded.keys() | now.keys()):
        before, after = recorded.get(name), now.get(name)
        if before == after:
            continue
        kind, _, what = name.partition(":")
        if before is None:
            change = "read now, and not then"
        elif not after:
            change = "there then, not now" if after == "" else "read then, and not now"
        else:
            change = "not there then" if before == "" else "another content than then"
        yield f"{words[kind]} {what}: {change}"


def differing(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two runtimes, in words, most telling first."""
    return [*_machine(recorded, now), *_packages(recorded.get("packages", {}), now.get("packages", {}))]


def _machine(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    yield from (
        f"{name}: {recorded.get(name)} then, {now.get(name)} now"
        for name in ("python", "implementation", "platform", "machine", "libc", "blas")
        if recorded.get(name) != now.get(name)
    )
    if recorded.get("threads") != now.get("threads"):
        yield f"threads: {_threads(recorded)} then, {_threads(now)} now"
    lost = sorted(set(recorded.get("cpu", ())) ^ set(now.get("cpu", ())))
    if lost:
        yield f"CPU features: {', '.join(lost[:6])}" + (f" and {len(lost) - 6} more" if lost[6:] else "")


def _threads(runtime: Mapping[str, Any]) -> str:
    counts = sorted(set(dict(runtime.get("threads") or {}).values()))
    return "/".join(counts) or "as many as there are cores"


def _packages(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    yield from _needed(*({n: f"{p['version']} {p['digest']}" for n, p in side.items()} for side in (recorded, now)))


def _needed(recorded: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(recorded.keys() | now.keys()):
        old, new = recorded.get(name), now.get(name)
        if old == new:
            continue
        if old is None or new is None:
            yield f"package {name}: {'not there then' if old is None else 'gone'}"
        elif old.partition(" ")[0] != new.partition(" ")[0]:
            yield f"package {name}: {old.partition(' ')[0]} then, {new.partition(' ')[0]} now"
        else:
            yield f"package {name}: other files under the same version {new.partition(' ')[0]}"
