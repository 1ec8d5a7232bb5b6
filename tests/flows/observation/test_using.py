"""What a process is said to have used is its own."""

import subprocess
import sys

import numpy as np
import pytest

PROGRAM = "from everloop.flows.observation.using import peak_memory; print(peak_memory())"


@pytest.mark.skipif(sys.platform != "linux", reason="where the kernel tells it")
def test_a_child_of_a_great_process_does_not_inherit_its_peak():
    held = np.ones(50_000_000)
    peak = int(subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True).stdout)
    assert 1_000_000 < peak < held.nbytes
