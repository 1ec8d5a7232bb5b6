"""An endpoint of the protocol as a value, and how a call to it becomes an operation: permission, effect, audit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from everloop.catalog.context import Context
from everloop.catalog.operation import Answer, Command, Operation, invoke
from everloop.core.errors import Conflict
from everloop.core.grants import Target
from everloop.core.ids import PREFIX, object_id
from everloop.server.mlflow.wire import CALL_KEY, Arguments

Handler = Callable[[Context, Arguments], Mapping[str, Any]]
_RETRIES = 5


class Call(Command):
    """The arguments of a call, as they came; what is secret in them stays out of digests."""

    arguments: dict[str, Any]
    secret: SecretStr = SecretStr("")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path of `/api/<version>/mlflow` and what it does."""

    method: str
    path: str
    handler: Handler
    on: Callable[[Context, Arguments], Target]
    """What it touches; reading needs `read` on it, everything else `run.write`."""
    reads: bool = False
    audited: bool = False
    """Whether each call is recorded; metrics, parameters and tags of runs are facts of their own and are not."""
    api: str = "2.0"
    """The version of the protocol that the path belongs to."""
    needs: str = ""
    """Another verb than `read` or `run.write`."""

    @property
    def operation(self) -> Operation:
        """The operation that a call runs."""
        return Operation(
            name=f"mlflow.{self.path.replace('/', '.')}",
            function=lambda ctx, call: self.handler(ctx, _arguments(call)),
            command=Call,
            answer=Answer,
            needs=self.needs or ("read" if self.reads else "run.write"),
            on=lambda ctx, call: self.on(ctx, Arguments(call.arguments)),
            audit="each" if self.audited else "denied",
            reads=self.reads,
        )


def call(ctx: Context, operation: Operation, arguments: dict[str, Any]) -> Mapping[str, Any]:
    """Run a call; one that PostgreSQL broke off for another's sake is run again."""
    given = Call(arguments=arguments)
    if isinstance(secret := arguments.get("secret"), str):
        given = Call(arguments={**arguments, "secret": None}, secret=SecretStr(secret))
    for left in reversed(range(_RETRIES)):
        try:
            answer: Mapping[str, Any] = invoke(ctx, operation, given)
        except Conflict as error:
            if not error.details.get("retry") or left == 0:
                raise
        else:
            return answer
    raise AssertionError


def _arguments(given: Call) -> Arguments:
    secret = given.secret.get_secret_value()
    return Arguments({**given.arguments, "secret": secret} if secret else given.arguments)


def repeated(ctx: Context, arguments: Arguments) -> str:
    """32 digits that name this call: the same ones when its caller sends it again under the same `Idempotency-Key`.

    Empty without such a key: then nothing tells a call that was sent again from another one like it.
    """
    key = arguments.text(CALL_KEY, "")
    if not key:
        return ""
    return object_id(f"{ctx.project}\n{ctx.actor.name}\n{key}".encode()).removeprefix(PREFIX)[:32]


def on_run(_ctx: Context, arguments: Arguments) -> Target:
    """The run that the arguments name."""
    return Target("run", arguments.run())


def on_runs(_ctx: Context, _arguments: Arguments) -> Target:
    """Runs in general."""
    return Target("run", "*")


def on_experiment(_ctx: Context, arguments: Arguments) -> Target:
    """The experiment that the arguments name, if they name one."""
    return Target("experiment", arguments.text("experiment_id", "*") or "*")


def on_model(_ctx: Context, arguments: Arguments) -> Target:
    """The registered model that the arguments name, if they name one."""
    return Target("model", arguments.text("name", "*") or "*")
