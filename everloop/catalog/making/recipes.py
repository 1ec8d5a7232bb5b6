"""What recipes are made of, so that a difference of two can be told: parts of the code, packages, and the rest.

A recipe is a digest. Its ingredients are kept beside it: the digest of each part of the closure and of each package,
once for all the recipes that share them.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, select

from everloop.catalog.engine import Tx, insert_new
from everloop.catalog.tables.core import ingredients, recipes, steps
from everloop.core.canonical import canonical_json
from everloop.core.ids import object_id

_INGREDIENTS = select(ingredients.c.id, ingredients.c.content)


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What went into one recipe, parameters and inputs aside: the step's row holds those."""

    step: str
    parts: Mapping[str, str]
    """Digest of each piece of code that the step reaches."""
    packages: Mapping[str, str]
    """Version and digest of each distribution that it needs."""
    host: Mapping[str, Any]
    facts: Mapping[str, Any]
    how: Mapping[str, str]
    opaque: tuple[str, ...] = ()
    """Values that are pinned by how they are made, or not at all."""


def put(tx: Tx, project: str, recipe: str, made_of: Ingredients) -> None:
    """Keep what a recipe is made of; doing it again changes nothing."""
    put_many(tx, project, {recipe: made_of})


def put_many(tx: Tx, project: str, many: Mapping[str, Ingredients]) -> None:
    """Keep what several recipes are made of; what they share is written once."""
    shared: dict[str, str] = {}
    rows = []
    for recipe, made_of in many.items():
        parts, packages = (canonical_json(dict(held)).decode() for held in (made_of.parts, made_of.packages))
        code, held = object_id(parts.encode()), object_id(packages.encode())
        shared |= {code: parts, held: packages}
        rest = {"host": made_of.host, "facts": made_of.facts, "how": made_of.how, "opaque": list(made_of.opaque)}
        rows.append(
            {
                "project": project,
                "recipe": recipe,
                "step": made_of.step,
                "code": code,
                "packages": held,
                "rest": json.dumps(rest, sort_keys=True, default=str),
            }
        )
    if rows:
        kept = [{"project": project, "id": identity, "content": shared[identity]} for identity in sorted(shared)]
        tx.execute(insert_new(tx.dialect.name, ingredients), kept)
        tx.execute(insert_new(tx.dialect.name, recipes), sorted(rows, key=lambda row: row["recipe"]))


def several(tx: Tx, project: str, wanted: Collection[str]) -> dict[str, Ingredients]:
    """What those of the recipes are made of that are known, by recipe."""
    if not wanted:
        return {}
    rows = list(
        tx.execute(select(recipes).where(recipes.c.project == project, recipes.c.recipe.in_(sorted(set(wanted)))))
    )
    ids = sorted({identity for row in rows for identity in (row.code, row.packages)})
    query = _INGREDIENTS.where(ingredients.c.project == project, ingredients.c.id.in_(bindparam("ids", expanding=True)))
    held = {row.id: json.loads(row.content) for row in tx.execute(query, {"ids": ids})} if ids else {}
    found = {}
    for row in rows:
        rest = json.loads(row.rest)
        found[row.recipe] = Ingredients(
            row.step,
            held.get(row.code, {}),
            held.get(row.packages, {}),
            rest["host"],
            rest["facts"],
            rest["how"],
            tuple(rest["opaque"]),
        )
    return found


def executed(tx: Tx, project: str, step: str) -> list[str]:
    """The recipe of each execution of a step, newest first, what was reused apart; at most 50."""
    mine = (steps.c.project == project, steps.c.step == step, steps.c.output.is_not(None), steps.c.cached.is_(False))
    return list(tx.execute(select(steps.c.recipe).where(*mine).order_by(steps.c.id.desc()).limit(50)).scalars())


def latest(tx: Tx, project: str, step: str) -> list[str]:
    """The recipes of a step's executions, newest first, each once; at most 50."""
    query = (
        select(steps.c.recipe)
        .where(steps.c.project == project, steps.c.step == step, steps.c.output.is_not(None))
        .order_by(steps.c.id.desc())
        .limit(50)
    )
    return list(dict.fromkeys(tx.execute(query).scalars()))
