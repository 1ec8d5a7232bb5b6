"""Files in a bucket: S3, Google Cloud Storage, Azure. Needs the extra `s3`.

Credentials come from a binding (the options of the cloud's own tools, say `access_key_id` and `secret_access_key`),
else from the environment. Requests that fail for a while are repeated by the library, with growing pauses.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from os import environ
from pathlib import Path
from typing import Any

import obstore
from obstore import exceptions as failures
from obstore.store import AzureStore, GCSStore, S3Store

from everloop.core.errors import DataError, EverloopError, NotFound, Unavailable
from everloop.data.sources.places.place import Found, Here, redacted

_KINDS: Mapping[str, Any] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
_RETRIES = {"max_retries": 8, "retry_timeout": timedelta(seconds=60)}
_PIECE = 8 << 20
_REFUSED = re.compile(
    r"Expired|InvalidAccessKeyId|SignatureDoesNotMatch|AccessDenied|InvalidToken|status code: 40[013]"
)
"""A HEAD has no body: an old token shows as 400 alone."""


class Bucket:
    """Files whose keys match a glob, for example `s3://lake/flights/*.parquet`."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        """`options` are of the binding; nothing is asked of the bucket yet. Raises `Unavailable` for wrong ones."""
        scheme, _, rest = url.partition("://")
        name, _, self._pattern = rest.partition("/")
        self._root, self._secrets = f"{scheme}://{name}", dict(options)
        known = {key: value for key, value in options.items() if key != "allow_http"}
        http = options.get("allow_http", environ.get("AWS_ALLOW_HTTP", ""))
        client = {"allow_http": str(http).lower() in ("1", "true")}
        with self._failures(self._root):
            self._bucket = _KINDS[scheme].from_url(self._root, client_options=client, retry_config=_RETRIES, **known)

    def listed(self) -> list[Found]:
        """Key, size, entity tag and time of every object that matches; raises `NotFound`, `Unavailable`."""
        fixed = re.split(r"[*?\[]", self._pattern, maxsplit=1)[0]
        prefix = fixed.rpartition("/")[0] if fixed != self._pattern else self._pattern
        wanted = re.compile(_regex(self._pattern))
        found = []
        with self._failures(self._root):
            pages = obstore.list(self._bucket, prefix=prefix or None) if fixed != self._pattern else self._one()
            for page in pages:
                for meta in page:
                    if wanted.fullmatch(meta["path"]):
                        stamp = (str(meta.get("e_tag") or ""), meta["last_modified"].isoformat())
                        found.append(Found(f"{self._root}/{meta['path']}", int(meta["size"]), stamp))
        if not found:
            raise NotFound(f"no file matches '{self._root}/{self._pattern}'", hint="look at the bucket and the prefix")
        return sorted(found, key=lambda f: f.name)

    def fetched(self, found: Found, folder: Path) -> Here:
        """A copy, piece by piece; raises `DataError` when it is not what was listed."""
        key = found.name.removeprefix(f"{self._root}/")
        target = folder / key.rpartition("/")[2]
        with self._failures(found.name), target.open("wb") as file:
            answer = obstore.get(self._bucket, key)
            tag = str(answer.meta.get("e_tag") or "")
            for piece in answer.stream(min_chunk_size=_PIECE):
                file.write(piece)
            size = file.tell()
        if size != found.size or tag != found.stamp[0]:
            raise DataError(f"{found.name} was written to while it was read", hint="capture it when its writer is done")
        return Here(target, found.name)

    def _one(self) -> Iterator[list[Any]]:
        try:
            yield [obstore.head(self._bucket, self._pattern)]
        except FileNotFoundError:
            return

    @contextmanager
    def _failures(self, what: str) -> Iterator[None]:
        """Errors of the library as errors of the tree, without a value of the binding in them."""
        try:
            yield
        except EverloopError:
            raise
        except FileNotFoundError:
            raise NotFound(
                f"{what} is not there", hint="it was removed while it was read, or the bucket is another"
            ) from None
        except (failures.BaseError, OSError, ValueError, TypeError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the local disk
            told = redacted(str(error), self._secrets)
            refused = isinstance(error, failures.PermissionDeniedError | failures.UnauthenticatedError)
            if refused or _REFUSED.search(str(error)):
                raise Unavailable(
                    f"{what} refuses us: {_reason(str(error))}",
                    hint="the credential is wrong or has expired: renew the binding, or the environment's variables",
                ) from None
            raise Unavailable(f"{what} fails: {told[:300]}", hint="check its name and the network") from None


def _reason(text: str) -> str:
    code = re.search(r"<Code>(\w+)</Code>", text) or _REFUSED.search(text)
    return code.group(code.lastindex or 0) if code else "permission denied"


def _regex(pattern: str) -> str:
    """A glob over keys as a regular expression; `**/` is any number of folders."""
    made = []
    for piece in re.split(r"(\*\*/|\*\*|\*|\?|\[!?[^\]]+\])", pattern):
        if piece.startswith("[") and len(piece) > 2:
            made.append(
                "["
                + ("^" if piece[1] == "!" else "")
                + re.escape(piece.strip("[]").lstrip("!")).replace(r"\-", "-")
                + "]"
            )
        else:
            known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
            made.append(known.get(piece, re.escape(piece)))
    return "".join(made)
