"""Ranking columns by what they do for a prediction, with a yardstick made of shuffled labels.

Permutation importance: Breiman, Random Forests (2001), on rows later than those of the fit. Null importance: Altmann
et al., Permutation importance: a corrected feature importance measure (2010). Mutual information: Kraskov et al.
(2004), as scikit-learn computes it. Everything is seeded: the same rows and rule give the same ranking.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from everloop.core.errors import DataError, InvalidInput
from everloop.models.selection.definitions import Select

Array = npt.NDArray[Any]
_FIT_SHARE = 0.7
"""The earlier part of a stretch of rows, on which a model is fitted; the later one judges."""
_FEWEST = 40
"""Rows that a window of time needs."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """What was found about one column."""

    column: str
    importance: float
    """Loss of score (ROC AUC or R²) when it is shuffled, averaged over repeats."""
    spread: float
    """Standard deviation over the repeats."""
    null: float
    """What the most important column of the fits to shuffled labels reached by chance: the bar to pass."""
    mutual_information: float
    """In nats."""
    alone: float
    """Score of the column by itself: ROC AUC (0.5 to 1), or the squared rank correlation."""
    windows: tuple[float, ...]
    """Importance in each window of time."""
    stability: float
    """Share of the windows in which it passes the bar."""
    chosen: bool = False
    why: str = ""

    def record(self) -> dict[str, Any]:
        """JSON-ready, figures rounded to six digits."""
        said = asdict(self)
        rounded = {name: round(v, 6) for name, v in said.items() if isinstance(v, float)}
        return said | rounded | {"windows": [round(v, 6) for v in self.windows]}


def ranked(columns: Mapping[str, Array], label: Array, rule: Select) -> list[Ranked]:
    """All columns, most important first, each with whether it is chosen and why. Rows are in the order of time.

    Columns are numbers (NaN for missing), booleans or texts. Raises `DataError` for too few rows or one class.
    """
    names, matrix, texts = _matrix(columns)
    task = _Task.of(label)
    if len(label) < 2 * _FEWEST:
        raise DataError(f"{len(label)} rows are too few to select on", hint=f"at least {2 * _FEWEST}")
    with _sklearn("threadpoolctl").threadpool_limits(1):  # many small fits: threads would only wait for each other
        alone = np.array([task.alone(column, label) for column in matrix.T])
        # a leak would leave nothing for the others to explain: they are ranked without it
        kept = np.array([name in rule.keep for name in names]) | (alone < float(rule.leak)) | (float(rule.leak) >= 1)
        looked = matrix[:, kept]
        rng = np.random.default_rng(rule.seed)
        shuffles = rng.integers(0, 2**31, rule.repeats)
        whole = importances(task, looked, label, shuffles)
        bar = _bar(task, looked, label, rng, rule.nulls)
        windows = _over_time(task, looked, label, shuffles[:1], rule.windows)
        shared = _mutual_information(task, matrix, label, texts, rule.seed)
    place = np.cumsum(kept) - 1
    found = [
        Ranked(
            name,
            float(whole[:, place[j]].mean()) if kept[j] else 0.0,
            float(whole[:, place[j]].std()) if kept[j] else 0.0,
            bar,
            float(shared[j]),
            float(alone[j]),
            tuple(float(w[place[j]]) for w in windows) if kept[j] else (),
            float(np.mean([w[place[j]] > bar for w in windows])) if kept[j] and windows else float(kept[j]),
        )
        for j, name in enumerate(names)
    ]
    return _judged(sorted(found, key=lambda r: (-r.importance, r.column)), rule)


@dataclass(frozen=True, slots=True)
class _Task:
    """Classification into two or more classes, or regression."""

    kind: str

    @classmethod
    def of(cls, label: Array) -> "_Task":
        values = np.unique(label)
        if len(values) < 2:
            raise DataError("the label has one value only", hint="nothing can be ranked by it")
        whole = label.dtype.kind in "biuOUS" or np.array_equal(values, np.round(values))
        return cls("classes" if whole and len(values) <= 20 else "numbers")

    def fitted(self, matrix: Array, label: Array) -> Any:
        ensemble = _sklearn("sklearn.ensemble")
        kind = "HistGradientBoostingClassifier" if self.kind == "classes" else "HistGradientBoostingRegressor"
        return getattr(ensemble, kind)(max_iter=30, max_leaf_nodes=15, random_state=0, early_stopping=False).fit(
            matrix, label
        )

    def score(self, model: Any, matrix: Array, label: Array) -> float:
        metrics = _sklearn("sklearn.metrics")
        if self.kind == "numbers":
            return float(metrics.r2_score(label, model.predict(matrix)))
        known = np.isin(label, model.classes_)
        if len(np.unique(label[known])) < 2:
            return 0.5
        found = model.predict_proba(matrix[known])
        if len(model.classes_) == 2:
            return float(metrics.roc_auc_score(label[known] == model.classes_[1], found[:, 1]))
        scores = [
            metrics.roc_auc_score(label[known] == c, found[:, j])
            for j, c in enumerate(model.classes_)
            if 0 < np.count_nonzero(label[known] == c) < np.count_nonzero(known)
        ]
        return float(np.mean(scores)) if scores else 0.5

    def alone(self, column: Array, label: Array) -> float:
        """How well the column's own order, or its missing values, tell the label."""
        filled = np.where(np.isnan(column), np.nanmin(column) - 1 if not np.isnan(column).all() else 0.0, column)
        if self.kind == "classes":
            metrics = _sklearn("sklearn.metrics")
            scores = [metrics.roc_auc_score(label == value, filled) for value in np.unique(label)]
            return float(max(max(s, 1 - s) for s in scores))
        ranks = [np.unique(v, return_inverse=True)[1].astype(float) for v in (filled, label)]
        if ranks[0].std() == 0:
            return 0.0
        return float(np.corrcoef(ranks[0], ranks[1])[0, 1] ** 2)


