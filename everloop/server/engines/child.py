"""`python -m everloop.server.engines.child`: answers the server's questions that need an engine, then ends.

The first line of standard input holds the settings, each further line a question; each answer is a line of JSON on
standard output. It ends when nobody asked for `IDLE` seconds, and when the server is gone: its input then ends.
"""

import json
import os
import select
import sys
import traceback
from pathlib import Path
from typing import Any, BinaryIO

from everloop.catalog.context import Actor
from everloop.catalog.operation import find_operation
from everloop.core.errors import EverloopError, unforeseen
from everloop.core.grants import Grant
from everloop.core.settings import Settings
from everloop.workspace.opened import Workspace
from everloop.workspace.operations import load_operations

IDLE = 60.0


def main() -> int:
    """Answer until nobody asks."""
    questions = os.fdopen(os.dup(0), "rb", buffering=0)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints goes to the log
    lines = _lines(questions)
    first = next(lines, None)
    if first is None:
        return 0
    values = json.loads(first)
    load_operations()
    with Workspace.open(Settings(**{**values, "home": Path(values["home"])})) as workspace:
        for line in lines:
            answers.write(json.dumps(_answered(workspace, json.loads(line))).encode() + b"\n")
            answers.flush()
    return 0


def _lines(stream: BinaryIO) -> Any:
    """Whole lines, as they come; ends with the stream, or when none came for `IDLE` seconds."""
    held = b""
    while select.select([stream], [], [], IDLE)[0]:
        piece = os.read(stream.fileno(), 1 << 16)
        if not piece:
            return
        held += piece
        while b"\n" in held:
            line, _, held = held.partition(b"\n")
            yield line


def _answered(workspace: Workspace, question: dict[str, Any]) -> dict[str, Any]:
    told = question["actor"]
    actor = Actor(
        told["name"],
        told["kind"],
        frozenset(told["roles"]),
        tuple(Grant.parse(grant) for grant in told["grants"]),
        told["anonymous"],
    )
    try:
        operation = find_operation(question["operation"])
        ctx = workspace.context(actor, question["project"], at=question["at"])
        command = operation.command.model_validate(question["command"])
        return {"answer": operation.function(ctx, command).model_dump(mode="json")}
    except EverloopError as error:
        return {"error": error.problem()}
    except Exception:  # noqa: BLE001 - the edge of the process: the server must hear of it
        traceback.print_exc()
        return {"error": unforeseen(f"engine-{os.getpid()}").problem()}


if __name__ == "__main__":
    sys.exit(main())
