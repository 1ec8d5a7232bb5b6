"""The supervisor of `everloop up`: owns the one listening socket; starts, heals and stops the other processes.

It loads the standard library and our errors only, so it stays small and has little that could fail.
The socket outlives every process that accepts on it: while a gateway is restarted, connections wait
in the kernel's queue instead of being refused.
"""

import contextlib
import errno
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from everloop.core.errors import Unavailable
from everloop.flows.executors.parent import die_with_parent

_BACKLOG = 1024
_TICK = 0.05
_HEALTHY_AFTER = 10.0
_MOST_DELAY = 10.0
_GRACE = 10.0


def bind(host: str, port: int) -> socket.socket:
    """Bind the listening socket; raises `Unavailable` with a hint when the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # accepted sockets inherit it; without it asyncio answers keep-alive requests 40 ms late on a pre-bound socket
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        taken = error.errno == errno.EADDRINUSE
        hint = (
            "choose another with --port, or stop what listens there" if taken else "is this an address of this machine?"
        )
        raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror}", hint=hint) from error
    listener.listen(_BACKLOG)
    listener.set_inheritable(True)
    return listener


@dataclass
class Child:
    """One process that must be running: how to start it, and how it has been doing."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    log: Path
    fds: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    not_before: float = field(default=0.0)

    def start(self, now: float) -> None:
        """Start it; what it prints goes to its log file."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                self.argv,
                env=dict(self.env),
                pass_fds=self.fds,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # own group: a Ctrl-C in the terminal reaches the supervisor alone, which stops the rest in order
                process_group=0,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, before any thread exists
            )
        self.started = now

    def tend(self, now: float) -> str | None:
        """Restart it when it died and its back-off is over; returns what happened, for the log."""
        if self.process is None:
            if now >= self.not_before:
                self.start(now)
            return None
        status = self.process.poll()
        if status is None:
            return None
        self.failures = 0 if now - self.started > _HEALTHY_AFTER else self.failures + 1
        delay = 0.0 if self.failures == 0 else min(_MOST_DELAY, 0.1 * 2**self.failures)
        self.process, self.not_before = None, now + delay
        return f"{self.name} ended with status {status}; starting it again in {delay:.1f} s (log: {self.log})"

    def stop(self, grace: float) -> None:
        """Ask it to end, then insist."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            self.process.wait(grace)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None


def supervise(
    children: Sequence[Child], say: Callable[[str], None], on_ready: Callable[[], bool], on_change: Callable[[], None]
) -> int:
    """Keep `children` running until SIGINT or SIGTERM, then stop them in order; returns the exit status.

    `on_ready` is asked at every tick until it first returns True (when `/health` answers), `on_change` is called
    whenever other processes run than before.
    """
    stopping: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: stopping.append(received))
    ready, running = False, list[int]()
    for child in children:
        child.start(time.monotonic())
    while not stopping:
        for child in children:
            note = child.tend(time.monotonic())
            if note:
                say(note)
        alive = [child.process.pid for child in children if child.process]
        if alive != running:
            running = alive
            on_change()
        ready = ready or on_ready()
        time.sleep(_TICK)
    for child in children:
        child.stop(_GRACE)
    return 0


def pids_file(path: Path, children: Sequence[Child]) -> None:
    """Write `name pid` lines, for people and for tests that kill processes."""
    lines = [f"supervisor {os.getpid()}"] + [f"{c.name} {c.process.pid}" for c in children if c.process]
    fresh = path.with_suffix(".new")
    fresh.write_text("\n".join(lines) + "\n", encoding="utf-8")
    fresh.replace(path)
