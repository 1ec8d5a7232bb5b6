"""A set of first models of a table, as a project of its own: a file of a few lines that anybody can go on from."""

from collections.abc import Callable, Mapping
from typing import Any

from everloop.core.errors import DefinitionError
from everloop.core.ids import checked_name
from everloop.core.ports import Resources
from everloop.flows.assets import Asset, define, wire
from everloop.flows.search.definitions import choice, search
from everloop.models.baseline.definitions import ALGORITHMS, METRICS, OUTPUTS
from everloop.models.baseline.estimator import Baseline as Estimator
from everloop.models.baseline.shipped import PACKAGE

_STEPS = "everloop.models.baseline.steps"
ROWS = 200_000
"""Of larger tables so many rows are looked at, evenly."""


class Baseline:
    """The assets of first models: `data/<table>` is given, `model/<name>` and `value/<name>_report` come out."""

    def __init__(
        self,
        name: str,
        table: str,
        *,
        label: str,
        task: str,
        time: str = "",
        group: str = "",
        algorithms: tuple[str, ...],
        seed: int = 0,
        rows: int = ROWS,
        made: Callable[..., Any] | None = None,
    ) -> None:
        """Learn `label` of the dataset `table`; `task` is `binary`, `classes` or `numbers`.

        `made(algorithm, task, roles, seed)` gives an estimator: a project's own is packaged with its model.
        """
        self.name, self.table, self.algorithms = checked_name(name), table, algorithms
        if task not in METRICS:
            raise DefinitionError(f"{task!r} is no task", hint="one of " + ", ".join(METRICS))
        unknown = next((one for one in algorithms if one not in ALGORITHMS), None)
        if unknown is not None or not algorithms:
            raise DefinitionError(f"no algorithm {unknown!r}", hint="one of " + ", ".join(ALGORITHMS))
        self._said: dict[str, Any] = {"label": label, "time": time, "group": group, "task": task, "seed": seed}
        self._rows = rows
        self._made = made or Estimator

    def assets(self) -> Mapping[str, Asset]:
        """What is made, wired."""
        name, facts = self.name, {**self._said, "rows": self._rows}
        task = str(facts["task"])
        metric, way = METRICS[task]
        frame, holdout = f"frame/{name}_training", f"frame/{name}_holdout"
        columns, best, model = f"value/{name}_columns", f"value/{name}_search", f"model/{name}"
        better: dict[str, Any] = {"maximize" if way == "max" else "minimize": metric}
        space = {"algorithm": choice(*self.algorithms)}
        compared = search(space, sampler="grid", tolerate=0.5, at_once=2, **better)
        trial = define(
            _trial,
            name=f"{name}_search",
            upstream={"frame": frame, "columns": columns},
            facts=facts,
            runner=f"{_STEPS}:trial",
            search=compared,
        )
        parts = [
            Asset(
                key, _stand_in, {"table": f"data/{self.table}"}, facts={**facts, "part": part}, runner=f"{_STEPS}:take"
            )
            for key, part in ((frame, "training"), (holdout, "holdout"))
        ]
        seen = {**facts, "format": "json"}
        inputs = {"frame": frame, "columns": columns, "search": best, "holdout": holdout}
        told = {"frame": frame, "holdout": holdout, "columns": columns, "model": model}
        made = [
            Asset(f"data/{self.table}", None),
            *parts,
            Asset(columns, _stand_in, {"frame": frame}, facts=seen, runner=f"{_STEPS}:look"),
            trial,
            Asset(
                model,
                self._made,
                inputs,
                resources=Resources(cores=1),
                facts={**facts, "output": OUTPUTS[task]},
                runner=f"{_STEPS}:fit",
            ),
            Asset(f"value/{name}_report", _stand_in, told, facts=seen, runner=f"{_STEPS}:tell"),
        ]
        return wire(made)

    def text(self) -> str:
        """The file that defines this set again."""
        said = {**self._said, "algorithms": self.algorithms, "rows": self._rows}
        lines = "".join(f"    {key}={value!r},\n" for key, value in said.items())
        return (
            f'"""First models of data/{self.table}, as `everloop baseline` made them."""\n\n'
            "from everloop.project.baselines import Baseline\n"
            f"from {PACKAGE}.estimator import Baseline as Estimator\n\n\n"
            "def made(algorithm, task, roles, seed):\n    return Estimator(algorithm, task, roles, seed)\n\n\n"
            f"project = Baseline(\n    {self.name!r},\n    {self.table!r},\n{lines}    made=made,\n)\n"
        )


def _stand_in() -> None:
    """Stands for steps whose runners do the work."""


def _trial(frame: Any, columns: Any, algorithm: str = "linear") -> None:
    """Stands for a trial, whose parameter is searched."""
