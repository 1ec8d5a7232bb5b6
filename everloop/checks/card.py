"""The model card as a value: titled sections of facts, rendered as Markdown and as an HTML fragment. Pure.

Nothing is invented: what only a person can say and nobody said prints as `NOT PROVIDED by <role>`.
The sections follow Mitchell et al., Model Cards for Model Reporting (2019), and the EU AI Act's Annex IV.
"""

import html as escape
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One fact: a label, its text, and the version or object that proves it."""

    label: str
    text: str
    proof: str = ""
    missing: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """Facts under one title; `head` names the columns of `table`, where there is one."""

    title: str
    rows: tuple[Row, ...] = ()
    head: tuple[str, ...] = ()
    table: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Card:
    """A model's card. `warnings` stand at its top."""

    model: str
    title: str
    sections: tuple[Section, ...]
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def missing(self) -> tuple[str, ...]:
        """Labels of what nobody provided."""
        return tuple(row.label for section in self.sections for row in section.rows if row.missing)

    @property
    def completeness(self) -> str:
        """`14 of 18 fields`."""
        total = sum(len(section.rows) for section in self.sections)
        return f"{total - len(self.missing)} of {total} fields"

    def markdown(self) -> str:
        """The card as Markdown; facts cannot break out of their cell."""
        return "\n".join(self._markdown()) + "\n"

    def html(self) -> str:
        """The card as an HTML fragment; every text is escaped."""
        return "".join(self._html())

    def _markdown(self) -> Iterator[str]:
        yield f"# {_md(self.title)}"
        for warning in self.warnings:
            yield f"\n> **{_md(warning)}**"
        for section in self.sections:
            yield f"\n## {section.title}\n"
            if section.rows:
                yield "| | | proof |"
                yield "|---|---|---|"
                for row in section.rows:
                    text = f"**{_md(row.text)}**" if row.missing else _md(row.text)
                    yield f"| {_md(row.label)} | {text} | {f'`{_short(row.proof)}`' if row.proof else ''} |"
            if section.head:
                yield ("\n" if section.rows else "") + f"| {' | '.join(section.head)} |"
                yield "|" + "---|" * len(section.head)
                for cells in section.table:
                    yield f"| {' | '.join(_md(cell) for cell in cells)} |"
            if not section.rows and not section.table:
                yield "None."
        yield f"\n{self.completeness} provided. Rendered from recorded facts; model `{self.model}`."

    def _html(self) -> Iterator[str]:
        yield f'<article class="model-card" data-model="{_h(self.model)}"><h2>{_h(self.title)}</h2>'
        for warning in self.warnings:
            yield f'<p class="warning" role="note">{_h(warning)}</p>'
        for section in self.sections:
            yield f"<section><h3>{_h(section.title)}</h3>"
            if section.rows:
                yield "<dl>"
                for row in section.rows:
                    proof = f' <code title="{_h(row.proof)}">{_h(_short(row.proof))}</code>' if row.proof else ""
                    kind = ' class="missing"' if row.missing else ""
                    yield f"<dt>{_h(row.label)}</dt><dd{kind}>{_h(row.text)}{proof}</dd>"
                yield "</dl>"
            if section.head:
                heads = "".join(f'<th scope="col">{_h(name)}</th>' for name in section.head)
                yield f"<table><thead><tr>{heads}</tr></thead><tbody>"
                for cells in section.table:
                    yield "<tr>" + "".join(f"<td>{_h(cell)}</td>" for cell in cells) + "</tr>"
                yield "</tbody></table>"
            if not section.rows and not section.table:
                yield "<p>None.</p>"
            yield "</section>"
        yield f"<footer>{_h(self.completeness)} provided. Rendered from recorded facts.</footer></article>"


def provided(label: str, text: str, role: str, proof: str = "") -> Row:
    """A fact that only a person can give, or the note that this role did not."""
    if text.strip():
        return Row(label, text.strip(), proof)
    return Row(label, f"NOT PROVIDED by {role}", missing=True)


def _md(text: str) -> str:
    flat = " ".join(text.split())
    return "".join("\\" + c if c in "\\|`*_<>[]#" else c for c in flat)


def _h(text: str) -> str:
    return escape.escape(text, quote=True)


def _short(identity: str) -> str:
    return identity.removeprefix("b3:")[:12]
