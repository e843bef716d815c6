"""A collector of traces: an HTTP server that takes what OTLP brings."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Seen:
    """One span that arrived."""

    service: str
    name: str
    kind: int
    trace: str
    id: str
    parent: str
    links: frozenset[str]
    failed: bool
    attributes: dict[str, str]


class Collector:
    """What has arrived, and where to send it.

    Attributes:
        url: for `OTEL_EXPORTER_OTLP_ENDPOINT`.
        spans: all so far.
        raw: what came over the wire.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[Seen] = []
        self.raw = b""

    def take(self, body: bytes) -> None:
        self.raw += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            of = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [_seen(of["service.name"], span) for span in scope.spans]

    def trace(self, id_: str) -> list[Seen]:
        return [span for span in list(self.spans) if span.trace == id_]

    def named(self, *names: str) -> list[Seen]:
        return [span for span in list(self.spans) if span.name in names]


def _seen(service, span) -> Seen:
    return Seen(
        service=service,
        name=span.name,
        kind=span.kind,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        links=frozenset(link.span_id.hex() for link in span.links),
        failed=span.status.code == 2,
        attributes={
            pair.key: pair.value.string_value or str(pair.value.int_value)
            for pair in span.attributes
        },
    )


@contextmanager
def collecting() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.path == "/v1/traces"
            found.take(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
