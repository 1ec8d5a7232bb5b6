"""The one error tree.

Every error says what happened (`message`), what to do about it (`hint`), and carries a stable
`code` for programs and an HTTP `status`; the server answers with RFC 9457 problem details.

    EverloopError                   500  internal
    ├── InvalidInput                400  invalid_input        the caller sent something malformed
    │   ├── DefinitionError         400  definition           a project definition is wrong (file, line)
    │   └── DataError               422  data                 data does not parse or breaks its schema
    ├── NotAuthenticated            401  not_authenticated    no valid credential was presented
    ├── PermissionDenied            403  permission_denied    the actor holds no grant for this
    ├── NotFound                    404  not_found            nothing has that name or id
    ├── Conflict                    409  conflict             the state changed meanwhile, or a name is taken
    ├── Cancelled                   409  cancelled            somebody wanted the work to end
    ├── PolicyRefused               409  policy_refused       the target's policy refuses this change
    │   └── OverBudget              409  over_budget          a budget is spent: what was finished is kept
    ├── Unavailable                 503  unavailable          a part that is needed does not answer now
    │   ├── Overloaded              429  overloaded           too much waits already; `details["seconds"]` says how long
    │   └── StorageFull             507  storage_full         no space is left for the write
    ├── CorruptObject               500  corrupt_object       stored bytes do not match their id
    └── StepFailed                  500  step_failed          user code raised
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar


class EverloopError(Exception):
    """Root of the tree: `str(error)` is the message, `hint` says how to go on."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "", **details: Any) -> None:
        """Keep the message, the hint and any JSON-ready details."""
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details

    def problem(self) -> dict[str, Any]:
        """The RFC 9457 body: type, title, status, detail, and our hint and code."""
        body: dict[str, Any] = {
            "type": f"urn:everloop:error:{self.code}",
            "title": type(self).__name__,
            "status": self.status,
            "detail": self.message,
            "code": self.code,
        }
        if self.hint:
            body["hint"] = self.hint
        if self.details:
            body["details"] = self.details
        return body


class InvalidInput(EverloopError):
    """The caller sent something malformed."""

    code = "invalid_input"
    status = 400


class DefinitionError(InvalidInput):
    """A project definition is wrong; the message starts with file and line."""

    code = "definition"


class DataError(InvalidInput):
    """Data does not parse or breaks its schema."""

    code = "data"
    status = 422


class NotAuthenticated(EverloopError):
    """No valid credential was presented."""

    code = "not_authenticated"
    status = 401


class PermissionDenied(EverloopError):
    """The actor holds no grant for this."""

    code = "permission_denied"
    status = 403


class NotFound(EverloopError):
    """Nothing has that name or id."""

    code = "not_found"
    status = 404


class Conflict(EverloopError):
    """The state changed meanwhile, or a name is taken."""

    code = "conflict"
    status = 409


class Cancelled(EverloopError):
    """Somebody wanted the work to end; nothing of it was half written."""

    code = "cancelled"
    status = 409


class PolicyRefused(EverloopError):
    """The target's policy refuses this change."""

    code = "policy_refused"
    status = 409


class OverBudget(PolicyRefused):
    """A budget is spent; `details` name its scope and period. What was finished is kept."""

    code = "over_budget"


class Unavailable(EverloopError):
    """A part that is needed does not answer now; trying again later may work."""

    code = "unavailable"
    status = 503


class Overloaded(Unavailable):
    """So much waits already that no more is taken; `details["seconds"]` says when to come again."""

    code = "overloaded"
    status = 429


class StorageFull(Unavailable):
    """No space is left for the write; nothing was half written."""

    code = "storage_full"
    status = 507


class CorruptObject(EverloopError):
    """Stored bytes do not match their id."""

    code = "corrupt_object"


class StepFailed(EverloopError):
    """User code raised; `details` holds the step and the end of its traceback."""

    code = "step_failed"


def unforeseen(identity: str) -> EverloopError:
    """What whoever asked may know of a fault of ours: nothing but the id under which the log tells the rest."""
    return EverloopError(
        f"something failed inside Everloop ({identity})",
        hint="whoever runs this server finds the cause in its log under that id",
        fault=identity,
    )


def from_problem(body: Mapping[str, Any], status: int) -> EverloopError:
    """The error that a server's RFC 9457 body stands for, so that remote and local callers catch the same classes."""
    known = {kind.code: kind for kind in _tree(EverloopError) if "code" in vars(kind)}
    by_status = {kind.status: kind for kind in reversed(known.values())}
    kind = known.get(str(body.get("code"))) or by_status.get(status, EverloopError)
    details = body.get("details")
    message = str(body.get("detail") or body.get("title") or f"the server answered {status}")
    return kind(message, hint=str(body.get("hint", "")), **(dict(details) if isinstance(details, Mapping) else {}))


def _tree(root: type[EverloopError]) -> Iterator[type[EverloopError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _tree(kind)
