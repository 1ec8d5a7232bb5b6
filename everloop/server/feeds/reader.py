"""`python -m everloop.server.feeds.reader [PROJECT/NAME@ENVIRONMENT]`: reads live feeds into versions.

Without a name it reads every feed of the workspace that nobody else reads, and ends when there is none. It may be
killed anywhere: whoever reads a feed next goes on from its last commit.
"""

import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass, field
from typing import Any

from everloop.catalog.operating import feeds
from everloop.core.errors import Conflict, EverloopError
from everloop.core.settings import load
from everloop.data.streams.consuming import Consumer
from everloop.features.following import ViewFollower
from everloop.workspace.opened import Workspace
from everloop.workspace.work.feeding import wanted_feeds

Which = tuple[str, str, str]
_LOOK_SECONDS = 1.0
_AGAIN_SECONDS = 2.0
_PAUSE = 0.05


@dataclass
class Feeder:
    """The consumers of one process, in turns."""

    workspace: Workspace
    only: Which | None = None
    consumers: dict[Which, Consumer] = field(default_factory=dict)
    later: dict[Which, float] = field(default_factory=dict)
    failed: set[Which] = field(default_factory=set)
    """Feeds that say why they stood still; what is mended is taken back."""
    stopping: bool = False

    def run(self) -> None:
        """Read until told to stop, or until there is nothing to read."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        looked, wanted = 0.0, [self.only] if self.only else []
        while not self.stopping:
            now = time.monotonic()
            if self.only is None and now - looked > _LOOK_SECONDS:
                looked, wanted = now, list(wanted_feeds(self.workspace))
                if not wanted:
                    break
                for which in set(self.consumers) - set(wanted):
                    self._end(which)
            committed = [self._turn(which, now) for which in wanted]
            if not any(committed):
                time.sleep(_PAUSE)
        for which in list(self.consumers):
            self._end(which)

    def _stop(self, _number: int, _frame: Any) -> None:
        self.stopping = True

    def _turn(self, which: Which, now: float) -> bool:
        """Whether a commit came of it."""
        if self.later.get(which, 0.0) > now:
            return False
        try:
            if which not in self.consumers:
                project, environment, name = which
                ctx = self.workspace.system(project)
                bound = self.workspace.context(ctx.actor, project, environment=environment)
                self.consumers[which] = Consumer(
                    bound, environment, name, follower=ViewFollower(bound, environment, name)
                )
            committed = self.consumers[which].step(0.05) is not None
            self._mended(which)
        except EverloopError as error:
            self._failed(which, error)
        except Exception as error:  # noqa: BLE001 - what breaks over one feed must not end the others
            traceback.print_exception(error)
            fault = EverloopError(
                f"reading it broke: {type(error).__name__}: {error}", hint="the worker's log says where"
            )
            self._failed(which, fault)
        else:
            return committed
        return False

    def _failed(self, which: Which, error: EverloopError) -> None:
        """Begin again from the last commit a little later; what is held comes again."""
        self.later[which] = time.monotonic() + _AGAIN_SECONDS
        self._end(which)
        if isinstance(error, Conflict):
            return  # somebody else reads it
        sys.stderr.write(f"feed {which[2]}@{which[1]}: {error.message}\n")
        sys.stderr.flush()
        try:
            with self.workspace.catalog.write() as tx:
                feeds.complain(tx, feeds.get(tx, *which), error.message)
            self.failed.add(which)
        except EverloopError:
            return

    def _mended(self, which: Which) -> None:
        """It reads again: before its next commit, which may be long in coming, nobody else would say so."""
        if which in self.failed:
            with self.workspace.catalog.write() as tx:
                feeds.complain(tx, feeds.get(tx, *which), "")
            self.failed.discard(which)

    def _end(self, which: Which) -> None:
        consumer = self.consumers.pop(which, None)
        if consumer is None:
            return
        try:
            consumer.close()
        except EverloopError:
            return  # its lease runs out


def main(arguments: list[str]) -> int:
    """Read feeds; the exit code is 2 when the workspace does not open."""
    only = None
    if arguments:
        project, _, rest = arguments[0].partition("/")
        name, _, environment = rest.partition("@")
        only = (project, environment or "production", name)
    try:
        with Workspace.open(load({}, os.environ)) as workspace:
            Feeder(workspace, only).run()
    except EverloopError as error:
        sys.stderr.write(f"feeder: {error.message} ({error.hint})\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
