"""Rows of rollouts: where each endpoint of an environment is between the revision before and the one wanted."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete as delete_from
from sqlalchemy import select

from everloop.catalog.engine import Tx, insert_into
from everloop.catalog.tables.operating import rollouts
from everloop.core.clock import Micros


def save(tx: Tx, project: str, environment: str, endpoint: str, state: Mapping[str, Any], *, updated: Micros) -> None:
    """Replace the state of one endpoint."""
    values = {
        "project": project,
        "environment": environment,
        "endpoint": endpoint,
        "state": json.dumps(state, sort_keys=True),
        "updated": updated,
    }
    statement = insert_into(tx, rollouts)
    tx.execute(
        statement.on_conflict_do_update(
            index_elements=["project", "environment", "endpoint"],
            set_={"state": values["state"], "updated": updated},
        ),
        [values],
    )


def of(tx: Tx, project: str, environment: str) -> dict[str, dict[str, Any]]:
    """The states of an environment's endpoints, by endpoint."""
    query = select(rollouts.c.endpoint, rollouts.c.state).where(
        rollouts.c.project == project, rollouts.c.environment == environment
    )
    return {row.endpoint: json.loads(row.state) for row in tx.execute(query.order_by(rollouts.c.endpoint))}


def delete(tx: Tx, project: str, environment: str, endpoint: str) -> None:
    """Forget an endpoint that the environment has no more."""
    tx.execute(
        delete_from(rollouts).where(
            rollouts.c.project == project, rollouts.c.environment == environment, rollouts.c.endpoint == endpoint
        )
    )
