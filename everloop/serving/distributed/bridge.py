"""The bridge: one process beside a gateway, a driver of its Ray cluster.

The gateway hands over one end of a connection for each part. The bridge makes the part an application of Ray Serve,
says that it is warm, and passes frames on. What waits while enough calls are under way travels as the next call. An
application stays while its connection does; those of a gateway that was killed are taken up by the next one.

    python -m everloop.serving.distributed.bridge --fd 5 --address HOST:PORT --prefix P --objects URL
"""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import warnings
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b
from typing import Any

import msgspec
import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from everloop import __version__
from everloop.core.errors import EverloopError, Unavailable
from everloop.core.settings import RAY_TOKEN, use_ray_token
from everloop.flows.executors.nodes import packages_digest
from everloop.flows.executors.parent import die_with_parent
from everloop.flows.identity.runtime import runtime
from everloop.serving import wire
from everloop.serving.distributed.passing import Link
from everloop.serving.distributed.replica import Replica, files_in
from everloop.serving.modelworker import Setup
from everloop.serving.streaming.working import said
from everloop.store import access, open_store

_REACH_SECONDS = 5.0
_TELL_SECONDS = 0.2
_DEAD_SECONDS = 0.5
"""A gateway that was killed closes its connections first; then this process ends too, and leaves replicas warm."""
_LOOK_SECONDS = 1.0
_LEFT_SECONDS = 60.0
"""After how long applications that nobody took up again end."""
_RENEW_SECONDS = 6 * 3600.0
"""How often the files of what serves are put again: a sweep of the store spares what is young."""
_PLACES = 64
"""Parts that are put on the cluster at once."""


class Alive:
    """Lives as long as its bridge: Ray ends it with the driver that made it, however that ends."""


class Bridge:
    """The applications of one gateway on a cluster."""

    def __init__(self, prefix: str, objects: str, patience: float) -> None:
        """Names begin with `prefix`; files go through the store at `objects`.

        Replicas take themselves off the cluster when no bridge of this prefix lived for `patience` seconds.
        """
        self._prefix, self._objects = prefix, objects
        self._lease = (f"{prefix} lives", patience)
        self._alive: Any = None
        self._store = open_store(objects)
        self._packages = packages_digest(runtime(1))
        self._threads = ThreadPoolExecutor(_PLACES)
        self._alone: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._links: dict[str, Link] = {}
        self._setups: dict[str, Setup] = {}

    async def serve(self, connection: socket.socket) -> None:
        """Serve one part until its gateway hangs up; the application ends with it."""
        transport, link = await asyncio.get_running_loop().create_unix_connection(Link, sock=connection)
        name = ""
        try:
            setup = msgspec.json.decode((await link.first()).payload, type=Setup)
            files = await self._in_thread(files_in, setup, self._store)
            name = f"{self._prefix}-{_digest(setup, files)}"
            async with self._alone[name]:
                handle, hello = await self._placed(name, setup, files)
                self._links[name], self._setups[name] = link, setup
            link.begin(handle, setup, hello, lambda size: self._resize(name, setup, files, size))
            await link.lost
        except ConnectionError:
            pass
        except Exception as error:  # noqa: BLE001 - the edge of Ray and of users' models: the gateway is told why
            transport.write(wire.encode(wire.UNFIT, 0, 0, said(error)))
        finally:
            transport.close()
            await asyncio.sleep(_DEAD_SECONDS)
            if name and self._links.get(name, link) is link:
                async with self._alone[name]:
                    if self._links.get(name, link) is link:
                        self._links.pop(name, None)
                        await self._in_thread(_deleted, name)

    async def _placed(self, name: str, setup: Setup, files: dict[str, str]) -> tuple[Any, bytes]:
        """The application, and what it said when it was warm; raises `Unavailable` where it cannot become so."""
        if not await self._in_thread(_runs, name):
            await self._in_thread(self._deploy, name, setup, files)
        handle = serve.get_app_handle(name)
        hello: bytes = await handle.hello.remote()
        if problem := msgspec.json.decode(hello).get("problem"):
            raise Unavailable(problem)
        return handle, hello

    def _deploy(self, name: str, setup: Setup, files: dict[str, str]) -> None:
        deployment = serve.deployment(Replica).options(
            name="part",
            ray_actor_options=_reserved(setup.needs),
            autoscaling_config={
                "min_replicas": setup.least,
                "initial_replicas": setup.least,
                "max_replicas": setup.most,
                "target_ongoing_requests": 1.5,  # a lone caller keeps one replica busy
                "metrics_interval_s": 0.5,
                "look_back_period_s": 2.0,
                "upscale_delay_s": 1.0,
                "downscale_delay_s": 30.0,
            },
            max_ongoing_requests=8,
            max_surge_percent=100,  # another size: new replicas answer before old ones end
            health_check_period_s=2.0,
            health_check_timeout_s=10.0,
            graceful_shutdown_wait_loop_s=0.1,
            graceful_shutdown_timeout_s=15.0,
        )
        made = deployment.bind(
            msgspec.json.encode(setup),
            files,
            self._objects,
            access(self._objects, os.environ),
            self._packages,
            self._lease,
        )
        serve.run(made, name=name, route_prefix=None, logging_config={"log_level": "ERROR"})

    async def _resize(self, name: str, setup: Setup, files: dict[str, str], size: tuple[int, int]) -> None:
        sized = msgspec.structs.replace(setup, least=size[0], most=size[1])
        async with self._alone[name]:
            if name in self._links:
                await self._in_thread(self._deploy, name, sized, files)

    async def look(self) -> None:
        """Tell links how many replicas answer, end what nobody took up, keep files young; for ever."""
        loop = asyncio.get_running_loop()
        began = renewed = loop.time()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            with suppress(RayError, RayServeException):  # Serve's controller is placed anew when its node dies
                await self._in_thread(self._live)
                running = await self._in_thread(_replicas, self._prefix)
                for name, link in list(self._links.items()):
                    link.tell(running.get(name, 0))
                if loop.time() - began > _LEFT_SECONDS:
                    await self._end_those_left(running)
            if loop.time() - renewed > _RENEW_SECONDS:
                renewed = loop.time()
                for name in list(self._links):
                    await self._in_thread(files_in, self._setups[name], self._store)

    def _live(self) -> None:
        """Be seen to live; the actor of a bridge before this one may take some seconds to end."""
        if self._alive is None:
            with suppress(ValueError):
                self._alive = ray.remote(Alive).options(num_cpus=0, max_restarts=-1, name=self._lease[0]).remote()

    async def _end_those_left(self, running: dict[str, int]) -> None:
        for name in running:
            async with self._alone[name]:
                if name not in self._links:
                    await self._in_thread(_deleted, name)

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def _reserved(needs: Mapping[str, int]) -> dict[str, float]:
    """What each replica reserves; Ray also gives its libraries as many threads as it has cores."""
    said = {"num_cpus": needs.get("cores", 1000) / 1000, "num_gpus": needs.get("gpus", 0) / 1000}
    return {**said, "memory": needs["memory"]} if needs.get("memory") else said


