"""One turn of the loop as people do it: build, propose, wait for the checks, approve, merge, see it roll out."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from everloop.client import Client
from everloop.core.errors import EverloopError
from everloop.demo.stage import ADA, PROJECT, Stage, wait_for
from everloop.demo.telling import Teller
from everloop.flows.engine import Origin
from everloop.project import Project
from everloop.project.loading import load_project
from everloop.workspace.build import Built, Request, build, refresh
from everloop.workspace.work.executors import ByKind

_CHECKED = frozenset({"passed", "failed", "error"})


class Turn:
    """The people at work on the stage."""

    def __init__(self, stage: Stage, teller: Teller) -> None:
        """Sign both people in and load the project."""
        self.stage, self.teller = stage, teller
        self.ada, self.grace = stage.sign_in(ADA), stage.sign_in("grace")
        self.project: Project = load_project(stage.folder, "flights")
        self.origin = Origin(stage.folder, "flights", PROJECT)

    def build(
        self,
        sandbox: str,
        *,
        project: Project | None = None,
        origin: Origin | None = None,
        message: str = "",
        params: Mapping[str, Any] | None = None,
    ) -> Built:
        """Ada builds in her sandbox; what is unchanged is reused."""
        chosen, place = project or self.project, origin or self.origin
        executor = ByKind(chosen.assets(), self.stage.workspace.store)
        request = Request(sandbox, params={"delay": params or {}}, message=message, tracking_uri=self.stage.url)
        try:
            return build(self.stage.context(ADA, sandbox), chosen, place, request, executor=executor)
        finally:
            executor.close()

    def refresh(self) -> dict[str, int]:
        """Bring production's data up to date by its standing grant; returns rows by dataset."""
        ctx = self.stage.context(ADA, "production")
        executor = ByKind(self.project.assets(), self.stage.workspace.store)
        made = refresh(ctx, self.project, self.origin, "production", executor=executor)
        self.stage.measure()
        return {name: self._rows(identity) for name, (identity, _) in made.items()}

    def propose(self, source: str, title: str) -> Any:
        """Ada opens a change to production; returns it once every check has a result."""
        change = self.ada.call("changes.propose", source=source, target="production", title=title)
        return self.checked(change.number)

    def checked(self, number: int) -> Any:
        """The change once its checks have been run by the worker."""

        def probe() -> Any:
            self.stage.measure()
            change = self.grace.call("changes.show", number=number)
            return change if all(c.state in _CHECKED for c in change.checks) else None

        return wait_for(probe, 300, f"the checks of change #{number}")

    def tell(self, change: Any) -> None:
        """Say what the checks found."""
        for check in change.checks:
            mark = "[green]passed[/]" if check.state == "passed" else f"[red]{check.state}[/]"
            self.teller.say(f"check {check.name}: {mark}, {check.summary}")

    def land(self, change: Any) -> None:
        """Grace, who did not make it, approves and merges."""
        refused = try_call(self.ada, "changes.approve", number=change.number)
        if refused is not None:
            self.teller.say(f"ada may not approve her own change: [yellow]{refused.message}[/]")
        self.grace.call("changes.approve", number=change.number, comment="Checked the evidence.")
        merged = self.grace.call("changes.merge", number=change.number)
        self.teller.say(f"grace approved and merged change #{merged.number}")

    def endpoint(self) -> Any:
        """The endpoint, wanted and observed."""
        return self.ada.call("endpoints.show", name="delay")

    def settled(self, *phases: str) -> Any:
        """The endpoint once it is in one of these phases."""

        def probe() -> Any:
            self.stage.measure()
            found = try_show(self.ada)
            return found if found is not None and found.phase in phases else None

        return wait_for(probe, 60, f"the endpoint is {' or '.join(phases)}")

    def run_task(self, kind: str, payload: dict[str, Any]) -> Any:
        """Have the worker do something and wait for it."""
        task = self.ada.call("tasks.enqueue", kind=kind, payload=payload)
        return self.stage.task_done(self.ada, task.id)

    @contextmanager
    def variant(self, name: str, *edits: tuple[str, str]) -> Iterator[tuple[Project, Origin]]:
        """The project with its file edited, in a folder beside it, as in another checkout.

        It is the same module: inside the block the edited one is imported. Raises when an edit finds nothing to
        replace.
        """
        text = (self.stage.folder / "flights.py").read_text(encoding="utf-8")
        for old, new in edits:
            if old not in text:
                raise EverloopError(f"the demo's edit finds nothing to replace: {old!r}")
            text = text.replace(old, new)
        folder: Path = self.stage.folder / "variants" / name
        folder.mkdir(parents=True)
        (folder / "flights.py").write_text(text, encoding="utf-8")
        original = sys.modules.pop("flights")
        sys.path.insert(0, str(folder))
        try:
            yield load_project(folder, "flights"), Origin(folder, "flights", PROJECT)
        finally:
            sys.path.remove(str(folder))
            sys.modules["flights"] = original

    def _rows(self, identity: str) -> int:
        return int(self.ada.call("data.show", version=identity).rows)


def try_call(client: Client, operation: str, **fields: Any) -> EverloopError | None:
    """Call and return the refusal; None when it was allowed."""
    try:
        client.call(operation, **fields)
    except EverloopError as error:
        return error
    return None


def try_show(client: Client) -> Any:
    """The endpoint, or None before there is one."""
    try:
        return client.call("endpoints.show", name="delay")
    except EverloopError:
        return None
