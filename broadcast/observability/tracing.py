"""Spans for OpenTelemetry, where OTEL_EXPORTER_OTLP_ENDPOINT says where to: one for each request, one for each event that a
worker delivers. Elsewhere nothing of OpenTelemetry is imported, and nothing is asked on any path.

What ties them together is the correlation id, which the log carries to every worker: trace and span ids are computed from it,
so the request and the deliveries that it caused in other processes are one trace, and each delivery links to the request.
"""

import hashlib
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from flask import Flask, Response, g, request

from broadcast.base import correlation
from broadcast.config.settings import Settings
from broadcast.domain.events import Event

_LEFT_OUT = {None, "static", "ops.alive", "ops.ready", "ops.prometheus"}  # asked every few seconds, by nobody
_PATIENCE_SECONDS = 2.0  # with a collector that is away: a worker that ends has patience too, and is killed after ten
_ids: ContextVar[tuple[int, int] | None] = ContextVar("span ids", default=None)


def init_app(app: Flask, settings: Settings) -> "Traces | None":
    """Begin to trace if the settings say so; return what traces deliveries then."""
    if settings.otel_exporter_otlp_endpoint is None:
        return None
    traces = Traces(settings.otel_exporter_otlp_endpoint)
    app.before_request(traces.begin)
    app.after_request(traces.answered)
    app.teardown_request(traces.end)
    return traces


class Traces:
    """The spans of one worker. Those that were not sent yet are sent when the process ends."""

    def __init__(self, endpoint: str):
        # here, not above: who traces nothing needs no OpenTelemetry
        from opentelemetry import trace
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider

        resource = Resource.create()  # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES are read by it
        if str(resource.attributes.get(SERVICE_NAME, "unknown_service")).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "broadcast"}))
        provider = TracerProvider(resource=resource, id_generator=_ids_by_correlation())
        provider.add_span_processor(_processor(endpoint))
        self._trace, self._tracer = trace, provider.get_tracer("broadcast")

    def begin(self) -> None:
        """Open the span of a request, once it has its correlation id."""
        if request.endpoint in _LEFT_OUT:
            return
        id = correlation.current()
        token = _ids.set(_computed(id))
        try:
            g.span = self._tracer.start_span(
                f"{request.method} {request.url_rule.rule}",
                kind=self._trace.SpanKind.SERVER,
                attributes={
                    "http.request.method": request.method,
                    "http.route": request.url_rule.rule,
                    "broadcast.correlation": id,
                },
            )
        finally:
            _ids.reset(token)

    def answered(self, response: Response) -> Response:
        """Note how the request was answered. Of a stream that is its beginning: the span is not open as long as it is."""
        if span := g.get("span"):
            span.set_attribute("http.response.status_code", response.status_code)
            if response.status_code >= 500:
                span.set_status(self._trace.StatusCode.ERROR)
        return response

    def end(self, _problem: BaseException | None) -> None:
        if span := g.pop("span", None):
            span.end()

    def delivered(self, event: Event, now: datetime) -> None:
        """A span from the event's moment to its last write in this worker, in the trace of the request that it came from."""
        trace, links = self._trace, []
        if event.correlation:
            trace_id, span_id = _computed(event.correlation)
            token = _ids.set((trace_id, 0))
            links = [trace.Link(trace.SpanContext(trace_id, span_id, is_remote=True))]
        else:
            token = _ids.set(None)
        try:
            span = self._tracer.start_span(
                "event.delivered",
                kind=trace.SpanKind.CONSUMER,
                links=links,
                start_time=_nanoseconds(event.at),
                attributes={
                    "broadcast.seq": event.seq,
                    "broadcast.type": event.type.value,
                    "broadcast.id": event.broadcast_id or 0,
                    "broadcast.correlation": event.correlation or "",
                },
            )
        finally:
            _ids.reset(token)
        span.end(_nanoseconds(max(now, event.at)))


def _processor(endpoint: str) -> Any:
    """Sends spans a few seconds later, many at once. Its thread is a greenlet, as gunicorn has patched before this is loaded,
    and waits for the network without anybody waiting for it.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return BatchSpanProcessor(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_PATIENCE_SECONDS))


def _computed(id: str) -> tuple[int, int]:
    """Trace id and span id of what is done for `id`. Evenly spread, so that sampling by trace id stays fair."""
    digest = hashlib.sha256(id.encode()).digest()
    return int.from_bytes(digest[:16]) or 1, int.from_bytes(digest[16:24]) or 1


def _ids_by_correlation() -> Any:
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Ids(RandomIdGenerator):
        """What `_ids` says, or by chance; 0 is by chance as well."""

        def generate_trace_id(self) -> int:
            return (_ids.get() or (0, 0))[0] or super().generate_trace_id()

        def generate_span_id(self) -> int:
            return (_ids.get() or (0, 0))[1] or super().generate_span_id()

    return Ids()


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1e9)
