"""A file of the web, by HTTPS: bounded in size, few redirects, and to public addresses only.

A name is resolved once for each request, every address that it has must be public, and the connection goes to one of
those: a name that means another machine a moment later leads nowhere else. A binding may allow internal addresses
(`private = true`, which allows plain `http:` too), bound the size (`limit`, bytes) and give `headers`, say an
`Authorization`; headers go to the host of the address alone, not where it redirects to.
"""

import http.client
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from everloop.core.errors import DataError, InvalidInput, NotFound, Unavailable
from everloop.core.settings import is_public
from everloop.data.sources.places.place import Found, Here

LIMIT = 64 * 2**30
"""Bytes that a file may have, unless the binding says otherwise."""
REDIRECTS = 5
_SECONDS = 60.0
_PIECE = 1 << 20
_REFUSED = (401, 403, 407)


class Web:
    """One file at an address."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        """Nothing is asked yet; raises `InvalidInput` for a wrong binding."""
        unknown = sorted(set(options) - {"headers", "private", "limit"})
        if unknown:
            raise InvalidInput(f"the binding of {url} has {unknown[0]!r}", hint="it may have headers, private, limit")
        self._url = url
        self._headers = {str(k): str(v) for k, v in dict(options.get("headers", {})).items()}
        self._private, self._limit = bool(options.get("private", False)), int(options.get("limit", LIMIT))

    def listed(self) -> list[Found]:
        """The file with its entity tag and time of change, as a HEAD request answers; no stamp where it does not."""
        with self._asked("HEAD") as answer:
            if answer.status in (405, 501):
                return [Found(self._url, -1, ())]
            self._check(answer)
            return [self._found(answer)]

    def fetched(self, found: Found, folder: Path) -> Here:
        """A copy, piece by piece; raises `DataError` when it is too long or was cut off, `Unavailable`."""
        target = folder / (Path(urlsplit(self._url).path).name or "file")
        with self._asked("GET") as answer, target.open("wb") as file:
            self._check(answer)
            now = self._found(answer)
            if found.stamp and any(found.stamp) and now.stamp != found.stamp:
                raise DataError(f"{self._url} changed while it was read", hint="capture it again")
            while piece := answer.read(_PIECE):
                file.write(piece)
                if file.tell() > self._limit:
                    raise self._long()
            if 0 <= now.size != file.tell():
                raise Unavailable(f"{self._url} broke off after {file.tell()} of {now.size} bytes", hint="try again")
        return Here(target, self._url)

    def _found(self, answer: http.client.HTTPResponse) -> Found:
        size = int(answer.headers.get("Content-Length") or -1)
        if size > self._limit:
            raise self._long()
        stamp = (answer.headers.get("ETag") or "", answer.headers.get("Last-Modified") or "")
        return Found(self._url, size, stamp if any(stamp) else ())

    def _long(self) -> DataError:
        return DataError(f"{self._url} is longer than {self._limit} bytes", hint="raise `limit` in its binding")

    def _check(self, answer: http.client.HTTPResponse) -> None:
        if answer.status == 404:
            raise NotFound(f"{self._url} is not there (404)", hint="check the address")
        if answer.status in _REFUSED:
            raise Unavailable(
                f"{self._url} refuses us ({answer.status})",
                hint="the credential is wrong or has expired: renew `headers` in its binding",
            )
        if answer.status != 200:
            raise Unavailable(f"{self._url} answers {answer.status}", hint="try again later")

    @contextmanager
    def _asked(self, method: str) -> Iterator[http.client.HTTPResponse]:
        url, headers = self._url, {**self._headers, "User-Agent": "everloop", "Accept-Encoding": "identity"}
        for _ in range(REDIRECTS + 1):
            connection = self._connected(url)
            try:
                answer = self._answer(connection, method, url, headers)
                if answer.status not in (301, 302, 303, 307, 308):
                    yield answer
                    return
                target = urljoin(url, answer.headers.get("Location") or "")
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, OSError) and error.filename is not None:
                    raise  # of the local disk
                raise Unavailable(f"{self._url} broke off: {type(error).__name__}", hint="try again") from None
            finally:
                connection.close()
            if urlsplit(target)[:2] != urlsplit(url)[:2]:
                headers = {k: v for k, v in headers.items() if k not in self._headers}
            url = target
        raise Unavailable(f"{self._url} redirects more than {REDIRECTS} times", hint="name the last address")

    def _answer(
        self, connection: http.client.HTTPConnection, method: str, url: str, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(method, path, headers=dict(headers))
        return connection.getresponse()

    def _connected(self, url: str) -> http.client.HTTPConnection:
        """A connection to the very address that was checked."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
        except ValueError:
            host, port = "", 0
        if not host or not port or parts.username or (parts.scheme == "http" and not self._private):
            raise InvalidInput(f"{self._url} leads to no https: address", hint="https://host/path")
        try:
            found = list(dict.fromkeys(str(e[4][0]) for e in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
            if not self._private and not all(map(is_public, found)):
                raise InvalidInput(
                    f"{self._url} leads to an internal address ({host})",
                    hint="a binding with private = true allows it: Files(..., binding=...)",
                )
            raw = socket.create_connection((found[0], port), _SECONDS)
            if parts.scheme == "https":
                raw = ssl.create_default_context().wrap_socket(raw, server_hostname=host)
        except (OSError, UnicodeError) as error:
            raise Unavailable(
                f"{host} does not answer: {type(error).__name__}", hint="check address and network"
            ) from None
        connection = http.client.HTTPConnection(host, port, timeout=_SECONDS)
        connection.sock = raw
        return connection
