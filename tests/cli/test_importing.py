"""`everloop import` on a workspace's files and on a server, by people who may and who may not."""

import json
from contextlib import contextmanager

import pytest
from tensorboardX import SummaryWriter
from web_house import listening

from everloop.catalog import facts
from everloop.catalog.governance import access
from everloop.catalog.tracking import artifacts, experiments, querying
from everloop.cli.main import main
from everloop.cli.options import given
from everloop.core.clock import DAY
from everloop.core.settings import Settings
from everloop.server.app import build_app
from everloop.workspace.initial import initialise
from everloop.workspace.opened import Workspace


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs") / "boards"
    with SummaryWriter(str(folder / "ünï run")) as writer:
        for step in range(20):
            writer.add_scalar("loss", 1 / (step + 1), step)
        writer.add_text("a note/ü 100%", "hello", 1)
    return folder


@pytest.fixture
def home(tmp_path):
    settings = Settings(home=tmp_path / "home", project="shop")
    initialise(settings, "ada", "team", tmp_path)
    return settings


@pytest.fixture
def everloop(home, tmp_path, monkeypatch, capsys):
    """The command line in this process; answers its exit code and its JSON."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOGNAME", "ada")
    for name, value in {"HOME": str(home.home), "PROJECT": home.project}.items():
        monkeypatch.setenv(f"EVERLOOP_{name}", value)

    def run(*words):
        given.clear()
        capsys.readouterr()
        code = main([*words, "--json"])
        return code, json.loads(capsys.readouterr().out)

    yield run
    given.clear()


@contextmanager
def serving(settings):
    """The server's application on a real port, and tokens of a contributor and a viewer."""
    with Workspace.open(Settings(home=settings.home, project=settings.project, host="0.0.0.0")) as workspace:
        at = workspace.clock.wall()
        tokens = {}
        with workspace.catalog.write() as tx:
            for name, role in {"carl": "contributor", "vera": "viewer"}.items():
                access.create_user(tx, name, kind="person", roles=(role,), actor="ada", at=at)
                tokens[name] = access.issue_token(tx, name, at=at, expires=at + DAY, kind="person")[1]
        with listening(build_app(workspace), lifespan="off", log_level="error") as address:
            yield address, tokens


def held(settings):
    """(name, actor, points, files by path) of every run of the project."""
    with Workspace.open(settings) as workspace, workspace.catalog.read() as tx:
        found = querying.search(tx, "shop", experiments.names(tx, "shop")).rows
        return [
            (
                run.name,
                run.actor,
                {point.key: point.step for point in run.metrics},
                {one.path: workspace.store.get(one.object) for one in artifacts.tree(tx, "shop", run.id)},
            )
            for run in found
        ]


def check(found, actor):
    ((name, who, metrics, files),) = found
    assert (name, who, metrics) == ("ünï run", actor, {"loss": 19})
    ((path, content),) = files.items()
    assert path == "tensorboard/texts/a note/ü 100_/text_summary.jsonl"
    assert json.loads(content)["text"] == "hello"


def test_an_import_into_files(everloop, home, logs):
    code, told = everloop("import", "tensorboard", str(logs), "--dry-run")
    assert (code, told["imported"]["points"], told["dry_run"]) == (0, 20, True)
    assert not held(home)
    code, told = everloop("import", "tensorboard", str(logs), "--as", "boards")
    assert (code, told["imported"]["runs"], told["unmapped"]) == (0, 1, [])
    check(held(home), "ada")
    assert everloop("import", "tensorboard", str(logs))[1]["imported"] == {"experiments": 1, "runs unchanged": 1}
    code, told = everloop("import", "tensorboard", str(logs / "nowhere"))
    assert (code, told["code"]) == (4, "not_found")


def test_an_import_into_a_server(everloop, home, logs):
    with serving(home) as (url, tokens):
        before = ["--server", url, "--token"]
        code, told = everloop(*before, tokens["vera"], "import", "tensorboard", str(logs))
        assert (code, told["code"]) == (3, "permission_denied")
        assert not held(home)
        code, told = everloop(*before, tokens["carl"], "import", "tensorboard", str(logs))
        assert (code, told["imported"]["points"], told["imported"]["files"]) == (0, 20, 1)
        check(held(home), "carl")
        code, told = everloop(*before, tokens["carl"], "import", "tensorboard", str(logs), "--again")
        assert (told["imported"]["runs completed"], told["imported"]["files there"]) == (1, 1)
        code, told = everloop("--project", "other", *before, tokens["carl"], "import", "tensorboard", str(logs))
        assert (code, told["imported"]["runs"]) == (0, 1)
    check(held(home), "carl")
    with Workspace.open(home) as workspace, workspace.catalog.read() as tx:
        assert facts.unsealed(tx) > 0


def test_people_are_told_in_words(home, logs, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOGNAME", "ada")
    monkeypatch.setenv("EVERLOOP_HOME", str(home.home))
    given.clear()
    log = next((logs / "ünï run").glob("*.tfevents.*"))
    (tmp_path / "cut" / "[run]").mkdir(parents=True)
    (tmp_path / "cut" / "[run]" / log.name).write_bytes(log.read_bytes()[:-5])
    assert main(["import", "tensorboard", str(tmp_path / "cut")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "20 points" in told
    assert "the last record is cut short" in told
    assert "[run]" in told
    given.clear()
