"""Every `everloop <command>` that a hint, a page or a document names is one that the command line has."""

import re
from pathlib import Path

import pytest

from everloop.cli.main import COMMANDS, assemble

ROOT = Path(__file__).parent.parent.parent
NAMED = re.compile(r"(?<![\w./-])everloop ((?:--json |--[a-z]+ \S+ )*)([a-z][a-z-]*)(?: ([a-z][a-z-]*))?")
PROSE = {"as", "import", "scikit-learn"}
"""What may follow the name in an import, or in a line for pip."""


def commands():
    app = assemble(name for known in COMMANDS.values() for name in known)
    found = {c.name or c.callback.__name__: set() for c in app.registered_commands}
    for group in app.registered_groups:
        inside = group.typer_instance.registered_commands
        found[group.name] = {c.name or c.callback.__name__.replace("_", "-") for c in inside}
    return found


def places():
    files = [*ROOT.glob("everloop/**/*.py"), *ROOT.glob("everloop/**/*.html"), *ROOT.glob("docs/**/*.md")]
    return [*files, ROOT / "README.md"]


def wrong(text, known):
    """Names of commands in `text` that are none; what a group is followed by counts, too."""
    found = []
    for match in NAMED.finditer(text):
        first, second = match.group(2), match.group(3) or ""
        if first not in PROSE and (first not in known or (known[first] and second not in known[first])):
            found.append(match.group(0))
    return found


def test_commands_that_are_named_exist():
    known = commands()
    bad = {str(path.relative_to(ROOT)): found for path in places() if (found := wrong(path.read_text(), known))}
    assert not bad


@pytest.mark.parametrize("text", ["`everloop frobnicate`", "hint: everloop changes", "everloop data frobnicate x"])
def test_the_search_finds_what_is_wrong(text):
    assert wrong(text, commands())


@pytest.mark.parametrize("text", ["everloop run delay", "everloop --project x env log", "import everloop as el"])
def test_the_search_leaves_what_is_right(text):
    assert not wrong(text, commands())
