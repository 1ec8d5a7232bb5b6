"""The values that traces, assessments, datasets and scorers come back as: immutable, with times in microseconds."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from everloop.core.clock import Micros

NOTHING: Mapping[str, Any] = MappingProxyType({})
TRACE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}")
STATES = ("STATE_UNSPECIFIED", "OK", "ERROR", "IN_PROGRESS")

NAME_TAG = "mlflow.traceName"
PLACE_TAG = "mlflow.artifactLocation"
SPANS_TAG = "mlflow.trace.spansLocation"
SPANS_HERE = "TRACKING_STORE"
OWN_TAGS = frozenset({PLACE_TAG, SPANS_TAG})
"""Tags that say where the parts of a trace are: the store's to set, never a client's."""

RUN_METADATA = "mlflow.sourceRun"
SESSION_METADATA = "mlflow.trace.session"
USER_METADATA = "mlflow.trace.user"
USAGE_METADATA = "mlflow.trace.tokenUsage"
COST_METADATA = "mlflow.trace.cost"
SIZE_METADATA = "mlflow.trace.sizeStats"


@dataclass(frozen=True, slots=True)
class Assessment:
    """What somebody says about a trace or one of its spans: feedback, or what was expected."""

    name: str
    kind: str
    """feedback | expectation | issue"""
    value: Any
    """Any JSON."""
    id: str = ""
    trace: str = ""
    error: Mapping[str, Any] | None = None
    source_type: str = "SOURCE_TYPE_UNSPECIFIED"
    source: str = ""
    span: str = ""
    rationale: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    overrides: str = ""
    valid: bool = True
    created: Micros = 0
    updated: Micros = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """One run of a traced program. Its spans are read apart."""

    id: str
    experiment: str
    at: Micros
    duration: Micros | None = None
    status: str = "IN_PROGRESS"
    client_request: str | None = None
    request: str | None = None
    """The beginning of what went in, as JSON text."""
    response: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    assessments: tuple[Assessment, ...] = ()
    number: int = 0
    name: str = ""
    spans: int = 0
    """How many spans are stored here."""

    @property
    def run(self) -> str:
        """The run that it was made in, or nothing."""
        return self.metadata.get(RUN_METADATA, "")


@dataclass(frozen=True, slots=True)
class Root:
    """What only the root span of a trace tells."""

    request: str | None = None
    response: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Span:
    """One span as it arrived. Times in nanoseconds; `body` is the protocol's JSON of all of it."""

    trace: str
    id: str
    parent: str
    name: str
    type: str
    status: str
    """OK | ERROR | UNSET"""
    start: int
    end: int | None
    body: str
    object: str = ""
    """Where the whole body is, when `body` holds only the beginnings of its texts."""
    model: str | None = None
    provider: str | None = None
    cost: Mapping[str, float] = field(default_factory=dict)
    usage: Mapping[str, int] = field(default_factory=dict)
    session: str = ""
    user: str = ""
    root: Root | None = None


@dataclass(frozen=True, slots=True)
class StoredSpan:
    """A span as it is kept: `body` is whole when `object` is empty, else it begins every text of the object."""

    id: str
    parent: str
    start: int
    body: str
    object: str


@dataclass(frozen=True, slots=True)
class EvaluationDataset:
    """A list of inputs with what is expected of them; its records are read apart."""

    id: str
    name: str
    digest: str
    created: Micros
    updated: Micros
    created_by: str = ""
    updated_by: str = ""
    schema: str | None = None
    profile: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    experiments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of an evaluation dataset; the same inputs are the same record."""

    inputs: Any
    outputs: Any = None
    expectations: Mapping[str, Any] | None = None
    tags: Mapping[str, Any] | None = None
    source: Mapping[str, Any] | None = None
    source_type: str = ""
    source_id: str = ""
    id: str = ""
    dataset: str = ""
    created: Micros = 0
    updated: Micros = 0
    created_by: str = ""
    updated_by: str = ""


@dataclass(frozen=True, slots=True)
class Scorer:
    """A version of a scorer of an experiment; `body` is the client's own description of it."""

    id: str
    experiment: str
    name: str
    number: int
    body: str
    created: Micros


@dataclass(frozen=True, slots=True)
class OnlineConfig:
    """On which share of an experiment's new traces a scorer is asked."""

    id: str
    scorer: str
    experiment: str
    rate: float
    filter: str | None
