"""The documentation holds: links lead somewhere, settings and roles are all there, and Getting started really runs."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import httpx2
import pytest

from everloop.catalog.operation import operations
from everloop.core.grants import ROLES
from everloop.core.settings import Settings
from everloop.project import Project
from everloop.workspace.operations import load_operations

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("docs/**/*.md"), ROOT / "README.md"])
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(\w+)(?: ([^\n]*))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    prose = BLOCK.sub("", page.read_text())
    heads = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in LINK.findall(BLOCK.sub("", page.read_text())):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_is_on_the_map():
    for page, index in (("docs", "index.md"), ("docs/decisions", "README.md")):
        folder = ROOT / page
        text = (folder / index).read_text()
        assert [p.name for p in folder.glob("*.md") if p.name != index and f"({p.name}" not in text] == []


def test_every_setting_is_documented_with_its_default():
    text = (ROOT / "docs" / "operating.md").read_text()
    rows = dict(re.findall(r"^\| `(EVERLOOP_\w+)` \|([^|]*)\|", text, re.MULTILINE))
    for field in fields(Settings):
        shown = rows[f"EVERLOOP_{field.name.upper()}"]
        if field.default != "":
            assert f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`" in shown
    assert set(rows) - {f"EVERLOOP_{field.name.upper()}" for field in fields(Settings)} == {"EVERLOOP_DEBUG"}


def test_every_role_is_documented():
    text = (ROOT / "docs" / "security.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(ROLES)


def test_every_name_for_authors_is_in_the_api():
    text = (ROOT / "docs" / "api.md").read_text()
    names = re.findall(r" as (\w+)", re.sub(r"#.*", "", (ROOT / "everloop" / "__init__.pyi").read_text()))
    assert len(names) > 80
    assert [name for name in names if f"`el.{name}`" not in text] == []
    methods = [name for name in vars(Project) if not name.startswith("_") and callable(getattr(Project, name))]
    internal = {"assets", "pinned_service", "profiles", "run_with", "service_version", "view_version", "with_steps"}
    assert [name for name in methods if name not in internal and f"`.{name}`" not in text] == []


def test_every_operation_of_flows_and_endpoints_is_in_the_api():
    text = (ROOT / "docs" / "api.md").read_text()
    load_operations()
    nouns = ("endpoints", "feedback", "features", "flows", "labels", "predictions", "tasks")
    found = [name for name in operations() if name.partition(".")[0] in nouns]
    assert len(found) > 25
    assert [name for name in found if f"`{name}`" not in text] == []


class Reader:
    """Somebody who follows Getting started word for word, in an empty folder."""

    def __init__(self, folder):
        self.folder, self.server = folder, None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        scripts = str(Path(sys.executable).parent)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("EVERLOOP_")}
        user = subprocess.run(["whoami"], capture_output=True, text=True, check=True).stdout.strip()
        self.environ = {
            **kept,
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            "EVERLOOP_PORT": self.port,
            "LOGNAME": user,
            "COLUMNS": "200",
        }

    def run(self, script, check=True):
        script = script.replace(":5050", f":{self.port}")
        done = subprocess.run(
            ["bash", "-ec", script], cwd=self.folder, env=self.environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 or not check, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, script):
        command = ["bash", "-c", f"exec {script}"]
        with (self.folder / "up.log").open("w") as log:
            self.server = subprocess.Popen(
                command, cwd=self.folder, env=self.environ, stdout=log, stderr=log, process_group=0
            )
        self.until(self.answers)

    def answers(self):
        assert self.server.poll() is None, (self.folder / "up.log").read_text()
        try:
            return httpx2.get(f"http://127.0.0.1:{self.port}/health").status_code == 200
        except httpx2.TransportError:
            return False

    def until(self, condition, seconds=90):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, condition
            time.sleep(0.5)

    def ready(self, what):
        if what == "checks":
            checks = json.loads(self.run("everloop --json changes show 1"))["checks"]
            return [check["state"] for check in checks] == ["passed"]
        return '"phase": "live"' in self.run("everloop --json endpoints list")

    def stop(self):
        if self.server is not None:
            self.server.send_signal(signal.SIGTERM)
            assert self.server.wait(30) == 0


@pytest.mark.slow
def test_getting_started_runs(tmp_path):
    reader = Reader(tmp_path)
    said = {}
    try:
        for kind, info, body in BLOCK.findall((ROOT / "docs" / "getting-started.md").read_text()):
            word, _, value = (info or "").partition("=")
            if word == "file":
                (tmp_path / value).write_text(body)
            elif word == "terminal":
                reader.start(body.strip())
            elif kind == "sh":
                if word == "wait":
                    reader.until(lambda value=value: reader.ready(value))
                said[body] = reader.run(body)
    finally:
        reader.stop()
    answer = json.loads(next(text for script, text in said.items() if "curl" in script))
    assert answer["prediction_id"]
    assert 0.5 < answer["predictions"][0] <= 1
