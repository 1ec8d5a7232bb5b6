"""A feature service: the list of features that a model trains and serves on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from everloop.core.errors import DefinitionError
from everloop.core.ids import checked_name
from everloop.features.definitions.views import FeatureViewDef, columns_of, need_views, repeated
from everloop.features.transforms.definitions import TransformDef, order_of, raw_inputs


@dataclass(frozen=True, slots=True)
class FeatureServiceDef:
    """The list that a model trains and serves on: request columns first, then the views' features, in order."""

    name: str
    views: tuple[FeatureViewDef, ...]
    request: tuple[str, ...] = ()
    """Columns that the caller knows when it asks, such as `distance`."""
    transforms: tuple[TransformDef, ...] = ()
    """What is made of these and of features when the question is asked, in order; each may read earlier ones."""

    def __post_init__(self) -> None:
        """Accept lists; refuse a view or a column that appears twice."""
        checked_name(self.name)
        object.__setattr__(self, "views", need_views(f"feature service {self.name} lists", self.views))
        object.__setattr__(self, "request", columns_of(self.request))
        object.__setattr__(self, "transforms", tuple(self.transforms))
        if not self.views and not self.request:
            raise DefinitionError(
                f"feature service {self.name} is empty", hint="give it views, request columns or both"
            )
        twice = repeated([v.name for v in self.views]) or repeated(self.columns)
        if twice:
            raise DefinitionError(f"feature service {self.name} has {twice!r} twice", hint="leave one of them out")
        order_of(self.name, self.transforms, (*self.request, *self.looked_up))
        raw_inputs(self.transforms)

    @property
    def entities(self) -> tuple[str, ...]:
        """The entity columns of all views, each once: what a caller must name."""
        return tuple(dict.fromkeys(c for v in self.views for c in v.entity))

    @property
    def looked_up(self) -> tuple[str, ...]:
        """What the views give a model; a list is a column for each place."""
        return tuple(column for view in self.views for column in view.inputs)

    @property
    def lists(self) -> dict[str, tuple[str, ...]]:
        """Features that are lists -> the columns that a model reads them by."""
        return {name: columns for view in self.views for name, columns in view.lists.items()}

    @property
    def columns(self) -> tuple[str, ...]:
        """The model's inputs: request columns, then `<view>__<feature>`, then what transforms make.

        A list feature is `<view>__<feature>_000` and so on.
        """
        return (*self.request, *self.looked_up, *(column for one in self.transforms for column in one.outputs))

    def manifest(self, view_ids: Mapping[str, str]) -> dict[str, Any]:
        """Canonical-JSON-ready: pins every view by the version id that `view_ids` gives its name.

        Transforms are pinned by the closure id of their code: give them theirs first (`Project.pinned_service`).
        """
        said: dict[str, Any] = {
            "views": {v.name: view_ids[v.name] for v in self.views},
            "order": [v.name for v in self.views],
            "request": list(self.request),
            "entities": list(self.entities),
        }
        return said | ({"transforms": [one.manifest() for one in self.transforms]} if self.transforms else {})

    @classmethod
    def from_manifest(
        cls, name: str, manifest: Mapping[str, Any], manifests: Mapping[str, Mapping[str, Any]]
    ) -> "FeatureServiceDef":
        """Rebuild a service from its manifest and the manifests of the view ids that it pins."""
        pinned = manifest["views"]
        views = (FeatureViewDef.from_manifest(v, manifests[pinned[v]]) for v in manifest["order"])
        transforms = (TransformDef.from_manifest(one) for one in manifest.get("transforms", ()))
        return cls(name, tuple(views), tuple(manifest["request"]), tuple(transforms))
