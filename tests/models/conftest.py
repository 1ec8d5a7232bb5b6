import numpy as np
import polars as pl
import pytest

COLUMNS = ["distance", "hour", "flow__count_1h", "flow__mean_delay"]


def table(rows, seed):
    random = np.random.default_rng(seed)
    distance = random.uniform(100, 3000, rows)
    hour = random.uniform(0, 24, rows)
    count = random.integers(0, 60, rows)
    mean = np.where(random.random(rows) < 0.1, np.nan, random.normal(5, 12, rows))
    chance = 1 / (1 + np.exp(-(0.05 * np.nan_to_num(mean) + 0.08 * (hour - 14) + 0.01 * count)))
    late = (random.random(rows) < chance).astype(np.int8)
    values = [distance, hour, count, mean]
    return pl.DataFrame({**dict(zip(COLUMNS, values, strict=True)), "late": late}).with_columns(
        pl.col("flow__mean_delay").fill_nan(None)
    )


@pytest.fixture(scope="session")
def training():
    return table(600, 1)


@pytest.fixture(scope="session")
def holdout():
    return table(300, 2)


@pytest.fixture
def facts():
    ids = {"frame": "b3:" + "1" * 64, "holdout": "b3:" + "2" * 64}
    return {"columns": COLUMNS, "label": "late", "service": "delay_inputs", "trainer": "delay", "inputs": ids}


@pytest.fixture
def frames(training, holdout):
    return training, holdout
