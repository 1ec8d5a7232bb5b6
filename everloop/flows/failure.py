"""What a failed step tells its author: the exception, their own frames, and a hint; never the platform's frames."""

import linecache
import traceback
from pathlib import Path

from everloop.core.errors import EverloopError, StepFailed

_PLATFORM = str(Path(__file__).resolve().parents[1])
_FRAMES = 8
_HINTS: tuple[tuple[str, str], ...] = (
    ("MemoryError", "the step ran into its memory limit: give it more (compute=), or read less at once"),
    ("ModuleNotFoundError", "install the package in the environment that runs the steps, or fix the import"),
    ("ImportError", "fix the import; a project module is imported from the project's folder"),
    ("ColumnNotFoundError", "compare the column names with the upstream asset's schema"),
    ("KeyError", "compare the name with what the upstream asset holds"),
    ("FileNotFoundError", "steps run in the project's folder; declare files as sources so that they are versioned"),
    ("PermissionError", "a step may write to its temporary folder only; return what it makes"),
    ("TypeError", "a parameter without a default is an upstream asset, one with a default is tunable"),
)


def step_failed(step: str, error: BaseException, output: str = "") -> StepFailed:
    """Turn what user code raised into a `StepFailed`; `details` hold step, exception, traceback and output's tail."""
    kind = type(error).__name__
    said = str(error).strip() or "no message"
    hint = getattr(error, "hint", "") if isinstance(error, EverloopError) else ""
    return StepFailed(
        f"{step} failed: {kind}: {said.splitlines()[0][:500]}",
        hint=hint or dict(_HINTS).get(kind, "the last lines of the traceback say where"),
        step=step,
        exception=kind,
        kinds=[one.__name__ for one in type(error).__mro__ if one not in (BaseException, object)],
        traceback=own_traceback(error),
        output=output[-4000:],
    )


def own_traceback(error: BaseException) -> str:
    """The traceback without the platform's and the import machinery's frames, the last frames only."""
    lines: list[str] = []
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((_PLATFORM, "<frozen"))
    ]
    if len(frames) > _FRAMES:
        lines.append(f"  ... {len(frames) - _FRAMES} frames more")
    for frame in frames[-_FRAMES:]:
        lines.append(f"  {frame.filename}:{frame.lineno} in {frame.name}")
        text = linecache.getline(frame.filename, frame.lineno or 0).strip()
        if text:
            lines.append(f"    {text}")
    if isinstance(error, SyntaxError):
        lines.append(f"  {error.filename}:{error.lineno}")
    lines.append("".join(traceback.format_exception_only(error)).strip()[:2000])
    return "\n".join(lines)
