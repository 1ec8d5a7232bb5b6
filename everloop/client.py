"""The SDK: every operation as a pleasant function, in process or over HTTP, with the same answers and errors.

client = connect("http://127.0.0.1:5050", token=..., project="flights")
client.changes.propose(source="sandbox/ada/tuning", target="staging", title="Deeper trees")
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Self

import httpx2
from pydantic import BaseModel, ValidationError

from everloop.catalog.context import Context
from everloop.catalog.operation import Command, Operation, find_operation, invoke, operations
from everloop.core.errors import EverloopError, InvalidInput, NotFound, Unavailable, from_problem
from everloop.workspace.operations import load_operations

Call = Callable[[Operation, Command], BaseModel]
_TIMEOUT = 60.0


class Client:
    """`client.<area>.<verb>(**fields)` runs the operation `<area>.<verb>`; `dir(client.changes)` lists verbs."""

    def __init__(self, call: Call, close: Callable[[], None] = lambda: None) -> None:
        """Use `connect` (HTTP) or `local` (in process)."""
        load_operations()
        self._call = call
        self._close = close

    def close(self) -> None:
        """Give connections back; a client is also a context manager that does."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def call(self, name: str, /, **fields: Any) -> Any:
        """Run one operation and return its answer, a frozen pydantic model.

        Raises the errors of `everloop.core.errors`, wherever the operation ran.
        """
        op = find_operation(name)
        try:
            command = op.command.model_validate(fields)
        except ValidationError as error:
            raise InvalidInput(f"{name}: {first_problem(error)}", hint=_fields_hint(op)) from None
        return self._call(op, command)

    def __getattr__(self, area: str) -> "Area":
        names = {name.partition(".")[2]: name for name in operations() if name.partition(".")[0] == area}
        if not names:
            raise AttributeError(f"there are no operations {area}.*")
        return Area(self, names)


class Area:
    """The operations of one noun."""

    def __init__(self, client: Client, names: Mapping[str, str]) -> None:
        """Keep {verb: operation name}."""
        self._client = client
        self._names = names

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        if verb.startswith("_") or verb not in self._names:
            raise AttributeError(f"there is no operation {verb!r} here; there is " + ", ".join(self._names))
        name = self._names[verb]
        return lambda **fields: self._client.call(name, **fields)

    def __dir__(self) -> list[str]:
        return sorted(self._names)


def local(ctx: Context) -> Client:
    """A client that works in this process, as the actor of `ctx`, through the same permission checks and audit."""
    return Client(lambda op, command: invoke(ctx, op, command))


def connect(url: str, *, token: str = "", project: str = "default", at: str = "") -> Client:
    """A client of a running server. `at` (ISO 8601) sets the time in a replay workspace, elsewhere it is refused."""
    headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    if at:
        headers["Everloop-Time"] = at
    http = httpx2.Client(base_url=url.rstrip("/"), headers=headers, timeout=_TIMEOUT)

    def call(op: Operation, command: Command) -> BaseModel:
        try:
            answer = http.post(
                f"/rest/v1/{project}/{op.name}", content=_body(command), headers={"Content-Type": "application/json"}
            )
        except httpx2.TransportError as error:
            raise Unavailable(f"no answer from {url}: {error}", hint="is `everloop up` running there?") from error
        if answer.status_code >= 400:
            raise _error(answer)
        return op.answer.model_validate_json(answer.content)

    return Client(call, http.close)


def first_problem(error: ValidationError) -> str:
    """One line about the first thing that is wrong, with its place."""
    problem = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    return f"{place}: {problem['msg']}" if place else str(problem["msg"])


def _body(command: Command) -> bytes:
    # secrets travel in the clear inside the request: pydantic masks them in a plain dump
    return json.dumps(command.model_dump(mode="json", context={"reveal": True})).encode()


def _fields_hint(op: Operation) -> str:
    shown = [
        name if field.is_required() else f"{name}={field.default!r}" for name, field in op.command.model_fields.items()
    ]
    return "it takes " + (", ".join(shown) or "nothing")


def _error(answer: httpx2.Response) -> EverloopError:
    try:
        body = answer.json()
    except ValueError:
        body = {}
    if not isinstance(body, Mapping) or not body:
        kind = NotFound if answer.status_code == 404 else Unavailable
        return kind(
            f"the server answered {answer.status_code} without an explanation", hint="is this an Everloop server?"
        )
    return from_problem(body, answer.status_code)
