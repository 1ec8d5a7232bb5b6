"""Where a subject's key may lie beside the tables: feeds, logs, files, traces, the online store, leftovers."""

import struct
from collections.abc import Callable

from everloop import features
from everloop.catalog import refs
from everloop.catalog.context import Context
from everloop.catalog.facts import Fact
from everloop.catalog.governance import redactions
from everloop.core.ports import OnlineStore
from everloop.data import opening
from everloop.data.erasure.elsewhere.brokers import Brokers
from everloop.data.erasure.elsewhere.inboxes import Inboxes
from everloop.data.erasure.elsewhere.leftovers import Leftovers
from everloop.data.erasure.elsewhere.objects import LoggedFiles, Traces
from everloop.data.erasure.erasing import Places
from everloop.data.erasure.finding.subjects import Subject
from everloop.features.operations import online_store
from everloop.features.states.keys import entity_key
from everloop.serving.erasure.caches import AnswerCaches
from everloop.serving.erasure.segments import PredictionLog
from everloop.workspace.work import holding


class OnlineFeatures:
    """`core.ports.Erasable`: the online stores of all environments, whose files are written anew afterwards."""

    place = "online features"

    def __init__(self, ctx: Context) -> None:
        """Erase from the project of `ctx`."""
        self._ctx = ctx

    def erase(self, key: str) -> int:
        """Remove the state of the entity, alone or as one of several, in every view version of the project.

        An entity of several columns whose key is longer than 400 bytes is kept as a hash and cannot be told apart.
        """
        ctx = self._ctx
        with ctx.read() as tx:
            views = redactions.ids_of_kind(tx, ctx.project, "view")
            environments = [name.removeprefix(refs.env_ref("")) for name in refs.all(tx, ctx.project, refs.env_ref(""))]
        spaces: dict[int, tuple[OnlineStore, list[str]]] = {}
        for environment in environments if views else ():
            store = online_store(ctx, environment)
            _, mine = spaces.setdefault(id(store), (store, []))
            mine += [f"{features.online.scope_of(ctx.project, environment)}/{view}" for view in views]
        wanted = _of(key)
        return sum(store.forget(several, wanted) for store, several in spaces.values())


def _of(key: str) -> Callable[[bytes], bool]:
    """Whether a stored key is of the entity, alone or as one of several."""
    alone = tuple(entity_key([value]) for value in (key, *([int(key)] if key.lstrip("-").isdigit() else [])))
    parts = (b"s" + key.encode(), b"i" + key.encode())
    among = tuple(struct.pack("<I", len(part)) + part for part in parts)

    def mine(stored: bytes) -> bool:
        entity = stored[1:]  # behind the byte that says which kind of state it is
        return entity in alone or any(part in entity for part in among)

    return mine


class OpenTables:
    """`core.ports.Erasable`: tables of other formats, written anew over the files that are left."""

    place = "tables opened to other engines"

    def __init__(self, ctx: Context) -> None:
        """Erase from the project of `ctx`."""
        self._ctx = ctx

    def erase(self, key: str) -> int:  # noqa: ARG002 - the rows are gone already: what told of them is written anew
        """Write every open table of the project again; how many there were."""
        return opening.refresh(self._ctx)


def places(ctx: Context, subject: Subject, said: Fact) -> Places:
    """The places beside the tables where this workspace may hold a subject's key."""
    held = holding.held_where_spoken(ctx, subject)
    return Places(
        held=held,
        before=[Inboxes(ctx, subject), Brokers(ctx, subject)],
        after=[
            Traces(ctx, subject.mentions, said),
            LoggedFiles(ctx, subject.mentions, said),
            PredictionLog(ctx, subject.columns),
            AnswerCaches(ctx),
            OnlineFeatures(ctx),
            OpenTables(ctx),
            Leftovers(ctx, subject),
        ],
    )
