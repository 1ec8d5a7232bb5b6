"""What webhooks can be told: events of the registry, as MLflow names them, carried by facts of the log."""

from collections.abc import Mapping
from typing import Any

from everloop.catalog import facts
from everloop.catalog.context import Context
from everloop.catalog.engine import Tx
from everloop.core.errors import InvalidInput

PREFIX = "registry."
"""How the kinds of these facts begin."""

_ACTIONS = {
    "registered_model": ("created",),
    "model_version": ("created",),
    "model_version_tag": ("set", "deleted"),
    "model_version_alias": ("created", "deleted"),
    "prompt": ("created",),
    "prompt_version": ("created",),
    "prompt_tag": ("set", "deleted"),
    "prompt_version_tag": ("set", "deleted"),
    "prompt_alias": ("created", "deleted"),
}
_OF_MODELS = {
    "model": "registered_model",
    "version": "model_version",
    "version_tag": "model_version_tag",
    "alias": "model_version_alias",
}
_OF_PROMPTS = {
    "model": "prompt",
    "version": "prompt_version",
    "tag": "prompt_tag",
    "version_tag": "prompt_version_tag",
    "alias": "prompt_alias",
}
_EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "name": {"name": "example"},
    "version": {"version": "1"},
    "tag": {"key": "example_key"},
    "alias": {"alias": "example_alias"},
}


def checked(entity: str, action: str) -> str:
    """The event `entity.action`; raises `InvalidInput` for one that does not exist."""
    if action.lower() not in _ACTIONS.get(entity.lower(), ()):
        raise InvalidInput(
            f"Invalid action '{action}' for entity '{entity}'",
            hint="; ".join(f"{name}: {' or '.join(actions)}" for name, actions in _ACTIONS.items()),
        )
    return f"{entity.lower()}.{action.lower()}"


def record(ctx: Context, tx: Tx, what: str, action: str, name: str, *, prompt: bool, **data: Any) -> None:
    """Append the fact of an event, in the transaction of its effect.

    `what` is `model`, `version`, `tag`, `version_tag` or `alias`, of a prompt or of a model; what nobody can be told of
    (a tag of a model that is no prompt) is passed over.
    """
    entity = (_OF_PROMPTS if prompt else _OF_MODELS).get(what)
    if entity is not None:
        fact = ctx.fact(PREFIX + checked(entity, action), f"model/{name}", {"name": name, **data})
        facts.append(tx, ctx.project, fact)


def example(event: str) -> dict[str, Any]:
    """What a test delivery tells."""
    entity, _, action = event.partition(".")
    data = dict(_EXAMPLES["name"])
    if "version" in entity or entity.endswith("alias"):
        data |= _EXAMPLES["version"]
    for part in ("tag", "alias"):
        if entity.endswith(part):
            data |= _EXAMPLES[part]
    if action == "set":
        data["value"] = "example_value"
    if action == "created" and not entity.endswith("alias"):
        data |= {"tags": {}, "description": "An example"}
    return data
