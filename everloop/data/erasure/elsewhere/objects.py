"""Files that runs logged, what was printed, reports and values: each loses the subject, or goes whole.

What is signed, a program, or a model's own bytes stays as it is; the receipt names it with the reason.
"""

from dataclasses import dataclass, field

from everloop.catalog.context import Context
from everloop.catalog.erasing import files, traces
from everloop.catalog.erasing.files import Named
from everloop.catalog.erasing.mentions import Mentions
from everloop.catalog.facts import Fact
from everloop.core.errors import CorruptObject, NotFound
from everloop.data.erasure.elsewhere.contents import holds, masked_lines, redacted

_WHOLE = 64 << 20
"""Bytes up to which a file is opened as what it is; of bigger ones the bytes are searched, a piece at a time."""
_PIECE = 8 << 20
_STAYS = {
    "code": "a program: it runs as it was reviewed; write the key out of the source",
    "model": "a model's own bytes: what it learnt; decide for it to be trained again, or accept it with a reason",
}


@dataclass(slots=True)
class LoggedFiles:
    """`core.ports.Erasable`: artifacts, consoles, and the files of versions of every kind but tables."""

    ctx: Context
    mentions: Mentions
    said: Fact
    """Carries the actor, the time and the erasure."""
    place: str = "logged files"
    _left: list[str] = field(default_factory=list)

    def erase(self, _key: str) -> int:
        """Look into every file once, whoever names it."""
        with self.ctx.read() as tx:
            named = [*files.of_artifacts(tx, self.ctx.project), *files.of_versions(tx, self.ctx.project)]
        speaking: dict[str, bool] = {}
        count = 0
        for file in named:
            if file.object not in speaking:
                speaking[file.object] = self._speaks(file.object)
            if speaking[file.object] or (file.owner and self.mentions.in_text(file.path)):
                count += self._erase(file)
        return count

    def left(self) -> list[str]:
        """Files that stay, and why."""
        return list(dict.fromkeys(self._left))

    def _erase(self, file: Named) -> int:
        new, size = "", 0
        if not self.mentions.in_text(file.path):
            content = self.ctx.store.get(file.object)
            left = self._without(file, content)
            if left is None and file.version:
                why = _STAYS.get(file.kind, "it cannot be written without the key, and a version names it")
                self._left.append(f"{file.kind} {file.version}, {file.path}: {why}")
                return 0
            if left is not None:
                new, size = self.ctx.store.put(left), len(left)
        with self.ctx.write() as tx:
            files.replace(tx, self.ctx.project, file, (new, size), self.said)
        return 1

    def _without(self, file: Named, content: bytes) -> bytes | None:
        if file.kind == "code":
            return None
        if file.owner.startswith("console:"):  # numbers of lines are in the path
            return masked_lines(content, self.mentions)
        left = redacted(content, file.path, self.mentions)
        return None if left is None or holds(left, self.mentions) else left

    def _speaks(self, identity: str) -> bool:
        try:
            if self._size(identity) > _WHOLE:
                return self._found_in_pieces(identity)
            return holds(self.ctx.store.get(identity), self.mentions)
        except (NotFound, CorruptObject):
            return False  # its bytes went before, or `verify` finds them

    def _size(self, identity: str) -> int:
        return int(self.ctx.store.size(identity))  # type: ignore[attr-defined]

    def _found_in_pieces(self, identity: str) -> bool:
        overlap, before = 4 * max(len(form) for form in self.mentions.forms) + 8, b""
        with self.ctx.store.open(identity) as stream:
            while piece := stream.read(_PIECE):
                if self.mentions.in_bytes(before + piece):
                    return True
                before = piece[-overlap:]
        return False


@dataclass(slots=True)
class Traces:
    """`core.ports.Erasable`: traces with their spans, assessments and files."""

    ctx: Context
    mentions: Mentions
    said: Fact
    place: str = "traces"

    def erase(self, _key: str) -> int:
        """Delete the traces that speak of the subject, in their rows or in the bodies that the store keeps."""
        with self.ctx.read() as tx:
            found = traces.speaking(tx, self.ctx.project, self.mentions)
            large = traces.bodies(tx, self.ctx.project)
        found.update(number for number, identity in large if number not in found and self._speaks(identity))
        if not found:
            return 0
        with self.ctx.write() as tx:
            return traces.erase(tx, self.ctx.project, found, self.said)

    def _speaks(self, identity: str) -> bool:
        try:
            return holds(self.ctx.store.get(identity), self.mentions)
        except (NotFound, CorruptObject):
            return False
