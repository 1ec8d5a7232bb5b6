"""Reading the registry: models and versions as MLflow's client searches them, over the catalog's own numbers."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Subquery, and_, func, literal, select, tuple_, union_all

from everloop.catalog import refs, versions
from everloop.catalog.engine import Tx
from everloop.catalog.tables.core import names, numbers
from everloop.catalog.tables.tracking import registered_models, registered_tags, registered_versions
from everloop.catalog.tracking.filters import Condition, Ordering, parse_filter, parse_order
from everloop.catalog.tracking.rows import Page, RegisteredModel, RegisteredVersion
from everloop.catalog.tracking.search import (
    Term,
    Vocabulary,
    attribute_terms,
    child_text,
    conditions_sql,
    fetch_page,
)
from everloop.catalog.versions import HELD
from everloop.core.errors import NotFound
from everloop.core.ids import PREFIX

FOLLOWING = {"champion": "production", "production": "production", "staging": "staging"}
"""Aliases and stages that say what an environment serves, and which one; others follow one of their own name."""
PROMPT_TAG = "mlflow.prompt.is_prompt"
"""MLflow keeps prompts as registered models; searches hide them unless their filter names this tag."""


def _model_rows() -> Subquery:
    """One row a model: those with a row of their own, and those whose versions came from a flow."""
    unnamed = (
        select(
            numbers.c.project,
            numbers.c.name,
            func.min(numbers.c.at).label("created"),
            func.max(numbers.c.at).label("updated"),
        )
        .join(names, HELD)
        .outerjoin(
            registered_models,
            and_(registered_models.c.project == numbers.c.project, registered_models.c.asset == numbers.c.name),
        )
        .where(numbers.c.kind == "model", registered_models.c.asset.is_(None))
        .group_by(numbers.c.project, numbers.c.name)
        .subquery()
    )
    own = registered_models.c
    return union_all(
        select(own.project, own.name, own.asset, own.description, own.actor, own.created, own.updated),
        select(
            unnamed.c.project,
            unnamed.c.name,
            unnamed.c.name,
            literal("").label("description"),
            literal("").label("actor"),
            unnamed.c.created,
            unnamed.c.updated,
        ),
    ).subquery("models")


def _version_rows(models: Subquery) -> Subquery:
    """One row a version that is not hidden."""
    own = registered_versions.c
    return (
        select(
            models.c.project,
            models.c.name,
            models.c.asset,
            numbers.c.number,
            numbers.c.version,
            func.coalesce(own.source, "").label("source"),
            func.coalesce(own.run, "").label("run"),
            func.coalesce(own.model, "").label("model"),
            func.coalesce(own.run_link, "").label("run_link"),
            func.coalesce(own.description, "").label("description"),
            func.coalesce(own.stage, "None").label("stage"),
            func.coalesce(own.actor, numbers.c.actor).label("actor"),
            func.coalesce(own.created, numbers.c.at).label("created"),
            func.coalesce(own.updated, numbers.c.at).label("updated"),
        )
        .join(
            names,
            and_(
                names.c.project == models.c.project,
                names.c.kind == "model",
                names.c.name == models.c.asset,
                names.c.retired.is_(False),
            ),
        )
        .join(
            numbers,
            and_(
                numbers.c.project == names.c.project,
                numbers.c.kind == names.c.kind,
                numbers.c.name == names.c.name,
                numbers.c.incarnation == names.c.incarnation,
            ),
        )
        .outerjoin(
            registered_versions,
            and_(own.project == numbers.c.project, own.asset == numbers.c.name, own.number == numbers.c.number),
        )
        .where(func.coalesce(own.deleted, 0) == 0)
        .subquery("model_versions")
    )


_MODELS = _model_rows()
_VERSIONS = _version_rows(_MODELS)


def find(tx: Tx, project: str, name: str) -> RegisteredModel | None:
    """The model of that name, or None."""
    row = tx.execute(select(_MODELS).where(_MODELS.c.project == project, _MODELS.c.name == name)).first()
    return None if row is None else _loaded(tx, project, [row])[0]


def get(tx: Tx, project: str, name: str) -> RegisteredModel:
    """The model of that name; raises `NotFound`."""
    found = find(tx, project, name)
    if found is None:
        raise NotFound(f"Registered Model with name={name} not found", hint="registered-models/search lists them")
    return found


def told_as(tx: Tx, project: str, asset: str) -> tuple[str, bool]:
    """The name that people know an asset by, and whether it holds the versions of a prompt."""
    name = tx.execute(select(_MODELS.c.name).where(_MODELS.c.project == project, _MODELS.c.asset == asset)).scalar()
    model = find(tx, project, name) if name is not None else None
    return (name or asset, model is not None and is_prompt(model))


def is_prompt(model: RegisteredModel) -> bool:
    """Whether a registered model holds the versions of a prompt."""
    return model.tags.get(PROMPT_TAG, "").lower() == "true"


def ids(tx: Tx, project: str, asset: str) -> list[str]:
    """Ids of the catalog's versions that a name holds now, hidden ones too."""
    mine = (names.c.project == project, names.c.kind == "model", names.c.name == asset)
    held = and_(*(numbers.c[part] == names.c[part] for part in ("project", "kind", "name", "incarnation")))
    found = select(numbers.c.version).join(names, held).where(*mine).order_by(numbers.c.number)
    return list(tx.execute(found).scalars())


