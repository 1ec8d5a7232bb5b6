"""What every chaos shares: who kills, who tries again, and when everything is calm.

A story turns the loop; somebody kills processes meanwhile. Whoever meets a dead server tries again, as a user's client
would; nothing that was acknowledged may be missing afterwards (`chaos_invariants`).
"""

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx2
from shop_house import wait_for

from everloop.core.errors import EverloopError

CALM_WITHIN = 240


@dataclass
class Told:
    """What was acknowledged, and what went on."""

    predictions: dict[str, dict] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    builds: list = field(default_factory=list)
    merged: list[int] = field(default_factory=list)
    kills: Counter = field(default_factory=Counter)
    struck: Counter = field(default_factory=Counter)
    """What was under way when somebody was killed."""
    replies: Counter = field(default_factory=Counter)
    did: Counter = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)

    def shown(self):
        """The numbers of it."""
        return {name: dict(getattr(self, name)) for name in ("kills", "struck", "replies", "did")} | {
            "predictions": len(self.predictions),
            "labels": len(self.labels),
            "builds": len(self.builds),
            "merged": len(self.merged),
        }


@dataclass
class Killer:
    """Kills processes at random moments."""

    told: Told
    dice: random.Random
    pids: Callable[[], dict[str, int]]
    """Living processes by name, whoever may be killed among them."""

    def kill(self, name, within=30.0):
        """Kill it, once it lives: who was killed a moment ago may still be waiting for its restart."""

        def killed():
            with contextlib.suppress(ProcessLookupError, FileNotFoundError, KeyError):
                os.kill(self.pids()[name], signal.SIGKILL)
                return True
            return False

        wait_for(killed, within, f"{name} lives")
        self.told.kills[name] += 1

    def rage(self, names, pause):
        """Kill these one after another; `pause` is the shortest and the longest time between two."""
        for name in names:
            time.sleep(self.dice.uniform(*pause))
            self.kill(name)


def guarded(told, hand):
    """A hand's work as the target of a thread: what goes wrong in it must fail the test."""

    def work():
        try:
            hand()
        except Exception as error:  # noqa: BLE001 - it is told, and the test looks
            told.troubles.append(f"{hand.__name__}: {type(error).__name__}: {error}")

    return threading.Thread(target=work, name=hand.__name__)


def calm(url, client, told):
    """Wait until everything answers again, no task is open, and the log of predictions is read."""

    def healthy():
        with contextlib.suppress(httpx2.TransportError):
            return httpx2.get(f"{url}/health", timeout=2).status_code == 200
        return False

    def idle():
        with contextlib.suppress(EverloopError):
            return all(t.state in ("done", "failed", "cancelled") for t in client.call("tasks.list").tasks)
        return False

    def read():
        with contextlib.suppress(EverloopError):
            return client.call("predictions.get", id=newest)
        return None

    wait_for(healthy, 60, "everything answers again")
    wait_for(idle, CALM_WITHIN, "the queue is empty")
    newest = list(told.predictions)[-1]
    wait_for(read, 30, "the newest prediction is in the catalog")
