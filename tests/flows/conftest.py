import importlib
import sys
from types import SimpleNamespace

import pytest

from everloop.flows.assets import plan
from everloop.flows.engine import Options, Origin, run
from everloop.flows.executors.local import LocalExecutor
from everloop.flows.executors.process import ProcessExecutor
from everloop.flows.identity.importing import import_from_source

CODECS = {"value": "everloop.flows.value:codec"}
HEADER = """
import os
from pathlib import Path
from types import SimpleNamespace
from everloop.flows.assets import define, wire

MARKS = Path(__file__).parents[1] / "marks"


def mark(text):
    with MARKS.open("a") as file:
        file.write(text + "\\n")
"""
FOOTER = "\nproject = SimpleNamespace(assets=lambda: wire(ASSETS))\n"


@pytest.fixture
def author(tmp_path, context):
    """Write a project's file, then run targets of it: `author(text)` -> project with `.run(*targets, ...)`."""
    root = tmp_path / "authored"
    root.mkdir()
    import_from_source(root)  # as projects are
    before = set(sys.modules)

    def make(text, ctx=context):
        (root / "flow.py").write_text(HEADER + text + FOOTER)
        sys.modules.pop("flow", None)
        importlib.invalidate_caches()
        sys.path.insert(0, str(root))
        try:
            assets = importlib.import_module("flow").project.assets()
        finally:
            sys.path.remove(str(root))

        def go(*targets, executor=None, progress=None, runs=None, said=None, codecs=CODECS, **options):
            own = executor or LocalExecutor(assets, ctx.store)
            return run(
                ctx,
                plan(assets, targets),
                origin=Origin(root, "flow"),
                executor=own,
                codecs=codecs,
                runs=runs,
                options=Options(**options),
                progress=progress,
                said=said,
            )

        def marks():
            file = tmp_path / "marks"
            return file.read_text().split() if file.exists() else []

        return SimpleNamespace(run=go, marks=marks, root=root, assets=assets, ctx=ctx)

    yield make
    for name in set(sys.modules) - before:
        if name == "flow":
            del sys.modules[name]


@pytest.fixture
def processes():
    executor = ProcessExecutor()
    yield executor
    executor.close()
