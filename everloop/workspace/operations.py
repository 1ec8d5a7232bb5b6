"""Loads every module that declares operations: the one list of what Everloop can be asked."""

from importlib import import_module

_MODULES = (
    "everloop.data.operations",
    "everloop.data.contracts.operations",
    "everloop.data.editing.operations",
    "everloop.data.transferring.operations",
    "everloop.data.opening.operations",
    "everloop.data.streams.operations",
    "everloop.data.trees.operations",
    "everloop.data.catalogue.operations",
    "everloop.data.sensitive.operations",
    "everloop.features.operations",
    "everloop.features.showing",
    "everloop.features.vectors.operations",
    "everloop.flows.bisect.operations",
    "everloop.flows.compute.operations",
    "everloop.flows.running.operations",
    "everloop.flows.why.caching",
    "everloop.flows.why.operations",
    "everloop.models.console",
    "everloop.models.registry",
    "everloop.models.runs",
    "everloop.models.selection.operations",
    "everloop.models.importing.operations",
    "everloop.models.importing.registering",
    "everloop.models.tracking.comparing",
    "everloop.models.tracking.editing",
    "everloop.models.tracking.files",
    "everloop.models.tracking.origin",
    "everloop.models.tracking.registry",
    "everloop.models.tracking.seals",
    "everloop.models.tracking.table",
    "everloop.models.tracking.traces",
    "everloop.models.tracking.views",
    "everloop.checks.card_facts",
    "everloop.checks.record",
    "everloop.checks.reproduced",
    "everloop.changes.access",
    "everloop.changes.environments",
    "everloop.changes.heads.proposing",
    "everloop.changes.merging",
    "everloop.changes.proposing",
    "everloop.changes.provenance",
    "everloop.changes.reviewing",
    "everloop.serving.operations",
    "everloop.serving.batch.operations",
    "everloop.serving.rollout.operations",
    "everloop.watch.alarms",
    "everloop.watch.operations",
    "everloop.watch.parity.operations",
    "everloop.workspace.flows.operations",
    "everloop.workspace.system",
    "everloop.workspace.work.erasing",
    "everloop.workspace.work.retaining",
)


def load_operations() -> None:
    """Import them; doing it again costs nothing."""
    for name in _MODULES:
        import_module(name)
