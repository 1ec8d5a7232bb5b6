"""The author's face: a `Project` collects definitions and refuses wrong ones at once, with file, line and a hint.

Defining has no side effects and loads no engine: everything collected here is a pure value.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from everloop.checks.definitions import RESERVED, CheckDef, ObjectiveDef
from everloop.core.errors import DefinitionError
from everloop.core.ids import checked_name
from everloop.core.version import Version
from everloop.data.definitions import ORIGIN, Contract, DatasetDef, Folder, Origins, SourceDef
from everloop.data.evolution import UNCHANGED, Evolution
from everloop.data.expect import Expectation
from everloop.features.definitions import Feature, FeatureServiceDef, FeatureViewDef
from everloop.features.transforms.definitions import TransformDef, transform_of
from everloop.features.vectors.definitions import EncoderDef
from everloop.flows.assets import Asset, define, suggest, wire
from everloop.flows.identity import closure_hash
from everloop.flows.search.definitions import Search
from everloop.models.compiled.definitions import Onnx
from everloop.models.definitions import TrainerDef
from everloop.models.selection.definitions import Select, need_kept
from everloop.models.validation.folds import Folds, time_series
from everloop.project.assets import (
    Table,
    encoder_asset,
    frame_assets,
    model_asset,
    search_asset,
    selection_asset,
    transforms_asset,
)
from everloop.project.described import Described
from everloop.project.placing import at_caller, place, root_of_caller
from everloop.project.steps import Steps
from everloop.serving.definitions import Canary, EndpointDef, Explain, Guardrails, Limits, Rollout, Workers
from everloop.serving.rollout.declared import Experiment
from everloop.watch.definitions import Late, MonitorDef, RetrainDef, Trigger

F = TypeVar("F", bound=Callable[..., Any])


class Project(Steps):
    """Everything that one team's model needs, by name. See DESIGN §2 for the feel."""

    def __init__(self, name: str) -> None:
        """Start an empty project."""
        super().__init__()
        self.name = checked_name(name)
        self.root = root_of_caller()
        """The folder from which the project's module was imported: what lies in it is the project's code."""
        self.tables: dict[str, Table] = {}
        self.views: dict[str, FeatureViewDef] = {}
        self.encoders: dict[str, EncoderDef] = {}
        self.transforms: dict[str, TransformDef] = {}
        self.services: dict[str, FeatureServiceDef] = {}
        self.trainers: dict[str, TrainerDef] = {}
        self.searches: dict[str, tuple[Search, Folds]] = {}
        """How the parameters of models are found, by the model's name."""
        self.objectives: dict[str, ObjectiveDef] = {}
        self.checks: dict[str, CheckDef] = {}
        self.endpoints: dict[str, EndpointDef] = {}
        self.monitors: dict[str, MonitorDef] = {}
        self.rules: dict[str, RetrainDef] = {}
        self.made: dict[str, Any] = {}
        self.described: dict[str, Described] = {}
        self.places: dict[str, str] = {}
        """`file:line` of each definition, by key."""

    def source(
        self,
        name: str,
        origin: Any,
        *,
        key: str | Sequence[str] = (),
        event_time: str | None = None,
        known_time: str | None = None,
        tags: Mapping[str, str] | None = None,
        expect: Sequence[Expectation] = (),
        evolution: Evolution = UNCHANGED,
    ) -> SourceDef:
        """Rows that come from outside: `el.Files(...)`, `el.SQL(...)` or `el.Call(...)`."""
        made = at_caller(lambda: SourceDef(name, origin, key, event_time, known_time, tags or {}, expect, evolution))
        self._add("source", name, self.tables, made)
        return made

    def dataset(
        self,
        *,
        key: str | Sequence[str] = (),
        event_time: str | None = None,
        known_time: str | None = None,
        tags: Mapping[str, str] | None = None,
        expect: Sequence[Expectation] = (),
        columns: Origins | None = None,
    ) -> Callable[[Callable[..., Any]], DatasetDef]:
        """Decorate a function from lazy frames to a lazy frame; its parameters name what it is made from.

        `columns` says what single columns are made from, `{"email_hash": ["hash(people.email)"]}`: tags are carried
        along it. A column that it does not name may come from every column of every input.
        """
        contract = at_caller(lambda: Contract.of(key, event_time, known_time, tags, expect, columns=columns))

        def declare(function: Callable[..., Any]) -> DatasetDef:
            name = function.__name__
            upstream = define(function, kind="data").upstream
            made = at_caller(
                lambda: DatasetDef(
                    name,
                    function,
                    upstream,
                    contract.key,
                    contract.event_time,
                    contract.known_time,
                    contract.tags,
                    contract.expect,
                    contract.columns,
                )
            )
            _known_inputs(made)
            self._add("dataset", name, self.tables, made)
            return made

        return declare

    def describe(
        self,
        asset: Any,
        *,
        owner: str = "",
        description: str = "",
        labels: Sequence[str] = (),
        columns: Mapping[str, str] | None = None,
    ) -> None:
        """Say who owns a definition and what it and its columns mean; the catalogue shows it from the next build on."""
        self.described[self._key_of(asset)] = at_caller(lambda: Described(owner, description, labels, columns or {}))

    def encoder(
        self, *, source: Table, dim: int, column: str = "", vector: str = "embedding", batch: int = 256
    ) -> Callable[[Callable[..., Any]], DatasetDef]:
        """Decorate a function from a list of values to an array of vectors, `[len, dim]`: it makes a dataset.

        It gets the bytes of a folder's files, or the values of `column` of a table, `batch` at a time. The dataset has
        the key and times of the source, the vectors as float32 of fixed length, and a column for each dimension.
        """

        def declare(function: Callable[..., Any]) -> DatasetDef:
            name = function.__name__
            folder = isinstance(source, SourceDef) and isinstance(source.origin, Folder)
            if folder == bool(column):
                said = "reads files, not a column" if folder else "needs column=: its source is a table"
                raise DefinitionError(f"{place()}: encoder {name} {said}")
            one = at_caller(lambda: EncoderDef(name, function, source.name, dim, column, vector, batch))
            key = ("path",) if folder else source.key
            times = (None, None) if folder else (source.event_time, source.known_time)
            made = at_caller(lambda: DatasetDef(name, function, {"rows": self._table(source).name}, key, *times))
            self._add("dataset", name, self.tables, made)
            self.encoders[name] = one
            return made

        return declare

    def feature_view(
        self,
        name: str,
        *,
        source: Table | str,
        entity: str | Sequence[str],
        features: Sequence[Feature],
        slack: str | None = None,
        reads: Sequence[FeatureViewDef] = (),
    ) -> FeatureViewDef:
        """Features of an entity over the facts of a dataset, one definition for training and serving.

        With `reads`, each row also has the features of these views, `<view>__<feature>`, as of when it became known.
        """
        table = self._table(source)
        columns = (entity,) if isinstance(entity, str) else tuple(entity)
        plain = at_caller(lambda: FeatureViewDef(name, table.name, columns, tuple(features), reads=tuple(reads)))
        self._need_views(f"feature view {name} reads", plain.reads)
        if slack is not None:
            plain = at_caller(lambda: replace(plain, slack=slack))  # type: ignore[arg-type]
        made = at_caller(lambda: plain.validate(table))
        self._add("view", name, self.views, made)
        return made

    def transform(
        self, *, inputs: Mapping[str, str], outputs: Mapping[str, str]
    ) -> Callable[[Callable[..., Any]], TransformDef]:
        """Decorate a function from columns to columns, row by row, for feature services to list.

        `inputs` are request columns, features (`<view>__<feature>`) or outputs of earlier transforms; types are
        bool, int64, float64 and text. With one parameter the function gets and gives a `polars.DataFrame`; with
        parameters named as its inputs, NumPy arrays (floats with NaN for null, other types masked).
        """

        def declare(function: Callable[..., Any]) -> TransformDef:
            made = at_caller(lambda: transform_of(function, inputs, outputs))
            self._add("transform", made.name, self.transforms, made)
            return made

        return declare

    def feature_service(
        self,
        name: str,
        views: Sequence[FeatureViewDef],
        *,
        request: Sequence[str] = (),
        transforms: Sequence[TransformDef] = (),
    ) -> FeatureServiceDef:
        """The list that a model trains and serves on: columns of the request, features of the views, transforms."""
        made = at_caller(lambda: FeatureServiceDef(name, tuple(views), tuple(request), tuple(transforms)))
        self._need_views(f"feature service {name} lists", made.views)
        self._add("service", name, self.services, made)
        return made

    def model(
        self,
        *,
        inputs: FeatureServiceDef,
        spine: Table,
        label: str,
        label_known: str = "",
        holdout: str = "14d",
        compute: str = "",
        output: str = "probability",
        select: Select | None = None,
        compile: Onnx | None = None,  # noqa: A002 - the word that authors look for
        search: Search | None = None,
        folds: Folds | None = None,
    ) -> Callable[[Callable[..., Any]], TrainerDef]:
        """Decorate a function from a training frame (and tunable parameters) to a fitted estimator.

        `compute` names the profile that trains it. With `select=el.select(…)` the frame holds the columns that the rule
        chose; the model pins the choice.
        With `compile=el.Onnx()` it is also compiled, and served so where its answers were verified to be the same.
        With `search=el.search(…)` its parameters are the best of many trials, each cross-validated by `folds` (five
        stretches of time) on the training part of the frame: the holdout is for judging what came out.
        """
        split = folds or time_series()
        said = None if search is None else {"search": search.manifest(), "folds": split.manifest()}
        if folds is not None and search is None:
            raise DefinitionError(f"{place()}: folds judge the trials of a search", hint="search=el.search(…)")

        def declare(function: Callable[..., Any]) -> TrainerDef:
            name = function.__name__
            asset = define(function, kind="model", upstream={_only_frame(function): f"frame/{name}_training"})
            made = at_caller(
                lambda: TrainerDef(
                    name,
                    function,
                    inputs.name,
                    spine.name,
                    label,
                    label_known=label_known,
                    holdout=holdout,
                    params=asset.params,
                    compute=compute,
                    output=output,
                    select=need_kept(select, inputs.columns),
                    compile=compile,
                    search=said,
                    place=asset.place,
                )
            )
            if self._table(spine).event_time is None:
                raise DefinitionError(
                    f"{asset.place}: the spine {spine.name} of model {name} has no event time",
                    hint="declare event_time= on the dataset: a row of the frame is a question asked at a time",
                )
            self._add("trainer", name, self.trainers, made)
            if search is not None:
                self.searches[name] = (search, split)
            return made

        return declare

    def objective(
        self, name: str, *, metric: str, at_least: float | None = None, at_most: float | None = None, owner: str = ""
    ) -> ObjectiveDef:
        """The metric and the bound that people agreed on; checks and monitors name it."""
        made = ObjectiveDef(name, metric, at_least, at_most, owner, place())
        self._add("objective", name, self.objectives, made)
        return made

    def check(self, objective: ObjectiveDef | None = None, *, blocks: Sequence[str] = ()) -> Callable[[F], CheckDef]:
        """Decorate a function from what is proposed to an `el.Verdict`; it gates changes to `blocks`."""

        def declare(function: F) -> CheckDef:
            made = CheckDef(function.__name__, function, objective, tuple(blocks), place())
            for parameter in made.parameters:
                if parameter not in RESERVED and parameter not in self.trainers and parameter not in self.tables:
                    known = [*RESERVED, *self.trainers, *self.tables]
                    raise DefinitionError(
                        f"{place()}: check {made.name} looks at {parameter!r}, which nothing defines",
                        hint=suggest(parameter, known),
                    )
            self._add("check", made.name, self.checks, made)
            return made

        return declare

    def endpoint(
        self,
        name: str,
        *,
        graph: Any,
        rollout: Rollout | None = None,
        fallback: Any = "previous",
        guardrails: Guardrails | None = None,
        full_disk: Any = "refuse",
        deadline: str = "10s",
        workers: Workers | None = None,
        limits: Limits | None = None,
        explain: Explain | None = None,
        traced: str = "0%",
        challengers: Mapping[str, Any] | None = None,
        experiment: Experiment | None = None,
    ) -> EndpointDef:
        """An address that answers predictions, and how a new revision takes over."""
        made = at_caller(
            lambda: EndpointDef(
                name,
                graph,
                rollout or Canary(),
                fallback,
                guardrails or Guardrails(),
                full_disk,
                deadline,
                workers or Workers(),
                limits or Limits(),
                explain,
                traced,
                dict(challengers or {}),
                experiment,
            )
        )
        for key in made.upstream:
            kind, _, wanted = key.partition("/")
            homes: Mapping[str, Iterable[str]] = {"service": self.services, "endpoint": self.endpoints}
            known = homes.get(kind, self.trainers)
            if wanted not in known:
                raise DefinitionError(
                    f"{place()}: endpoint {name} names {key}, which nothing defines", hint=suggest(wanted, known)
                )
        self._add("endpoint", name, self.endpoints, made)
        return made

    def monitor(
        self,
        endpoint: EndpointDef,
        *,
        label: Late | None = None,
        objective: ObjectiveDef | None = None,
        window: str = "1d",
        alarms_per_quarter: int = 1,
        slices: Sequence[str] = (),
    ) -> MonitorDef:
        """Watch an endpoint within a budget of false alarms."""
        bound = objective.name if objective else ""
        made = at_caller(
            lambda: MonitorDef(endpoint.name, endpoint.name, label, alarms_per_quarter, window, tuple(slices), bound)
        )
        self._add("monitor", made.name, self.monitors, made)
        return made

    def retrain(self, model: TrainerDef, *, when: Sequence[Trigger], cooldown: str = "1d") -> RetrainDef:
        """When to train again, into a sandbox of its own; the result still passes through a change."""
        made = at_caller(lambda: RetrainDef(model.name, tuple(when), cooldown))
        self._add("retrain", made.name, self.rules, made)
        return made

    def view_version(self, name: str) -> Version:
        """The version of a feature view."""
        view = self.views[name]
        read = tuple(("view", self.view_version(one.name).id) for one in view.reads)
        return Version("view", name, view.manifest(), read)

    def service_version(self, name: str) -> Version:
        """The version of a feature service, which pins its views by id."""
        service = self.pinned_service(name)
        ids = {view.name: self.view_version(view.name).id for view in service.views}
        return Version("service", name, service.manifest(ids), tuple(("view", i) for i in ids.values()))

    def pinned_service(self, name: str) -> FeatureServiceDef:
        """A service whose transforms say what their code reaches."""
        service = self.services[name]
        pinned = (replace(t, code=closure_hash(t.function, self.root).hash) for t in service.transforms if t.function)
        return replace(service, transforms=tuple(pinned)) if service.transforms else service

    def assets(self) -> dict[str, Asset]:
        """What can be made, wired: raises `DefinitionError` for an unknown upstream, a cycle, or two of one name."""
        made = [
            Asset(f"data/{t.name}", None, place=self.places[f"source/{t.name}"])
            for t in self.tables.values()
            if isinstance(t, SourceDef)
        ]
        made += [self._dataset_asset(t) for t in self.tables.values() if isinstance(t, DatasetDef)]
        made += [
            transforms_asset(self.pinned_service(name), self.places[f"service/{name}"])
            for name in dict.fromkeys(trainer.service for trainer in self.trainers.values())
            if self.services[name].transforms
        ]
        for trainer in self.trainers.values():
            made += self._trainer_assets(trainer)
        return wire(self.with_steps(made))

    def _trainer_assets(self, trainer: TrainerDef) -> list[Asset]:
        service, spine = self.pinned_service(trainer.service), self._table(trainer.spine)
        frame = _only_frame(trainer.function)
        search, folds = self.searches.get(trainer.name, (None, None))
        model = model_asset(
            trainer,
            frame,
            service,
            service_id=self.service_version(trainer.service).id,
            time=spine.event_time,
            search=search,
        )
        found: list[Asset] = []
        if search is not None and folds is not None:
            split: dict[str, Any] = {"columns": service.columns, "time": spine.event_time, "folds": folds}
            found = [search_asset(trainer, frame, search=search, **split)]
        chosen = trainer.select
        selection = [] if chosen is None else [selection_asset(trainer, chosen, service, spine.event_time)]
        return [*frame_assets(trainer, service, spine), *selection, *found, model]

    def _dataset_asset(self, table: DatasetDef) -> Asset:
        contract = table.contract.manifest()
        if table.name in self.encoders:
            return encoder_asset(self.encoders[table.name], contract, self.places[f"dataset/{table.name}"])
        return define(table.function, kind="data", name=table.name, facts={"contract": contract})

    def _need_views(self, who: str, views: Sequence[FeatureViewDef]) -> None:
        for view in views:
            if self.views.get(view.name) != view:
                raise DefinitionError(f"{place()}: {who} {view.name}, which is no view of this project")

    def _table(self, source: Table | str) -> Table:
        name = source if isinstance(source, str) else source.name
        if name not in self.tables:
            raise DefinitionError(
                f"{place()}: {name!r} is no source or dataset of this project", hint=suggest(name, self.tables)
            )
        return self.tables[name]

    def _key_of(self, definition: Any) -> str:
        key = next((key for key, made in self.made.items() if made is definition), "")
        if not key:
            raise DefinitionError(f"{place()}: {definition!r} is no definition of this project", hint="define it first")
        return key

    def _add(self, kind: str, name: str, into: dict[str, Any], made: Any) -> None:
        clash = next((k for k in (f"{kind}/{name}", *_sharing(kind, name)) if k in self.places), None)
        if clash is not None:
            raise DefinitionError(
                f"{place()}: {name!r} is taken by {clash}, defined at {self.places[clash]}", hint="rename one of them"
            )
        into[name] = self.made[f"{kind}/{name}"] = made
        self.places[f"{kind}/{name}"] = place()


def _known_inputs(table: DatasetDef) -> None:
    """Raise `DefinitionError` where `columns` names an input that the function does not take."""
    for name, origins in table.columns.items():
        for text in origins:
            match = ORIGIN.fullmatch(text)
            if match is not None and match["input"] not in table.upstream:
                raise DefinitionError(
                    f"{place()}: column {name} of {table.name} is made from {text!r}, which is none of its inputs",
                    hint=suggest(match["input"], table.upstream),
                )


def _sharing(kind: str, name: str) -> tuple[str, ...]:
    """Keys that would mean the same parameter name."""
    shared = ("source", "dataset", "trainer", "step")
    return tuple(f"{other}/{name}" for other in shared) if kind in shared else ()


def _only_frame(function: Callable[..., Any]) -> str:
    needs = list(define(function, kind="model").upstream)
    if len(needs) != 1:
        raise DefinitionError(
            f"{place()}: model {function.__name__} takes {', '.join(needs) or 'nothing'}",
            hint="one parameter without a default: the training frame; all others are tunable and have defaults",
        )
    return needs[0]
