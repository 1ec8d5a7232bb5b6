"""Which codec saves and loads each kind of version, by name, so that none is loaded before it is needed."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from everloop.core.ports import Blobs, Saved
from everloop.core.version import Version
from everloop.data.codec import DataCodec

CODECS: Mapping[str, str] = {
    "data": "everloop.data.codec:DataCodec",
    "frame": "everloop.workspace.codecs:FrameCodec",
    "model": "everloop.models.codec:ModelCodec",
    "value": "everloop.flows.value:ValueCodec",
}


class FrameCodec(DataCodec):
    """Training frames: tables like any other, stored in the order of their rows, under a kind of their own."""

    def save(self, value: Any, name: str, blobs: Blobs, facts: Mapping[str, Any]) -> Saved:
        """Store a table as a version of kind `frame`; see `DataCodec.save`."""
        saved = super().save(value, name, blobs, facts)
        made = saved.version
        manifest = {key: content for key, content in made.manifest.items() if key != "kind"}
        return replace(saved, version=Version("frame", name, manifest, made.inputs))
