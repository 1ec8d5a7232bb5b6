"""Whether an environment's pointer may be served: only a merge, a roll-back or genesis may have put it where it is."""

from everloop.catalog.context import Context
from everloop.changes.merging import APPROVAL_TYPE
from everloop.changes.provenance import Provenance, provenance_of
from everloop.core.errors import CorruptObject, EverloopError
from everloop.core.signing import VerifyKey


def refusal(ctx: Context, environment: str, snapshot: str, key: VerifyKey) -> str:
    """Why nothing may be served from `snapshot`, for people; empty when a review let it in and signed for it.

    Rows can be written by whoever holds the database; the outcome of a review is signed by the workspace's key, so a
    change counts only with a statement that names its number, its delta, its snapshot and this environment.
    """
    try:
        found = provenance_of(ctx, environment, snapshot)
        if found.change:
            _check_statement(found, key)
    except EverloopError as error:
        return error.message
    return ""


def _check_statement(found: Provenance, key: VerifyKey) -> None:
    if found.envelope is None:
        raise CorruptObject(f"change #{found.change} has no signed statement of its review")
    said = key.open(found.envelope, APPROVAL_TYPE)
    wanted = {"environment": found.environment, "change": found.change, "delta": found.delta, "snapshot": found.merged}
    if any(said.get(name) != value for name, value in wanted.items()):
        raise CorruptObject(f"the signed statement of change #{found.change} is about something else")
