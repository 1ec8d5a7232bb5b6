"""A real Redis server for tests: started, killed and started again on one port."""

import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager

import redis


class Server:
    """One server; `more` are words of its command line."""

    def __init__(self, folder, *more):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        program = shutil.which("redis-server")
        assert program, "redis-server is a package of Debian"
        self._words = [program, "--port", str(self.port), "--dir", str(folder), "--save", "", *more]
        self.start()

    def start(self):
        self._process = subprocess.Popen(self._words, stdout=subprocess.DEVNULL)
        with redis.Redis(port=self.port) as client:
            for _ in range(400):
                try:
                    if client.ping():
                        return
                except (redis.ConnectionError, redis.exceptions.BusyLoadingError):
                    time.sleep(0.02)
        raise AssertionError("redis-server does not start")

    def hang(self):
        """It takes connections and answers nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self):
        self._process.send_signal(signal.SIGCONT)

    def kill(self):
        self._process.kill()
        self._process.wait(10)


@contextmanager
def serving(folder, *more):
    """A server until the end of the block."""
    server = Server(folder, *more)
    try:
        yield server
    finally:
        server.kill()
