"""What an on-demand transform is: a function, the columns that it reads and those that it makes, with their types."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from everloop.core.errors import DefinitionError
from everloop.core.ids import checked_name

Type = Literal["bool", "int64", "float64", "text"]
TYPES: tuple[str, ...] = get_args(Type)
"""The types of a transform's columns; a null is no other type."""
Style = Literal["frame", "arrays"]


@dataclass(frozen=True, slots=True)
class TransformDef:
    """A function from columns to columns, row by row. Made by `project.transform`.

    With one parameter that is no column's name it gets a `polars.DataFrame` and returns one (style `frame`); with
    parameters named as its columns it gets NumPy arrays and returns one, or a mapping of several (style `arrays`).
    """

    name: str
    inputs: Mapping[str, Type]
    """Request columns, features (`<view>__<feature>`) or outputs of earlier transforms, and their types, in order."""
    outputs: Mapping[str, Type]
    """The columns that it makes, and their types, in order."""
    style: Style = "frame"
    function: Callable[..., Any] | None = field(default=None, compare=False)
    """None where a definition was read back from a manifest: its code travels with the model."""
    code: str = ""
    """The closure id of the function's code, once it is known; see `pinned`."""

    def manifest(self) -> dict[str, Any]:
        """Canonical-JSON-ready; `code` pins what the function reaches."""
        return {
            "name": self.name,
            "inputs": [[name, kind] for name, kind in self.inputs.items()],
            "outputs": [[name, kind] for name, kind in self.outputs.items()],
            "style": self.style,
            "code": self.code,
        }

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any], function: Callable[..., Any] | None = None) -> "TransformDef":
        """Rebuild what `manifest` wrote."""
        inputs, outputs = (dict(manifest[part]) for part in ("inputs", "outputs"))
        return cls(manifest["name"], inputs, outputs, manifest["style"], function, manifest["code"])


def transform_of(function: Callable[..., Any], inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> TransformDef:
    """The definition that a function makes; raises `DefinitionError` for types or parameters that do not fit."""
    name = checked_name(function.__name__)
    given, made = _types(name, "inputs", inputs), _types(name, "outputs", outputs)
    if not given or not made:
        raise DefinitionError(
            f"transform {name} has no {'outputs' if given else 'inputs'}",
            hint='inputs={"distance": "float64"}, outputs={"far": "bool"}',
        )
    both = [column for column in made if column in given]
    if both:
        raise DefinitionError(f"transform {name} both reads and makes {both[0]!r}", hint="give the output another name")
    for column in made:
        checked_name(column)
    return TransformDef(name, given, made, _style(name, function, given), function)


def order_of(service: str, transforms: Iterable[TransformDef], there: Iterable[str]) -> None:
    """Check that each transform of a service reads what is there before it; raises `DefinitionError`."""
    known = list(there)
    names: set[str] = set()
    for one in transforms:
        if one.name in names:
            raise DefinitionError(f"feature service {service} lists transform {one.name} twice")
        names.add(one.name)
        for column in one.inputs:
            if column not in known:
                raise DefinitionError(
                    f"feature service {service}: transform {one.name} reads {column!r}, which is not there before it",
                    hint="list it in request=, or choose of " + ", ".join(known[:12]),
                )
        known += one.outputs


def raw_inputs(transforms: Iterable[TransformDef]) -> dict[str, Type]:
    """The columns that transforms need from outside, and their types; raises `DefinitionError` for two types of one."""
    needed: dict[str, Type] = {}
    made: dict[str, Type] = {}
    for one in transforms:
        for column, kind in one.inputs.items():
            known = made.get(column) or needed.get(column)
            if known not in (None, kind):
                raise DefinitionError(
                    f"transform {one.name} reads {column!r} as {kind}, it is {known} elsewhere", hint="use one type"
                )
            if column not in made:
                needed[column] = kind
        made |= one.outputs
    return needed


def _types(name: str, part: str, columns: Any) -> dict[str, Type]:
    if not isinstance(columns, Mapping):
        raise DefinitionError(
            f"transform {name}: {part} says no types", hint=f'{part}={{"distance": "float64"}}; types are {_listed()}'
        )
    for column, kind in columns.items():
        if kind not in TYPES:
            raise DefinitionError(f"transform {name}: {column!r} is {kind!r}", hint="one of " + _listed())
    return dict(columns)


def _style(name: str, function: Callable[..., Any], inputs: Mapping[str, Type]) -> Style:
    parameters = list(inspect.signature(function).parameters.values())
    plain = all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.default is p.empty for p in parameters)
    names = [p.name for p in parameters]
    if plain and sorted(names) == sorted(inputs):
        return "arrays"
    if plain and len(names) == 1 and names[0] not in inputs:
        return "frame"
    raise DefinitionError(
        f"transform {name} takes {', '.join(map(str, parameters)) or 'nothing'}",
        hint="either one parameter, a polars DataFrame, or one for each input, by its name; none with a default",
    )


def _listed() -> str:
    return ", ".join(TYPES)
