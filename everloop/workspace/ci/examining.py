"""The checks that a change would need, run here and recorded nowhere: only workers record evidence.

`python -m everloop.workspace.ci.examining` reads one JSON object from standard input (settings, project, requests of
one snapshot) and writes the findings, one JSON line each, to standard output. A process for each snapshot, because
the target's version of a check comes from the target's code, and a process holds one module of a name.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from itertools import groupby

from everloop.catalog.context import Actor, Context
from everloop.changes.standing import Standing
from everloop.checks.request import CheckRequest, Finding
from everloop.core.errors import EverloopError
from everloop.core.settings import Settings, load
from everloop.workspace.ci.findings import Case, Stage
from everloop.workspace.opened import Workspace
from everloop.workspace.work.checking import examine

NAME = "checks of the target's policy"
READER = ("read */*@*#*",)
_TAIL = 4000


def run_checks(ctx: Context, settings: Settings, standing: Standing) -> Stage:
    """One case a check that the change would need, and one a reason that no check could take away."""
    began = time.monotonic()
    labels = {_identity(c.required.check_id, c.required.objective_id, c.required.subjects.candidate): c.required.label
              for c in standing.checks}  # fmt: skip
    cases = [Case("mergeable", "failed", reason) for reason in standing.blocking]
    requests = sorted(standing.requests(), key=lambda request: request.origin_snapshot)
    for _, group in groupby(requests, key=lambda request: request.origin_snapshot):
        asked = list(group)
        for request, finding in zip(asked, _examined(ctx, settings, asked), strict=True):
            label = labels[_identity(request.check_id, request.objective_id, request.candidate)]
            cases.append(_case(label, finding))
    if not cases:
        cases = [Case("none", "skipped", f"{standing.change.target} asks for no check of this change")]
    return Stage(NAME, tuple(cases), time.monotonic() - began)


def _identity(*parts: str) -> tuple[str, ...]:
    return parts


def _case(label: str, finding: Finding) -> Case:
    state = "passed" if finding.state == "passed" else "failed"
    figures = ", ".join(f"{name}={value}" for name, value in finding.figures.items())
    more = str(finding.report.get("traceback", "")) or figures
    return Case(label, state, finding.summary, finding.hint, more)  # type: ignore[arg-type]


def _examined(ctx: Context, settings: Settings, requests: Sequence[CheckRequest]) -> list[Finding]:
    asked = {
        "settings": {field.name: str(getattr(settings, field.name)) for field in fields(Settings)},
        "project": ctx.project,
        "requests": [request.to_json() for request in requests],
    }
    child = subprocess.run(
        [sys.executable, "-P", "-m", "everloop.workspace.ci.examining"],
        input=json.dumps(asked).encode(),
        capture_output=True,
        cwd=ctx.home,  # not the project's folder, whose modules would come first
        env={name: value for name, value in os.environ.items() if not name.startswith("EVERLOOP_")},
        check=False,
    )
    found = [Finding.from_json(json.loads(line)) for line in child.stdout.splitlines()]
    if child.returncode or len(found) != len(requests):
        told = child.stderr.decode("utf-8", "replace")[-_TAIL:]
        lost = Finding("error", f"its process ended with status {child.returncode}", report={"traceback": told})
        found += [lost] * (len(requests) - len(found))
    return found


def main() -> int:
    """Examine what standard input asks for; the exit code is 0 when every request has its line."""
    answer_to = os.dup(1)
    os.dup2(2, 1)  # what a check prints is not an answer
    asked = json.loads(sys.stdin.buffer.read())
    with Workspace.open(load(asked["settings"], {})) as workspace, os.fdopen(answer_to, "w") as pipe:
        for request in map(CheckRequest.from_json, asked["requests"]):
            actor = Actor.of("ci", kind="service", grants=READER)
            ctx = workspace.context(actor, asked["project"], environment=request.source)
            try:
                finding = examine(ctx, request)
            except EverloopError as error:
                finding = Finding("error", error.message, hint=error.hint)
            pipe.write(json.dumps(finding.to_json(), default=str) + "\n")
            pipe.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
