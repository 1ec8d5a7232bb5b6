"""Ten million rows are captured, edited, compared and read in bounded memory, in a process of their own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ASKED = """
import json, sys
from pathlib import Path
import data_tables
print(json.dumps(data_tables.memory(Path(sys.argv[1]), rows=10_000_000)))
"""


@pytest.mark.slow
def test_ten_million_rows_stay_under_two_gigabytes(tmp_path):
    command = [sys.executable, "-c", ASKED, tmp_path]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=BENCHMARKS)
    assert json.loads(done.stdout.splitlines()[-1])["met"]
