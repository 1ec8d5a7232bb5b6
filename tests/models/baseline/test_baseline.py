"""First models: columns, encoding, estimators, as values; a whole run is in tests/cli/test_baseline.py."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from everloop.core.errors import DataError
from everloop.models.baseline.columns import planned, task_of
from everloop.models.baseline.definitions import ALGORITHMS, installed
from everloop.models.baseline.encoding import Encoder
from everloop.models.baseline.estimator import Baseline
from everloop.models.baseline.steps import TIME, starved
from everloop.models.canonical import canonical_digest

ROWS = 600


def table(seed=11):
    rng = np.random.default_rng(seed)
    city = rng.choice(["ber", "par", "rom"], ROWS)
    shop = rng.integers(0, 60, ROWS)
    amount = rng.gamma(2.0, 20.0, ROWS)
    effect = np.random.default_rng(5).normal(size=60)
    chance = 1 / (1 + np.exp(-(0.05 * (amount - 40) + 2.0 * (city == "par") + effect[shop])))
    late = (rng.random(ROWS) < chance).astype(int)
    return pl.DataFrame(
        {
            "order": np.arange(ROWS) * 7,
            "when": [f"2025-0{1 + n % 9}-1{n % 10}T0{n % 10}:00:00" for n in range(ROWS)],
            "city": [None if n % 50 == 0 else str(one) for n, one in enumerate(city)],
            "shop": [f"s{one:02d}" for one in shop],
            "amount": [None if n % 20 == 0 else float(one) for n, one in enumerate(amount)],
            "vip": rng.random(ROWS) < 0.3,
            "same": 1,
            "empty": pl.Series([None] * ROWS, dtype=pl.String),
            "refund": late * 2.0 + 1,
            "outcome": ["bad" if one else "good" for one in late],
            "note": [f"text {n} {seed}" for n in range(ROWS)],
            "late": late,
        }
    )


def test_columns_are_told_apart_and_what_must_go_goes():
    found = planned(table(), "late", ())
    assert found.roles == {
        "when": "date", "city": "category", "shop": "many", "amount": "number", "vip": "flag"
    }  # fmt: skip
    assert set(found.dropped) == {"order", "same", "empty", "refund", "outcome", "note"}
    assert "an id" in found.dropped["order"]
    assert "leak" in found.dropped["refund"]
    assert "leak" in found.dropped["outcome"]
    said = " ".join(found.warnings)
    assert "refund answers the question alone" in said
    assert "order was left out" in said


def test_folds_that_groups_leave_with_few_rows_are_warned_of():
    start, said = datetime(2025, 1, 1, tzinfo=UTC), {"time": "at", "group": "who", "label": "late", "seed": 0}
    when = [start + timedelta(hours=n) for n in range(400)]
    stays = pl.DataFrame({TIME: when, "who": [n % 3 for n in range(400)], "late": [n % 2 for n in range(400)]})
    leaves = stays.with_columns(who=pl.Series([n // 10 for n in range(400)]))
    comes = stays.with_columns(who=pl.Series([n % 10 if n % 10 < 6 else n for n in range(400)]))
    assert starved(leaves, said) == []
    assert starved(stays.with_columns(who=pl.Series(range(400))), {**said, "group": ""}) == []
    told = starved(comes, said)
    assert len(told) == 4
    assert "rows before it: the others share a who" in told[0]


@pytest.mark.parametrize(
    ("values", "task"),
    [
        ([0, 1, 1, 0], "binary"),
        (["a", "b", "a", None], "binary"),
        ([True, False], "binary"),
        (["a", "b", "c"] * 20, "classes"),
        ([0, 1, 2] * 50, "classes"),
        (list(range(100)), "numbers"),
        ([0.5, 1.5, 2.25], "numbers"),
    ],
)
def test_the_task_is_read_off_the_label(values, task):
    assert task_of(pl.Series("label", values)) == task


@pytest.mark.parametrize("values", [[1, 1, 1], [f"text {n}" for n in range(100)]])
def test_a_label_that_nothing_can_be_learnt_of_is_refused(values):
    with pytest.raises(DataError):
        task_of(pl.Series("label", values))


def test_a_row_is_not_told_its_own_label():
    rng = np.random.default_rng(3)
    frame = pl.DataFrame({"who": [f"w{n}" for n in rng.integers(0, 200, 3000)]})
    truth = rng.integers(0, 2, 3000).astype(float)
    encoder = Encoder({"who": "many"}, dense=False)
    learnt = encoder.learn(frame, truth)
    assert abs(np.corrcoef(learnt[:, 1], truth)[0, 1]) < 0.06  # the label is noise
    assert np.corrcoef(encoder.encode(frame)[:, 1], truth)[0, 1] > 0.15  # what a rate of all rows would have told


@pytest.mark.parametrize("dense", [True, False])
def test_what_was_not_seen_has_a_place_and_nulls_are_nulls(dense):
    roles = {"city": "category", "shop": "many", "amount": "number", "vip": "flag", "when": "date"}
    encoder = Encoder(roles, dense=dense)
    learnt = encoder.learn(table(), table()["late"].to_numpy().astype(float))
    strange = {
        "city": ["oslo", None],
        "shop": ["s99", None],
        "amount": [None, 3.0],
        "vip": [None, True],
        "when": [None, "no"],
    }
    found = encoder.encode({name: np.array(values, dtype=object) for name, values in strange.items()})
    assert found.shape == (2, learnt.shape[1])
    assert np.isfinite(found).all() == dense


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("task", ["binary", "classes", "numbers"])
def test_every_algorithm_answers_every_task_and_repeats(algorithm, task):
    if algorithm not in installed():
        pytest.skip(f"{algorithm} is not installed")
    frame = table()
    roles = dict(planned(frame, "late", ()).roles)
    label = {
        "binary": frame["outcome"],
        "classes": pl.Series(["low", "mid", "high"])[(frame["amount"].fill_null(0) // 40).clip(0, 2).cast(int)],
        "numbers": frame["amount"].fill_null(40.0) * 2 + 1,
    }[task]
    if task != "binary":
        roles.pop("shop")
    first, second = (Baseline(algorithm, task, roles).fit(frame, label) for _ in range(2))
    assert canonical_digest(first) == canonical_digest(second)
    answers = first.predict(frame)
    assert len(answers) == ROWS
    truth = label.to_numpy()
    if task == "numbers":
        assert np.array_equal(answers, second.predict(frame))
        error = np.sqrt(np.mean((answers - truth) ** 2))
        assert (error < 0.9 * truth.std()) == (algorithm != "trivial")
        return
    chances = first.predict_proba(frame)
    assert np.allclose(chances.sum(axis=1), 1.0)
    assert np.array_equal(chances, second.predict_proba(frame))
    assert list(first.classes_) == sorted(set(truth.tolist()))
    right, usual = (answers == truth).mean(), max((truth == one).mean() for one in first.classes_)
    assert (right > usual + 0.02) == (algorithm != "trivial")
