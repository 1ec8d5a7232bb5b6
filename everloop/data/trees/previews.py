"""What a file looks like, for people: a thumbnail, the beginning of a text, or just what it is."""

import base64
from dataclasses import dataclass
from typing import Literal

from everloop.core.errors import DataError
from everloop.data import trees
from everloop.data.trees.media import is_text
from everloop.data.trees.reading import Tree

TEXT = 4096
"""Bytes of a text that are shown."""


@dataclass(frozen=True, slots=True)
class Preview:
    """One file, shown."""

    path: str
    size: int
    media_type: str
    kind: Literal["image", "text", "none"]
    text: str = ""
    image: str = ""
    """A PNG as a data URL."""
    width: int = 0
    height: int = 0
    note: str = ""
    """Why nothing is shown."""


def preview(tree: Tree, path: str, edge: int = 256) -> Preview:
    """Show a file; what cannot be shown says why. Raises `NotFound`, `CorruptObject`."""
    file = tree.file(path)
    about = file.path, file.size, file.media_type
    if file.media_type.startswith("image/") and file.media_type != "image/svg+xml":
        try:
            make = trees.thumbnail
        except ImportError:
            return Preview(*about, "none", note="pip install 'everloop[images]' shows images")
        try:
            with tree.open(path) as stream:
                picture, width, height = make(stream, edge)
        except DataError as error:
            return Preview(*about, "none", note=error.message)
        url = "data:image/png;base64," + base64.b64encode(picture).decode()
        return Preview(*about, "image", image=url, width=width, height=height)
    if is_text(file.media_type):
        with tree.open(path) as stream:
            begin = stream.read(TEXT)
        return Preview(*about, "text", text=begin.decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}"))
    return Preview(*about, "none", note="no preview of this kind of file")
