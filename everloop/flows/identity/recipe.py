"""The recipe key: what a step is made of, so that the same work is never done twice."""

from collections.abc import Mapping
from typing import Any

import msgspec

from everloop.core.errors import InvalidInput
from everloop.core.ids import manifest_id


def recipe(
    *,
    closure: str,
    packages: Mapping[str, str],
    host: Mapping[str, Any],
    params: Mapping[str, Any],
    inputs: Mapping[str, str],
    facts: Mapping[str, Any],
    how: Mapping[str, str],
) -> str:
    """The digest of everything that a step's output depends on.

    `closure` is the hash of its code, `packages` the restricted distributions, `host` the Python, platform and
    threads, `inputs` {parameter: version id}, `how` names the step's key, runner and codec.
    """
    return manifest_id(
        {
            "recipe": 1,
            "closure": closure,
            "packages": packages,
            "host": host,
            "params": plain_text(params),
            "inputs": inputs,
            "facts": plain_text(facts),
            "how": how,
        }
    )


def plain_text(value: Any) -> str:
    """JSON with sorted keys and exact floats, for values that a manifest cannot hold; raises `InvalidInput`."""
    if value == {}:  # most steps have no parameters and no facts
        return "{}"
    try:
        return msgspec.json.encode(value, order="deterministic").decode()
    except (TypeError, msgspec.MsgspecError) as error:
        raise InvalidInput(
            f"a parameter is not JSON-ready: {error}", hint="use numbers, strings, booleans, lists and maps"
        ) from None
