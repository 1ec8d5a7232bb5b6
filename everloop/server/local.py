"""A server on loopback inside this process, for as long as a build needs one: the mlflow client's address."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from everloop.core.errors import Unavailable
from everloop.server.app import build_app
from everloop.workspace.opened import Workspace

_WITHIN = 20.0


@contextmanager
def loopback_server(workspace: Workspace) -> Iterator[str]:
    """Serve the workspace on a free port of 127.0.0.1 in a thread; yields its URL.

    It demands what every server of ours demands: without a token one may read and write runs. Steps get tokens
    that write their own run only.
    """
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(build_app(workspace), lifespan="off", log_level="error", access_log=False, ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True, name="loopback-server")
    thread.start()
    waited = threading.Event()
    for _ in range(int(_WITHIN / 0.02)):
        if server.started:
            break
        waited.wait(0.02)
    if not server.started:
        raise Unavailable("the local tracking server did not start", hint="is the loopback interface up?")
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
