"""Packed states are bytes that outlive a process: the golden file says what format 2 looks like, byte for byte.

Other bytes are another format: raise `packing.FORMAT`, so that an old state is refused and its view filled again, and
write a new golden file, `python tests/features/states/test_format.py`.
"""

import json
import random
from pathlib import Path

from everloop.core.clock import HOUR, MINUTE
from everloop.features import definitions as el
from everloop.features.definitions import FeatureServiceDef, FeatureViewDef
from everloop.features.definitions.feature import FUNCTIONS
from everloop.features.expressions import col
from everloop.features.online import OnlineService, OnlineView, lookup, push
from everloop.features.states.facts import atoms_of
from everloop.features.states.keys import entity_key
from everloop.features.states.packing import FORMAT

GOLDEN = Path(__file__).parent / "golden" / f"format-{FORMAT}.json"
START = 1_700_000_000_000_000
NUMBERS = [
    el.count(over="1h"), el.sum("x", over="1d"), el.mean("x", over="20d"), el.variance("x", over="1d", sample=True),
    el.stddev("y", over="1h"), el.min("x", over="1d", scale=2), el.max("x", over="1d", where=("kind", "==", "a")),
    el.ratio(el.sum("x", over="1d"), el.count(over="1d")), el.histogram("x", [0, 1, 2], over="1d"),
    el.quantile("x", 0.95, over="1d"), el.distinct("y", over="1d"), el.distinct("kind", over="20d", sketch=16),
]  # fmt: skip
KEPT = [
    el.first("x", over="1d"), el.last("kind", kind="text", ttl="2h"), el.last_k("y", 3, kind="integer"),
    el.top_k("kind", 2, over="1d", kind="text"), el.last(col("x") * 2, name="double"),
]  # fmt: skip


class Memory:
    """A store of one process, for bytes to be looked at."""

    def __init__(self):
        self.held = {}

    def read(self, wanted):
        return [[self.held.get((space, key)) for key in keys] for space, keys in wanted]

    def write(self, space, items):
        self.held |= {(space, key): value for key, value in items}

    def atomically(self, act):
        return act()


def rows():
    chance = random.Random(5)
    made = []
    for i in range(60):
        event = START + chance.randrange(0, 40) * HOUR + chance.randrange(3) * MINUTE
        x = None if i % 11 == 0 else chance.randrange(-400, 900) / 100
        row = {"id": i, "place": "pq"[i % 2], "event": event, "known": event + chance.randrange(0, 5) * 7 * MINUTE}
        made.append(row | {"x": x, "y": i % 4, "kind": "aäb"[i % 3]})
    return made


def packed():
    """What the store holds of some entities, as hex, and what their states answer."""
    store, found = Memory(), {}
    for name, features in (("numbers", NUMBERS), ("kept", KEPT)):
        view = FeatureViewDef(name, "facts", "place", features, "event", "known", "id", slack=6 * HOUR)
        online = OnlineView.of("p/e", "b3:0", view)
        push(store, online, rows())
        keys = [kind + entity_key([place]) for kind in (b"s", b"i") for place in "pq"]
        states = store.read([("p/e/b3:0", keys)])[0]
        service = OnlineService.of("p/e", FeatureServiceDef("s", [view]), {name: "b3:0"})
        answers = lookup(store, service, [{"place": place} for place in "pq"], START + 40 * HOUR)
        held = {key.decode(): (state or b"").hex() for key, state in zip(keys, states, strict=True)}
        found[name] = {"states": held, "answers": answers}
        store.held.clear()
    return found


def test_the_bytes_are_those_of_the_golden_file():
    assert packed() == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_every_function_is_in_the_golden_file():
    views = [FeatureViewDef(name, "facts", "place", f, "event") for name, f in (("n", NUMBERS), ("k", KEPT))]
    assert {f.function for v in views for f in (*v.features, *atoms_of(v))} == FUNCTIONS
    states = json.loads(GOLDEN.read_text(encoding="utf-8"))["numbers"]["states"]
    assert all(len(states[f"s{key}"]) > len("00" * 8 * 50) for key in ("sp", "sq"))


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(packed(), indent=1) + "\n", encoding="utf-8")