def version(tx: Tx, project: str, name: str, number: int) -> RegisteredVersion:
    """A version that is not hidden; raises `NotFound`."""
    mine = (_VERSIONS.c.project == project, _VERSIONS.c.name == name, _VERSIONS.c.number == number)
    row = tx.execute(select(_VERSIONS).where(*mine)).first()
    if row is None:
        raise NotFound(
            f"Model Version (name={name}, version={number}) not found", hint="model-versions/search lists them"
        )
    return _loaded_versions(tx, project, [row])[0]


def by_alias(tx: Tx, project: str, name: str, alias: str) -> RegisteredVersion:
    """The version that an alias points to, or the environment that it follows; raises `NotFound`."""
    model = get(tx, project, name)
    if alias.lower() == "latest" and model.latest:
        return max(model.latest, key=lambda one: one.number)
    number = _followed(tx, project, model.asset, alias) or model.aliases.get(alias)
    if number is None:
        raise NotFound(
            f"Registered model alias {alias} not found.", hint=f"{name} has: {', '.join(model.aliases) or 'none'}"
        )
    return version(tx, project, name, number)


def _followed(tx: Tx, project: str, asset: str, alias: str) -> int | None:
    """The number that an environment holds, where the alias is the name of one, or follows it."""
    environment = FOLLOWING.get(alias.lower(), alias)
    held = None if "/" in environment else refs.get(tx, project, refs.env_ref(environment))
    if held is None:
        return None
    live = versions.get(tx, project, held).manifest.get("entries", {}).get(f"model/{asset}")
    return dict(versions.known_as(tx, project, live)).get(f"model/{asset}") if live else None


def files(tx: Tx, project: str, found: RegisteredVersion) -> Mapping[str, str]:
    """Path to object of what a version pins; empty when its files are elsewhere."""
    held = versions.get(tx, project, found.version).manifest.get("files")
    return held if isinstance(held, dict) else {}


def place(found: RegisteredVersion) -> str:
    """Where the artifact proxy shows the files that a version pins."""
    return "versions/" + found.version.removeprefix(PREFIX)


def search_models(
    tx: Tx, project: str, *, filter_text: str = "", order_by: Sequence[str] = (), limit: int = 100, token: str = ""
) -> Page[RegisteredModel]:
    """A page of models, by name unless `order_by` says otherwise; raises `InvalidInput`."""
    conditions, prompts = _apart(parse_filter(filter_text))
    statement = select(_MODELS).where(
        _MODELS.c.project == project,
        *conditions_sql(tx, _MODEL_WORDS, conditions),
        *([] if prompts else [_is_no_prompt(_MODELS)]),
    )
    terms = [term for one in parse_order(order_by) for term in attribute_terms(_MODEL_WORDS, one)]
    terms.append(Term(_MODELS.c.name))
    query = ["models", project, filter_text, list(order_by)]
    found, following = fetch_page(tx, statement, terms, limit=limit, token=token, query=query)
    return Page(tuple(_loaded(tx, project, found)), following)


