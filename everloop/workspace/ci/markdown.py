"""A CI run as Markdown, for a comment beside the code. What comes from outside cannot break out of its cell."""

from collections.abc import Iterable, Iterator, Sequence

from everloop.workspace.ci.differences import Differences
from everloop.workspace.ci.findings import Case, Report, Stage

_MARKS = {"passed": "ok", "warned": "warning", "failed": "**FAILED**", "skipped": "skipped"}
_SHOWN = 20
"""Rows of a table at most; the rest is counted."""


def markdown(report: Report) -> str:
    """The report: verdict, stages, what failed with its rows, what differs."""
    return "\n".join(_report(report)) + "\n"


def _report(report: Report) -> Iterator[str]:
    yield f"# everloop ci: {'green' if report.green else 'red'}"
    opened = f" Change #{report.change} is open." if report.change else ""
    yield f"\n{_flat(report.project)} against {report.target}, built in `{report.sandbox}`.{opened}\n"
    rows = [(stage.name, _verdict(stage), f"{stage.seconds:.1f} s") for stage in report.stages]
    yield from _table(("stage", "verdict", "took"), rows)
    for name, case in report.failures:
        yield from _failure(name, case)
    warned = [(s.name, c) for s in report.stages for c in s.cases if c.state == "warned"]
    if warned:
        yield "\n## Warnings\n"
        yield from _table(("stage", "case", "found"), [(name, case.name, case.summary) for name, case in warned])
    checks = next((s for s in report.stages[4:] if any(c.state != "skipped" for c in s.cases)), None)
    if checks is not None:
        yield "\n## Checks\n"
        yield from _table(
            ("check", "verdict", "what it found"), [(c.name, _MARKS[c.state], c.summary) for c in checks.cases]
        )
    if report.differences is not None:
        yield from _differences(report.differences, report.target)


def _verdict(stage: Stage) -> str:
    counts = {state: sum(case.state == state for case in stage.cases) for state in ("passed", "warned", "failed")}
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return said or f"skipped: {stage.cases[0].summary}"


def _failure(stage: str, case: Case) -> Iterator[str]:
    yield f"\n## {_flat(stage)}: {_flat(case.name)}\n"
    yield _flat(case.summary)
    if case.hint:
        yield f"\n*{_flat(case.hint)}*"
    if case.details:
        fence = "`" * (3 + 3 * ("```" in case.details))
        yield f"\n{fence}text\n{case.details.strip()}\n{fence}"


def _differences(found: Differences, target: str) -> Iterator[str]:
    yield f"\n## What differs from {target}\n"
    if not (found.definitions or found.data):
        yield "Nothing."
    if found.definitions:
        yield from _table(
            (target, "becomes", "key"), [(d.old or "(none)", d.new or "(removed)", d.key) for d in found.definitions]
        )
    if found.metrics:
        yield "\n### Metrics\n"
        yield from _table(("model", "metric", target, "now"), [(m.model, m.name, m.old, m.new) for m in found.metrics])
    if found.code:
        yield "\n### Code\n"
        yield from _table(
            ("file", "state", "lines"), [(f.path, f.state, f"+{f.added} -{f.removed}") for f in found.code]
        )
    if found.data:
        yield "\n### Data\n"
        yield from _table(
            ("dataset", "rows", "columns"), [(d.name, d.summary, "; ".join(d.columns)) for d in found.data]
        )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    listed = list(rows)
    yield f"| {' | '.join(_cell(name) for name in head)} |"
    yield "|" + "---|" * len(head)
    for row in listed[:_SHOWN]:
        yield f"| {' | '.join(_cell(cell) for cell in row)} |"
    if len(listed) > _SHOWN:
        yield f"\n… and {len(listed) - _SHOWN} more."


def _cell(text: str) -> str:
    return _flat(text).replace("|", "\\|") if text not in _MARKS.values() else text


def _flat(text: str) -> str:
    return " ".join(text.split()).replace("<", "&lt;")
