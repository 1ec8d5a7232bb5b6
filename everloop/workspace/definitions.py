"""A project's definitions as versions: what a snapshot holds."""

from collections.abc import Callable
from typing import Any

from everloop.core.version import Version
from everloop.data.definitions import DatasetDef, SourceDef
from everloop.project import Project

CodeOf = Callable[[Callable[..., Any]], str]
"""Gives the closure hash of a function of the project."""


def definition_versions(project: Project, code_of: CodeOf) -> dict[str, Version]:
    """The version of every definition, by key. Functions are in it by the hash of what they reach."""
    made = [_table(table, code_of) for table in project.tables.values()]
    made += [project.view_version(name) for name in project.views]
    made += [project.service_version(name) for name in project.services]
    made += [
        Version("trainer", t.name, {**t.manifest(), "code": code_of(t.function)}) for t in project.trainers.values()
    ]
    made += [Version("objective", o.name, o.manifest()) for o in project.objectives.values()]
    made += [Version("check", c.name, c.manifest(code_of(c.function))) for c in project.checks.values()]
    made += [Version("endpoint", e.name, e.manifest()) for e in project.endpoints.values()]
    made += [Version("compute", name, one.manifest()) for name, one in project.computes.items()]
    made += [m.version() for m in project.monitors.values()]
    made += [r.version() for r in project.rules.values()]
    return {version.key: version for version in made}


def _table(table: SourceDef | DatasetDef, code_of: CodeOf) -> Version:
    if isinstance(table, SourceDef):
        return table.version()
    plain = table.version()
    return Version("dataset", table.name, {**plain.manifest, "code": code_of(table.function)})
