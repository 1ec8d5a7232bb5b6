"""Runners of a set of first models: the frames, the columns, a trial, the model, and what is said of it."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import polars as pl

from everloop.core.errors import DataError
from everloop.core.inside.reporting import report
from everloop.models.baseline.columns import planned
from everloop.models.baseline.definitions import METRICS, OUTPUTS, TRIVIAL
from everloop.models.baseline.estimator import Baseline
from everloop.models.metrics import METRICS as MEASURES
from everloop.models.training import Fitted
from everloop.models.validation import folds
from everloop.models.validation.folds import Folds
from everloop.models.validation.splitting import Fold
from everloop.models.validation.steps import judged, summed

TIME = "everloop_time"
"""The column of the frames that rows are split by, as a time; the table's own is a text there, as a caller sends it."""
_LAST = 4
"""One part of so many and one is the holdout."""
_FEW = 50
"""Rows; a model that learnt from fewer says little."""
_DRAWS = 400
_REPEATS = 3


class Described(Protocol):
    """What the runners need of an asset."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """`label`, `time`, `group`, `task`, `seed`, `rows` (at most so many), and `part` of a frame."""
        ...

    @property
    def function(self) -> Any:
        """Of the model: `(algorithm, task, roles, seed) -> estimator`, of the project's own copy."""
        ...


def take(
    asset: Described, inputs: Mapping[str, Any], _params: Mapping[str, Any], _facts: Mapping[str, Any]
) -> pl.DataFrame:
    """The training part or the holdout of a table: the newest fifth, a fifth of the groups, or of each class."""
    said = asset.facts
    rows = _rows(inputs["table"], said)
    last = folds_of(said, _LAST).split(**_columns(rows, said))[-1]
    return rows[last.train if said["part"] == "training" else last.valid]


def look(
    asset: Described, inputs: Mapping[str, Any], _params: Mapping[str, Any], _facts: Mapping[str, Any]
) -> dict[str, Any]:
    """The plan for the columns, `{roles, dropped, warnings}`, from training rows."""
    said = asset.facts
    found = planned(_eager(inputs["frame"]), said["label"], _beside(said))
    return {"roles": dict(found.roles), "dropped": dict(found.dropped), "warnings": list(found.warnings)}


def trial(
    asset: Described, inputs: Mapping[str, Any], params: Mapping[str, Any], _facts: Mapping[str, Any]
) -> dict[str, float]:
    """One algorithm, cross-validated on training rows; see `validation.steps.summed`."""
    said, rows = asset.facts, _eager(inputs["frame"])
    roles = inputs["columns"]["roles"]
    metric = METRICS[said["task"]][0]
    found: list[dict[str, float]] = []
    for number, fold in enumerate(_cut(rows, said), 1):
        model = Baseline(params["algorithm"], said["task"], roles, said["seed"])
        model.fit(rows[fold.train], rows[fold.train][said["label"]])
        valid = rows[fold.valid]
        found.append(judged(model, valid, list(roles), said["label"], OUTPUTS[said["task"]]))
        if metric in found[-1]:
            report(float(np.mean([one[metric] for one in found if metric in one])), step=number)
    return summed(found)


def fit(asset: Described, inputs: Mapping[str, Any], _params: Mapping[str, Any], _facts: Mapping[str, Any]) -> Fitted:
    """The best algorithm, fitted to all training rows."""
    said, rows = asset.facts, _eager(inputs["frame"])
    roles, chosen = inputs["columns"]["roles"], inputs["search"]["params"]["algorithm"]
    model = asset.function(chosen, said["task"], roles, said["seed"]).fit(rows, rows[said["label"]])
    kept = [*roles, said["label"]]
    return Fitted(model, rows.select(kept), _eager(inputs["holdout"]), chosen=list(roles))


