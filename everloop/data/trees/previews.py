"""What a file is like, for people: a thumbnail, the beginning of a text, a recording, or just what it is."""

import base64
from dataclasses import dataclass
from typing import Literal

from everloop.core.errors import DataError
from everloop.data import trees
from everloop.data.trees.media import is_text
from everloop.data.trees.reading import File, Tree

TEXT = 4096
"""Bytes of a text that are shown."""
AUDIO = 4 * 2**20
"""Bytes of a recording that is heard in place: all of it goes with the answer."""

_PDF = "a PDF may hold scripts, which its viewer would run: check it out to read it"


@dataclass(frozen=True, slots=True)
class Preview:
    """One file, shown."""

    path: str
    size: int
    media_type: str
    kind: Literal["image", "text", "audio", "none"]
    text: str = ""
    image: str = ""
    """A PNG as a data URL."""
    audio: str = ""
    """A whole recording as a data URL."""
    width: int = 0
    height: int = 0
    note: str = ""
    """Why nothing is shown."""


def preview(tree: Tree, path: str, edge: int = 256) -> Preview:
    """Show a file; what cannot be shown says why. Raises `NotFound`, `CorruptObject`."""
    file = tree.file(path)
    kind = file.media_type
    if kind.startswith("image/") and kind != "image/svg+xml":
        return _seen(tree, file, edge)
    if kind.startswith("audio/"):
        return _heard(tree, file)
    if is_text(kind):
        with tree.open(path) as stream:
            begin = stream.read(TEXT)
        text = begin.decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
        return Preview(file.path, file.size, kind, "text", text=text)
    note = _PDF if kind == "application/pdf" else "no preview of this kind of file"
    return Preview(file.path, file.size, kind, "none", note=note)


def _seen(tree: Tree, file: File, edge: int) -> Preview:
    about = file.path, file.size, file.media_type
    try:
        make = trees.thumbnail
    except ImportError:
        return Preview(*about, "none", note="pip install 'everloop[images]' shows images")
    try:
        with tree.open(file.path) as stream:
            picture, width, height = make(stream, edge)
    except DataError as error:
        return Preview(*about, "none", note=error.message)
    url = "data:image/png;base64," + base64.b64encode(picture).decode()
    return Preview(*about, "image", image=url, width=width, height=height)


def _heard(tree: Tree, file: File) -> Preview:
    about = file.path, file.size, file.media_type
    if file.size > AUDIO:
        return Preview(*about, "none", note=f"recordings of up to {AUDIO >> 20} MiB are heard here; check it out")
    with tree.open(file.path) as stream:
        sound = base64.b64encode(stream.read()).decode()
    return Preview(*about, "audio", audio=f"data:{file.media_type};base64,{sound}")
