"""Where a model version says its files are: read with suspicion, and turned into the objects that it pins.

The server fetches nothing from anywhere. `runs:/`, `models:/` and `mlflow-artifacts:/` name what this project holds,
and the version pins those files. The address of a bucket is kept as a word for clients, who go there with credentials
of their own. Everything else is refused: a path or `file:` would one day be read on somebody else's machine, `http:`
would make the server, or a client within a network, ask where its caller cannot.
"""

import re
from collections.abc import Mapping
from urllib.parse import unquote

from everloop.catalog import versions
from everloop.catalog.engine import Tx
from everloop.catalog.tracking import artifacts, logged, registered, runs
from everloop.core.errors import InvalidInput, NotFound
from everloop.core.ids import PREFIX

_RUN = re.compile(r"runs:/{1,3}(?P<run>[0-9a-f]{32})(?:/(?P<path>.*))?")
_LOGGED = re.compile(r"models:/{1,3}(?P<model>m-[0-9a-f]{32})(?:/(?P<path>.*))?")
_VERSION = re.compile(r"models:/{1,3}(?P<name>[^/@]+)(?:/(?P<version>\d{1,9})|@(?P<alias>[^/@]+))")
_PROXY = re.compile(r"mlflow-artifacts:(?:/|///)(?P<place>[^/].*)")
_PINNED = re.compile(r"versions/(?P<digits>[0-9a-f]{64})(?:/(?P<path>.*))?")
_BUCKET = re.compile(r"(?:s3|gs|wasbs?|abfss?|dbfs|r2|oss):/", re.IGNORECASE)
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_LONGEST = 2000
_DECODINGS = 4


def files_of(tx: Tx, project: str, source: str, *, run: str = "", prompt: bool = False) -> Mapping[str, str]:
    """Path to object of what `source` holds now; empty for a bucket, and for the plain word that a prompt gives.

    `run` is the run that the version claims to come from. Raises `InvalidInput` for an address that is none of
    those above or belongs to another run, `NotFound` for a run or model that the project does not have.
    """
    _check(source)
    if match := _RUN.fullmatch(source):
        if run and run != match["run"]:
            raise _refusal(source, "The run_id request parameter must identify the run that contains the source.")
        return _tree(tx, project, runs.find(tx, project, match["run"]).id, match["path"])
    if match := _LOGGED.fullmatch(source):
        return _tree(tx, project, logged.find(tx, project, match["model"]).id, match["path"])
    if match := _VERSION.fullmatch(source):
        name, number, alias = match["name"], match["version"], match["alias"]
        if alias:
            return registered.files(tx, project, registered.by_alias(tx, project, name, alias))
        return registered.files(tx, project, registered.version(tx, project, name, int(number)))
    if match := _PROXY.fullmatch(source):
        return _proxied(tx, project, match["place"])
    if _BUCKET.match(source) or (prompt and _PLAIN.fullmatch(source)):
        return {}
    raise _refusal(source, "Sources are runs:/, models:/, mlflow-artifacts:/ or the address of a bucket.")


def logged_model_of(source: str) -> str:
    """The id of the logged model that a source names; empty when it names none."""
    match = _LOGGED.fullmatch(source)
    return match["model"] if match else ""


def run_of(source: str) -> str:
    """The run that a source names; empty when it names none."""
    match = _RUN.fullmatch(source)
    return match["run"] if match else ""


def _check(source: str) -> None:
    """Refuse a source that climbs, however often it was encoded: whoever reads it next may decode it again."""
    text = source
    for _ in range(_DECODINGS):
        path = text.partition(":")[2]
        climbs = any(part in {".", ".."} for part in re.split(r"[/?#;]", path))
        if climbs or "\\" in text or any(ord(c) < 32 or ord(c) == 127 for c in text) or len(source) > _LONGEST:
            raise _refusal(source, "It must not contain '..', backslashes or control characters.")
        decoded = unquote(text)
        if decoded == text:
            return
        text = decoded
    raise _refusal(source, "It is encoded too often.")


def _refusal(source: str, why: str) -> InvalidInput:
    shown = source if len(source) < 200 else source[:200] + "…"
    return InvalidInput(
        f"Invalid model version source: '{shown}'. {why}", hint="log the model first, then register what was logged"
    )


def _tree(tx: Tx, project: str, owner: str, path: str | None) -> dict[str, str]:
    below = artifacts.checked_path((path or "").rstrip("/"), empty=True)
    start = len(below) + 1 if below else 0
    return {one.path[start:]: one.object for one in artifacts.tree(tx, project, owner, below)}


def _proxied(tx: Tx, project: str, place: str) -> Mapping[str, str]:
    whole = artifacts.checked_path(place.rstrip("/"))
    if match := _PINNED.fullmatch(whole):
        row = versions.get(tx, project, PREFIX + match["digits"])
        held = row.manifest.get("files") if row.kind == "model" else None
        below = f"{match['path']}/" if match["path"] else ""
        files = held if isinstance(held, dict) else {}
        return {path[len(below) :]: one for path, one in files.items() if path.startswith(below)}
    first, *rest = whole.split("/")
    if first.isdigit() and len(rest) >= 3 and rest[0] == "models" and rest[2] == "artifacts":
        return _tree(tx, project, logged.find(tx, project, rest[1]).id, "/".join(rest[3:]))
    if first.isdigit() and len(rest) >= 2 and rest[1] == "artifacts":
        return _tree(tx, project, runs.find(tx, project, rest[0]).id, "/".join(rest[2:]))
    raise NotFound(f"'{place}' is not the place of a run's or model's artifacts", hint="register runs:/ or models:/")