def tell(
    asset: Described, inputs: Mapping[str, Any], _params: Mapping[str, Any], _facts: Mapping[str, Any]
) -> dict[str, Any]:
    """How good the model is on the holdout beside the trivial answer, what matters to it, and what to be careful of."""
    said = asset.facts
    training, holdout = _eager(inputs["frame"]), _eager(inputs["holdout"])
    columns, label = inputs["columns"], said["label"]
    model = inputs["model"]
    trivial = Baseline(TRIVIAL, said["task"], columns["roles"]).fit(training, training[label])
    truth = _truth(holdout[label], trivial, said["task"])
    answers = {"model": _answers(model, holdout, columns["roles"]), TRIVIAL: _told(trivial, holdout, said["task"])}
    metric = METRICS[said["task"]][0]
    scores, margin = _scores(said["task"], truth, answers, said["seed"])
    warnings = [*columns["warnings"], *starved(training, said)]
    if margin[0] <= 0:
        warnings.append(f"on the holdout the model is not surely better than the trivial answer ({metric})")
    return {
        "task": said["task"],
        "metric": metric,
        "way": METRICS[said["task"]][1],
        "label": label,
        "time": said["time"] or "",
        "group": said["group"] or "",
        "rows": {"training": training.height, "holdout": holdout.height},
        "scores": scores,
        "better_by": margin,
        "importance": _importance(model, holdout, columns["roles"], truth, said),
        "columns": columns,
        "warnings": warnings,
    }


def starved(rows: pl.DataFrame, said: Mapping[str, Any]) -> list[str]:
    """Warnings of folds that keeping groups on one side left with few of the rows that were known by then."""
    if not (said["time"] and said["group"]):
        return []
    found, when = [], rows[TIME]
    for number, fold in enumerate(_cut(rows, said), 1):
        begins: Any = when[fold.valid].min()
        known = int((when < begins).sum())
        left = len(fold.train)
        if left < _FEW or left < known / 2:
            found.append(
                f"fold {number} learnt from {left} of the {known} rows before it: the others share a {said['group']} "
                "with rows that it is judged by, so scores may be too low and differ by chance"
            )
    return found


def folds_of(said: Mapping[str, Any], n: int) -> Folds:
    """How rows are split: by time where there is one, by groups, or by classes."""
    if said["time"]:
        return folds.time_series(n, by=said["group"] or "")
    return folds.grouped(said["group"], n + 1) if said["group"] else folds.stratified(n + 1, seed=said["seed"])


def _cut(rows: pl.DataFrame, said: Mapping[str, Any]) -> list[Fold]:
    return folds_of(said, _LAST).split(**_columns(rows, said))


def _columns(rows: pl.DataFrame, said: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"label": rows[said["label"]]}
    if said["time"]:
        found["time"] = rows[TIME]
    if said["group"]:
        found["groups"] = rows[said["group"]]
    return found


def _beside(said: Mapping[str, Any]) -> tuple[str, ...]:
    return (TIME, *([said["group"]] if said["group"] else []))


def _rows(table: Any, said: Mapping[str, Any]) -> pl.DataFrame:
    """Rows with a label, in the forms that a caller can send: dates as ISO texts, decimals as floats."""
    rows = _eager(table)
    missing = next((n for n in (said["label"], said["time"], said["group"]) if n and n not in rows.columns), None)
    if missing is not None:
        raise DataError(f"the table has no column {missing!r}", hint="it has " + ", ".join(rows.columns))
    rows = rows.filter(pl.col(said["label"]).is_not_null())
    if said["time"]:
        rows = rows.filter(pl.col(said["time"]).is_not_null()).with_columns(pl.col(said["time"]).alias(TIME))
    if said["group"]:
        rows = rows.filter(pl.col(said["group"]).is_not_null()).with_columns(pl.col(said["group"]).cast(pl.String))
    if rows.height > said["rows"]:  # evenly over the table, so that all of the time is there
        rows = rows[np.unique(np.linspace(0, rows.height - 1, said["rows"]).astype(np.int64))]
    written = [_written(name, kind) for name, kind in rows.schema.items() if name != TIME]
    kept = [one for one in written if one is not None]
    return rows.select([*kept, pl.col(TIME)] if said["time"] else kept)


def _written(name: str, kind: Any) -> pl.Expr | None:
    column = pl.col(name)
    if kind == pl.Date:
        return column.dt.strftime("%Y-%m-%d")
    if isinstance(kind, pl.Datetime):
        return column.dt.strftime("%Y-%m-%dT%H:%M:%S")
    if kind.is_decimal():
        return column.cast(pl.Float64)
    if isinstance(kind, pl.Categorical | pl.Enum):
        return column.cast(pl.String)
    return column if kind.is_numeric() or kind in (pl.Boolean, pl.String) else None


