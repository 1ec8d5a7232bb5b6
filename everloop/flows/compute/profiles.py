"""Named compute profiles as values: what a step may use, what that costs, and which one a step gets.

Pure, and outside the recipe, save the number of threads: another price or limit runs nothing again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from typing import Any

from everloop.core.errors import DefinitionError, InvalidInput
from everloop.core.ids import checked_name
from everloop.core.ports import Resources, Use
from everloop.flows.assets import Asset, suggest
from everloop.flows.control import bytes_of, seconds_of

MILLION = 10**6
"""Money is counted in millionths of its currency, so that sums are exact."""
_HOUR = Decimal(3600)
_GB = Decimal(10**9)
_MOST = Decimal(10**6)
RATES = ("core_hour", "gb_hour", "gpu_hour", "hour")


@dataclass(frozen=True, slots=True)
class Price:
    """What is paid: for an hour of a core's time, a GB held, a GPU held, and of the clock; all add up.

    Amounts are numbers or texts (`"0.04"`); the currency is its three letters.
    """

    currency: str
    core_hour: float | str = 0
    gb_hour: float | str = 0
    gpu_hour: float | str = 0
    hour: float | str = 0

    def __post_init__(self) -> None:
        """Refuse what is no price; keep amounts as plain decimal texts."""
        if len(self.currency) != 3 or not self.currency.isascii() or not self.currency.isupper():
            raise DefinitionError(f"{self.currency!r} is no currency", hint='its three letters: "EUR"')
        for name in RATES:
            given = getattr(self, name)
            try:
                amount = Decimal(str(given))
            except InvalidOperation:
                amount = Decimal(-1)
            if not (amount.is_finite() and 0 <= amount <= _MOST):
                raise DefinitionError(f"{name}={given!r} is no price", hint="a number from 0, such as 0.04")
            object.__setattr__(self, name, f"{amount.normalize():f}")

    def cost(self, use: Use) -> int:
        """What a use costs, in millionths of the currency, rounded half up.

        Cores by the CPU time used, memory by the most that was held for as long as it took, GPUs by the time held.
        """
        core, memory, gpu, clock = (Decimal(str(getattr(self, name))) for name in RATES)
        wall = Decimal(repr(use.seconds))
        total = core * Decimal(repr(use.cpu_seconds)) + gpu * Decimal(repr(use.gpu_seconds))
        total += (memory * use.peak_memory / _GB + clock) * wall
        return int((total * MILLION / _HOUR + Decimal("0.5")).__floor__())

    def json(self) -> dict[str, str]:
        """As plain values; amounts as texts, for identities hold no floats."""
        return {"currency": self.currency, **{name: str(getattr(self, name)) for name in RATES}}

    def __str__(self) -> str:
        """`EUR 0.04 a core-hour, 2 a GPU-hour`."""
        names = {"core_hour": "a core-hour", "gb_hour": "a GB-hour", "gpu_hour": "a GPU-hour", "hour": "an hour"}
        said = [f"{getattr(self, name)} {text}" for name, text in names.items() if getattr(self, name) != "0"]
        return f"{self.currency} {', '.join(said)}" if said else f"{self.currency} nothing"


@dataclass(frozen=True, slots=True)
class Profile:
    """What a step may use, by a name that needs a grant (`compute.use compute/<name>`) unless it is the default."""

    name: str
    resources: Resources = field(default_factory=Resources)
    price: Price | None = None
    default: bool = False
    """Steps that name no profile get it, and everybody may use it."""
    version: str = ""
    """The id of the version that holds in a protected environment; empty: the project's code says so."""

    def manifest(self) -> dict[str, Any]:
        """The manifest of the definition."""
        held = self.resources
        return {
            "cores": f"{held.cores:g}",
            "memory": held.memory,
            "seconds": None if held.seconds is None else f"{held.seconds:g}",
            "gpus": f"{held.gpus:g}",
            "price": None if self.price is None else self.price.json(),
            "default": self.default,
        }

    @classmethod
    def from_manifest(cls, name: str, manifest: Mapping[str, Any], version: str = "") -> "Profile":
        """Read a profile back from its version."""
        seconds, price = manifest["seconds"], manifest["price"]
        held = Resources(
            float(manifest["cores"]),
            manifest["memory"],
            None if seconds is None else float(seconds),
            float(manifest["gpus"]),
        )
        return cls(name, held, None if price is None else Price(**price), bool(manifest["default"]), version)

    def fitted(self, wanted: Resources | None, step: str) -> Resources:
        """What a step gets that says its own limits: they lower what the profile gives.

        Raises `DefinitionError` when one of them is more than that.
        """
        if wanted is None:
            return self.resources
        have = self.resources
        over = [
            f"{said} {shown(asked)} of {shown(most)}"
            for said, asked, most, shown in (
                ("cores", wanted.cores, have.cores, _plain),
                ("GPUs", wanted.gpus, have.gpus, _plain),
                ("memory", wanted.memory, have.memory, _megabytes),
                ("time", wanted.seconds, have.seconds, _seconds),
            )
            if asked is not None and most is not None and asked > most
        ]
        if over:
            raise DefinitionError(
                f"{step} asks for more than compute={self.name!r} gives: {', '.join(over)}",
                hint="name a larger profile (compute=), or ask for less (limits=)",
            )
        return replace(
            wanted,
            memory=wanted.memory if wanted.memory is not None else have.memory,
            seconds=wanted.seconds if wanted.seconds is not None else have.seconds,
        )


