"""Spans on their way out of a gateway: into the workspace's own trace store, and to an OTLP address.

A task takes what ended twice a second; encoding, files and the network are in a thread. The spool is a file of OTLP for
each batch, `home/serving/traces/<gateway>/<project>/<nanoseconds>.otlp`, which a worker reads and removes. The address
is the standard variable `OTEL_EXPORTER_OTLP_ENDPOINT` (with `OTEL_EXPORTER_OTLP_HEADERS`); a batch that is not taken
there is dropped, and counted.
"""

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from everloop.serving.table import write_atomically
from everloop.serving.tracing.recording import Span, Tracer

ADDRESS, HEADERS = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS"
SUFFIX = ".otlp"
_EVERY = 0.5
_FILES = 1000
"""Batches that may wait for a worker; while there are more, spans go to the address only."""
_PATIENCE = 5.0


class Exporter:
    """What becomes of the spans of one gateway."""

    def __init__(self, tracer: Tracer, folder: Path, environ: Mapping[str, str]) -> None:
        """Spool into `folder`; the address is in `environ`."""
        self._tracer, self._folder = tracer, folder
        base = environ.get(ADDRESS, "").rstrip("/")
        self._url = f"{base}/v1/traces" if base else ""
        pairs = (pair.partition("=") for pair in environ.get(HEADERS, "").split(",") if "=" in pair)
        self._headers = {name.strip(): value.strip() for name, _, value in pairs}
        self.failed = 0

    async def run(self) -> None:
        """Take and tell, for ever; what ended before the end is told too."""
        try:
            while True:
                await asyncio.sleep(_EVERY)
                await self.flush()
        finally:
            await self.flush()

    async def flush(self) -> None:
        """Tell what ended so far."""
        taken = self._tracer.take()
        if taken:
            await asyncio.to_thread(self._tell, taken)

    def _tell(self, taken: Mapping[str, Sequence[Span]]) -> None:
        for project, spans in taken.items():
            content = encoded(project, spans)
            try:
                self._spool(project, content)
            except OSError:
                self.failed += 1  # a full disk: traces are the first that may go
            if self._url:
                self._send(content)

    def _spool(self, project: str, content: bytes) -> None:
        folder = self._folder / project
        if folder.is_dir() and sum(1 for _ in folder.glob("*" + SUFFIX)) >= _FILES:
            self.failed += 1
            return
        write_atomically(folder / f"{time.time_ns():020d}{SUFFIX}", content, fsync=False)

    def _send(self, content: bytes) -> None:
        http = import_module("httpx2")  # only gateways that export
        headers = {**self._headers, "content-type": "application/x-protobuf"}
        try:
            if http.post(self._url, content=content, headers=headers, timeout=_PATIENCE).is_error:
                self.failed += 1
        except http.HTTPError:
            self.failed += 1


def encoded(project: str, spans: Sequence[Span]) -> bytes:
    """An `ExportTraceServiceRequest` (OTLP 1.x) of spans of one project."""
    trace = import_module("opentelemetry.proto.trace.v1.trace_pb2")  # protobuf, for gateways that trace
    request = import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2").ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    _attribute(resource.resource.attributes, "service.name", "everloop")
    _attribute(resource.resource.attributes, "everloop.project", project)
    _attribute(resource.resource.attributes, "process.pid", os.getpid())
    scope = resource.scope_spans.add()
    scope.scope.name = "everloop.serving"
    for span in spans:
        made = scope.spans.add()
        made.trace_id, made.span_id = bytes.fromhex(span.trace), bytes.fromhex(span.id)
        made.parent_span_id = bytes.fromhex(span.parent)
        made.name = span.name
        made.kind = trace.Span.SPAN_KIND_SERVER if span.root else trace.Span.SPAN_KIND_INTERNAL
        made.start_time_unix_nano, made.end_time_unix_nano = span.started, span.ended
        made.status.code = trace.Status.STATUS_CODE_ERROR if span.error else trace.Status.STATUS_CODE_OK
        made.status.message = span.error
        for name, value in span.attributes.items():
            _attribute(made.attributes, name, value)
    content: bytes = request.SerializeToString()
    return content


def _attribute(attributes: Any, name: str, value: Any) -> None:
    added = attributes.add()
    added.key = name
    if isinstance(value, bool):
        added.value.bool_value = value
    elif isinstance(value, int):
        added.value.int_value = value
    else:
        added.value.string_value = str(value)
