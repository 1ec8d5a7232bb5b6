"""What a fresh process gives: the same bytes, and with another hash seed and other thread counts the same values."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from everloop.flows.identity.runtime import thread_environment

PROGRAM = Path(__file__).with_name("fitted_models.py")
STORED = {"forest", "xgboost", "lightgbm", "kmeans", "histogram"}
"""Whose bytes hold how many threads they may use (docs/reproduce.md): equal by value alone."""
SUMMED = {"kmeans"}
"""Whose threads add up in another order: other values in the last digits, which is a difference."""


def fitted(threads, seed):
    environ = {**os.environ, **thread_environment(threads), "PYTHONHASHSEED": seed, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, PROGRAM, str(threads)], env=environ, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def first():
    return fitted(1, "0")


def test_a_fresh_process_and_another_hash_seed_give_the_same_bytes(first):
    assert len(first) == 11  # eight of scikit-learn, XGBoost, LightGBM, PyTorch
    assert fitted(1, "12345") == first


def test_other_thread_counts_give_the_same_values(first):
    other = fitted(2, "7")
    assert {name for name, (_, canonical) in other.items() if canonical != first[name][1]} <= SUMMED
    assert {name for name, (content, _) in other.items() if content != first[name][0]} <= STORED
