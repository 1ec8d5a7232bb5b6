"""An application on a real port, in a thread of this process."""

import threading
from contextlib import contextmanager

import uvicorn


@contextmanager
def listening(app, **settings):
    """Serve an application on a free port; its address. `settings` are uvicorn's.

    Connections are kept: a client that was idle would meet one that is just being closed.
    """
    given = {"host": "127.0.0.1", "port": 0, "log_level": "warning", "timeout_keep_alive": 3600, "ws": "none"}
    server = uvicorn.Server(uvicorn.Config(app, **given | settings))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive()
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
