"""Every command on a workspace that lived through the story: one JSON document, the right exit code, help for all."""

import json
import re
import sys

import pytest
import typer

from everloop.catalog import refs, versions
from everloop.cli.main import COMMANDS, assemble, main
from everloop.cli.options import given

EVERYTHING = [name for commands in COMMANDS.values() for name in commands]


def lines():
    """Every command as words, groups followed into their commands."""
    root = typer.main.get_command(assemble(EVERYTHING))
    for name, command in root.commands.items():
        inner = getattr(command, "commands", None)
        yield from ([name, verb] for verb in inner) if inner else [[name]]


@pytest.fixture
def everloop(story, monkeypatch, capsys):
    """The command line in this process, in the story's folder, as ada."""
    monkeypatch.chdir(story.shop.folder)
    for name, value in {"LOGNAME": "ada", "EVERLOOP_PROJECT": "shop", "EVERLOOP_MODULE": "shop"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("EVERLOOP_REPLAY", "true")

    def run(*words):
        given.clear()
        capsys.readouterr()
        code = main(list(words))
        told = capsys.readouterr()
        return code, told.out, told.err

    yield run
    given.clear()


@pytest.mark.parametrize("words", list(lines()), ids=" ".join)
def test_every_command_explains_itself(words, capsys):
    assert main([*words, "--help"]) == 0
    assert words[-1] in capsys.readouterr().out


ASKED = [
    ["version"],
    ["operations"],
    ["tasks"],
    ["audit", "--limit", "5"],
    ["audit", "--kind", "audit.*"],
    ["features", "list"],
    ["features", "show", "place_outcomes"],
    ["env", "list"],
    ["runs", "list", "comeback"],
    ["env", "show", "production"],
    ["env", "log"],
    ["cost", "model", "--days", "3000"],
    ["cost", "--of", "model/comeback"],
    ["compute", "list"],
    ["budget", "set", "flow/*", "--core-hours", "1000000"],
    ["budget", "list"],
    ["env", "live-at", "2024-01-23T00:00:00Z"],
    ["changes", "list"],
    ["changes", "show", "1"],
    ["changes", "show", "#1"],
    ["diff", "sandbox/auto/1"],
    ["data", "list"],
    ["data", "list", "orders"],
    ["data", "show", "orders"],
    ["data", "diff", "data/orders@1", "data/orders@2"],
    ["data", "sample", "orders"],
    ["data", "expect", "orders"],
    ["lineage", "model/comeback@1"],
    ["why", "model/comeback@1", "model/comeback@2"],
    ["why", "production", "sandbox/auto/1", "--markdown"],
    ["models", "list"],
    ["models", "show", "comeback@1"],
    ["models", "aliases", "comeback"],
    ["endpoints", "list"],
    ["endpoints", "show", "comeback"],
    ["endpoints", "traffic", "comeback"],
    ["endpoints", "logs", "comeback"],
    ["endpoints", "guardrails", "comeback"],
    ["alarms", "list", "--all"],
    ["access", "whoami"],
    ["access", "list-users"],
    ["call", "environments.show", "environment=production"],
]


@pytest.mark.parametrize("words", ASKED, ids=" ".join)
def test_an_answer_is_one_json_document_and_a_table_for_people(everloop, words):
    code, out, err = everloop(*words, "--json")
    assert (code, err) == (0, ""), (out, err)
    assert out.count("\n") == 1
    assert json.loads(out) not in (None, [], {})
    code, out, err = everloop(*words)
    assert (code, err) == (0, "")
    assert out.strip()
    assert not out.startswith("{")


def test_a_column_and_a_row_are_a_line_each(everloop):
    whole = json.loads(everloop("data", "show", "orders", "--json")[1])
    out = everloop("data", "show", "orders")[1]
    assert len(out.splitlines()) == len(whole["columns"]) + 3
    for column in whole["columns"]:
        (line,) = [line for line in out.splitlines()[3:] if line.split()[0] == column["name"]]
        assert column["type"][:3] in line
    sample = json.loads(everloop("data", "sample", "orders", "--rows", "4", "--json")[1])
    out = everloop("data", "sample", "orders", "--rows", "4")[1]
    assert len(sample["rows"]) == 4
    assert out.splitlines()[0].split() == sample["columns"]
    assert len(out.splitlines()) == 5
    later = json.loads(everloop("data", "sample", "orders", "--rows", "2", "--offset", "2", "--json")[1])
    assert later["rows"] == sample["rows"][2:]


def test_aliases_now_and_then(everloop, story):
    with story.shop.workspace.catalog.write() as tx:
        at = story.shop.workspace.clock.now()
        (newest,) = [row for row in versions.newest(tx, "shop", "model") if row.name == "comeback"]
        refs.move(tx, "shop", refs.alias_ref("model", "comeback", "best"), old=None, new=newest.id, actor="ada", at=at)
    found = json.loads(everloop("models", "aliases", "comeback", "--json")[1])
    assert found["then"]["best"] >= 1
    assert next(move["alias"] for move in found["moves"] if move["actor"] == "ada") == "best"
    out = everloop("models", "aliases", "comeback")[1]
    assert "best" in out.partition("moves")[0]
    assert "best" in out.partition("moves")[2]
    earlier = everloop("models", "aliases", "comeback", "--at", "1999-01-01T00:00:00Z")[1]
    assert "no alias pointed anywhere at 1999-01-01" in earlier.replace("\n", " ")
    assert everloop("models", "aliases", "comeback", "--at", "yesterday")[0] == 2


def test_the_same_answers_from_the_server(everloop, story):
    far = ["--server", story.shop.url, "--token", story.shop.token("ada")]
    for words in (["env", "list"], ["changes", "list"], ["models", "list"], ["access", "list-users"]):
        near = everloop(*words, "--json")
        assert everloop(*far, *words, "--json") == near


def test_exit_codes_say_what_kind_of_no_it_was(everloop, story):
    vera = ["--server", story.shop.url, "--token", story.shop.token("vera")]
    assert everloop(*vera, "approve", "1")[0] == 3
    assert everloop(*vera, "env", "show", "nowhere")[0] == 4
    assert everloop("merge", "1")[0] == 5  # merged already
    assert everloop("approve", "one")[0] == 2
    code, out, _ = everloop(*vera, "approve", "1", "--json")
    assert (code, json.loads(out)["code"]) == (3, "permission_denied")


def test_what_a_run_printed_and_used(everloop):
    run = json.loads(everloop("runs", "list", "comeback", "--limit", "1", "--json")[1])[0]
    code, told, _ = everloop("runs", "logs", run["id"], "--follow")
    assert code == 0
    assert re.fullmatch(r"\d+ orders\n", told)
    lines = json.loads(everloop("runs", "logs", run["id"], "--json")[1])["lines"]
    assert [line["text"] for line in lines if line["stream"] == "out"] == told.splitlines()
    metrics = json.loads(everloop("runs", "show", run["id"], "--json")[1])["run"]["metrics"]
    assert metrics["system/process_memory_megabytes"] > 0
    assert everloop("runs", "logs", "0" * 32)[0] == 4


def test_an_endpoint_that_was_never_replayed_has_no_past_parity(everloop):
    assert everloop("features", "parity", "comeback", "--past", "--json") == (0, "[]\n", "")


def test_any_program_is_a_run(everloop):
    script = "import os, sys; print(os.environ['MLFLOW_TRACKING_TOKEN']); print('said', file=sys.stderr); sys.exit(3)"
    code, out, err = everloop("track", "--experiment", "mine", sys.executable, "-c", script)
    assert (code, out) == (3, "***\n")
    assert err.startswith("said\nrun ")
    (run,) = json.loads(everloop("runs", "list", "mine", "--json")[1])
    assert run["status"] == "FAILED"
    metrics = json.loads(everloop("runs", "show", run["id"], "--json")[1])["run"]["metrics"]
    assert metrics["system/disk_usage_percentage"] > 0
    lines = json.loads(everloop("runs", "logs", run["id"], "--json")[1])["lines"]
    assert sorted((line["stream"], line["text"]) for line in lines) == [("err", "said"), ("out", "***")]
    assert everloop("track", "no-such-program")[0] == 2


def test_verify_holds_and_trace_tells(everloop, story):
    code, out, _ = everloop("verify", "--json")
    assert (code, json.loads(out)["findings"]) == (0, [])
    code, out, _ = everloop("trace", story.answers[0][0].json()["prediction_id"], "--json")
    assert (code, json.loads(out)["approvers"]) == (0, ["grace"])


def test_the_executable_does_the_same(story):
    done = story.shop.cli("env", "list", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert {"production", "staging"} <= {env["name"] for env in json.loads(done.stdout)}
    assert story.shop.cli("bogus").returncode == 2