def profile(
    name: str,
    *,
    cores: float = 1.0,
    memory: str | int | None = None,
    gpus: float = 0.0,
    timeout: str | float | None = None,
    price: Price | None = None,
    default: bool = False,
) -> Profile:
    """A profile as authors say it; raises `InvalidInput` for what is no amount."""
    if cores <= 0 or gpus < 0:
        raise DefinitionError(f"compute {name!r} has {cores:g} cores and {gpus:g} GPUs", hint="cores from above 0")
    return Profile(checked_name(name), Resources(cores, bytes_of(memory), seconds_of(timeout), gpus), price, default)


BUILT_IN: Mapping[str, Profile] = {
    "small": Profile("small", Resources(cores=2), default=True),
    "medium": Profile("medium", Resources(cores=4)),
    "large": Profile("large", Resources(cores=16)),
}
"""What models may name in a project that declares no profiles; they cost nothing."""


@dataclass(frozen=True, slots=True)
class Profiles:
    """The profiles that hold for a run."""

    named: Mapping[str, Profile] = field(default_factory=dict)
    """Empty: the project declares none."""

    def __post_init__(self) -> None:
        """Refuse two defaults."""
        defaults = [one.name for one in self.named.values() if one.default]
        if len(defaults) > 1:
            raise InvalidInput(f"two compute profiles are the default: {', '.join(defaults)}", hint="one of them")

    @property
    def all(self) -> Mapping[str, Profile]:
        """By name; the built-in ones where the project declares none."""
        return self.named or BUILT_IN

    def of(self, name: str, step: str) -> Profile | None:
        """The profile that `step` gets, which names one or none; None when it names none and none is the default.

        Raises `InvalidInput` for a name that is none.
        """
        if not name:
            default = next((one for one in self.named.values() if one.default), None)
            return default or (BUILT_IN["small"] if not self.named and step.startswith("model/") else None)
        if name not in self.all:
            raise InvalidInput(f"{step} asks for compute={name!r}, which nothing defines", hint=suggest(name, self.all))
        return self.all[name]


def placed(asset: Asset, profiles: Profiles) -> Asset:
    """The asset with what it gets of its profile; raises `InvalidInput`, and `DefinitionError` for too much."""
    if asset.function is None:
        return asset
    found = profiles.of(asset.compute, asset.key)
    if found is None:
        return asset if asset.limits is None else replace(asset, resources=asset.limits)
    return replace(asset, resources=found.fitted(asset.limits, asset.key))


def in_force(declared: Profiles, held: Mapping[str, Profile]) -> Profiles:
    """The profiles that hold for a run: those of the protected environment (`held`) stand before those of the code.

    Of the code remain names that the environment does not know yet, and none of them as the default: who writes code
    cannot make anything cheaper, larger or open to all by it.
    """
    if not held:
        return declared
    own = {name: replace(one, default=False) for name, one in declared.named.items() if name not in held}
    return Profiles({**own, **held})


def hourly(profile: Profile | None) -> float | None:
    """What an hour costs of a step that uses all that its profile gives; None where nothing is paid."""
    if profile is None or profile.price is None:
        return None
    have = profile.resources
    whole = Use(3600.0, have.cores * 3600.0, have.memory or 0, have.gpus * 3600.0)
    return profile.price.cost(whole) / MILLION


def _plain(amount: float) -> str:
    return f"{amount:g}"


def _megabytes(amount: float) -> str:
    return f"{amount / 1e6:,.0f} MB"


def _seconds(amount: float) -> str:
    return f"{amount:g} s"
