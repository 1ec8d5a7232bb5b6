"""What runs is the source that the closure was taken of, however soon and small an edit is."""

import os
import subprocess
import sys
from pathlib import Path

LOADS = """
import sys
from pathlib import Path
from everloop.flows.identity.importing import import_from_source
root = Path(sys.argv[1])
if sys.argv[2] == "ours":
    import_from_source(root)
sys.path.insert(0, str(root))
import deep.rules, installed
print(deep.rules.LEAST, deep.rules.__file__)
"""


def loaded(root, whose):
    environ = {k: v for k, v in os.environ.items() if k not in {"PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"}}
    environ["PYTHONPATH"] = str(root / "venv" / "site-packages")
    code = subprocess.run(
        [sys.executable, "-c", LOADS, str(root), whose], env=environ, capture_output=True, text=True, check=True
    )
    least, file = code.stdout.split()
    assert Path(file) == root / "deep" / "rules.py"
    return int(least)


def test_an_edit_of_the_same_length_within_the_second_is_seen(tmp_path):
    rules = tmp_path / "deep" / "rules.py"
    installed = tmp_path / "venv" / "site-packages" / "installed.py"
    for file in (rules, installed):
        file.parent.mkdir(parents=True)
        file.write_text("LEAST = 3\n")
        os.utime(file, (1_800_000_000, 1_800_000_000))
    assert loaded(tmp_path, "theirs") == 3
    rules.write_text("LEAST = 5\n")
    os.utime(rules, (1_800_000_000, 1_800_000_000))
    assert loaded(tmp_path, "theirs") == 3  # which is why
    assert loaded(tmp_path, "ours") == 5
    assert list(installed.parent.glob("__pycache__/*.pyc"))


def test_nothing_is_written_beside_a_project_and_what_is_installed_below_it_is_kept(tmp_path):
    rules = tmp_path / "deep" / "rules.py"
    installed = tmp_path / "venv" / "site-packages" / "installed.py"
    for file in (rules, installed):
        file.parent.mkdir(parents=True)
        file.write_text("LEAST = 3\n")
    assert loaded(tmp_path, "ours") == 3
    assert not (rules.parent / "__pycache__").exists()
    assert list(installed.parent.glob("__pycache__/*.pyc"))
