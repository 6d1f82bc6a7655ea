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

_UNTRACED_ENDPOINTS = {None, "static", "ops.alive", "ops.ready", "ops.prometheus"}  # asked every few seconds, by nobody
_EXPORT_TIMEOUT_SECONDS = (
    2.0  # with a collector that is away: a worker that ends has patience too, and is killed after ten
)
_span_ids: ContextVar[tuple[int, int] | None] = ContextVar("span ids", default=None)


def init_app(app: Flask, settings: Settings) -> "SpanRecorder | None":
    """Begin to trace if the settings say so; return what traces deliveries then."""
    if settings.otel_exporter_otlp_endpoint is None:
        return None
    recorder = SpanRecorder(settings.otel_exporter_otlp_endpoint)
    app.before_request(recorder.start_request_span)
    app.after_request(recorder.record_response)
    app.teardown_request(recorder.end_request_span)
    return recorder


class SpanRecorder:
    """The spans of one worker. Those that were not sent yet are sent when the process ends."""

    def __init__(self, endpoint: str):
        # here, not above: who traces nothing needs no OpenTelemetry
        from opentelemetry import trace
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider

        resource = Resource.create()  # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES are read by it
        if str(resource.attributes.get(SERVICE_NAME, "unknown_service")).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "broadcast"}))
        provider = TracerProvider(resource=resource, id_generator=_build_id_generator())
        provider.add_span_processor(_build_span_processor(endpoint))
        self._trace, self._tracer = trace, provider.get_tracer("broadcast")

    def start_request_span(self) -> None:
        """Open the span of a request, once it has its correlation id."""
        if request.endpoint in _UNTRACED_ENDPOINTS:
            return
        correlation_id = correlation.current_id()
        token = _span_ids.set(_derive_ids(correlation_id))
        try:
            g.span = self._tracer.start_span(
                f"{request.method} {request.url_rule.rule}",
                kind=self._trace.SpanKind.SERVER,
                attributes={
                    "http.request.method": request.method,
                    "http.route": request.url_rule.rule,
                    "broadcast.correlation": correlation_id,
                },
            )
        finally:
            _span_ids.reset(token)

    def record_response(self, response: Response) -> Response:
        """Note how the request was answered. Of a stream that is its beginning: the span is not open as long as it is."""
        if span := g.get("span"):
            span.set_attribute("http.response.status_code", response.status_code)
            if response.status_code >= 500:
                span.set_status(self._trace.StatusCode.ERROR)
        return response

    def end_request_span(self, _problem: BaseException | None) -> None:
        if span := g.pop("span", None):
            span.end()

    def record_delivery(self, event: Event, now: datetime) -> None:
        """A span from the event's moment to its last write in this worker, in the trace of the request that it came from."""
        trace, links = self._trace, []
        if event.correlation_id:
            trace_id, span_id = _derive_ids(event.correlation_id)
            token = _span_ids.set((trace_id, 0))
            links = [trace.Link(trace.SpanContext(trace_id, span_id, is_remote=True))]
        else:
            token = _span_ids.set(None)
        try:
            span = self._tracer.start_span(
                "event.delivered",
                kind=trace.SpanKind.CONSUMER,
                links=links,
                start_time=_to_nanoseconds(event.at),
                attributes={
                    "broadcast.seq": event.seq,
                    "broadcast.type": event.type.value,
                    "broadcast.id": event.broadcast_id or 0,
                    "broadcast.correlation": event.correlation_id or "",
                },
            )
        finally:
            _span_ids.reset(token)
        span.end(_to_nanoseconds(max(now, event.at)))


def _build_span_processor(endpoint: str) -> Any:
    """Sends spans a few seconds later, many at once. Its thread is a greenlet, as gunicorn has patched before this is loaded,
    and waits for the network without anybody waiting for it.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return BatchSpanProcessor(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_TIMEOUT_SECONDS))


def _derive_ids(correlation_id: str) -> tuple[int, int]:
    """Trace id and span id of what is done for `correlation_id`. Evenly spread, so that sampling by trace id stays fair."""
    digest = hashlib.sha256(correlation_id.encode()).digest()
    return int.from_bytes(digest[:16]) or 1, int.from_bytes(digest[16:24]) or 1


def _build_id_generator() -> Any:
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class CorrelationIdGenerator(RandomIdGenerator):
        """What `_span_ids` says, or by chance; 0 is by chance as well."""

        def generate_trace_id(self) -> int:
            return (_span_ids.get() or (0, 0))[0] or super().generate_trace_id()

        def generate_span_id(self) -> int:
            return (_span_ids.get() or (0, 0))[1] or super().generate_span_id()

    return CorrelationIdGenerator()


def _to_nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1e9)
