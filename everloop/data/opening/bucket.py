"""A table's folder in a bucket. Needs the extra `s3`; credentials come from the environment, as the store's do."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore import exceptions as failures
from obstore.store import AzureStore, GCSStore, S3Store

from everloop.core.errors import InvalidInput, Unavailable

_KINDS: dict[str, Any] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
_RETRIES = {"max_retries": 8, "retry_timeout": timedelta(seconds=60)}


class BucketPlace:
    """A folder in a bucket; an object appears there whole or not at all."""

    def __init__(self, url: str) -> None:
        """Nothing is asked of it yet."""
        self._url = url
        options = {"allow_http": os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true")}
        with self._failures():
            kind = _KINDS[url.partition("://")[0]]
            self._bucket = kind.from_url(url, client_options=options, retry_config=_RETRIES)

    def read(self, name: str) -> bytes | None:
        """An object's bytes; None when it is not there."""
        with self._failures():
            try:
                return bytes(obstore.get(self._bucket, name).bytes())
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes, at: int = 0) -> None:  # noqa: ARG002 - a bucket says its own time
        """Put an object there."""
        with self._failures():
            obstore.put(self._bucket, name, content)

    def link(self, name: str, target: Path) -> None:
        """Refused: a bucket has no links."""
        raise InvalidInput(f"{self._url} cannot link {name} to {target}", hint="put the table into a folder")

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects that may be there."""
        with self._failures():
            for name in names:
                try:
                    obstore.delete(self._bucket, name)
                except FileNotFoundError:
                    continue

    def names(self) -> list[str]:
        """The objects that are there."""
        with self._failures():
            return sorted(str(found["path"]) for page in obstore.list(self._bucket) for found in page)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (failures.PermissionDeniedError, failures.UnauthenticatedError, PermissionError) as error:
            raise Unavailable(
                f"{self._url} refuses us: {str(error)[:200]}", hint="check the credentials in the environment"
            ) from error
        except (failures.BaseError, OSError, ValueError) as error:
            raise Unavailable(
                f"{self._url} fails: {str(error)[:200]}", hint="check its name, the network and the credentials"
            ) from error
