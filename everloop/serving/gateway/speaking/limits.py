"""How much each caller has asked of each endpoint lately, and whether it may ask again.

A rate is a bucket that fills evenly; a quota is a count in each whole period of the clock. Both are of this gateway,
and begin anew with it: they protect a service, they are no bill.
"""

import time
from collections import OrderedDict
from dataclasses import dataclass

from everloop.core.clock import DAY, HOUR, MINUTE, SECOND, Micros
from everloop.core.errors import Overloaded
from everloop.serving.gateway.fleet import LiveRoute

_PERIODS = {"second": SECOND, "minute": MINUTE, "hour": HOUR, "day": DAY}
_KNOWN = 10_000
"""Callers that are remembered; those that asked longest ago are forgotten, and begin with a full bucket."""


@dataclass(slots=True)
class _Account:
    left: float
    """Requests in the bucket."""
    at: float
    """When that was."""
    period: int = -1
    count: int = 0


class Limits:
    """The accounts of one gateway."""

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self._accounts: OrderedDict[tuple[str, str], _Account] = OrderedDict()

    def take(self, route: LiveRoute, caller: str, now: float) -> None:
        """Count one request of a caller at `now` (seconds); raises `Overloaded` when it may not ask now."""
        said = route.route.limits
        if not said:
            return
        account = self._account((route.route.address, caller), said, now)
        wait, beyond = _wait(account, said, now)
        if wait > 0:
            route.champion.counters.limited += 1
            hint = f"come again in {wait:.1f} s"
            raise Overloaded(f"this caller asks more than it may: {beyond}", hint=hint, seconds=wait)
        account.left -= 1
        account.count += 1

    def allows(self, route: LiveRoute, caller: str, now: float) -> bool:
        """Whether `take` would count a request now; nothing is counted."""
        said = route.route.limits
        return not said or _wait(self._account((route.route.address, caller), said, now), said, now)[0] <= 0

    def _account(self, key: tuple[str, str], said: dict[str, list[int]], now: float) -> _Account:
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = _Account(float(said.get("rate", [0])[0]), now)
            if len(self._accounts) > _KNOWN:
                self._accounts.popitem(last=False)
        else:
            self._accounts.move_to_end(key)
        return account


def _wait(account: _Account, said: dict[str, list[int]], now: float) -> tuple[float, str]:
    """Seconds until an account may ask again, and what it is beyond; fills its bucket, and begins its period."""
    wait, beyond = 0.0, ""
    if "rate" in said:
        most, micros = said["rate"]
        account.left = min(most, account.left + (now - account.at) * most / (micros / 1e6))
        account.at = now
        wait = max((1 - account.left) * (micros / 1e6) / most, 0.0)
        beyond = f"its rate is {most} in {_told(micros)}"
    if "quota" in said:
        most, micros = said["quota"]
        period = int(now * 1e6) // micros
        if period != account.period:
            account.period, account.count = period, 0
        if account.count >= most:
            wait = max(wait, ((period + 1) * micros) / 1e6 - now)
            beyond = f"its quota of {most} in {_told(micros)} is used up"
    return wait, beyond


def _told(micros: Micros) -> str:
    return next(f"a {name}" for name, long in _PERIODS.items() if long >= micros)


def wall() -> float:
    """The clock of quotas, in seconds."""
    return time.time()
