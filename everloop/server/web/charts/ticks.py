"""Where an axis is marked, and what the marks say: numbers, powers of ten, times (UTC), durations."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import MAXYEAR, UTC, datetime
from itertools import islice

from everloop.core.clock import DAY, HOUR, MINUTE, SECOND

_NICE = (1.0, 2.0, 5.0, 10.0)
_MOST = 24
_TIMES = (
    *(SECOND * n for n in (1, 2, 5, 10, 15, 30)),
    *(MINUTE * n for n in (1, 2, 5, 10, 15, 30)),
    *(HOUR * n for n in (1, 2, 3, 6, 12)),
    *(DAY * n for n in (1, 2, 7, 14)),
)
_MONTHS = (1, 2, 3, 6, 12, 24, 60, 120, 240, 600, 1200, 2400)
_MONTH = 30 * DAY
_UNITS = ((DAY / SECOND, "d"), (HOUR / SECOND, "h"), (MINUTE / SECOND, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark of an axis: the value that it stands at, and its text."""

    at: float
    label: str


def nice_step(span: float, wanted: int, *, whole: bool = False) -> float:
    """The step of 1, 2 or 5 times a power of ten that gives about `wanted` marks over `span` (> 0)."""
    raw = span / max(wanted, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(nice * power for nice in _NICE if nice * power >= raw * 0.999)
    return max(step, 1.0) if whole else step


def linear_ticks(low: float, high: float, wanted: int = 5, *, whole: bool = False) -> tuple[Tick, ...]:
    """Round values from `low` to `high`; `whole` ones only where asked."""
    return stepped_ticks(low, high, nice_step(high - low, wanted, whole=whole))


def stepped_ticks(low: float, high: float, step: float) -> tuple[Tick, ...]:
    """Multiples of `step` from `low` to `high`."""
    return tuple(Tick(at, number_label(at, step)) for at in islice(_multiples(low, high, step), _MOST))


def log_ticks(low: float, high: float, wanted: int = 5) -> tuple[Tick, ...]:
    """Powers of ten from `low` to `high` (> 0); with 2 and 5 times them over few decades, round values over less."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    stride = max(1, -(-(last - first + 1) // (wanted + 2)))
    found = [10.0**power for power in range(first, last + 1, stride)]
    if last - first < 2:
        every = (nice * 10.0**power for power in range(first - 1, last + 1) for nice in _NICE[:3])
        found = sorted(at for at in every if low <= at * (1 + 1e-9) and at <= high * (1 + 1e-9))
    if len(found) < 3:
        return linear_ticks(low, high, wanted)
    return tuple(Tick(at, number_label(at, 10.0 ** math.floor(math.log10(at)))) for at in found)


def time_ticks(low: float, high: float, wanted: int = 6) -> tuple[Tick, ...]:
    """Round moments in UTC, from microseconds to microseconds; a mark at which a day begins says the day."""
    raw = (high - low) / max(wanted, 1)
    if raw < SECOND:
        step = nice_step(high - low, wanted)
        return tuple(Tick(at, _moment(at, "%H:%M:%S.%f")[:-3]) for at in islice(_multiples(low, high, step), _MOST))
    if raw > _TIMES[-1]:
        return tuple(islice(_month_ticks(low, high, raw), _MOST))
    step = next(step for step in _TIMES if step >= raw * 0.999)
    begin = 4 * DAY if step % (7 * DAY) == 0 else 0  # weeks begin on Mondays; the epoch was a Thursday
    marks = islice(_multiples(low - begin, high - begin, step), _MOST)
    return tuple(Tick(at + begin, _clock(at + begin, step)) for at in marks)


def duration_ticks(low: float, high: float, wanted: int = 6) -> tuple[Tick, ...]:
    """Round durations, from seconds to seconds."""
    raw = (high - low) / max(wanted, 1)
    round_ones = [step / SECOND for step in _TIMES if step <= DAY]
    step = next((step for step in round_ones if 0.5 < raw <= step * 1.001), None) or nice_step(high - low, wanted)
    size, unit = next(((size, unit) for size, unit in _UNITS if step >= size * 0.999), _UNITS[-1])
    return tuple(
        Tick(at, f"{number_label(at / size, step / size)} {unit}" if at else "0")
        for at in islice(_multiples(low, high, step), _MOST)
    )


def number_label(value: float, step: float) -> str:
    """A number as an axis says it: no more digits than its steps need, thousands as `k`, `M`, `G`, `T`."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e15 or size < 1e-4:
        digits = max(0, math.floor(math.log10(size)) - math.floor(math.log10(step) + 1e-9))
        mantissa, _, power = f"{value:.{min(digits, 6)}e}".partition("e")
        return f"{mantissa}e{int(power)}".replace("-", "\N{MINUS SIGN}")
    divisor, prefix = next((d, p) for d, p in (*_PREFIXES, (1.0, "")) if size >= 10 * d or d == 1.0)
    decimals = max(0, -math.floor(math.log10(step / divisor) + 1e-9))
    text = f"{value / divisor:.{min(decimals, 12)}f}{prefix}"
    return text.replace("-", "\N{MINUS SIGN}")


def _multiples(low: float, high: float, step: float) -> Iterator[float]:
    """Multiples of `step` within the bounds, with a little grace for rounding."""
    index = math.ceil(low / step - 1e-6)
    while index * step <= high + step * 1e-6:
        yield index * step
        index += 1


def _moment(at: float, form: str) -> str:
    return datetime.fromtimestamp(at / SECOND, UTC).strftime(form)


def _clock(at: float, step: float) -> str:
    if at % DAY == 0:
        return _moment(at, "%-d %b")
    return _moment(at, "%H:%M" if step >= MINUTE else "%H:%M:%S")


def _month_ticks(low: float, high: float, raw: float) -> Iterator[Tick]:
    stride = next((n for n in _MONTHS if n * _MONTH >= raw * 0.999), _MONTHS[-1])
    begin = datetime.fromtimestamp(low / SECOND, UTC)
    month = -(-(begin.year * 12 + begin.month - 1) // stride) * stride
    while True:
        year, index = divmod(month, 12)
        if year > MAXYEAR:
            return
        moment = datetime(year, index + 1, 1, tzinfo=UTC)
        at = moment.timestamp() * SECOND
        if at > high:
            return
        if at >= low:
            yield Tick(at, moment.strftime("%Y" if index == 0 else "%b"))
        month += stride
