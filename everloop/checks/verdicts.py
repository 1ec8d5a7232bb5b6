"""Ready verdicts that a check function returns: thresholds, champion against challenger, contracts, units.

Each says in one line what was found, with the interval behind a number rather than two bare numbers.
"""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from everloop.checks.bootstrap import Comparison, Interval, Resampling, compare, interval
from everloop.checks.definitions import Candidate, ObjectiveDef, Verdict
from everloop.checks.units import as_details, find_changes
from everloop.core.errors import DataError, EverloopError
from everloop.models.metrics import Floats, metric_of

Frame = pl.DataFrame | pl.LazyFrame


class Expected(Protocol):
    """The result of one expectation on a dataset, as `data.check_expectations` gives it."""

    @property
    def passed(self) -> bool:
        """Whether all rows meet it."""
        ...

    @property
    def severity(self) -> str:
        """`block` or `warn`."""
        ...


def threshold(
    candidate: Candidate, holdout: Frame, objective: ObjectiveDef, *, by: str = "", n_boot: int = 1000, seed: int = 0
) -> Verdict:
    """Whether the candidate meets its objective on the holdout; the interval says how sure that is.

    The value decides, not the interval's end: the objective is what people agreed on. `by` names a column
    whose groups (days, customers) are resampled whole. Raises `DataError` for unusable rows.
    """
    rows = _labelled(candidate, holdout)
    truth = _numbers(rows.get_column(candidate.label), "label")
    how = Resampling(n_boot, seed, groups=_groups(rows, by))
    found = interval(objective.metric, truth, _scores(candidate, rows), how)
    passed = objective.holds(found.value)
    word = "meets" if passed else "misses"
    return Verdict(
        passed,
        f"{objective.metric} {found} on {found.rows:,} rows {word} {objective}",
        {**_figures(objective.metric, found), "bound": objective.bound},
    )


def beats(
    challenger: Candidate,
    champion: Candidate | None,
    holdout: Frame,
    *,
    metric: str,
    margin: float = 0.0,
    by: str = "",
    n_boot: int = 1000,
    seed: int = 0,
) -> Verdict:
    """Passes when the whole interval of the improvement lies above `margin`: better beyond chance.

    Without a champion there is nothing to beat, and it passes saying so. Raises `DataError` when the two
    cannot answer for the same rows.
    """
    found = _compared(challenger, champion, holdout, metric, by=by, n_boot=n_boot, seed=seed)
    if found is None:
        return Verdict(True, "there is no champion yet")
    passed = found.improvement.low > margin
    better = f"better by more than {margin:g}" if margin else "better beyond chance"
    return _verdict(found, metric, passed, better if passed else f"not {better}")


def not_worse(
    challenger: Candidate,
    champion: Candidate | None,
    holdout: Frame,
    *,
    metric: str,
    margin: float = 0.0,
    by: str = "",
    n_boot: int = 1000,
    seed: int = 0,
) -> Verdict:
    """Fails only when the challenger is *clearly* worse: its interval of improvement lies below `-margin`.

    For retraining on newer data, where being as good as the champion is enough. Raises as `beats` does.
    """
    found = _compared(challenger, champion, holdout, metric, by=by, n_boot=n_boot, seed=seed)
    if found is None:
        return Verdict(True, "there is no champion yet")
    passed = found.improvement.high >= -margin
    worse = f"clearly worse by more than {margin:g}" if margin else "clearly worse"
    return _verdict(found, metric, passed, f"not {worse}" if passed else worse)


def same_units(frame: Frame, champion_frame: Frame | None, *, ignore: tuple[str, ...] = ()) -> Verdict:
    """No feature changed its unit or sign, went constant, lost its values or vanished since the champion."""
    if champion_frame is None:
        return Verdict(True, "there is no champion yet")
    findings = find_changes(frame, champion_frame, ignore=ignore)
    if findings:
        return Verdict(
            False,
            "; ".join(f.text for f in findings[:5]),
            {"columns": len(findings)},
            {"findings": as_details(findings)},
        )
    count = len(champion_frame.collect_schema().names())
    return Verdict(True, f"{count} columns keep their units, nulls and spread")


def contract(results: Iterable[Expected]) -> Verdict:
    """A dataset's blocking expectations hold; broken warnings are told and do not fail it."""
    found = list(results)
    broken = [r for r in found if not r.passed and r.severity == "block"]
    warned = [r for r in found if not r.passed and r.severity != "block"]
    texts = [str(getattr(r, "summary", "") or r) for r in (*broken, *warned)]
    summary = "; ".join(texts[:5]) if texts else f"{len(found)} expectations hold"
    return Verdict(not broken, summary, {"broken": len(broken), "warned": len(warned)}, {"expectations": texts})


def _labelled(candidate: Candidate, frame: Frame) -> pl.DataFrame:
    rows = frame.collect() if isinstance(frame, pl.LazyFrame) else frame
    if candidate.label not in rows.columns:
        raise DataError(
            f"the holdout has no column {candidate.label!r}", hint="columns: " + ", ".join(rows.columns[:12])
        )
    return rows.filter(pl.col(candidate.label).is_not_null())


def _no_column(name: str, rows: pl.DataFrame) -> DataError:
    return DataError(f"the holdout has no column {name!r}", hint="columns: " + ", ".join(rows.columns[:12]))


def _scores(model: Candidate, rows: pl.DataFrame) -> Floats:
    answer = model.predict(rows)
    if isinstance(answer, pl.Series):
        return _numbers(answer, f"the answer of {model.name}")
    scores = np.asarray(answer, dtype=np.float64)
    if scores.ndim == 2 and scores.shape[1] == 2:  # predict_proba of a binary model
        scores = scores[:, 1]
    return scores.reshape(-1) if scores.ndim == 2 and scores.shape[1] == 1 else scores


def _numbers(series: pl.Series, what: str) -> Floats:
    try:
        return np.asarray(series.cast(pl.Float64).to_numpy(), dtype=np.float64)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{what} is not a number: {error}", hint="checks compare numbers; encode classes first"
        ) from error


def _groups(rows: pl.DataFrame, by: str) -> NDArray[np.int64] | None:
    if not by:
        return None
    if by not in rows.columns:
        raise DataError(
            f"the holdout has no column {by!r} to group by", hint="columns: " + ", ".join(rows.columns[:12])
        )
    return np.asarray(rows.get_column(by).rank("dense").fill_null(0).to_numpy(), dtype=np.int64)


def _compared(
    challenger: Candidate, champion: Candidate | None, frame: Frame, metric: str, *, by: str, n_boot: int, seed: int
) -> Comparison | None:
    metric_of(metric)
    if champion is None:
        return None
    rows = _labelled(challenger, frame)
    truth = _numbers(rows.get_column(challenger.label), "label")
    try:
        before = _scores(champion, rows)
    except (EverloopError, pl.exceptions.PolarsError, KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"the champion cannot answer for the challenger's holdout: {error}",
            hint="its inputs changed; compare on a frame that has the features of both",
        ) from error
    after = _scores(challenger, rows)
    return compare(metric, truth, before, after, Resampling(n_boot, seed, groups=_groups(rows, by)))


def _verdict(found: Comparison, metric: str, passed: bool, claim: str) -> Verdict:
    gain = found.improvement
    summary = (
        f"{metric} {found.challenger:.4f} against the champion's {found.champion:.4f} on {gain.rows:,} rows: "
        f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}], {claim}"
    )
    figures = {"champion": found.champion, "challenger": found.challenger, **_figures("improvement", gain)}
    return Verdict(passed, summary, figures)


def _figures(name: str, found: Interval) -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high, "rows": float(found.rows)}
