"""The operations of erasure, with every place beside the tables that a workspace has."""

from typing import TYPE_CHECKING, Any

from pydantic import Field, SecretStr

from everloop.catalog import facts, versions
from everloop.catalog.context import Context
from everloop.catalog.governance import redactions
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.grants import Target
from everloop.data import erasure
from everloop.models.registry import find_model
from everloop.workspace import work

if TYPE_CHECKING:
    from everloop.data.erasure.erasing import Receipt

DECIDED = "data.erasure_decided"


class Erase(Command):
    """Erase a subject from the project."""

    subject: SecretStr
    """The key, as text; it is no part of any record."""
    columns: list[str] = Field(default_factory=list)
    """Columns that hold it, beside those that a table tags as `subject`."""
    text: bool | None = None
    """Whether the key is looked for in free text too; without it, when it has six characters or more."""
    reason: str = ""


class ReceiptView(Answer):
    """What an erasure did."""

    erasure: str
    versions: list[str]
    """Versions that lost rows; their ids stay, they read without the rows."""
    rows: int
    models: list[str]
    """Models that were trained on them, each of which needs a decision."""
    files: int
    """Files of folders that were about the person."""
    elsewhere: dict[str, int]
    """What other places lost."""
    left: list[str]
    """What still holds the key and is not ours to change, each with its reason."""
    kept: list[str]
    """Objects that another project's versions name, and so still hold."""
    database_left: str
    receipt: dict[str, Any]


class Hold(Command):
    """Place or release a legal hold on a place or a subject."""

    dataset: str = ""
    """A dataset by its name, any other asset as `kind/name`, `run/ID`, `experiment/ID` (its runs and traces), or
    `predictions`."""
    subject: SecretStr = SecretStr("")
    reason: str = ""
    release: bool = False


class Held(Answer):
    """Whether a hold stands now."""

    held: bool


class Standing(Answer):
    """The holds that stand: place and reason; a subject is a digest."""

    holds: dict[str, str]


class Decide(Command):
    """What becomes of a model that was trained on rows that are erased."""

    erasure: str
    model: str
    decision: str
    """`retrain` or `accept`."""
    reason: str


class Decided(Answer):
    """The decision, and how many models of the erasure still wait for one."""

    decision: str
    open: int


class Nothing(Command):
    """No question beside the project."""


class Erasures(Answer):
    """Every erasure of the project, oldest first."""

    erasures: list[dict[str, Any]]


def _everything(_ctx: Context, _cmd: Any) -> Target:
    return Target("data", "*")


def _on_hold(_ctx: Context, cmd: Hold) -> Target:
    kind, slash, name = cmd.dataset.partition("/")
    return Target(kind, name) if slash else Target("data", cmd.dataset or "*")


@operation("data.erase", needs="data.erase", on=_everything)
def erase(ctx: Context, cmd: Erase) -> ReceiptView:
    """Remove a person's rows from every version and every store; the receipt is signed and names nobody."""
    key = cmd.subject.get_secret_value()
    found = work.places.places
    done = erasure.erasing.erase(ctx, key, found, columns=cmd.columns, words=cmd.text, reason=cmd.reason)
    return _view(done)


@operation("data.erase_resume", needs="data.erase", on=_everything)
def resume(ctx: Context, _cmd: Nothing) -> Erasures:
    """Finish erasures that were cut off."""
    return Erasures(erasures=[_view(done).model_dump() for done in erasure.erasing.resume(ctx, work.places.places)])


@operation("data.hold", needs="data.erase", on=_on_hold)
def hold(ctx: Context, cmd: Hold) -> Held:
    """Place a legal hold on a place or a subject, or release it; audited."""
    act = erasure.holds.release if cmd.release else erasure.holds.hold
    act(ctx, place=cmd.dataset, subject=cmd.subject.get_secret_value(), reason=cmd.reason)
    return Held(held=not cmd.release)


@operation("data.holds", needs="read", on=_everything, reads=True)
def holds_standing(ctx: Context, _cmd: Nothing) -> Standing:
    """The legal holds that stand in the project."""
    return Standing(holds=erasure.holds.standing(ctx))


@operation("data.decide", needs="data.erase", on=_everything)
def decide(ctx: Context, cmd: Decide) -> Decided:
    """Decide what becomes of a model that was trained on erased rows: retrain it, or accept it and say why."""
    if cmd.decision not in ("retrain", "accept"):
        raise InvalidInput(f"{cmd.decision!r} is no decision", hint="retrain or accept")
    if not cmd.reason.strip():
        raise InvalidInput("a decision needs a reason", hint="it is recorded beside the receipt")
    with ctx.read() as tx:
        model = versions.find(tx, ctx.project, cmd.model).id
        found = next((r for r in redactions.receipts(tx, ctx.project) if r["erasure"] == cmd.erasure), None)
    if found is None or model not in found["figures"]["models"]:
        raise NotFound(f"{cmd.model} is no model of {cmd.erasure}", hint="`everloop erasures` lists them")
    with ctx.write() as tx:
        payload = {"model": model, "decision": cmd.decision, "reason": cmd.reason}
        facts.append(tx, ctx.project, ctx.fact(DECIDED, f"{cmd.erasure}/{model}", payload))
    return Decided(decision=cmd.decision, open=len(undecided(ctx, found)))


@operation("data.erasures", needs="read", on=_everything, reads=True)
def erasures(ctx: Context, _cmd: Nothing) -> Erasures:
    """Every erasure with its figures, its receipt, and the models that still wait for a decision."""
    with ctx.read() as tx:
        found = redactions.receipts(tx, ctx.project)
    return Erasures(erasures=[{**one, "undecided": undecided(ctx, one)} for one in found])


class AskProof(Command):
    """Whether a model's training frame held a subject's rows."""

    model: str
    subject: SecretStr


class Proof(Answer):
    """A proof that `everloop data check-proof` verifies offline; the key is not in it."""

    model: str
    proof: dict[str, Any]


@operation("data.proof", needs="data.erase", on=_everything)
def proof(ctx: Context, cmd: AskProof) -> Proof:
    """Prove whether a recorded training run read a subject's rows."""
    with ctx.read() as tx:
        model = find_model(tx, ctx.project, cmd.model).id
    return Proof(model=model, proof=erasure.committing.proof(ctx, model, cmd.subject.get_secret_value()))


def undecided(ctx: Context, erasure: dict[str, Any]) -> list[str]:
    """The models of an erasure for which nobody has decided yet."""
    with ctx.read() as tx:
        return [
            model
            for model in erasure["figures"]["models"]
            if redactions.latest(tx, ctx.project, (DECIDED,), f"{erasure['erasure']}/{model}") is None
        ]


def _view(done: "Receipt") -> ReceiptView:
    figures = done.figures
    return ReceiptView(
        erasure=done.erasure,
        versions=figures["versions"],
        rows=figures["rows"],
        models=figures["models"],
        files=figures["files"],
        elsewhere=figures["elsewhere"],
        left=figures["left"],
        kept=figures["kept"],
        database_left=figures["database_left"],
        receipt=dict(done.envelope),
    )
