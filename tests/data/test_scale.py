"""Ten million rows are captured, edited, compared and read in bounded memory, in a process of their own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "data_tables.py"


@pytest.mark.slow
def test_ten_million_rows_stay_under_two_gigabytes(tmp_path):
    command = [sys.executable, BENCHMARK, "10000000"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    assert json.loads(done.stdout.splitlines()[-1])["peak"] < 2 * 2**30
