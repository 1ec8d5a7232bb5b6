"""How the story is told: chapters, what is done and why, progress, a table at the end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.panel import Panel
from rich.table import Table


class Teller:
    """Prints the story; keeps the figures for the table at its end."""

    def __init__(self) -> None:
        """Start the clock."""
        self._console = Console(highlight=False)
        self._began = time.monotonic()
        self.figures: list[tuple[str, str]] = []

    @property
    def seconds(self) -> float:
        """How long the story has been told."""
        return time.monotonic() - self._began

    def chapter(self, title: str, why: str) -> None:
        """Begin a chapter: what comes, and why."""
        self._console.print(f"\n[bold cyan]{title}[/]  [dim]{self.seconds:5.0f} s[/]\n[dim]{why}[/]")

    def say(self, text: str) -> None:
        """Something that happened."""
        self._console.print(f"  {text}")

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Show that something takes a while; says how long it took when it was more than a blink."""
        began = time.monotonic()
        if self._console.is_terminal:
            with self._console.status(f"{what} …"):
                yield
        else:
            yield
        took = time.monotonic() - began
        if took > 1.0:
            self._console.print(f"  [dim]{what}: {took:.1f} s[/]")

    def note(self, figure: str, value: str) -> None:
        """Keep a figure for the end."""
        self.figures.append((figure, value))

    def end(self, text: str) -> None:
        """The table of what was measured, and how to go on."""
        table = Table(title="What was measured", title_justify="left", show_header=False, box=None)
        for figure, value in self.figures:
            table.add_row(figure, value)
        self._console.print()
        self._console.print(table)
        self._console.print(Panel(text, expand=False))
