"""What executions read that their recipe does not hold. Such an output is reused only while all of it is the same."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import bindparam, select

from everloop.catalog.engine import Tx, insert_into
from everloop.catalog.tables.core import leaks, recipes
from everloop.core.canonical import canonical_json
from everloop.core.clock import Micros
from everloop.core.ids import object_id

_MOST = 50
_CHUNK = 500
_OF_STEPS = (  # built once: every run asks it
    select(leaks)
    .select_from(leaks.join(recipes, (recipes.c.project == leaks.c.project) & (recipes.c.recipe == leaks.c.recipe)))
    .where(leaks.c.project == bindparam("p"), recipes.c.step.in_(bindparam("steps", expanding=True)))
    .order_by(leaks.c.at.desc(), leaks.c.reads)
)


@dataclass(frozen=True, slots=True)
class Leak:
    """One output of a recipe, and what its execution read beside it.

    `file:path`, `folder:path`, `environ:NAME`, `module:name` -> digest; empty for what was not there.
    """

    reads: Mapping[str, str]
    output: str


def put(tx: Tx, project: str, recipe: str, leak: Leak, *, at: Micros) -> None:
    """Keep what was read; the newest output of the same reads counts."""
    content = canonical_json(dict(leak.reads)).decode()
    made = insert_into(tx, leaks).values(
        project=project, recipe=recipe, reads=object_id(content.encode()), content=content, output=leak.output, at=at
    )
    tx.execute(
        made.on_conflict_do_update(
            index_elements=["project", "recipe", "reads"], set_={"output": leak.output, "at": at}
        )
    )


def of(tx: Tx, project: str, recipe: str) -> list[Leak]:
    """What executions of a recipe read, newest first; at most 50."""
    query = select(leaks).where(leaks.c.project == project, leaks.c.recipe == recipe)
    rows = tx.execute(query.order_by(leaks.c.at.desc(), leaks.c.reads).limit(_MOST))
    return [Leak(json.loads(row.content), row.output) for row in rows]


def several(tx: Tx, project: str, wanted: Collection[str]) -> dict[str, list[Leak]]:
    """What executions of these recipes read, by recipe, newest first."""
    found: dict[str, list[Leak]] = {}
    listed = sorted(set(wanted))
    for start in range(0, len(listed), _CHUNK):
        query = select(leaks).where(leaks.c.project == project, leaks.c.recipe.in_(listed[start : start + _CHUNK]))
        for row in tx.execute(query.order_by(leaks.c.at.desc(), leaks.c.reads)):
            found.setdefault(row.recipe, []).append(Leak(json.loads(row.content), row.output))
    return found


def of_steps(tx: Tx, project: str, steps: Collection[str]) -> dict[str, list[Leak]]:
    """What executions of these steps read, by recipe, newest first."""
    found: dict[str, list[Leak]] = {}
    for row in tx.execute(_OF_STEPS, {"p": project, "steps": sorted(steps)}):
        found.setdefault(row.recipe, []).append(Leak(json.loads(row.content), row.output))
    return found
