"""The bad canary of `serving_chaos`: a change that was merged, rolled out and turned back by the real controller."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from everloop.catalog import versions
from everloop.catalog.context import Actor, Context
from everloop.catalog.engine import Catalog
from everloop.catalog.operating import rollouts
from everloop.catalog.operation import invoke
from everloop.changes import environments, merging, proposing, reviewing
from everloop.core.clock import SystemClock
from everloop.core.signing import SigningKey
from everloop.core.version import Version
from everloop.serving.controller import Controller
from everloop.serving.definitions import Canary, EndpointDef
from everloop.store import open_store

_EVERY = 0.25
"""Seconds between two looks of the controller, as a worker has it."""


def release(ctx: Context, kind: str, number: int) -> None:
    """A model that behaves so, through a sandbox, a change, a review and a merge."""
    said = ctx.store.put(f'{{"kind": "{kind}", "value": {number}.0}}'.encode())
    signature = {"inputs": [{"name": "x", "type": "double"}]}
    model = Version("model", "m", {"files": {"chaos.json": said}, "signature": signature})
    endpoint = EndpointDef("m", "m", rollout=Canary([20, 100], hold="10m"))
    held = (model, Version("endpoint", "m", endpoint.manifest()))
    sandbox = f"sandbox/ada/r{number}"
    with ctx.write() as tx:
        versions.put_many(tx, ctx.project, held, actor="ada", at=ctx.now())
    invoke(ctx, environments.create_sandbox, environments.CreateSandbox(environment=sandbox))
    entries: dict[str, Any] = {version.key: version.id for version in held}
    invoke(ctx, environments.commit, environments.Commit(environment=sandbox, entries=entries))
    wanted = proposing.Propose(source=sandbox, target="production", title=kind, enqueue=False)
    change = invoke(ctx, proposing.propose, wanted).number
    invoke(ctx, reviewing.approve, reviewing.Approve(number=change))
    invoke(ctx, merging.merge, proposing.Numbered(number=change))


def materialize(manifest: Any, store: Any, folder: Path) -> None:
    """The model's one file in its folder."""
    folder.mkdir(parents=True)
    (folder / "chaos.json").write_bytes(store.get(manifest["files"]["chaos.json"]))


def revert_seconds(home: Path, key: SigningKey, ask: Callable[[], tuple[bool, str]]) -> tuple[float, int]:
    """Seconds from the third request that a broken canary failed until callers meet the old revision alone; failures.

    `ask` asks once and says whether somebody stood in, and who answered.
    """
    actor = Actor.of("ada", grants=["read */*@*#*", "*.* */*@*#*", "* */*@*#*"])
    catalog = Catalog.open(f"sqlite:///{home / 'catalog.db'}")
    ctx = Context(actor, "chaos", SystemClock(), catalog, open_store(str(home / "store")), key, home=home)
    environments.create_workspace_environments(ctx, "solo")
    controller = Controller(home, key, materialize=materialize, loader="chaos_models:load")
    ended = threading.Event()

    def control() -> None:
        while not ended.wait(_EVERY):
            controller.reconcile([ctx])

    def until(phase: str) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with ctx.read() as tx:
                state = rollouts.of(tx, "chaos", "production").get("m", {})
            if state.get("phase") == phase:
                return
            time.sleep(0.05)
        raise AssertionError(f"never {phase}: {state}")

    thread = threading.Thread(target=control)
    thread.start()
    try:
        release(ctx, "good", 1)
        until("live")
        release(ctx, "raises", 2)
        until("canary")
        return _reverted(ask)
    finally:
        ended.set()
        thread.join()
        catalog.close()


def _reverted(ask: Callable[[], tuple[bool, str]]) -> tuple[float, int]:
    failed, evidence, last = 0, 0.0, 0.0
    end = time.monotonic() + 60
    while time.monotonic() < end:
        stood_in, _ = ask()
        now = time.monotonic()
        if stood_in:
            failed, last = failed + 1, now
            evidence = now if failed == 3 else evidence
        if evidence and now - last > 2.0:  # one in five would have been stood in for
            return last - evidence, failed
    raise AssertionError(f"{failed} failed, and it did not go back")
