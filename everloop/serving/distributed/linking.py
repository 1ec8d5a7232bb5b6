"""A gateway's way to a Ray cluster: one process beside it, the bridge, and a connection through it for each part.

Ray stays out of the gateway's process: a driver of Ray loads some 100 MB, and ends with its node's raylet. The bridge
may end so; the gateway then starts another, and says meanwhile that its models do not answer.
"""

import asyncio
import os
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from everloop.core.errors import InvalidInput, Unavailable
from everloop.core.settings import RAY_TOKEN

_END_SECONDS = 20.0


@dataclass(slots=True)
class Cluster:
    """A cluster that somebody started, as one gateway reaches it."""

    address: str
    """`host:port` of its head; the gateway's machine is one of its nodes."""
    token: str
    """What its nodes were started with."""
    prefix: str
    """Begins the names of this gateway's applications, so that several workspaces may share a cluster."""
    objects: str
    """The object store, which every node must reach: models' files travel through it."""
    patience: float = 3600.0
    """Seconds after which replicas whose bridge ended, and did not come back, take themselves off the cluster."""
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _control: socket.socket | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Raise `InvalidInput` for what is no address, without a token, or where Ray Serve is not installed."""
        if "://" in self.address or not self.address.rpartition(":")[2].isdigit():
            hint = "host:port of the head node, as `ray start` said it; this machine must be one of the nodes"
            raise InvalidInput(f"{self.address!r} is no address of a cluster", hint=hint)
        if not self.token:
            hint = f"start its nodes with RAY_AUTH_MODE=token and a token, and give it to the gateway as {RAY_TOKEN}"
            raise InvalidInput("a cluster needs its token", hint=hint)
        if find_spec("ray") is None or find_spec("ray.serve") is None:
            raise InvalidInput("Ray Serve is not installed", hint="pip install everloop[distributed]")

    def take(self, theirs: socket.socket) -> None:
        """Hand one end of a connection to the bridge, which is started if it does not run.

        Raises `Unavailable` where one that was just started takes nothing either.
        """
        failed = ""
        for _ in range(2):
            if self._process is None or self._process.poll() is not None:
                self._begin()
            try:
                socket.send_fds(self._here, [b"+"], [theirs.fileno()])
            except OSError as error:  # it ends just now
                failed = str(error)
                self._begin()
            else:
                return
        raise Unavailable(f"the cluster's bridge takes no connection: {failed}", hint="it is tried again")

    @property
    def _here(self) -> socket.socket:
        if self._control is None:
            raise BrokenPipeError
        return self._control

    def _begin(self) -> None:
        if self._control is not None:
            self._control.close()
        self._control, theirs = socket.socketpair()
        command = ["-P", "-m", "everloop.serving.distributed.bridge", "--fd", str(theirs.fileno())]
        command += ["--address", self.address, "--prefix", self.prefix, "--objects", self.objects]
        command += ["--patience", str(self.patience)]
        environment = {**os.environ, RAY_TOKEN: self.token, "PYTHONUNBUFFERED": "1", "RAY_SERVE_LOG_TO_STDERR": "0"}
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
                [sys.executable, *command], pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, env=environment
            )

    async def close(self) -> None:
        """Have the bridge take this gateway's applications off the cluster, and end it."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            try:
                await asyncio.to_thread(self._process.wait, _END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()


def cluster_for(address: str, token: str, home: Path, name: str, mark: str) -> Cluster | None:
    """The cluster at `address`, None without one; `name` is the gateway's, `mark` tells its workspace from others."""
    if not address:
        return None
    objects = os.environ.get("EVERLOOP_OBJECTS", "") or str(home / "objects")
    if ":" not in objects:
        objects = str(Path(objects).resolve())
    return Cluster(address, token, f"everloop-{mark}-{name}", objects)
