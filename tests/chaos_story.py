"""`kill -9` at random moments while the loop turns under load, and what must hold afterwards.

Three hands at work: a caller asks all the time and keeps the ids that it was given, a team builds, proposes, reviews,
merges, refreshes, labels and has the system retrain, and somebody kills processes. All may meet a dead server and try
again; nothing that was acknowledged may be missing.
"""

import itertools
import random
import threading
import time

import httpx2
from chaos_hands import Killer, Told, calm, guarded
from shop_house import BEGIN, CHECKED, Shop, orders_of

from everloop.core.clock import DAY, HOUR, iso
from everloop.core.errors import Conflict, NotFound, PolicyRefused, StepFailed, Unavailable

VICTIMS = ("server", "worker-0", "gateway")


class Chaos:
    """The three hands on one shop that is up and has a live endpoint."""

    def __init__(self, shop: Shop, seed: int, kills: int, pause: tuple[float, float]) -> None:
        self.shop, self.told = shop, Told()
        self.kills, self.pause = kills, pause
        self.dice = random.Random(seed)
        self.over = threading.Event()
        self.day = itertools.count(20)

    def rage(self):
        """Let all hands work until the last kill, then wait until everything is calm; returns what was told."""
        hands = [guarded(self.told, hand) for hand in (self._ask, self._work)]
        for hand in hands:
            hand.start()
        try:
            each = self.dice.sample(VICTIMS, len(VICTIMS))
            names = [*each, *self.dice.choices(VICTIMS, k=self.kills)][: self.kills]
            Killer(self.told, self.dice, lambda: self.shop.pids).rage(names, self.pause)
        finally:
            self.over.set()
            for hand in hands:
                hand.join(120)
        calm(self.shop.url, self.shop.person("ada"), self.told)
        return self.told

    # -- a caller ----------------------------------------------------------------------------------------

    def _ask(self):
        rows = itertools.cycle(orders_of(20).to_dicts())
        with self.shop.http() as http:
            while not self.over.is_set():
                row = next(rows)
                at = self.shop.workspace.clock.now()
                try:
                    reply = self.shop.ask(http, row, at)
                except httpx2.TransportError as error:
                    self.told.replies[type(error).__name__] += 1
                else:
                    self.told.replies[str(reply.status_code)] += 1
                    if reply.status_code == 200:
                        self.told.predictions[reply.json()["prediction_id"]] = row
                time.sleep(0.02)

    # -- a team ------------------------------------------------------------------------------------------

    def _work(self):
        while not self.over.is_set():
            day = next(self.day)
            self.shop.deliver([day])
            self.shop.set_time(BEGIN + (day + 1) * DAY)
            self._labels()
            self._push(day)
            for act in (self.shop.refresh, lambda day=day: self._change(day), self._tick, self._retrain):
                if self.over.is_set():
                    return
                self._again(act)

    def _again(self, act):
        """Do it, and do it again while somebody is dead; None when the team's own rules refused it."""
        for _ in range(60):
            try:
                done = act()
            except (Unavailable, StepFailed, httpx2.TransportError) as error:
                self.told.did[f"again after {type(error).__name__}"] += 1
                time.sleep(0.2)
            except (Conflict, PolicyRefused, NotFound) as error:
                self.told.did[f"{type(error).__name__}: {error.message[:60]}"] += 1
                return None
            else:
                return done
            if self.over.is_set():
                return None
        raise AssertionError("nobody answered for twelve seconds and more")

    def _call(self, who, operation, **fields):
        return self._again(lambda: self.shop.person(who).call(operation, **fields))

    def _labels(self):
        waiting = [p for p in list(self.told.predictions) if p not in self.told.labels][:200]
        labels = [
            {"prediction": p, "value": self.told.predictions[p]["returned"], "at": iso(self.shop.workspace.clock.now())}
            for p in waiting
        ]
        if labels and self._call("ada", "labels.add", endpoint="comeback", labels=labels) is not None:
            self.told.labels |= {p: self.told.predictions[p]["returned"] for p in waiting}
            self.told.did["labelled"] += len(labels)

    def _push(self, day):
        rows = orders_of(day - 1).with_columns(at=orders_of(day - 1)["at"].dt.epoch("us")).to_dicts()
        told = [{k: row[k] for k in ("number", "at", "place", "returned")} for row in rows]
        facts = [{**row, "known_at": row["at"] + 6 * HOUR} for row in told]
        if self._call("ada", "features.push", environment="production", dataset="outcomes", rows=facts) is not None:
            self.told.did["pushed"] += len(rows)

    def _change(self, day):
        sandbox = f"sandbox/ada/day{day}"
        built = self.shop.build(sandbox, params={"comeback": {"regularisation": 1 + day / 100}})
        self.told.builds.append(built)
        opened = self._call("ada", "changes.propose", source=sandbox, target="production", title=f"Day {day}")
        if opened is None:
            return
        while not self.over.is_set():
            change = self._call("grace", "changes.show", number=opened.number)
            if change is not None and all(c.state in CHECKED for c in change.checks):
                break
            time.sleep(0.1)
        else:
            return
        self._call("grace", "changes.approve", number=opened.number)
        if self._call("grace", "changes.merge", number=opened.number) is not None:
            self.told.merged.append(opened.number)
            self.told.did["merged"] += 1

    def _tick(self):
        self._call("ada", "tasks.enqueue", kind="watch.tick", payload={"environment": "production"}, dedupe="chaos")
        self.told.did["tick"] += 1

    def _retrain(self):
        number = 1000 + self.told.did["retrain"]
        payload = {
            "model": "comeback",
            "reason": "chaos",
            "environment": f"sandbox/auto/{number}",
            "number": number,
        }
        self._call("ada", "tasks.enqueue", kind="flow.retrain", payload=payload, dedupe=f"chaos/{number}")
        self.told.did["retrain"] += 1


def live_shop(folder, **how):
    """A shop that is up and whose endpoint is live."""
    shop = Shop(folder, **how)
    try:
        shop.up()
        shop.hire("grace", "approver", "contributor", "deployer")
        shop.build()
        shop.refresh()
        opened = shop.person("ada").call(
            "changes.propose", source="sandbox/ada/main", target="production", title="First model"
        )
        shop.checked(opened.number)
        shop.land(opened.number)
        shop.settled("live", "settled")
        shop.person("ada").call("features.materialize", environment="production")
    except BaseException:
        shop.close()
        raise
    return shop
