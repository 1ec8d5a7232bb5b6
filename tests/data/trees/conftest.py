"""A folder of files of several kinds, and what captures it."""

import os
import time

import numpy as np
import pytest

from everloop.catalog.trees import packs
from everloop.data import Folder, SourceDef
from everloop.data.capturing import capture
from everloop.data.trees.packing.packs import read_index


class World:
    """A folder, its source, a workspace."""

    def __init__(self, ctx, root):
        self.ctx, self.root = ctx, root
        self.folder = root / "files"
        self.origin = Folder("files/**")

    def write(self, path, content, *, fresh=False):
        """Write a file; unless `fresh`, its time says that it was written a minute ago."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        if not fresh:
            past = time.time_ns() - 60_000_000_000 - int(np.random.default_rng().integers(1, 10**9))
            os.utime(file, ns=(past, past))
        return file

    def capture(self, **more):
        return capture(self.ctx, SourceDef("files", self.origin), root=self.root, **more)

    def packs(self):
        """How many bytes of pieces are stored, over all objects that are packs."""

        with self.ctx.read() as tx:
            rows = packs.of(tx, self.ctx.project)
        return [int(read_index(self.ctx.store, row.object, self.root / "index")["length"].sum()) for row in rows]


def noise(size, seed=0):
    return np.random.default_rng(seed).bytes(size)


@pytest.fixture
def world(context, tmp_path):
    made = World(context, tmp_path / "project")
    for i in range(40):
        made.write(f"d{i % 4}/f{i:02}.png", b"\x89PNG\r\n\x1a\n" + noise(500 + i, i))
    made.write("notes/a.txt", b"hello")
    made.write("empty", b"")
    made.write(".hidden", b"secret")
    return made
