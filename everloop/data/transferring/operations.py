"""The operations of transfer: what belongs to a version, and taking one over. Bytes travel from store to store."""

from everloop.catalog.context import Context
from everloop.catalog.operation import Answer, Command, operation
from everloop.core.grants import Target
from everloop.data import transferring
from everloop.data.heads import find_version
from everloop.data.operations import OfData


class BillView(Answer):
    """What belongs to a version; all of it, and the bill, are objects of the store."""

    id: str
    name: str
    number: int
    bill: str
    objects: list[str]


class Receive(Command):
    """Take over the version of a bill. The store must hold the bill and all that it names."""

    name: str
    """Of the dataset, as the bill says it, too."""
    bill: str


class ReceivedView(Answer):
    """What became of it."""

    id: str
    name: str
    number: int
    new: bool


class Bill(OfData):
    """A version that is to be sent."""


def _on_bill(ctx: Context, cmd: Bill) -> Target:
    return Target("data", find_version(ctx, cmd.version, cmd.environment).name, cmd.environment)


def _on_receive(_ctx: Context, cmd: Receive) -> Target:
    return Target("data", cmd.name)


@operation("data.bill", needs="data.capture", on=_on_bill)
def bill(ctx: Context, cmd: Bill) -> BillView:
    """List what belongs to a version, for a transfer to another store."""
    row = find_version(ctx, cmd.version, cmd.environment)
    identity, found = transferring.billed(ctx, row)
    return BillView(id=row.id, name=row.name, number=row.number, bill=identity, objects=list(found.objects))


@operation("data.receive", needs="data.capture", on=_on_receive)
def receive(ctx: Context, cmd: Receive) -> ReceivedView:
    """Record a version that came by way of a store, after all of its parts were read and found to be what it says."""
    numbered, version = transferring.received(ctx, cmd.bill, cmd.name)
    return ReceivedView(id=version, name=cmd.name, number=numbered.number, new=numbered.new)
