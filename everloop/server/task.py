"""`python -m everloop.server.task --warm FD SECONDS`: tasks, each in a process of its own that is forked from this one.

A task's process does the work and writes one line of JSON to standard output: {"result": …} or {"error": …}. The
worker that asked holds the lease and records the outcome, so that a task whose worker died is never finished twice.
"""

import json
import os
import sys
import traceback

from everloop.catalog import tasks
from everloop.catalog.context import Actor, Context
from everloop.core.errors import EverloopError
from everloop.core.grants import ROLES
from everloop.core.settings import load
from everloop.server import warm
from everloop.workspace.opened import OWNER, Workspace
from everloop.workspace.operations import load_operations
from everloop.workspace.work.tasks import perform

GRANTS = (
    *ROLES["worker"],
    "read */*@*#*",
    "run.write */*",
    "sandbox.write */*@sandbox/auto/*",
    "change.propose */*@*",
    "check.run */*@*",
    "data.capture */*@*",
    "compute.use compute/*@*",
)
"""What the system does by itself, as a service account. It records evidence, as nobody else can; it can propose, and
neither approve nor merge."""


def task_context(workspace: Workspace, project: str) -> Context:
    """The context that tasks work in."""
    return workspace.context(Actor.of(OWNER, kind="service", grants=GRANTS), project)


def main(arguments: list[str]) -> int:
    """Do the task; the exit code is 0 whenever an answer was written."""
    identity, project = arguments
    answer_to = os.dup(1)
    os.dup2(2, 1)  # what user code prints goes to the log
    with Workspace.open(load({}, os.environ)) as workspace:
        ctx = task_context(workspace, project)
        with ctx.read() as tx:
            task = tasks.get(tx, project, identity)
        settings = workspace.settings
        uri = f"http://{'[' + settings.host + ']' if ':' in settings.host else settings.host}:{settings.port}"
        try:
            answer = {"result": perform(ctx, task.kind, task.payload, uri)}
        except EverloopError as error:
            answer = {"error": error.problem()}
        except Exception as error:  # noqa: BLE001 - the edge of the process: the queue must hear of it
            traceback.print_exc()
            fault = EverloopError(f"{type(error).__name__}: {error}", hint="the worker's log shows where")
            answer = {"error": fault.problem()}
    with os.fdopen(answer_to, "w") as pipe:
        pipe.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    load_operations()
    sys.exit(warm.serve(main, sys.argv[1:]))
