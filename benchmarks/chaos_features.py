"""The feature store of `serving_chaos`: a real Redis behind a proxy that can be slow, or silent."""

import asyncio
import contextlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from everloop.core.clock import SECOND
from everloop.core.version import Version
from everloop.features.definitions import FeatureServiceDef, FeatureViewDef, count
from everloop.features.online import OnlineView, advance, push, scope_of
from everloop.features.stores.places import open_place
from everloop.serving.rollout.entries import service_of
from everloop.serving.table import Instead, Lookup, Route

_SLOW_SECONDS = 0.03


class Proxy:
    """Passes bytes between callers and a socket; every answer late by `delay`, or never (`silent`)."""

    def __init__(self, target: str) -> None:
        self.target, self.delay, self.silent, self.port = target, 0.0, False, 0
        self._ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        self._ready.wait(10)

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await server.serve_forever()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_unix_connection(self.target)

        async def back() -> None:
            while data := await there.read(1 << 16):
                await asyncio.sleep(self.delay)
                if not self.silent:
                    writer.write(data)

        task = asyncio.create_task(back())
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                here.write(data)
        task.cancel()
        here.close()
        writer.close()


@contextlib.contextmanager
def looked_up(
    home: Path, revision: Callable[..., Any]
) -> Iterator[tuple[Route, Callable[[], None], Callable[[], None]]]:
    """An endpoint that looks up one feature, and what makes its store slow, and silent."""
    path = str(home / "redis.sock")
    words = ["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--dir", str(home)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        while not Path(path).exists():
            time.sleep(0.02)
        proxy = Proxy(path)
        place = f"redis://127.0.0.1:{proxy.port}/0"
        (home / "bindings.toml").write_text(f'[production]\nonline_store = "{place}"\n')
        view = FeatureViewDef("load", "events", ("key",), (count(over="3h"),), event_time="at", key=("id",))
        identity = Version("view", "load", view.manifest()).id
        store, scope, now = open_place(place), scope_of("chaos", "production"), int(time.time()) * SECOND
        online = OnlineView.of(scope, identity, view)
        push(store, online, [{"id": 1, "key": "a", "at": now - SECOND}])
        advance(store, online, now)
        service = FeatureServiceDef("inputs", (view,), request=("x",))
        found = service_of("chaos", "inputs", service.manifest({"load": identity}), {identity: view.manifest()}, scope)
        lookup = Lookup(**{name: getattr(found.lookup, name) for name in Lookup.__struct_fields__})
        inputs = [["x", "FP64"], *([f"load__{feature.name}", "FP64"] for feature in view.features)]
        caller = [["key", "BYTES"], ["x", "FP64"]]
        made = revision(inputs=inputs, caller=caller, example={}, lookup=lookup)
        default = Instead("default", values=[["prediction", {"float": "0.0"}]])

        def slow() -> None:
            proxy.delay = _SLOW_SECONDS

        def silent() -> None:
            proxy.silent = True

        yield Route("chaos", "looked", [made], instead=[default], deadline_micros=5_000_000), slow, silent
    finally:
        server.terminate()
        server.wait(10)
