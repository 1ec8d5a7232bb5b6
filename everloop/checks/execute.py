"""Running a check function. User code: call this in a child process, or where the caller accepts that.

Pure but for what the function does: nothing is recorded here (`record` does that).
"""

import json
import math
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from everloop.checks.definitions import Verdict
from everloop.checks.request import CheckRequest, Finding
from everloop.core.errors import EverloopError

Resolve = Callable[[str, CheckRequest], Any]
"""Gives the value of a parameter: called with its name, never for `objective`; see `subjects` for what is due."""

_TAIL = 4000
"""Characters of a traceback that a report keeps."""


def execute(request: CheckRequest, function: Callable[..., Any], resolve: Resolve) -> Finding:
    """Call the check with what its parameters name, and turn whatever happens into a `Finding`.

    A check that raises, or returns something else than a verdict, has state `error`: message and hint are kept,
    the traceback goes to the report only.
    """
    try:
        values = {
            name: request.objective_def() if name == "objective" else resolve(name, request)
            for name in request.parameters
        }
        verdict = function(**values)
    except EverloopError as error:
        return Finding("error", error.message, hint=error.hint, report={"error": error.problem()})
    except Exception as error:  # noqa: BLE001 - the edge to user code: whatever it raises is the check's finding
        return _raised(request, error)
    return _finding(request, verdict)


def _raised(request: CheckRequest, error: Exception) -> Finding:
    text = "".join(traceback.format_exception(error))[-_TAIL:]
    message = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
    return Finding(
        "error",
        f"{request.name} raised {type(error).__name__}: {message[:500]}",
        report={"traceback": text},
        hint="its report keeps the traceback; call the function on its own with the same versions",
    )


def _finding(request: CheckRequest, verdict: Any) -> Finding:
    if isinstance(verdict, bool):
        verdict = Verdict(verdict, "it holds" if verdict else "it does not hold")
    if not isinstance(verdict, Verdict):
        return Finding(
            "error",
            f"{request.name} returned {type(verdict).__name__}, not a verdict",
            hint="return el.Verdict(passed, summary) or one of el.verdicts",
        )
    figures = {name: _text(value) for name, value in verdict.figures.items()}
    report = {"summary": verdict.summary, "figures": figures, "details": _plain(verdict.details)}
    return Finding("passed" if verdict.passed else "failed", verdict.summary, figures, report)


def _text(value: Any) -> str:
    """A number as text, the shortest that reads back the same; identity holds no floats."""
    number = float(value)
    return str(int(number)) if math.isfinite(number) and number == int(number) and abs(number) < 1e15 else repr(number)


def _plain(details: Mapping[str, Any]) -> Any:
    """What JSON can say of the details; the rest as text."""
    return json.loads(json.dumps(details, default=str))
