"""A data version as tables for people: a line for each column, a line for each row."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from everloop.cli.output import NOTHING, cell, output
from everloop.core.ids import short

_WIDEST = 24
"""Characters of a value in a table of columns."""
_SHORT = 8
"""Columns of values no longer than that keep their width."""


def show_version(found: Any) -> None:
    """The answer of `data.show`: what it is, and its columns."""
    if output.as_json:
        output.show(found)
        return
    heads = f", head of {', '.join(sorted(found.heads))}" if found.heads else ""
    parts = f"{found.parts} part{'' if found.parts == 1 else 's'}"
    said = f"[bold]{escape(found.name)} v{found.number}[/]: {found.rows:,} rows in {parts}{heads}"
    output.say(f"{said}\n{short(found.id)} of {escape(found.actor)}, {cell('at', found.at)}")
    roles = _roles(found)
    columns = [_line(column, roles.get(column["name"], "")) for column in found.columns]
    print_table(["column", "type", "nulls", "distinct", "min", "median", "max", "most frequent", "is"], columns)
    if found.masked:
        output.say(f"[dim]masked by their tags: {escape(', '.join(found.masked))}[/]")
    if found.redacted:
        output.say(f"[dim]rows were erased since: {escape(', '.join(found.redacted))}[/]")


def show_sample(found: Any) -> None:
    """The answer of `data.sample`: a line for each row."""
    if output.as_json:
        output.show(found)
    elif not found.rows:
        output.say("[dim]no rows there[/]")
    else:
        print_table(found.columns, [[NOTHING if v is None else _plain(v) for v in row] for row in found.rows])


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table of which each row is one line: what the terminal has no room for is cut, where values are long."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        longest = max((len(row[index]) for row in rows), default=0)
        whole = longest <= (_SHORT if index else _WIDEST)  # a number that lost its end would be another number
        room = max(longest, min(len(column), _SHORT)) if whole else None
        table.add_column(escape(column), no_wrap=True, overflow="ellipsis", min_width=room)
    for row in rows:
        table.add_row(*row)
    output.out.print(table)


def _roles(found: Any) -> Mapping[str, str]:
    """What columns are, beside holding values: keys, times, tags."""
    said: dict[str, list[str]] = {}
    for name in found.key:
        said.setdefault(name, []).append("key")
    for name, role in ((found.event_time, "event time"), (found.known_time, "known time")):
        if name:
            said.setdefault(name, []).append(role)
    for name, tags in found.tags.items():
        said.setdefault(name, []).append(tags)
    return {name: ", ".join(roles) for name, roles in said.items()}


def _line(column: Mapping[str, Any], role: str) -> list[str]:
    edges, top = column.get("quantiles") or [], column.get("top") or []
    median = edges[len(edges) // 2] if edges else None
    share = top[0][1] / max(column.get("rows") or 0, 1) if top else 0.0
    values = (column.get("min"), median, column.get("max"))
    return [
        escape(column["name"]),
        escape(column["type"]),
        f"{column.get('nulls') or 0:,}",
        f"{column['distinct']:,}" if isinstance(column.get("distinct"), int) else NOTHING,
        *(_value(value) for value in values),
        f"{_value(top[0][0])} {share:.0%}" if top else NOTHING,
        escape(role),
    ]


def _value(value: Any) -> str:
    if value is None:
        return NOTHING
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return _plain(text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "\N{HORIZONTAL ELLIPSIS}")


def _plain(text: str) -> str:
    """A text that stays on its line and is no markup."""
    return escape(" ".join(text.splitlines()))
