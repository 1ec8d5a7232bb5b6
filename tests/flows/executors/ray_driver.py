"""Drives one run of a flow on a cluster, in its own process: `python ray_driver.py JSON`; goes on with an open one."""

import json
import sys
from pathlib import Path

from everloop.catalog.context import Actor, Context
from everloop.catalog.engine import Catalog
from everloop.catalog.making import flows
from everloop.core.clock import SystemClock
from everloop.core.errors import EverloopError
from everloop.flows.assets import plan
from everloop.flows.engine import Options, Origin, owner, run
from everloop.flows.executors.on_ray import RayExecutor
from everloop.flows.identity import project_tree
from everloop.flows.identity.importing import import_from_source
from everloop.store import open_store


def main(asked):
    root = Path(asked["root"])
    import_from_source(root)
    sys.path.insert(0, str(root))
    flow = __import__("flow")
    store = open_store(asked["store"])
    catalog = Catalog.open(asked["catalog"])
    ctx = Context(Actor.of("ada"), asked["project"], SystemClock(), catalog, store, home=Path(asked["home"]))
    assets = flow.project.assets()
    with ctx.write() as tx:
        held = next((one for one in flows.recent(tx, ctx.project, limit=500) if one.title == asked["title"]), None)
        if held is not None:
            held = flows.take_over(tx, ctx.project, held, owner=owner(), now=ctx.wall())
    code = project_tree(root, store, "flow").version
    executor = RayExecutor(asked["address"], asked["token"], files=code.manifest["files"], blobs=store)
    options = Options(params=asked.get("params", {}), title=asked["title"], flow=held, workers=4, code=code)
    try:
        run(
            ctx,
            plan(assets, asked["targets"]),
            origin=Origin(root, "flow"),
            executor=executor,
            codecs={"value": "everloop.flows.value:codec"},
            options=options,
        )
    finally:
        executor.close()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(json.loads(sys.argv[1])))
    except EverloopError as error:
        print(json.dumps({"error": type(error).__name__, "said": error.message, "hint": error.hint}))  # noqa: T201
        sys.exit(1)