def _eager(table: Any) -> pl.DataFrame:
    found: pl.DataFrame = table.collect() if isinstance(table, pl.LazyFrame) else table
    return found


def _truth(label: pl.Series, trivial: Baseline, task: str) -> Any:
    """The label as numbers: of class 1, of the place among the classes, or as it is."""
    values = np.asarray(label.to_numpy())
    if task == "numbers":
        return values.astype(np.float64)
    place = {value: number for number, value in enumerate(trivial.classes_.tolist())}
    return np.array([place.get(one, -1) for one in values.tolist()], dtype=np.float64)


def _answers(model: Any, rows: pl.DataFrame, roles: Mapping[str, str]) -> Any:
    return np.asarray(model.scores({name: rows[name].to_numpy() for name in roles}))


def _told(trivial: Baseline, rows: pl.DataFrame, task: str) -> Any:
    if task == "numbers":
        return trivial.predict(rows)
    shares = trivial.predict_proba(rows)
    return shares[:, 1] if task == "binary" else shares


def _losses(task: str, truth: Any, answer: Any, weights: Any) -> dict[str, Any]:
    """Every metric of a task for many weightings of the rows at once: name -> an array of a value a weighting."""
    if task == "classes":
        inside = truth >= 0
        picked = answer[np.arange(len(truth)), np.where(inside, truth, 0).astype(np.int64)] * inside
        loss = -np.log(np.clip(picked, np.finfo(np.float64).eps, 1.0))
        right = (np.argmax(answer, axis=1) == truth).astype(np.float64)
        total = weights.sum(axis=1)
        return {"log_loss": weights @ loss / total, "accuracy": weights @ right / total}
    names = ("roc_auc", "pr_auc", "log_loss", "brier", "accuracy") if task == "binary" else ("rmse", "mae", "r2")
    return {name: MEASURES[name].prepare(truth, answer)(weights) for name in names}


def _scores(task: str, truth: Any, answers: Mapping[str, Any], seed: int) -> tuple[dict[str, Any], list[float]]:
    """Each metric with its 95 % interval (bootstrap of rows), and by how much the model beats the trivial answer."""
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(truth), np.full(len(truth), 1 / len(truth)), _DRAWS).astype(np.float64)
    weights = np.concatenate([np.ones((1, len(truth))), draws])
    found = {who: _losses(task, truth, answer, weights) for who, answer in answers.items()}
    scores = {who: {name: _said(values) for name, values in every.items()} for who, every in found.items()}
    metric, way = METRICS[task]
    gained = (found["model"][metric] - found[TRIVIAL][metric]) * (1.0 if way == "max" else -1.0)
    low, high = np.nanquantile(gained[1:], [0.025, 0.975])
    return scores, [float(low), float(gained[0]), float(high)]


def _said(values: Any) -> list[float | None]:
    """Lower end, value, upper end; None where the metric has no value."""
    if not np.isfinite(values[0]):
        return [None, None, None]
    low, high = np.nanquantile(values[1:], [0.025, 0.975])
    return [float(low), float(values[0]), float(high)]


def _importance(model: Any, rows: pl.DataFrame, roles: Mapping[str, str], truth: Any, said: Mapping[str, Any]) -> Any:
    """How much worse the metric gets when a column is shuffled on the holdout (Breiman, 2001): mean and deviation."""
    if rows.height > 5000:
        rows, truth = rows[:: rows.height // 5000], truth[:: rows.height // 5000]
    metric, way = METRICS[said["task"]]
    sign = 1.0 if way == "max" else -1.0
    one = np.ones((1, rows.height))
    arrays = {name: rows[name].to_numpy() for name in roles}
    base = _losses(said["task"], truth, np.asarray(model.scores(arrays)), one)[metric][0]
    rng = np.random.default_rng(said["seed"])
    found = []
    for name in roles:
        lost = []
        for _ in range(_REPEATS):
            shuffled = {**arrays, name: rng.permutation(arrays[name])}
            value = _losses(said["task"], truth, np.asarray(model.scores(shuffled)), one)[metric][0]
            lost.append(sign * (base - value))
        found.append({"column": name, "loss": float(np.mean(lost)), "spread": float(np.std(lost))})
    return sorted(found, key=lambda said: (-said["loss"], said["column"]))
