"""Operations that load an engine, in a process beside the server, which therefore stays small.

The process is started by the first such question and ends by itself when nobody asked for a while (`child`).
It opens the same workspace and answers for the actor whose permission was checked here.
"""

import json
import os
import select
import subprocess
import sys
import time
import weakref
from contextlib import suppress
from dataclasses import fields
from threading import Lock
from typing import Any

from pydantic import BaseModel

from everloop.catalog.context import Context
from everloop.catalog.operation import Operation
from everloop.core.errors import Unavailable, from_problem
from everloop.core.settings import Settings

DEADLINE = 120.0
"""Seconds after which a question is given up, and the process with it."""


class Engines:
    """The port `engines` of contexts: `engines(ctx, operation, command)` answers as the operation would."""

    def __init__(self, settings: Settings) -> None:
        """Nothing runs until somebody asks."""
        self._settings = settings
        self._running: list[subprocess.Popen[bytes]] = []
        self._lock = Lock()
        weakref.finalize(self, _end, self._running)

    def __call__(self, ctx: Context, operation: Operation, command: BaseModel) -> BaseModel:
        """Ask; raises what the operation raises, and `Unavailable` when there is no answer in time."""
        question = json.dumps(
            {
                "operation": operation.name,
                "command": command.model_dump(mode="json"),
                "project": ctx.project,
                "at": ctx.now() if self._settings.replay else None,
                "actor": {
                    "name": ctx.actor.name,
                    "kind": ctx.actor.kind,
                    "roles": sorted(ctx.actor.roles),
                    "grants": [str(grant) for grant in ctx.actor.grants],
                    "anonymous": ctx.actor.anonymous,
                },
            }
        ).encode()
        if not self._lock.acquire(timeout=DEADLINE):
            raise Unavailable("others ask for data just now", hint="try again in a minute")
        try:
            answer = self._asked(question)
        finally:
            self._lock.release()
        if "error" in answer:
            raise from_problem(answer["error"], int(answer["error"].get("status", 500)))
        return operation.answer.model_validate(answer["answer"])

    @property
    def pid(self) -> int | None:
        """The process that answers, while there is one."""
        return next((child.pid for child in self._running if child.poll() is None), None)

    def close(self) -> None:
        """End the process; a later question starts another."""
        _end(self._running)

    def _asked(self, question: bytes) -> dict[str, Any]:
        for fresh in (False, True):  # one that ended between two questions is started again
            if fresh or self.pid is None:
                self.close()
                self._running.append(self._start())
            (child,) = self._running
            assert child.stdin is not None
            try:
                child.stdin.write(question + b"\n")
                child.stdin.flush()
            except BrokenPipeError:
                continue
            said = self._line(child)
            if said:
                found: dict[str, Any] = json.loads(said)
                return found
        self.close()
        raise Unavailable("the process that reads data ended", hint="the server's log may say why")

    def _line(self, child: subprocess.Popen[bytes]) -> bytes:
        """A line of the answer; empty when the process ended. Raises `Unavailable` when it takes too long."""
        assert child.stdout is not None
        until, said = time.monotonic() + DEADLINE, b""
        while not said.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0 or not select.select([child.stdout], [], [], left)[0]:
                self.close()
                raise Unavailable(f"no answer within {DEADLINE:.0f} s", hint="ask for less, or from the command line")
            piece = os.read(child.stdout.fileno(), 1 << 20)
            if not piece:
                return b""
            said += piece
        return said

    def _start(self) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "everloop.server.engines.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )
        assert child.stdin is not None
        values = {field.name: getattr(self._settings, field.name) for field in fields(Settings)}
        child.stdin.write(json.dumps({**values, "home": str(self._settings.home)}).encode() + b"\n")
        return child


def _end(running: list[subprocess.Popen[bytes]]) -> None:
    while running:
        child = running.pop()
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
