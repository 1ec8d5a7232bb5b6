"""The operation `lineage.why`."""

from typing import Any

from everloop.catalog.context import Context
from everloop.catalog.operation import Answer, Command, operation
from everloop.flows.why import telling
from everloop.flows.why.subjects import subject
from everloop.flows.why.values import Why
from everloop.flows.why.walk import why


class Compare(Command):
    """Two versions of anything.

    Ids, `kind/name@7`, `model/delay:champion`, environments (`production`, `production@2024-03-01T12:00:00Z`), or
    predictions by their id.
    """

    old: str
    new: str


class DifferenceView(Answer):
    """One thing that is not the same on both sides."""

    factor: str
    """rows, columns, code, parameter, package, python, platform, cpu, blas, threads, seed, reads, contract, policy,
    definition, input, output or people."""
    name: str
    old: str
    new: str
    matters: str
    """yes, no or unknown: whether it can have changed what was asked about."""
    reason: str
    hunk: str
    """A unified diff, for code."""


class PairView(Answer):
    """Two versions that play the same part on the two sides; an empty id where only one side has it."""

    path: list[str]
    kind: str
    old: str
    new: str
    old_label: str
    new_label: str
    root: bool
    """Whether something differs here that does not come from what it was made of."""
    step: str
    differences: list[DifferenceView]


class RootView(Answer):
    """A difference that can have made the others."""

    where: str
    text: str
    pair: int
    """Its place in `pairs`."""
    difference: DifferenceView


class WhyView(Answer):
    """Everything that differs between two versions, nearest first."""

    old: str
    new: str
    old_label: str
    new_label: str
    same: bool
    roots: list[RootView]
    pairs: list[PairView]
    shared: int
    """How many versions of the lineage both sides have; what led to those was not looked at."""
    text: str
    markdown: str


@operation("lineage.why", needs="read", reads=True)
def why_differ(ctx: Context, cmd: Compare) -> WhyView:
    """Tell every difference between two versions and where in their lineage it comes from."""
    with ctx.read() as tx:
        old, new = (subject(tx, ctx.project, spec) for spec in (cmd.old, cmd.new))
    return view(why(ctx, old, new))


def view(found: Why) -> WhyView:
    """A comparison as an answer."""
    place = {id(pair): index for index, pair in enumerate(found.pairs)}
    return WhyView(
        old=found.old,
        new=found.new,
        old_label=found.old_label,
        new_label=found.new_label,
        same=found.same,
        roots=[
            RootView(where=telling.at(pair), text=telling.said(one), pair=place[id(pair)], difference=_difference(one))
            for pair, one in telling.roots(found)
        ],
        pairs=[
            PairView(
                path=list(pair.path),
                kind=pair.kind,
                old=pair.old,
                new=pair.new,
                old_label=pair.old_label,
                new_label=pair.new_label,
                root=pair.root,
                step=pair.step,
                differences=[_difference(one) for one in pair.differences],
            )
            for pair in found.pairs
        ],
        shared=found.shared,
        text="\n".join(telling.lines(found)),
        markdown=telling.markdown(found),
    )


def _difference(one: Any) -> DifferenceView:
    return DifferenceView(
        factor=one.factor,
        name=one.name,
        old=one.old,
        new=one.new,
        matters=one.matters,
        reason=one.reason,
        hunk=one.hunk,
    )