def search_versions(
    tx: Tx, project: str, *, filter_text: str = "", order_by: Sequence[str] = (), limit: int = 10_000, token: str = ""
) -> Page[RegisteredVersion]:
    """A page of versions, newest first unless `order_by` says otherwise; raises `InvalidInput`."""
    conditions, prompts = _apart(parse_filter(filter_text))
    statement = select(_VERSIONS).where(
        _VERSIONS.c.project == project,
        *conditions_sql(tx, _VERSION_WORDS, conditions),
        *([] if prompts else [_is_no_prompt(_VERSIONS)]),
    )
    ordering: tuple[Ordering, ...] = parse_order(order_by)
    terms = [term for one in ordering for term in attribute_terms(_VERSION_WORDS, one)]
    if not ordering:
        terms.append(Term(_VERSIONS.c.updated, descending=True))
    terms += [Term(_VERSIONS.c.name), Term(_VERSIONS.c.number, descending=True)]
    query = ["versions", project, filter_text, list(order_by)]
    found, following = fetch_page(tx, statement, terms, limit=limit, token=token, query=query)
    return Page(tuple(_loaded_versions(tx, project, found)), following)


def _model_tag(tx: Connection, condition: Condition) -> ColumnElement[bool]:
    return child_text(tx, registered_tags, _tag_of(_MODELS, literal(0), condition.field.key), condition)


def _version_tag(tx: Connection, condition: Condition) -> ColumnElement[bool]:
    return child_text(tx, registered_tags, _tag_of(_VERSIONS, _VERSIONS.c.number, condition.field.key), condition)


def _tag_of(rows: Subquery, number: ColumnElement[int], key: str) -> list[ColumnElement[bool]]:
    return [
        registered_tags.c.project == rows.c.project,
        registered_tags.c.asset == rows.c.asset,
        registered_tags.c.number == number,
        registered_tags.c.key == key,
    ]


def _apart(conditions: Sequence[Condition]) -> tuple[list[Condition], bool]:
    """The conditions to meet, and whether prompts are asked for.

    "Is no prompt" is said as `!= 'true'` of a tag that models lack; taken literally it would find nothing.
    """
    about = [one for one in conditions if one.field.entity == "tag" and one.field.key == PROMPT_TAG]
    wanted = any((one.operator == "=") == (one.value == "true") for one in about)
    return [one for one in conditions if wanted or one not in about], wanted


def _is_no_prompt(rows: Subquery) -> ColumnElement[bool]:
    mine = _tag_of(rows, literal(0), PROMPT_TAG)
    prompt = select(literal(1)).select_from(registered_tags).where(*mine, registered_tags.c.value == "true")
    return ~prompt.exists()


_MODEL_WORDS = Vocabulary(
    attributes={
        "name": _MODELS.c.name,
        "creation_timestamp": _MODELS.c.created,
        "last_updated_timestamp": _MODELS.c.updated,
        "timestamp": _MODELS.c.updated,
    },
    numeric=frozenset({"creation_timestamp", "last_updated_timestamp", "timestamp"}),
    scale=dict.fromkeys(("creation_timestamp", "last_updated_timestamp", "timestamp"), 1000),
    children={"tag": _model_tag},
)
_VERSION_WORDS = Vocabulary(
    attributes={
        "name": _VERSIONS.c.name,
        "run_id": _VERSIONS.c.run,
        "source_path": _VERSIONS.c.source,
        "version_number": _VERSIONS.c.number,
        "version": _VERSIONS.c.number,
        "creation_timestamp": _VERSIONS.c.created,
        "last_updated_timestamp": _VERSIONS.c.updated,
    },
    numeric=frozenset({"version_number", "version", "creation_timestamp", "last_updated_timestamp"}),
    scale=dict.fromkeys(("creation_timestamp", "last_updated_timestamp"), 1000),
    children={"tag": _version_tag},
)


