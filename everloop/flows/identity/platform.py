"""The platform's own part in a step: a runner's code decides what comes out as much as the author's does."""

import functools
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from everloop.core.errors import DefinitionError
from everloop.core.ids import manifest_id, object_id
from everloop.flows.identity.source import dump, imports, source


@dataclass(frozen=True, slots=True)
class Runner:
    """The identity of a runner."""

    digest: str
    """Of its module and of what that imports of its own package, by meaning; "" for no runner."""
    packages: tuple[str, ...]
    """Top-level names of the third-party packages that they import."""


@functools.cache
def runner_identity(reference: str) -> Runner:
    """What a runner (`module:attribute`) adds to a recipe.

    So a fix of the point-in-time join makes frames again, and a fix of a web page does not. Codecs do not count: their
    manifests carry a schema number. Raises `DefinitionError` when there is no such module.
    """
    if not reference:
        return Runner("", ())
    start = reference.partition(":")[0]
    package = start.rpartition(".")[0]
    waiting, parts, packages = [start], dict[str, str](), set[str]()
    while waiting:
        name = waiting.pop()
        file = _file(name)
        if name in parts or file is None:
            continue
        tree = source(file).tree
        parts[name] = object_id(dump(tree).encode())
        own = name if Path(file).name == "__init__.py" else name.rpartition(".")[0]
        for module, taken in imports(tree, own):
            packages.add(module.partition(".")[0])
            waiting += [m for m in (module, *(f"{module}.{t}" for t in taken)) if m.startswith(f"{package}.")]
    if not parts:
        raise DefinitionError(
            f"the runner {reference!r} has no module", hint="module:attribute, of something installed"
        )
    third_party = packages - sys.stdlib_module_names - {start.partition(".")[0], ""}
    return Runner(manifest_id(parts), tuple(sorted(third_party)))


def _file(name: str) -> str | None:
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:
        return None
    return spec.origin if spec is not None and spec.origin and spec.origin.endswith(".py") else None
