"""The house rules that no linter knows; walks the tree (DESIGN, "Taste")."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "everloop"
MODULES = sorted(SOURCE.rglob("*.py"))
PYTHON = MODULES + sorted((ROOT / "tests").rglob("*.py")) + sorted((ROOT / "benchmarks").rglob("*.py"))
# typer finds one module a noun easier than fewer, larger ones
MANY_MODULES = {"cli"}
FORBIDDEN_NAMES = re.compile(r"(Manager$|^Base[A-Z]|^Abstract)")


def _relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_files_stop_at_500_lines():
    long = {_relative(p): n for p in PYTHON if (n := len(p.read_text().splitlines())) > 500}
    assert not long


def test_functions_stop_at_60_lines():
    long = {
        f"{_relative(path)}:{node.name}": lines
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > 60
    }
    assert not long


def test_packages_stop_at_12_modules():
    packages = {p.parent for p in MODULES} - {SOURCE}
    crowded = {
        _relative(folder): count
        for folder in packages
        if folder.name not in MANY_MODULES
        and (count := sum(1 for m in folder.glob("*.py") if not m.name.startswith("__"))) > 12
    }
    assert not crowded


def test_names_say_what_a_thing_is():
    vague = [
        _relative(p) for p in MODULES if p.stem.strip("_") in {"utils", "util", "helpers", "helper", "common", "misc"}
    ]
    classes = [
        f"{_relative(path)}:{node.name}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and FORBIDDEN_NAMES.search(node.name)
    ]
    assert not vague + classes


def test_imports_stand_at_the_top():
    hidden = []
    for path in MODULES:
        if "demo/project" in str(path):  # a user's project: heavy libraries load where they are used
            continue
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) or function.name == "__getattr__":
                continue
            hidden += [
                f"{_relative(path)}:{node.lineno}"
                for node in ast.walk(function)
                if isinstance(node, ast.Import | ast.ImportFrom)
            ]
    assert not hidden


def test_broad_excepts_only_at_process_edges():
    # each is the last line of a process or of a loop that must outlive one bad item
    edges = tomllib.loads((ROOT / "tests" / "house.toml").read_text())["broad_except"]
    found = {
        _relative(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}))
    }
    assert found == set(edges), "keep tests/house.toml and the code in step, with the reason of each"


def test_no_private_places_in_the_repository():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    # spelled in pieces so that this file does not match itself
    forbidden = re.compile(
        "|".join(["/" + "work/", "/root" + "/", "pypi" + r"\.org", "pythonhosted" + r"\.org", "registry" + r"\.npmjs"])
    )
    bad = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in {".png", ".svg", ".parquet"} or not path.is_file():
            continue
        bad += [
            f"{name}:{i}"
            for i, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
            if forbidden.search(line)
        ]
    assert not bad
