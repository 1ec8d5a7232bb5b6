"""`python -m everloop.server.serve SOCKET`: the server's process, behind the gateway on a UNIX socket."""

import os
import sys
from pathlib import Path

import uvicorn

from everloop.core.errors import EverloopError
from everloop.core.settings import load
from everloop.server.app import build_app
from everloop.serving.gateway.passing.hand import VARIABLE as HAND
from everloop.workspace.opened import Workspace


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM; the exit code is 2 when the workspace does not open."""
    path, hand = arguments[0], os.environ.pop(HAND, "")  # before any other process is started
    Path(path).unlink(missing_ok=True)
    try:
        workspace = Workspace.open(load({}, os.environ))
    except EverloopError as error:
        sys.stderr.write(f"server: {error.message} ({error.hint})\n")
        return 2
    with workspace:
        app = build_app(workspace, hand=hand)
        config = uvicorn.Config(
            app,
            uds=path,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            # the gateway already replaced what clients may not say about themselves
            proxy_headers=False,
            timeout_keep_alive=3600,  # the gateway keeps its connections; it alone reaches this socket
            timeout_graceful_shutdown=5,
        )
        server = uvicorn.Server(config)
        app.state.stopping = lambda: server.should_exit  # streams of events end by themselves
        try:
            server.run()
        finally:
            app.state.engines.close()
            app.state.feeds.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