def _digest(setup: Setup, files: dict[str, str]) -> str:
    """Names an application by all that it answers with, and not by how many replicas it has."""
    steps = [msgspec.structs.replace(step, folder="") for step in setup.steps] if files else setup.steps
    same = msgspec.structs.replace(setup, least=1, most=1, folder="" if files else setup.folder, steps=steps)
    return blake2b(msgspec.json.encode([__version__, same, sorted(files.items())]), digest_size=12).hexdigest()


def _runs(name: str) -> bool:
    found = serve.status().applications.get(name)
    return found is not None and found.status == "RUNNING"


def _replicas(prefix: str) -> dict[str, int]:
    """Replicas that answer, of each application of ours."""
    return {
        name: sum(int(one.replica_states.get("RUNNING", 0)) for one in found.deployments.values())
        for name, found in serve.status().applications.items()
        if name.startswith(f"{prefix}-")
    }


def _deleted(name: str) -> None:
    serve.delete(name)


def join(address: str, token: str) -> None:
    """Become a driver of the cluster, and have Serve run there; raises `Unavailable`."""
    host, _, port = address.rpartition(":")
    try:
        # Ray itself asks again for minutes where nobody listens
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_SECONDS).close()
        use_ray_token(token)
        ray.init(address=address, namespace="everloop", log_to_driver=False, logging_level="error")
        serve.start(proxy_location="Disabled", logging_config={"log_level": "ERROR"})
    except (OSError, ConnectionError, RuntimeError, ValueError, RayError) as error:
        hint = "is it up, the token right, and this machine one of its nodes?"
        raise Unavailable(f"the cluster at {address} does not answer: {str(error)[:300]}", hint=hint) from error


async def run(control: socket.socket, arguments: argparse.Namespace, problem: str) -> int:
    """Take connections from the gateway until it closes `control`, then end its applications; 1 with a `problem`."""
    loop = asyncio.get_running_loop()
    asked: asyncio.Queue[socket.socket | None] = asyncio.Queue()

    def arrived() -> None:
        content, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        for descriptor in descriptors:
            asked.put_nowait(socket.socket(fileno=descriptor))
        if not content:
            loop.remove_reader(control)
            asked.put_nowait(None)

    loop.add_reader(control, arrived)
    loop.set_exception_handler(_unheard)
    if problem:
        await asyncio.sleep(_TELL_SECONDS)
        while not asked.empty() and (connection := asked.get_nowait()) is not None:
            with suppress(OSError), connection:
                connection.sendall(wire.encode(wire.UNFIT, 0, 0, problem.encode()))
        return 1
    bridge = Bridge(arguments.prefix, arguments.objects, arguments.patience)
    looking = loop.create_task(bridge.look())
    serving: set[asyncio.Task[None]] = set()
    while (connection := await asked.get()) is not None:
        task = loop.create_task(bridge.serve(connection))
        serving.add(task)
        task.add_done_callback(serving.discard)
    looking.cancel()
    await asyncio.gather(*serving, return_exceptions=True)  # the gateway has closed their connections
    return 0


def _unheard(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Leave out what Ray's own tasks die of when a node does."""
    if not isinstance(context.get("exception"), RayError):
        loop.default_exception_handler(context)


def main() -> int:
    """Serve the gateway that handed over `--fd`."""
    parser = argparse.ArgumentParser(prog="everloop.serving.distributed.bridge")
    parser.add_argument("--fd", type=int, required=True)
    for name in ("address", "prefix", "objects"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--patience", type=float, required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(signal.SIGKILL)
    warnings.simplefilter("ignore")  # Ray's own
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
    problem = ""
    try:
        join(arguments.address, os.environ.pop(RAY_TOKEN, ""))
    except EverloopError as error:
        problem = f"{error.message} ({error.hint})"
    with socket.socket(fileno=arguments.fd) as control:
        control.setblocking(False)
        return asyncio.run(run(control, arguments, problem))


if __name__ == "__main__":
    sys.exit(main())
