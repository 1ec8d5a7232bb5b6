"""Manifests as YAML."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from everloop.core.errors import InvalidInput
from everloop.deploy.objects import Manifest


class _Writer(yaml.SafeDumper):  # type: ignore[misc]
    """Texts of several lines as blocks, and no references: a reader sees each value where it is."""

    def ignore_aliases(self, data: object) -> bool:
        """Write what stands in two places twice."""
        del data
        return True


def _text(writer: Any, value: str) -> Any:
    style = "|" if "\n" in value else None
    return writer.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Writer.add_representer(str, _text)


def document(value: Manifest) -> str:
    """One document."""
    return str(yaml.dump(value, Dumper=_Writer, sort_keys=False, width=120))


def text(manifests: Sequence[Manifest], secrets: Mapping[str, Sequence[str]]) -> str:
    """One stream of documents; the beginning says which secrets must be there."""
    lines = ["# Before this is applied these secrets must be in the namespace:"]
    for name, keys in secrets.items():
        held = ", ".join(keys) or "the variables that open the object store, if it needs any"
        lines.append(f"#   {name}: {held}")
    documents = (document(one) for one in manifests)
    return "\n".join(lines) + "\n---\n" + "---\n".join(documents)


def files(made: Mapping[str, str], folder: Path) -> list[Path]:
    """Write texts by their paths below a folder; raises `InvalidInput` where other files are there already."""
    folder.mkdir(parents=True, exist_ok=True)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if strange := sorted(there - made.keys()):
        raise InvalidInput(f"{folder} holds {strange[0]} already", hint="an empty folder, or the one of last time")
    for name, content in made.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return [folder / name for name in made]


def named(manifests: Sequence[Manifest]) -> dict[str, str]:
    """A file for each, named in the order in which they are applied."""
    return {file_name(place, one): document(one) for place, one in enumerate(manifests)}


def file_name(place: int, one: Manifest) -> str:
    """What the file of a manifest is called: files sort in the order in which they are applied."""
    return f"{place:02d}-{one['kind'].lower()}-{one['metadata']['name']}.yaml"
