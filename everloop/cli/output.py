"""How commands answer: tables and short sentences for people, JSON for programs (`--json` anywhere on the line)."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import indent
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from everloop.core.clock import iso
from everloop.core.errors import EverloopError
from everloop.core.ids import is_id

EXIT_CODES: Mapping[int, int] = {400: 2, 422: 2, 401: 3, 403: 3, 404: 4, 409: 5, 503: 6, 507: 6}
"""By an error's status: 2 wrong input, 3 not allowed, 4 not found, 5 conflict or refused, 6 unavailable; else 1."""


class Output:
    """Where a command writes; one for a process."""

    def __init__(self) -> None:
        """Write for people until told otherwise."""
        self.as_json = False
        self.out = Console(highlight=False)
        self.err = Console(stderr=True, highlight=False)

    def say(self, text: str) -> None:
        """A sentence for people; silent under `--json`."""
        if not self.as_json:
            self.out.print(text)

    def show(self, value: Any, text: RenderableType | None = None) -> None:
        """The command's answer: `value` as JSON, or `text` (by default `value`'s fields) for people."""
        if self.as_json:
            sys.stdout.write(json.dumps(plain(value), ensure_ascii=False) + "\n")
        elif text is not None:
            self.out.print(text)
        else:
            self.out.print(fields(plain(value)))

    def rows(self, values: Iterable[Any], columns: Sequence[str], *, empty: str, title: str = "") -> None:
        """A list: JSON of everything, or a table of `columns` (dots reach inside)."""
        listed = [plain(value) for value in values]
        if self.as_json:
            sys.stdout.write(json.dumps(listed, ensure_ascii=False) + "\n")
        elif not listed:
            self.out.print(f"[dim]{empty}[/dim]")
        else:
            table = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
            for column in columns:
                table.add_column(column.rpartition(".")[2].replace("_", " "))
            for row in listed:
                table.add_row(*(cell(column, _reach(row, column)) for column in columns))
            self.out.print(table)

    def fail(self, error: EverloopError) -> int:
        """Say what went wrong and what to do; returns the exit code."""
        if self.as_json:
            sys.stdout.write(json.dumps(error.problem(), ensure_ascii=False) + "\n")
        else:
            self.err.print(f"[bold red]error:[/] {_escape(error.message)}", soft_wrap=True)
            if error.hint:
                self.err.print(f"[bold]hint:[/]  {_escape(error.hint)}", soft_wrap=True)
        return EXIT_CODES.get(error.status, 1)

    @contextmanager
    def progress(self, title: str) -> Iterator["Steps"]:
        """Progress of long work on stderr; nothing under `--json` or when stderr is no terminal."""
        quiet = self.as_json or not self.err.is_terminal
        bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            console=self.err,
            transient=True,
            disable=quiet,
        )
        with bar:
            yield Steps(self, bar, title)


class Steps:
    """A running piece of work, step by step."""

    def __init__(self, output: Output, bar: Progress, title: str) -> None:
        """Start with an unknown number of steps."""
        self._output = output
        self._bar = bar
        self._task = bar.add_task(title, total=None)

    def step(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Show what is being done now."""
        self._bar.update(self._task, description=text, completed=done, total=total)

    def note(self, text: str) -> None:
        """A line that stays."""
        self._output.say(text)


output = Output()
NOTHING = "[dim]-[/]"


def plain(value: Any) -> Any:
    """JSON-ready form of answers, dataclasses and values in them."""
    if hasattr(value, "model_dump"):  # an answer; pydantic itself is not loaded to say the version
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def fields(value: Any) -> Table | str:
    """A two-column table of a mapping's fields; lists inside are shown a line each."""
    if not isinstance(value, Mapping):
        return str(value)
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, inner in value.items():
        table.add_row(name.replace("_", " "), cell(name, inner))
    return table


def cell(column: str, value: Any) -> str:
    """One value as people read it: ids shortened, microseconds as times."""
    if isinstance(value, list):
        return "\n".join(cell(column, inner) for inner in value) or NOTHING
    if isinstance(value, Mapping):
        return "\n".join(_inside(str(k), inner) for k, inner in value.items()) or NOTHING
    return _scalar(column.rpartition(".")[2], value)


def _inside(name: str, value: Any) -> str:
    """A field of a field; one that has fields of its own, or several lines, stands indented below its name."""
    text = cell(name, value)
    below = isinstance(value, Mapping | list) and (isinstance(value, Mapping) or "\n" in text) and text != NOTHING
    return f"{_escape(name)}:\n{indent(text, '  ')}" if below else f"{_escape(name)}: {text}"


_MOMENTS = frozenset({"at", "recorded", "created", "began", "ended"})
"""Columns whose microseconds are shown as times."""


def _scalar(name: str, value: Any) -> str:
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and (name in _MOMENTS or name.endswith("_at")) and value > 10**14:
        return iso(value)[:19].replace("T", " ")
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return _escape(text[3:15] if is_id(text) else text)


def _reach(row: Any, path: str) -> Any:
    for part in path.split("."):
        row = row.get(part) if isinstance(row, Mapping) else None
    return row


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
