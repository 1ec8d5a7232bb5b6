"""Tables of versions, pointers, facts, tasks, steps and their recipes, runs of flows, and placements."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from everloop.catalog.tables.columns import STORED, Key, Moment, Serial, metadata

versions = Table(
    "versions",
    metadata,
    Column("project", Key, primary_key=True),
    Column("id", Key, primary_key=True),
    Column("kind", Key, nullable=False),
    Column("manifest", Text, nullable=False),  # canonical JSON, byte for byte what was hashed
    Column("at", Moment, nullable=False),
    Column("actor", Key, nullable=False),
)

names = Table(
    "names",
    metadata,
    Column("project", Key, primary_key=True),
    Column("kind", Key, primary_key=True),
    Column("name", Key, primary_key=True),
    Column("incarnation", Integer, nullable=False),
    Column("last", Integer, nullable=False),  # the newest number given
    Column("retired", Boolean, nullable=False),
)

numbers = Table(
    "numbers",
    metadata,
    Column("project", Key, primary_key=True),
    Column("kind", Key, primary_key=True),
    Column("name", Key, primary_key=True),
    Column("incarnation", Integer, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("version", Key, nullable=False),
    Column("at", Moment, nullable=False),
    Column("actor", Key, nullable=False),
    UniqueConstraint("project", "kind", "name", "incarnation", "version"),
    ForeignKeyConstraint(["project", "version"], ["versions.project", "versions.id"]),
    Index(None, "project", "version"),
)

edges = Table(
    "edges",
    metadata,
    Column("project", Key, primary_key=True),
    Column("to_id", Key, primary_key=True),
    Column("role", Key, primary_key=True),
    Column("from_id", Key, primary_key=True),
    ForeignKeyConstraint(["project", "to_id"], ["versions.project", "versions.id"]),
    ForeignKeyConstraint(["project", "from_id"], ["versions.project", "versions.id"]),
    Index(None, "project", "from_id"),
)

refs = Table(
    "refs",
    metadata,
    Column("project", Key, primary_key=True),
    Column("name", Key, primary_key=True),
    Column("target", Key, nullable=False),
    ForeignKeyConstraint(["project", "target"], ["versions.project", "versions.id"]),
)

ref_log = Table(
    "ref_log",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("project", Key, nullable=False),
    Column("name", Key, nullable=False),
    Column("old", Key),
    Column("new", Key),
    Column("actor", Key, nullable=False),
    Column("at", Moment, nullable=False),
    Column("reason", Text, nullable=False),
    Column("change", Key, nullable=False),
    Index(None, "project", "name", "at", "id"),
)

facts = Table(
    "facts",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("project", Key, nullable=False),
    Column("kind", Key, nullable=False),
    Column("subject", Key, nullable=False),
    Column("actor", Key, nullable=False),
    Column("at", Moment, nullable=False),
    Column("recorded", Moment),  # given by the sealer where the writer gave none
    Column("payload", Text, nullable=False),  # JSON, byte for byte what was hashed
    Column("payload_digest", Key, nullable=False),
    Column("position", BigInteger),  # None until sealed
    Column("prev", Key),
    Column("hash", Key),
    Index("uq_facts_project_position", "project", "position", unique=True),
    Index("ix_facts_unsealed", "id", sqlite_where=text("position IS NULL"), postgresql_where=text("position IS NULL")),
    Index(None, "project", "kind", "position"),
    Index(None, "project", "subject", "position"),
)

chains = Table(
    "chains",
    metadata,
    Column("project", Key, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("hash", Key, nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("project", Key, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("envelope", Text, nullable=False),
)

_OPEN_TASK = text("dedupe <> '' AND state IN ('queued', 'running')")

tasks = Table(
    "tasks",
    metadata,
    Column("id", Key, primary_key=True),
    Column("project", Key, nullable=False),
    Column("kind", Key, nullable=False),
    Column("payload", Text, nullable=False),
    Column("state", Key, nullable=False),  # queued | running | done | failed | cancelled
    Column("priority", Integer, nullable=False),
    Column("dedupe", Key, nullable=False),
    Column("actor", Key, nullable=False),
    Column("created", Moment, nullable=False),
    Column("not_before", Moment, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("owner", Key, nullable=False),
    Column("lease_until", Moment, nullable=False),
    Column("finished", Moment),
    Column("result", Text),
    Column("error", Text),
    Index(
        "uq_tasks_open", "project", "kind", "dedupe", unique=True, sqlite_where=_OPEN_TASK, postgresql_where=_OPEN_TASK
    ),
    Index(None, "state", "not_before"),
    Index(None, "project", "created"),
)

steps = Table(
    "steps",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("project", Key, nullable=False),
    Column("recipe", Key, nullable=False),
    Column("step", Key, nullable=False),
    Column("output", Key),
    Column("digest", Key, nullable=False),
    Column("code", Key, nullable=False),
    Column("runtime", Key, nullable=False),
    Column("params", Text, nullable=False),
    Column("inputs", Text, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("cpu_seconds", Float, nullable=False),
    Column("peak_memory", BigInteger, nullable=False),
    Column("run", Key, nullable=False),
    Column("status", Key, nullable=False),
    Column("cached", Boolean, nullable=False),
    Column("at", Moment, nullable=False),
    Index(None, "project", "recipe", "id"),
    Index(None, "project", "output"),
    Index(None, "project", "step", "id"),
)

placements = Table(
    "placements",
    metadata,
    Column("project", Key, primary_key=True),
    Column("logical", Key, primary_key=True),
    Column("object", Key, nullable=False, info=STORED),
)

rests = Table(  # layered parts of tables are read together with what they rest on
    "rests",
    metadata,
    Column("project", Key, primary_key=True),
    Column("object", Key, primary_key=True),
    Column("base", Key, nullable=False, info=STORED),
)
Index("ix_rests_base", rests.c.project, rests.c.base)

ingredients = Table(  # a closure's parts or the packages of a step: the same for many recipes
    "ingredients",
    metadata,
    Column("project", Key, primary_key=True),
    Column("id", Key, primary_key=True),
    Column("content", Text, nullable=False),
)

recipes = Table(
    "recipes",
    metadata,
    Column("project", Key, primary_key=True),
    Column("recipe", Key, primary_key=True),
    Column("step", Key, nullable=False),
    Column("code", Key, nullable=False),
    Column("packages", Key, nullable=False),
    Column("rest", Text, nullable=False),
)

leaks = Table(  # what an execution read that its recipe does not hold; the output is reused while all of it is the same
    "leaks",
    metadata,
    Column("project", Key, primary_key=True),
    Column("recipe", Key, primary_key=True),
    Column("reads", Key, primary_key=True),
    Column("content", Text, nullable=False),
    Column("output", Key, nullable=False),
    Column("at", Moment, nullable=False),
)

flows = Table(  # runs of flows: what one is asked to make, and how far each of its steps is
    "flows",
    metadata,
    Column("project", Key, primary_key=True),
    Column("id", Key, primary_key=True),
    Column("title", Text, nullable=False),
    Column("environment", Key, nullable=False),
    Column("actor", Key, nullable=False),
    Column("state", Key, nullable=False),  # running | parked | done | failed | cancelled
    Column("token", Integer, nullable=False),  # counts up with every driver: an older one commits nothing more
    Column("owner", Key, nullable=False),
    Column("wanted", Key, nullable=False),  # `cancel`, or nothing
    Column("request", Text, nullable=False),
    Column("plan", Text, nullable=False),
    Column("created", Moment, nullable=False),
    Column("beat", Moment, nullable=False),
    Column("ended", Moment),
    Column("error", Text, nullable=False),
    Index(None, "project", "created"),
)

flow_steps = Table(
    "flow_steps",
    metadata,
    Column("project", Key, primary_key=True),
    Column("flow", Key, primary_key=True),
    Column("step", Key, primary_key=True),
    Column("place", Integer, nullable=False),
    Column("state", Key, nullable=False),
    Column("recipe", Key, nullable=False),
    Column("output", Key, nullable=False),
    Column("run", Key, nullable=False),
    Column("why", Text, nullable=False),  # why it ran, was skipped, waits or failed
    Column("attempt", Integer, nullable=False),
    Column("began", Moment),
    Column("ended", Moment),
    Column("cpu_seconds", Float, nullable=False),
    Column("peak_memory", BigInteger, nullable=False),
    Column("decision", Text, nullable=False),  # of an approval: JSON
)
