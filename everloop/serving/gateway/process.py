"""The gateway's process: sockets in, workers out, counters told.

python -m everloop.serving.gateway --home HOME --fd 3 [--name g0] [--server UNIX_SOCKET]
"""

import argparse
import asyncio
import contextlib
import gc
import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from everloop.core.errors import EverloopError
from everloop.core.settings import RAY_TOKEN
from everloop.core.signing import VerifyKey
from everloop.serving import log
from everloop.serving.distributed.linking import cluster_for
from everloop.serving.gateway.access import Door
from everloop.serving.gateway.answer import Predictions
from everloop.serving.gateway.app import Gateway
from everloop.serving.gateway.express.passage import Express, express
from everloop.serving.gateway.features import Features
from everloop.serving.gateway.fleet import Fleet
from everloop.serving.gateway.instead.cache import Cache
from everloop.serving.gateway.lookups import Lookups
from everloop.serving.gateway.passing import hand
from everloop.serving.gateway.passing.carry import Carrier
from everloop.serving.gateway.rpc.splice import Switchboard, switched
from everloop.serving.gateway.shadows import Shadows
from everloop.serving.gateway.speaking.asking import Desk
from everloop.serving.gateway.starting import spare
from everloop.serving.gateway.telling.sheet import Sheet
from everloop.serving.tracing.exporting import Exporter

_TELL_SECONDS = 0.5
_TELL_SHARE, _TELL_MOST = 40, 2.0
_GARBAGE = (20_000, 20, 20)
"""Objects until the collector looks: a question leaves no cycles, so it mostly looks in vain."""


def listener(arguments: argparse.Namespace) -> socket.socket:
    """The socket that a supervisor handed in, or one of our own."""
    if arguments.fd >= 0:
        listening = socket.socket(fileno=arguments.fd)
    else:
        family = socket.AF_INET6 if ":" in arguments.host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((arguments.host, arguments.port))
        listening.listen(1024)
    # accepted sockets inherit it; without it a pre-bound socket answers keep-alive requests 40 ms late on asyncio
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


class Server(uvicorn.Server):
    """uvicorn without its signal handling, which ends the process before workers and log are closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `serve`."""
        yield


async def tell(fleet: Fleet, lookups: Lookups, cache: Cache, sheet: Sheet) -> None:
    """Write the counters twice a second, for ever; before, forget answers of somebody who was erased."""
    while True:
        began = time.monotonic()
        cache.follow()
        told = {"features": lookups.told(), "views": lookups.features.told()}
        sheet.write(fleet, {**told, "kept": cache.rows, "forgot": cache.epoch})
        took = time.monotonic() - began  # thousands of endpoints take tens of milliseconds: then it tells less often
        await asyncio.sleep(min(max(_TELL_SECONDS, _TELL_SHARE * took), _TELL_MOST))


def _config(app: Gateway, protocol: type[Any]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who the caller is comes from the connection, never from the caller
        timeout_keep_alive=75,
        timeout_graceful_shutdown=3,
    )


def _settle() -> None:
    """What was made by now stays; of what comes, little is garbage that only the collector finds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE)


def _fleet(arguments: argparse.Namespace, key: VerifyKey) -> Fleet:
    token = os.environ.pop(RAY_TOKEN, "")  # it is not for the processes of models either
    cluster = cluster_for(arguments.ray, token, arguments.home, arguments.name, key.key_id)
    return Fleet(arguments.home / "serving" / "routes.json", key, arguments.memory * 1024 * 1024, cluster)


async def serve(arguments: argparse.Namespace, key: VerifyKey) -> None:
    """Serve until told to stop (SIGTERM, SIGINT): new connections end first, requests in flight are answered."""
    home: Path = arguments.home / "serving"
    appender = log.Appender(home / "log" / arguments.name, fsync=arguments.fsync)
    shadows = Shadows(log.Appender(home / "shadow" / arguments.name))
    nonce = secrets.randbits(32)
    sheet = Sheet(home / "stats" / f"{arguments.name}.json", f"{nonce:08x}")
    fleet = _fleet(arguments, key)
    listening = listener(arguments)
    features = Features(arguments.home)
    lookups = Lookups(features)
    # the secret goes before any model's process is started: it is not theirs
    carrier = Carrier(arguments.server, os.environ.pop(hand.VARIABLE, ""))
    door = Door(listening.getsockname()[0])
    predictions = Predictions(appender, nonce, features, fleet.route, shadows, cache=Cache(home))
    switchboard = Switchboard()
    switchboard.desk = desk = Desk(fleet, predictions, door)
    exporter = Exporter(desk.tracer, home / "traces" / arguments.name, os.environ)
    app = Gateway(desk, lookups, carrier if arguments.server else None)
    protocol = express(switched(carrier.protocol(), switchboard.take), Express(desk))
    server = Server(_config(app, protocol))
    loop = asyncio.get_running_loop()

    def end() -> None:
        server.should_exit = True
        app.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    background = [
        loop.create_task(fleet.follow()),
        loop.create_task(fleet.tend()),
        loop.create_task(exporter.run()),
        loop.create_task(tell(fleet, lookups, predictions.cache, sheet)),
    ]

    def stop(task: asyncio.Task[None]) -> None:
        """End with a background task that broke, rather than serve on without it; the supervisor restarts us."""
        end()
        if not task.cancelled() and task.exception() is not None:
            loop.call_exception_handler({"message": "a task of the gateway broke", "exception": task.exception()})

    for task in background:
        task.add_done_callback(stop)
    _settle()
    try:
        await fleet.looked.wait()
        spare.dismiss()
        await server.serve(sockets=[listening])
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await switchboard.close()
        await fleet.close()
        sheet.remove()
        for closing in (appender, shadows, features, carrier):
            closing.close()


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and serve; the exit status is 2 for a bad set-up."""
    parser = argparse.ArgumentParser(prog="everloop.serving.gateway", description="Serve predictions.")
    parser.add_argument("--home", type=Path, required=True, help="the workspace's folder")
    parser.add_argument("--name", default="g0", help="names this gateway's log and counters")
    parser.add_argument("--fd", type=int, default=-1, help="listening socket handed in by a supervisor")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--server", default="", help="UNIX socket of the server for everything else")
    parser.add_argument("--verify-key", type=Path, help="PEM of the workspace's public key, if not in its keys")
    parser.add_argument("--memory", type=int, default=0, help="MiB that model workers may take; 0: no bound")
    parser.add_argument("--ray", default="", help=f"host:port of a cluster on which models answer; token: {RAY_TOKEN}")
    parser.add_argument("--fsync", action="store_true", help="sync the log to disk before each reply")
    arguments = parser.parse_args(argv)
    try:
        key = VerifyKey.from_pem((arguments.verify_key or arguments.home / "keys" / "verify.pem").read_bytes())
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(arguments, key))
    except (EverloopError, OSError) as error:
        parser.exit(2, f"gateway: {error}\n")
    except KeyboardInterrupt:
        pass
    return 0
