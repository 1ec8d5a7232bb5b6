"""The core stays light."""

import subprocess
import sys


def test_the_core_loads_nothing_heavy():
    program = (
        "import sys, everloop.core.snapshot, everloop.core.policy, everloop.core.grants, everloop.core.ports\n"
        "print([m for m in ('sqlalchemy', 'pydantic', 'polars', 'pyarrow', 'numpy', 'duckdb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
