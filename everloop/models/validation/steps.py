"""The runner of a trial that is cross-validated: fit on each fold's training rows, judge on the others."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import polars as pl

from everloop.core.errors import DataError
from everloop.core.inside.reporting import report
from everloop.models.codec import measured
from everloop.models.package import package
from everloop.models.signature import field_of
from everloop.models.training import SELECTION, active_run
from everloop.models.validation.folds import Folds, from_manifest
from everloop.models.validation.splitting import Fold


class Described(Protocol):
    """What the runner needs of an asset."""

    @property
    def function(self) -> Callable[..., Any]:
        """The author's function, from a training frame to a fitted estimator."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """`columns`, `label`, `time`, `known`, `output`, `folds` (a manifest), `metric` (of the reports)."""
        ...


def cross_validated(
    asset: Described, inputs: Mapping[str, Any], params: Mapping[str, Any], _facts: Mapping[str, Any]
) -> dict[str, float]:
    """Every metric that fits the output: mean over the folds, spread, and what each fold gave.

    `<metric>` is the mean, `<metric>_spread` the standard deviation (n - 1), `fold_<number>/<metric>` a fold's own. The
    mean so far is reported after each fold. Raises `DataError`.
    """
    said = asset.facts
    name, frame = next((n, value) for n, value in inputs.items() if n != SELECTION)
    table: pl.DataFrame = frame.collect() if isinstance(frame, pl.LazyFrame) else frame
    columns = inputs[SELECTION]["chosen"] if SELECTION in inputs else list(said["columns"])
    folds = folds_of(from_manifest(dict(said["folds"])), table, said)
    found: list[dict[str, float]] = []
    for number, fold in enumerate(folds, 1):
        training = table[fold.train].select([*columns, said["label"]])
        with active_run(asset.function, quiet=True):  # a trial fits several times: it has one set of parameters
            estimator = asset.function(**{name: training}, **params)
        found.append(judged(estimator, table[fold.valid], columns, said["label"], said["output"]))
        if said["metric"] in found[-1]:
            report(float(np.mean([one[said["metric"]] for one in found])), step=number)
    return summed(found)


def folds_of(folds: Folds, table: pl.DataFrame, said: Mapping[str, Any]) -> list[Fold]:
    """The folds of a frame, by the columns that its definition names."""
    wanted = {"time": said["time"], "known": said.get("known"), "groups": folds.by, "label": said["label"]}
    missing = next((name for name in wanted.values() if name and name not in table.columns), None)
    if missing is not None:
        raise DataError(f"the frame has no column {missing!r} to split by", hint="it has " + ", ".join(table.columns))
    return folds.split(**{role: table[name] for role, name in wanted.items() if name})


def judged(estimator: Any, rows: pl.DataFrame, columns: list[str], label: str, output: str) -> dict[str, float]:
    """The metrics of an estimator on rows that it did not see, answering as it would when it serves."""
    names = [str(one) for one in getattr(estimator, "feature_names_in_", columns)]
    arrays = {name: rows[name].to_numpy() for name in names}
    fields = tuple(field_of(name, array) for name, array in arrays.items())
    return measured(package(estimator, fields, {n: a[:1] for n, a in arrays.items()}, output).predictor, rows, label)


def summed(folds: list[dict[str, float]]) -> dict[str, float]:
    """Mean and spread of every metric that all folds have, and what each fold gave."""
    shared = [name for name in folds[0] if all(name in one for one in folds)]
    found: dict[str, float] = {}
    for name in shared:
        values = [one[name] for one in folds]
        found[name] = float(np.mean(values))
        found[f"{name}_spread"] = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    each = {f"fold_{n}/{name}": value for n, one in enumerate(folds, 1) for name, value in one.items()}
    return {**found, **each}
