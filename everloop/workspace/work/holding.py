"""Whether a legal hold keeps an erasure from a run, an experiment, a model or the prediction log.

Asked only where a hold stands: then what is held is looked through for the subject, and the erasure is refused when it
speaks of it.
"""

from everloop.catalog.context import Context
from everloop.catalog.erasing import files, texts, traces
from everloop.catalog.governance import holds
from everloop.core.errors import CorruptObject, NotFound
from everloop.data.erasure.elsewhere.contents import name_or_bytes
from everloop.data.erasure.finding.subjects import Subject
from everloop.serving.erasure.segments import PredictionLog


def held_where_spoken(ctx: Context, subject: Subject) -> str:
    """The reason of a hold on something that speaks of the subject; empty when there is none."""
    with ctx.read() as tx:
        standing = holds.standing(tx, ctx.project)
        anywhere = holds.standing(tx)
    if holds.PREDICTIONS in anywhere and PredictionLog(ctx, subject.columns).holds(subject.key):
        return anywhere[holds.PREDICTIONS]
    others = {place: why for place, why in standing.items() if not place.startswith(("subject/", "data/", "frame/"))}
    return next((why for place, why in sorted(others.items()) if _speaks(ctx, place, subject)), "")


def _speaks(ctx: Context, place: str, subject: Subject) -> bool:
    kind, _, name = place.partition("/")
    said = subject.mentions
    with ctx.read() as tx:
        if kind == "experiment" and traces.experiments(tx, ctx.project, traces.speaking(tx, ctx.project, said)) & {
            name
        }:
            return True
        held = holds.runs_of(tx, ctx.project, place)
        if held and texts.runs_speaking(tx, ctx.project, held, said):
            return True
        versions = holds.versions_of(tx, ctx.project, place)
        owned = [f for f in files.of_artifacts(tx, ctx.project) if f.owner.removeprefix("console:") in held]
        owned += [f for f in files.of_versions(tx, ctx.project) if f.version in versions]
    for file in owned:
        try:
            if name_or_bytes(file.path, ctx.store.get(file.object), said):
                return True
        except (NotFound, CorruptObject):
            continue
    return False
