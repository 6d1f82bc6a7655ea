"""OpenTelemetry spans, if OTEL_EXPORTER_OTLP_ENDPOINT is set: one per request, and one per event that a worker
delivers. Otherwise nothing of OpenTelemetry is imported, and no request pays for it.

The correlation id ties them together; the log carries it to every worker. Trace and span ids are derived from it, so a
request and the deliveries that it caused in other processes are one trace, and each delivery links to the request.
"""

import hashlib
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from flask import Flask, Response, g, request

from broadcast.base import correlation
from broadcast.config.settings import Settings
from broadcast.domain.events import Event

_UNTRACED_ENDPOINTS = {None, "static", "ops.alive", "ops.ready", "ops.prometheus"}  # polled every few seconds
_EXPORT_TIMEOUT_SECONDS = 2.0  # an ending worker waits for an absent collector too, and is killed after ten
_span_ids: ContextVar[tuple[int, int] | None] = ContextVar("span ids", default=None)


def init_app(app: Flask, settings: Settings) -> "SpanRecorder | None":
    """Enable tracing if configured; return the recorder of deliveries then."""
    if settings.otel_exporter_otlp_endpoint is None:
        return None
    recorder = SpanRecorder(settings.otel_exporter_otlp_endpoint)
    app.before_request(recorder.start_request_span)
    app.after_request(recorder.record_response)
    app.teardown_request(recorder.end_request_span)
    return recorder


class SpanRecorder:
    """The spans of one worker. Unsent spans are sent when the process ends."""

    def __init__(self, endpoint: str):
        # imported here, so that OpenTelemetry is needed only for tracing
        from opentelemetry import trace
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider

        resource = Resource.create()  # reads OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
        if str(resource.attributes.get(SERVICE_NAME, "unknown_service")).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "broadcast"}))
        provider = TracerProvider(resource=resource, id_generator=_build_id_generator())
        provider.add_span_processor(_build_span_processor(endpoint))
        self._trace, self._tracer = trace, provider.get_tracer("broadcast")

    def start_request_span(self) -> None:
        """Start the span of a request, once it has its correlation id."""
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
        """Record the response's status. A stream's span ends when it is opened, not when the stream ends."""
        if span := g.get("span"):
            span.set_attribute("http.response.status_code", response.status_code)
            if response.status_code >= 500:
                span.set_status(self._trace.StatusCode.ERROR)
        return response

    def end_request_span(self, _problem: BaseException | None) -> None:
        if span := g.pop("span", None):
            span.end()

    def record_delivery(self, event: Event, now: datetime) -> None:
        """Record a span from the event's time to its last write in this worker, in the trace of its request."""
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
    """Exports spans in batches, some seconds later. Its thread is a greenlet, as gunicorn patches threading before this
    module is loaded, and nothing waits for its network calls.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return BatchSpanProcessor(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_TIMEOUT_SECONDS))


def _derive_ids(correlation_id: str) -> tuple[int, int]:
    """Trace id and span id for `correlation_id`. Evenly distributed, so that sampling by trace id stays fair."""
    digest = hashlib.sha256(correlation_id.encode()).digest()
    return int.from_bytes(digest[:16]) or 1, int.from_bytes(digest[16:24]) or 1


def _build_id_generator() -> Any:
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class CorrelationIdGenerator(RandomIdGenerator):
        """Uses the ids in `_span_ids`; random ones where it has none or 0."""

        def generate_trace_id(self) -> int:
            return (_span_ids.get() or (0, 0))[0] or super().generate_trace_id()

        def generate_span_id(self) -> int:
            return (_span_ids.get() or (0, 0))[1] or super().generate_span_id()

    return CorrelationIdGenerator()


def _to_nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1e9)