def _loaded(tx: Tx, project: str, rows: Collection[Row[Any]]) -> list[RegisteredModel]:
    newest = _newest_in_stages(tx, project, [row.asset for row in rows])
    tags = _tags(tx, project, [(row.asset, 0) for row in rows])
    found = []
    for row in rows:
        held = refs.all(tx, project, refs.alias_ref("model", row.asset, ""))
        aliases = _numbers_of(tx, project, row.asset, held)
        found.append(
            RegisteredModel(
                name=row.name,
                asset=row.asset,
                description=row.description,
                actor=row.actor,
                created=row.created,
                updated=row.updated,
                tags=tags.get((row.asset, 0), {}),
                aliases=aliases,
                latest=tuple(newest.get(row.asset, ())),
            )
        )
    return found


def _newest_in_stages(tx: Tx, project: str, assets: Collection[str]) -> Mapping[str, list[RegisteredVersion]]:
    found: dict[str, list[RegisteredVersion]] = defaultdict(list)
    every = list(assets)
    for start in range(0, len(every), 500):
        newest = (
            select(_VERSIONS.c.asset, func.max(_VERSIONS.c.number).label("number"))
            .where(_VERSIONS.c.project == project, _VERSIONS.c.asset.in_(every[start : start + 500]))
            .group_by(_VERSIONS.c.asset, _VERSIONS.c.stage)
        )
        wanted = [(row.asset, row.number) for row in tx.execute(newest)]
        if wanted:
            mine = (_VERSIONS.c.project == project, tuple_(_VERSIONS.c.asset, _VERSIONS.c.number).in_(wanted))
            rows = tx.execute(select(_VERSIONS).where(*mine).order_by(_VERSIONS.c.asset, _VERSIONS.c.number)).all()
            for row, one in zip(rows, _loaded_versions(tx, project, rows), strict=True):
                found[row.asset].append(one)
    return found


def _loaded_versions(tx: Tx, project: str, rows: Collection[Row[Any]]) -> list[RegisteredVersion]:
    tags = _tags(tx, project, [(row.asset, row.number) for row in rows])
    aliases: dict[str, dict[str, list[str]]] = {}
    for asset in {row.asset for row in rows}:
        pointed: dict[str, list[str]] = defaultdict(list)
        for ref, identity in refs.all(tx, project, refs.alias_ref("model", asset, "")).items():
            pointed[identity].append(ref.rpartition("/")[2])
        aliases[asset] = pointed
    bare = [row.version for row in rows if not row.source]
    manifests = versions.manifests(tx, project, bare)
    return [
        RegisteredVersion(
            name=row.name,
            number=row.number,
            version=row.version,
            source=row.source or "mlflow-artifacts:/versions/" + row.version.removeprefix(PREFIX),
            run=row.run or str(manifests.get(row.version, {}).get("run") or ""),
            model=row.model,
            run_link=row.run_link,
            description=row.description,
            stage=row.stage,
            actor=row.actor,
            created=row.created,
            updated=row.updated,
            tags=tags.get((row.asset, row.number), {}),
            aliases=tuple(sorted(aliases[row.asset].get(row.version, ()))),
        )
        for row in rows
    ]


def _tags(tx: Tx, project: str, owners: Sequence[tuple[str, int]]) -> dict[tuple[str, int], dict[str, str]]:
    found: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
    for start in range(0, len(owners), 500):
        part = list(owners[start : start + 500])
        mine = (
            registered_tags.c.project == project,
            tuple_(registered_tags.c.asset, registered_tags.c.number).in_(part),
        )
        for row in tx.execute(select(registered_tags).where(*mine).order_by(registered_tags.c.key)):
            found[row.asset, row.number][row.key] = row.value
    return found


def _numbers_of(tx: Tx, project: str, asset: str, held: Mapping[str, str]) -> dict[str, int]:
    """Alias to number, for refs of a model."""
    if not held:
        return {}
    mine = (
        _VERSIONS.c.project == project,
        _VERSIONS.c.asset == asset,
        _VERSIONS.c.version.in_(set(held.values())),
    )
    known = {
        row.version: row.number for row in tx.execute(select(_VERSIONS.c.version, _VERSIONS.c.number).where(*mine))
    }
    return {ref.rpartition("/")[2]: known[identity] for ref, identity in held.items() if identity in known}
