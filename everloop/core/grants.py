"""Grants: `verb kind/name@environment#tag`, the one grammar of permission. Default deny.

Each of the four places is a glob (`*` any text, no other wildcard). `@environment` and `#tag` may be
left out of a grant: without `@` it holds in every *sandbox* and where no environment is involved, never
in a protected environment; without `#` it does not reach anything that carries a tag. `@*` and `#*` say
so when that is meant.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from everloop.core.errors import InvalidInput

_FORM = re.compile(
    r"(?P<verb>[a-z_.*]+)\s+(?P<kind>[a-z_*]+)/(?P<name>[A-Za-z0-9_.*/-]+)"
    r"(?:@(?P<environment>[A-Za-z0-9_.*/-]+))?(?:#(?P<tag>[A-Za-z0-9_.*-]+))?"
)
SANDBOX = "sandbox/"


@dataclass(frozen=True, slots=True)
class Target:
    """What an act touches: an asset, where, and the tags that it carries."""

    kind: str = "project"
    name: str = "*"
    environment: str = ""
    tags: frozenset[str] = frozenset()

    def __str__(self) -> str:
        """The target in the grammar of grants."""
        place = f"@{self.environment}" if self.environment else ""
        return f"{self.kind}/{self.name}{place}" + "".join(f"#{t}" for t in sorted(self.tags))


@dataclass(frozen=True, slots=True)
class Grant:
    """One permission; `Grant.parse` reads it, `str` writes it."""

    verb: str
    kind: str
    name: str
    environment: str | None = None
    tag: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Grant":
        """Read `verb kind/name@environment#tag`; raises `InvalidInput`."""
        match = _FORM.fullmatch(text.strip())
        if match is None:
            msg = f"{text!r} is not a grant"
            raise InvalidInput(msg, hint="verb kind/name@environment#tag, for example: change.approve */*@production")
        return cls(**match.groupdict())

    def __str__(self) -> str:
        """The text that `parse` reads."""
        place = f"@{self.environment}" if self.environment is not None else ""
        return f"{self.verb} {self.kind}/{self.name}{place}" + (f"#{self.tag}" if self.tag is not None else "")

    def allows(self, verb: str, target: Target) -> bool:
        """Whether this grant alone permits `verb` on `target`."""
        return (
            matches(self.verb, verb)
            and matches(self.kind, target.kind)
            and matches(self.name, target.name)
            and self._reaches_environment(target.environment)
            and all(self.tag is not None and matches(self.tag, tag) for tag in target.tags)
        )

    def _reaches_environment(self, environment: str) -> bool:
        if self.environment is None:
            return environment == "" or environment.startswith(SANDBOX)
        return matches(self.environment, environment)


def matches(pattern: str, text: str) -> bool:
    """Whether a glob of the grammar (`*` stands for anything) covers a text."""
    if "*" not in pattern:
        return pattern == text
    return pattern == "*" or _form(pattern).fullmatch(text) is not None


@lru_cache(maxsize=1024)  # every request asks the same few
def _form(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(piece) for piece in pattern.split("*")), re.DOTALL)


def allowing(grants: Iterable[Grant], verb: str, target: Target) -> Grant | None:
    """The first grant that permits it, as the answer to "why may they?"; None denies."""
    return next((grant for grant in grants if grant.allows(verb, target)), None)


ROLES: dict[str, tuple[str, ...]] = {
    "viewer": ("read */*@*",),
    "contributor": (
        "read */*@*",
        "run.write */*",
        "sandbox.write */*",
        "change.propose */*@*",
        "change.comment */*@*",
        "check.run */*@*",
        "data.capture */*@*",
        "feed.push data/*@*",
        "label.write endpoint/*@*",
        "endpoint.explain endpoint/*@*",
        "alarm.write endpoint/*@*",
    ),
    "approver": ("read */*@*", "change.comment */*@*", "change.approve */*@*", "flow.approve flow/*@*"),
    "deployer": (
        "read */*@*",
        "change.merge */*@*",
        "environment.rollback */*@*",
        "experiment.write endpoint/*@*",
        "check.run */*@*",
        "alarm.write endpoint/*@*",
    ),
    "steward": ("read */*@*#*", "data.capture */*@*", "data.erase */*@*#*", "tag.write */*@*#*"),
    "auditor": ("read */*@*#*", "audit.read */*@*", "endpoint.explain endpoint/*@*"),
    "admin": (
        "read */*@*",
        "audit.read */*@*",
        "access.write */*@*",
        "task.write */*@*",
        "system.write */*@*",
        "compute.use compute/*@*",
        "budget.write budget/*@*",
    ),
    "worker": ("check.record */*@*",),
}
"""Roles are lists of grants; they add up. An admin manages access and budgets; neither reads tagged data nor approves.

Which compute profiles somebody may use is granted one by one (`SINGLE`).
"""
SINGLE = frozenset({"compute.use"})
"""Verbs that a user may be granted by themselves, beside what roles give."""
SYSTEM_ROLES = frozenset({"worker"})
"""Roles that no user can be given: what a worker found out is evidence because nobody else can write it down."""


def role_grants(role: str) -> tuple[Grant, ...]:
    """The grants of a role; raises `InvalidInput` for an unknown one."""
    if role not in ROLES:
        msg = f"{role!r} is not a role"
        raise InvalidInput(msg, hint="one of " + ", ".join(sorted(ROLES)))
    return tuple(Grant.parse(text) for text in ROLES[role])


def narrowed(scope: Iterable[Grant], held: Iterable[Grant]) -> tuple[Grant, ...]:
    """Grants that permit only what both `scope` and `held` permit: a token never gives more than its owner has.

    Two globs of which neither covers the other have no common grant here; less is permitted then, never more.
    """
    kept = list(held)
    pairs = (_narrower(one, other) for one in scope for other in kept)
    return tuple(dict.fromkeys(grant for grant in pairs if grant is not None))


def _narrower(one: Grant, other: Grant) -> Grant | None:
    verb, kind, name = (_inner(getattr(one, f), getattr(other, f)) for f in ("verb", "kind", "name"))
    if verb is None or kind is None or name is None:
        return None
    tag = None if one.tag is None or other.tag is None else _inner(one.tag, other.tag)
    if one.environment is None or other.environment is None:
        wide = other.environment if one.environment is None else one.environment
        if wide is None or wide == "*":
            return Grant(verb, kind, name, None, tag)
        return Grant(verb, kind, name, wide, tag) if wide.startswith(SANDBOX) else None
    environment = _inner(one.environment, other.environment)
    return None if environment is None else Grant(verb, kind, name, environment, tag)


def _inner(one: str, other: str) -> str | None:
    """The glob that lies within the other; None when neither does."""
    if matches(one, other):
        return other
    return one if matches(other, one) else None
