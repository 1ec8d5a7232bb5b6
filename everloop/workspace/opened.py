"""`Workspace`: one store, one catalog, many projects; makes the contexts that operations work with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from everloop.catalog.context import Actor, Context
from everloop.catalog.engine import Catalog
from everloop.core.clock import Clock, Micros, SystemClock
from everloop.core.errors import InvalidInput
from everloop.core.ports import Blobs
from everloop.core.settings import Settings, bindings
from everloop.core.signing import SigningKey
from everloop.store import open_store
from everloop.workspace import home as layout

OWNER = "everloop"
"""The name under which the system itself acts (controllers, sealing)."""


class Workspace:
    """An opened workspace. Close it, or use it as a context manager."""

    def __init__(self, settings: Settings, key: SigningKey, catalog: Catalog, store: Blobs, clock: Clock) -> None:
        """Use `Workspace.open`."""
        self.settings = settings
        self.home = settings.home
        self.key = key
        self.catalog = catalog
        self.store = store
        self.clock = clock

    @classmethod
    def open(cls, settings: Settings, clock: Clock | None = None) -> "Workspace":
        """Open what `init` made; raises `NotFound` with a hint when there is none."""
        home = settings.home.resolve()
        key = layout.signing_key(home)
        catalog = Catalog.open(database_url(settings))
        store = open_store(settings.objects or str(home / "objects"))
        chosen = clock or (layout.HomeClock(home) if settings.replay else SystemClock())
        return cls(_at_home(settings, home), key, catalog, store, chosen)

    @property
    def files(self) -> Path:
        """The folder that relative paths of sources start from, by default the one that holds `home`."""
        return self.home.parent

    def context(self, actor: Actor, project: str = "", *, environment: str = "", at: Micros | None = None) -> Context:
        """A context for `actor`. `at` sets the time, in a replay workspace only; elsewhere `InvalidInput`."""
        clock: Clock = self.clock
        if at is not None:
            if not self.settings.replay:
                raise InvalidInput(
                    "this workspace takes its time from the machine, not from requests",
                    hint="start it with --replay to replay history",
                )
            clock = layout.FixedClock(at)
        return Context(
            actor=actor,
            project=project or self.settings.project,
            clock=clock,
            catalog=self.catalog,
            store=self.store,
            key=self.key,
            home=self.home,
            bindings=self.bindings(environment),
            ports={"clock": self.clock},
        )

    def system(self, project: str = "") -> Context:
        """A context of the system itself, for controllers; user code never gets it."""
        grants = ("read */*@*#*", "*.* */*@*#*", "* */*@*#*")
        return self.context(Actor.of(OWNER, kind="service", grants=grants), project)

    def bindings(self, environment: str) -> Mapping[str, Any]:
        """Values of bindings; `files` is where relative paths start."""
        return {"files": str(self.files), **bindings(self.home, environment)}

    def close(self) -> None:
        """Give connections back."""
        self.catalog.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def database_url(settings: Settings) -> str:
    """The catalog's SQLAlchemy URL."""
    return settings.database or f"sqlite:///{settings.home.resolve() / 'catalog.sqlite'}"


def _at_home(settings: Settings, home: Path) -> Settings:
    values = {name: getattr(settings, name) for name in Settings.__slots__}
    return Settings(**{**values, "home": home})