def alone(column: Array, label: Array) -> float:
    """How well a column of numbers alone tells the label: ROC AUC (0.5 to 1), or the squared rank correlation."""
    return _Task.of(label).alone(column, label)


def importances(task: _Task, matrix: Array, label: Array, shuffles: Sequence[Any] | Array) -> Array:
    """Permutation importance of every column, one row a shuffle: fitted on earlier rows, judged on later ones."""
    cut = int(len(label) * _FIT_SHARE)
    if len(np.unique(label[:cut])) < 2:
        return np.zeros((len(shuffles), matrix.shape[1]))
    model = task.fitted(matrix[:cut], label[:cut])
    late, truth = matrix[cut:], label[cut:]
    base = task.score(model, late, truth)
    found = np.zeros((len(shuffles), matrix.shape[1]))
    for i, seed in enumerate(shuffles):
        rng = np.random.default_rng(int(seed))
        for j in range(matrix.shape[1]):
            changed = late.copy()
            changed[:, j] = rng.permutation(late[:, j])
            found[i, j] = base - task.score(model, changed, truth)
    return found


def _bar(task: _Task, matrix: Array, label: Array, rng: np.random.Generator, nulls: int) -> float:
    """What chance reaches: the mean over fits to shuffled labels of their most important column."""
    seeds = rng.integers(0, 2**31, nulls)
    best = [importances(task, matrix, rng.permutation(label), [seed])[0].max(initial=0.0) for seed in seeds]
    return float(max(np.mean(best), 0.0))


def _over_time(task: _Task, matrix: Array, label: Array, shuffles: Array, windows: int) -> list[Array]:
    edges = np.linspace(0, len(label), windows + 1).astype(int)
    parts = [slice(a, b) for a, b in pairwise(edges.tolist()) if b - a >= _FEWEST]
    return [importances(task, matrix[part], label[part], shuffles)[0] for part in parts]


def _mutual_information(task: _Task, matrix: Array, label: Array, texts: Array, seed: int) -> Array:
    feature_selection = _sklearn("sklearn.feature_selection")
    with np.errstate(all="ignore"):
        middle = np.array([np.median(c[~np.isnan(c)]) if (~np.isnan(c)).any() else 0.0 for c in matrix.T])
    filled = np.where(np.isnan(matrix), middle, matrix)
    measure: Callable[..., Array] = (
        feature_selection.mutual_info_classif if task.kind == "classes" else feature_selection.mutual_info_regression
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that labels of a few numbers look continuous
        return measure(filled, label, discrete_features=texts, random_state=seed)


def _judged(found: Sequence[Ranked], rule: Select) -> list[Ranked]:
    taken = 0
    judged = []
    for one in found:
        why = _reason(one, rule)
        chosen = not why or one.column in rule.keep
        if chosen and rule.at_most and taken >= rule.at_most and one.column not in rule.keep:
            chosen, why = False, f"more than {rule.at_most} others matter more"
        taken += chosen
        if chosen:
            kept = f"importance {one.importance:.4f} above chance ({one.null:.4f})"
            why = kept if not why else f"kept because the definition says so ({why})"
            why += f", in {one.stability:.0%} of the windows" if one.windows else ""
        judged.append(_with(one, chosen=chosen, why=why))
    return judged


def _reason(one: Ranked, rule: Select) -> str:
    """Why a column must go; empty when it may stay."""
    if float(rule.leak) < 1 and one.alone >= float(rule.leak):
        return f"it answers the question alone (score {one.alone:.3f}): a leak?"
    if one.importance <= one.null:
        return f"importance {one.importance:.4f} is no more than chance ({one.null:.4f})"
    if one.stability < float(rule.stability):
        return f"it matters in {one.stability:.0%} of the windows of time only"
    return ""


def _with(one: Ranked, *, chosen: bool, why: str) -> Ranked:
    fields = {name: getattr(one, name) for name in one.__slots__}
    return Ranked(**{**fields, "chosen": chosen, "why": why})


def _matrix(columns: Mapping[str, Array]) -> tuple[list[str], Array, Array]:
    """Names, a float matrix (texts by rank, NaN for missing), and which columns are texts."""
    made, texts = [], []
    for column in columns.values():
        text = column.dtype.kind in "OUS"
        texts.append(text)
        made.append(_codes(column) if text else column.astype(np.float64))
    return list(columns), np.column_stack(made) if made else np.empty((0, 0)), np.array(texts, bool)


def _codes(column: Array) -> Array:
    missing = np.array([value is None for value in column])
    codes = np.unique(np.where(missing, "", column).astype(str), return_inverse=True)[1].astype(np.float64)
    return np.where(missing, np.nan, codes)


def _sklearn(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise InvalidInput("selection needs scikit-learn", hint="pip install scikit-learn") from None
