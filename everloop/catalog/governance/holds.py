"""Legal holds as the catalog knows them: what must not go, whatever rules, requests and sweeps say.

A hold is a fact about a place, its release another. Places are assets (`data/orders`, `model/churn`), a run
(`run/<id>`), an experiment with its runs and traces (`experiment/<id>`), the prediction log (`predictions`), and a
subject under a digest that only the workspace's key makes (`subject/<digest>`).
"""

import json
from collections.abc import Collection, Mapping

from sqlalchemy import select

from everloop.catalog.engine import Tx
from everloop.catalog.tables.core import facts, numbers
from everloop.catalog.tables.tracking import runs
from everloop.core.errors import PolicyRefused

HELD, RELEASED = "data.held", "data.released"
PREDICTIONS = "predictions"


def standing(tx: Tx, project: str | None = None) -> dict[str, str]:
    """{place: reason} of every hold that stands, in a project or in any."""
    query = select(facts.c.project, facts.c.kind, facts.c.subject, facts.c.payload)
    query = query.where(facts.c.kind.in_((HELD, RELEASED))).order_by(facts.c.id)
    if project is not None:
        query = query.where(facts.c.project == project)
    found: dict[tuple[str, str], str] = {}
    for row in tx.execute(query):
        place = (row.project, row.subject)
        found.pop(place, None)
        if row.kind == HELD:
            found[place] = str(json.loads(row.payload)["reason"])
    return {place: reason for (_, place), reason in found.items()}


def runs_held(tx: Tx, project: str) -> set[str]:
    """The runs under a hold, of their own or of their experiment."""
    return {run for place in standing(tx, project) for run in runs_of(tx, project, place)}


def need_none(tx: Tx, project: str, *places: str) -> None:
    """Raise `PolicyRefused` when one of these places is under a hold."""
    _refuse(standing(tx, project), *places)


def need_free(tx: Tx, project: str, run: str) -> None:
    """Raise `PolicyRefused` when a run is under a hold, of its own or of its experiment."""
    found = standing(tx, project)
    if found:
        experiment = tx.execute(select(runs.c.experiment).where(runs.c.project == project, runs.c.id == run)).scalar()
        _refuse(found, f"run/{run}", f"experiment/{experiment}")


def _refuse(found: Mapping[str, str], *places: str) -> None:
    reason = next((found[place] for place in places if place in found), "")
    if reason:
        raise PolicyRefused(f"a legal hold stands: {reason}", hint="`everloop data hold --release` ends it")


def runs_of(tx: Tx, project: str, place: str) -> set[str]:
    """The runs that a place means: one, or those of an experiment."""
    kind, _, name = place.partition("/")
    if kind == "experiment" and name.isdigit():
        mine = select(runs.c.id).where(runs.c.project == project, runs.c.experiment == int(name))
        return set(tx.execute(mine).scalars())
    return {name} if kind == "run" else set()


def experiments_of(held: Collection[str]) -> set[str]:
    """The experiments among places."""
    return {place.removeprefix("experiment/") for place in held if place.startswith("experiment/")}


def versions_held(tx: Tx, project: str) -> set[str]:
    """The versions of assets under a hold, and the seals of runs that are, by id."""
    return {version for place in standing(tx, project) for version in versions_of(tx, project, place)}


def versions_of(tx: Tx, project: str, place: str) -> set[str]:
    """The versions that a place means: of an asset, or seals of its runs."""
    kind, _, name = place.partition("/")
    named = [(kind, name), *(("run", f"run-{run}") for run in sorted(runs_of(tx, project, place)))]
    found: set[str] = set()
    for of_kind, of_name in named:
        mine = (numbers.c.project == project, numbers.c.kind == of_kind, numbers.c.name == of_name)
        found.update(tx.execute(select(numbers.c.version).where(*mine)).scalars())
    return found
