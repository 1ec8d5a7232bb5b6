"""How two manifests of the same kind differ: field by field, packages by version, definitions in their own words."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from everloop.core.ids import is_id, short
from everloop.flows.why.values import Difference, Factor, Matters

OBJECTS = frozenset(
    {"files", "parts", "object", "profile", "report", "card", "diff", "digest", "schema_fields", "columns", "bytes"}
)
"""Fields that hold content, which is compared in other ways."""
_PLATFORM: Mapping[str, Factor] = {
    "python": "python",
    "implementation": "python",
    "platform": "platform",
    "machine": "platform",
    "libc": "platform",
    "blas": "blas",
    "cpu": "cpu",
    "threads": "threads",
}
_LONGEST = 160
_FACTOR: Mapping[str, Factor] = {"policy": "policy", "source": "contract", "dataset": "contract"}


def runtimes(old: Mapping[str, Any], new: Mapping[str, Any], needed: frozenset[str] | None) -> Iterator[Difference]:
    """Packages, Python, platform. `needed`: the distributions that the step needs; None: that was not recorded."""
    for name, factor in _PLATFORM.items():
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if name == "cpu":
            lost = sorted(set(before or ()) ^ set(after or ()))
            shown = ", ".join(lost[:6]) + (f" and {len(lost) - 6} more" if lost[6:] else "")
            yield Difference(
                factor, "CPU features", "", shown, "unknown", "numeric libraries choose their kernels by them"
            )
        else:
            yield Difference(factor, name, text(before), text(after))
    ours, theirs = old.get("packages", {}), new.get("packages", {})
    for name in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(name), theirs.get(name)
        if one == other:
            continue
        versions = [str(side["version"]) if side else "" for side in (one, other)]
        reason = "other files under the same version" if versions[0] == versions[1] else ""
        matters: Matters = "unknown" if needed is None else "yes" if name in needed else "no"
        if matters == "no":
            reason = "the step does not import it, nor does anything that it imports"
        yield Difference("package", name, versions[0], versions[1], matters, reason)


def parameters(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Difference]:
    """The parameters of a step that differ."""
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name) or (name in old) != (name in new):
            factor: Factor = "seed" if name in {"seed", "random_state"} else "parameter"
            yield Difference(factor, name, text(old.get(name)), text(new.get(name)))


def fields(
    kind: str, old: Mapping[str, Any], new: Mapping[str, Any], linked: frozenset[str], *, made: bool
) -> Iterator[Difference]:
    """The fields of two manifests that differ, less those that name versions (`linked`): they are compared themselves.

    What a step made says what came out; a definition says what somebody wrote.
    """
    factor: Factor = "output" if made else _FACTOR.get(kind, "definition")
    before, after = dict(_flat(old)), dict(_flat(new))
    for name in sorted(before.keys() | after.keys()):
        one, other = before.get(name), after.get(name)
        if one == other or name in linked:
            continue
        if name == "code":  # the closure of a definition's function
            yield Difference("code", "what its function reaches", _id(one), _id(other))
        else:
            of = _of_field(factor, name)
            yield Difference(of, name, text(one), text(other), "no" if of == "output" else "yes")


def _of_field(factor: Factor, name: str) -> Factor:
    if factor == "output" or name.startswith("metrics."):
        return "output"
    return "contract" if name.startswith(("expect", "tags.", "signature")) else factor


def _flat(manifest: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in manifest.items():
        if not prefix and name in OBJECTS | {"schema", "kind"}:
            continue
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}.")
        elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            for place, one in enumerate(value):
                yield from _flat(cast("Mapping[str, Any]", one), f"{path}[{_title(one, place)}].")
        else:
            yield path, value


def _title(item: Mapping[str, Any], place: int) -> str:
    """What an item of a list is called: so that one that is put before it does not make all others differ."""
    kind = str(item.get("kind") or item.get("node") or item.get("function") or "")
    about = str(item.get("column") or item.get("name") or item.get("as") or item.get("model") or "")
    return " ".join(part for part in (kind, about) if part) or str(place)


def outputs(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Difference]:
    """Whether what came out differs by value or in its bytes alone."""
    content = [name for name in ("object", "files") if old.get(name) != new.get(name)]
    digests = [one.get("digest") for one in (old, new)]
    if content and digests[0] and digests[0] == digests[1]:
        yield Difference("output", "bytes", "", "", "no", "the value is the same by its canonical digest")
    elif content:
        yield Difference("output", "content", _id(digests[0]), _id(digests[1]), "no", "it is what came out")


def links(manifest: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Ids within a manifest by their path: of versions, perhaps."""
    for name, value in manifest.items():
        if not prefix and name in OBJECTS:
            continue
        if isinstance(value, Mapping):
            yield from links(value, f"{prefix}{name}.")
        elif isinstance(value, str) and is_id(value):
            yield f"{prefix}{name}", value


def text(value: Any) -> str:
    """A value for people, 160 characters at most."""
    if isinstance(value, Mapping):
        value = ", ".join(f"{name}={one}" for name, one in sorted(value.items()))
    elif isinstance(value, list | tuple):
        value = ", ".join(str(one) for one in value)
    found = "" if value is None else str(value)
    return found if len(found) <= _LONGEST else f"{found[: _LONGEST - 1]}…"


def _id(value: Any) -> str:
    return short(str(value)) if value else ""
