from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pytest

from everloop.checks import ObjectiveDef, verdicts
from everloop.core.errors import DataError


@dataclass(frozen=True)
class Scorer:
    """A model that answers a column, or what a function of the frame gives."""

    answer: Any
    name: str = "delay"
    id: str = "b3:x"
    label: str = "late"

    def predict(self, frame):
        return frame[self.answer] if isinstance(self.answer, str) else self.answer(frame)


@pytest.fixture
def holdout():
    r = np.random.default_rng(0)
    truth = r.random(3000) < 0.3
    signal = truth + r.normal(0, 1, 3000)
    rows = {"late": truth.astype(int), "good": signal, "same": signal + r.normal(0, 0.05, 3000)}
    rows |= {"bad": r.normal(0, 1, 3000), "better": truth + r.normal(0, 0.6, 3000), "day": np.arange(3000) // 100}
    unlabelled = pl.DataFrame(rows).head(5).with_columns(late=pl.lit(None, pl.Int64))
    return pl.concat([pl.DataFrame(rows), unlabelled])


def test_threshold_tells_value_interval_and_objective(holdout):
    good = verdicts.threshold(Scorer("good"), holdout, ObjectiveDef("o", "roc_auc", at_least=0.7))
    assert good.passed
    assert "on 3,000 rows meets roc_auc ≥ 0.7" in good.summary  # rows without a label count in no metric
    assert good.figures["roc_auc_low"] < good.figures["roc_auc"] < good.figures["roc_auc_high"]
    bad = verdicts.threshold(Scorer("bad"), holdout.lazy(), ObjectiveDef("o", "roc_auc", at_least=0.7), by="day")
    assert not bad
    assert "misses" in bad.summary


def test_beats_wants_more_than_chance(holdout):
    champion = Scorer("good")
    assert verdicts.beats(Scorer("better"), champion, holdout, metric="roc_auc").passed
    same = verdicts.beats(Scorer("same"), champion, holdout, metric="roc_auc")
    assert not same
    assert same.summary.endswith("not better beyond chance")
    assert verdicts.beats(Scorer("bad"), None, holdout, metric="roc_auc").summary == "there is no champion yet"
    assert not verdicts.beats(Scorer("better"), champion, holdout, metric="roc_auc", margin=0.4)


def test_not_worse_accepts_an_equal(holdout):
    champion = Scorer("good")
    assert verdicts.not_worse(Scorer("same"), champion, holdout, metric="roc_auc", margin=0.005)
    worse = verdicts.not_worse(Scorer("bad"), champion, holdout, metric="roc_auc", margin=0.005)
    assert not worse
    assert worse.summary.endswith(", clearly worse by more than 0.005")
    assert worse.figures["improvement"] < 0


def test_answers_of_two_columns_are_probabilities_of_class_one(holdout):
    two = Scorer(lambda f: np.stack([1 - f["good"].to_numpy(), f["good"].to_numpy()], axis=1))
    found = verdicts.not_worse(two, Scorer("good"), holdout, metric="roc_auc")
    assert found.figures["improvement"] == 0


def test_a_champion_with_other_inputs_is_an_error_with_a_hint(holdout):
    with pytest.raises(DataError, match="champion cannot answer") as caught:
        verdicts.beats(Scorer("good"), Scorer("old_feature"), holdout, metric="roc_auc")
    assert "features of both" in caught.value.hint


def test_wrong_columns_and_types_are_errors_with_hints(holdout):
    with pytest.raises(DataError, match="no column 'late'"):
        verdicts.beats(Scorer("good"), Scorer("good"), holdout.drop("late"), metric="roc_auc")
    with pytest.raises(DataError, match="no column 'week'"):
        verdicts.threshold(Scorer("good"), holdout, ObjectiveDef("o", "brier", at_most=1), by="week")
    text = holdout.with_columns(late=pl.lit("yes"))
    with pytest.raises(DataError, match="label is not a number"):
        verdicts.threshold(Scorer("good"), text, ObjectiveDef("o", "brier", at_most=1))


def test_same_units(holdout):
    assert verdicts.same_units(holdout, None)
    assert verdicts.same_units(holdout, holdout).summary == "6 columns keep their units, nulls and spread"
    wrong = holdout.with_columns(good=pl.col("good") * 1000)
    verdict = verdicts.same_units(wrong, holdout)
    assert not verdict
    assert verdict.details["findings"][0]["column"] == "good"


@dataclass(frozen=True)
class Expectation:
    passed: bool
    severity: str
    summary: str


def test_a_contract_blocks_on_what_blocks():
    fine, warned = Expectation(True, "block", "ok"), Expectation(False, "warn", "few rows")
    assert verdicts.contract([fine]).summary == "1 expectations hold"
    assert verdicts.contract([fine, warned])
    broken = verdicts.contract([warned, Expectation(False, "block", "key is not unique")])
    assert not broken
    assert broken.summary == "key is not unique; few rows"
