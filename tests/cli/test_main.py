import os
import subprocess
import sys

import pytest
import typer

from everloop.cli.main import COMMANDS, assemble, main


def listed(app: typer.Typer) -> dict[str, str]:
    """Command -> first line of its help, as `--help` shows them."""
    commands = {c.name or c.callback.__name__: c.help or c.callback.__doc__ for c in app.registered_commands}
    groups = {g.name: g.typer_instance.info.help for g in app.registered_groups}
    return {name: " ".join(text.split()) for name, text in (commands | groups).items()}


def test_the_table_of_commands_says_what_the_modules_hold():
    everything = [name for commands in COMMANDS.values() for name in commands]
    assert listed(assemble([])) == listed(assemble(everything))


def test_a_wrong_line_is_the_users_and_no_fault_of_ours(capsys):
    assert main(["up", "--bogus"]) == 2
    assert main(["bogus"]) == 2
    said = capsys.readouterr().err
    assert "No such option" in said
    assert "No such command" in said
    assert "fault" not in said


def test_a_wrong_line_is_json_under_json(capsys):
    assert main(["--json", "version", "--bogus"]) == 2
    assert '"code": "invalid_input"' in capsys.readouterr().out


def test_no_command_shows_the_help(capsys):
    main([])
    shown = capsys.readouterr()
    assert "everloop [OPTIONS] COMMAND" in shown.out + shown.err


def test_the_version_is_printed_for_people_and_for_programs(capsys):
    assert main(["version"]) == 0
    assert main(["--version", "--json"]) == 0
    text, document = capsys.readouterr().out.splitlines()
    assert text.startswith("everloop ")
    assert document == f'{{"version": "{text.split()[1]}"}}'


def test_the_help_stands_under_headings(capsys):
    main(["--help"])
    shown = capsys.readouterr().out
    assert all(heading in shown for heading in COMMANDS)
    assert "─ Commands ─" not in shown


@pytest.mark.parametrize(("line", "offered"), [("everloop rev", "revert"), ("everloop data dif", "diff")])
@pytest.mark.parametrize(("shell", "variable"), [("bash", "COMP_WORDS"), ("zsh", "_TYPER_COMPLETE_ARGS")])
def test_shells_complete_commands_and_those_within_them(line, offered, shell, variable):
    asked = {variable: line, "COMP_CWORD": str(line.count(" ")), "_EVERLOOP_COMPLETE": f"complete_{shell}"}
    words = [sys.executable, "-m", "everloop"]
    found = subprocess.run(words, env=os.environ | asked, capture_output=True, text=True, check=True)
    assert offered in found.stdout
    assert "lineage" not in found.stdout
