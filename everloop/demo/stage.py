"""The demo's stage: a folder, a team workspace in it, `everloop up` as a real process, and two people signed in."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx2
import psutil

from everloop.catalog.context import Actor, Context
from everloop.catalog.governance import access
from everloop.changes.access import OWNER_ROLES, link
from everloop.client import Client, connect
from everloop.core.clock import Micros, iso
from everloop.core.errors import EverloopError, Unavailable
from everloop.core.settings import Settings, to_environment
from everloop.flows.executors.parent import die_with_parent
from everloop.workspace.initial import initialise
from everloop.workspace.opened import Workspace

ADA, GRACE = "ada", "grace"
PROJECT = "flights"
_STARTS_WITHIN = 60.0
_MEASURED_SECONDS = 1.0
T = TypeVar("T")


class Stage:
    """Everything that the story happens on. Use it as a context manager: leaving ends the processes."""

    def __init__(self, folder: Path, port: int) -> None:
        """Make the folder's project and workspace; nothing runs yet. Raises `EverloopError` for a folder in use."""
        self.folder = folder
        home = folder / ".everloop"
        if home.exists():
            raise EverloopError(f"{folder} already holds a demo", hint="remove it, or choose another with --folder")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(__file__).parent / "project" / "flights.py", folder)
        self.settings = Settings(home=home, project=PROJECT, module="flights", port=port, workers=2, replay=True)
        initialise(self.settings, ADA, "team", folder)
        self.workspace = Workspace.open(self.settings)
        with self.workspace.catalog.write() as tx:
            at = self.workspace.clock.wall()
            access.create_user(
                tx, GRACE, kind="person", roles=("approver", "contributor", "deployer"), actor=ADA, at=at
            )
        self.url = f"http://127.0.0.1:{port}"
        self.running: subprocess.Popen[bytes] | None = None
        self.peak: dict[str, int] = {}
        self._measured = 0.0

    def __enter__(self) -> Self:
        self.running = subprocess.Popen(
            [sys.executable, "-P", "-m", "everloop.server.up"],
            env={**os.environ, **to_environment(self.settings)},
            stdout=subprocess.DEVNULL,
            cwd=self.folder,
            process_group=0,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, before any thread exists
        )
        wait_for(self._answers, _STARTS_WITHIN, "everloop up answers")
        return self

    def __exit__(self, *_error: object) -> None:
        if self.running is not None:
            with contextlib.suppress(ProcessLookupError):
                self.running.send_signal(signal.SIGTERM)
            self.running.wait(30)
        self.workspace.close()

    @property
    def processes(self) -> dict[str, int]:
        """Process ids by name, as the supervisor wrote them."""
        lines = (self.settings.home / "run" / "pids").read_text().split("\n")
        return {name: int(number) for name, _, number in (line.partition(" ") for line in lines if line)}

    def sign_in(self, user: str) -> Client:
        """Open the one-time link as a browser would, make a token in that session, and return a client by it."""
        with self.workspace.catalog.write() as tx:
            path = link(tx, user, at=self.workspace.clock.wall()).path
        with httpx2.Client(base_url=self.url, headers={"Origin": self.url}, timeout=30) as browser:
            browser.get(path)
            made = browser.post(f"/rest/v1/{PROJECT}/access.create_token", json={"label": "demo"})
            made.raise_for_status()
        return connect(self.url, token=made.json()["secret"], project=PROJECT)

    def context(self, user: str, environment: str = "") -> Context:
        """What `user`'s own machine works with when they build."""
        roles = OWNER_ROLES if user == ADA else ("contributor",)
        return self.workspace.context(Actor.of(user, *roles), PROJECT, environment=environment)

    def set_time(self, at: Micros) -> None:
        """Move the replay's clock forward."""
        self.workspace.clock.advance(at)  # type: ignore[attr-defined]

    def task_done(self, client: Client, task: str, within: float = 300.0) -> Any:
        """Wait for a task and return its result; raises `EverloopError` when it failed."""

        def ended() -> Any:
            if time.monotonic() >= self._measured + _MEASURED_SECONDS:
                self.measure()
            view = client.call("tasks.show", task=task)
            return view if view.state in ("done", "failed", "cancelled") else None

        view = wait_for(ended, within, f"task {task}")
        if view.state != "done":
            raise EverloopError(f"{view.kind} {view.state}: {view.error}", hint=f"see {self.settings.home / 'run'}")
        return view.result

    def measure(self) -> None:
        """Note the largest memory that each process of ours has held, children of children too."""
        if self.running is None:
            return
        self._measured = time.monotonic()
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(self.running.pid)
            for process in (psutil.Process(), root, *root.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    words = [w for w in process.cmdline() if w.startswith("everloop.")] or [process.name()]
                    self.peak[words[0]] = max(self.peak.get(words[0], 0), process.memory_info().rss)

    def _answers(self) -> bool:
        if self.running is not None and self.running.poll() is not None:
            raise Unavailable(
                "everloop up ended at once", hint=f"is port {self.settings.port} free? choose one with --port"
            )
        with contextlib.suppress(httpx2.TransportError):
            return httpx2.get(f"{self.url}/health", timeout=1).status_code == 200
        return False


def wait_for(probe: Callable[[], T], within: float, what: str) -> T:
    """Ask `probe` until it gives something; raises `Unavailable` after `within` seconds."""
    until, pause = time.monotonic() + within, 0.1
    while time.monotonic() < until:
        found = probe()
        if found:
            return found
        time.sleep(pause)
        pause = min(0.5, pause * 1.2)  # what takes long need not be known to the tenth of a second
    raise Unavailable(
        f"waited {within:.0f} s for: {what}",
        hint="is the machine very busy? the logs are in the workspace's run folder",
    )


def day(at: Micros) -> str:
    """A date for people."""
    return iso(at)[:10]
