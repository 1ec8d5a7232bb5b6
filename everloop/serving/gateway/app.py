"""The ASGI application of a gateway: predictions are answered here, everything else is passed to the server.

/v2, /v2/...                                     Open Inference Protocol; models are `project.endpoint`
/endpoints/<project>/<name>/...                  MLflow's scoring protocol, plain predictions, tables
/api/2.0/endpoints/                              what MLflow's deployment client lists
/features/<project>/<service>                    feature look-ups
/metrics                                         counters for Prometheus
"""

import asyncio
from dataclasses import replace

from everloop.core.errors import EverloopError, NotFound
from everloop.serving.gateway.faults import told
from everloop.serving.gateway.lookups import Lookups
from everloop.serving.gateway.passing.carry import Carrier
from everloop.serving.gateway.passing.relay import Receive, Scope, Send
from everloop.serving.gateway.speaking import metrics, oip, scoring
from everloop.serving.gateway.speaking.asking import Desk
from everloop.serving.gateway.speaking.replies import Reply, body_of, compressed, need_method, problem
from everloop.serving.streaming import sending


class Gateway:
    """The application; `desk` and `lookups` hold all state."""

    def __init__(self, desk: Desk, lookups: Lookups, server: Carrier | None = None) -> None:
        """Pass what is no prediction or look-up to the server, or answer 404 when there is none."""
        self._desk, self._lookups = desk, lookups
        self._server = server
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End open streams of events: their readers come back to whoever listens next."""
        self._stopping.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if (streamed := sending.address_of(scope)) is not None:
            reply = await sending.sent(self._desk, scope, receive, send, streamed)
        else:
            reply = await self._answer(scope, receive, send)
        if reply is None:  # it was sent already
            return
        if len(reply.body) > 1024:
            reply = compressed(reply, dict(scope["headers"]))
        headers = [*reply.headers, (b"content-length", b"%d" % len(reply.body))]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> Reply | None:
        path: str = scope["path"]
        reply: Reply | None
        if path.startswith("/v2") and path[3:4] in ("", "/"):
            reply = await oip.reply(self._desk, scope, receive)
        elif path.startswith("/endpoints/") and (asked := scoring.address_of(path)) is not None:
            reply = await scoring.reply(self._desk, scope, receive, *asked)
        elif path.startswith("/endpoints/"):
            reply = scoring.nothing(path)
        elif path.startswith(scoring.DEPLOYMENTS):
            reply = await scoring.deployments(self._desk, scope)
        elif path == metrics.PATH:
            reply = metrics.reply(self._desk, self._lookups, scope)
        elif path.startswith("/features/") and path.count("/") == 3:
            reply = await self._looked_up(scope, receive)
        elif self._server is not None:
            reply = await self._relayed(self._server, scope, receive, send)
        else:
            reply = problem(NotFound(f"there is nothing at {path[:200]}", hint="see /v2 for what is here"))
        return reply

    async def _relayed(self, server: Carrier, scope: Scope, receive: Receive, send: Send) -> Reply | None:
        try:
            await server.carry(scope, receive, send, self._stopping)
        except EverloopError as error:
            failed = problem(error)
            return replace(failed, headers=(*failed.headers, (b"connection", b"close")))  # its body may be half read
        return None

    async def _looked_up(self, scope: Scope, receive: Receive) -> Reply:
        headers = dict(scope["headers"])
        _, _, project, name = scope["path"].split("/")
        try:
            table = self._desk.fleet.table
            self._desk.door.check(headers, table, project)
            need_method(scope, "POST", "GET")
            if scope["method"] == "GET":
                return Reply(200, self._lookups.describe(table, project, name))
            return Reply(200, await self._lookups.answer(table, project, name, await body_of(headers, receive)))
        except EverloopError as error:
            return problem(error)
        except Exception as error:  # noqa: BLE001 - the edge of the process: callers learn a fault's id, the log the rest
            return problem(told(f"{scope['method']} {scope['path']}", error))
