"""OpenTelemetry spans, if OTEL_EXPORTER_OTLP_ENDPOINT is set: one per request, and one per event that a worker
delivers. Otherwise nothing of OpenTelemetry is imported, and no request pays for it.

The log carries the `traceparent` of a request (W3C Trace Context) to every worker, so the deliveries that it caused in
other processes belong to its trace. Behind a trusted proxy a request continues the trace of its caller.
"""

from datetime import datetime
from typing import Any

from flask import Flask, Response, g, request

from broadcast.base import correlation
from broadcast.config.settings import Settings
from broadcast.domain.events import Event

_UNTRACED_ENDPOINTS = {None, "static", "ops.alive", "ops.ready", "ops.prometheus"}  # polled every few seconds
_EXPORT_TIMEOUT_SECONDS = 2.0  # an ending worker waits for an absent collector too, and is killed after ten


def init_app(app: Flask, settings: Settings) -> "SpanRecorder | None":
    """Enable tracing if configured; return the recorder of deliveries then."""
    if settings.otel_exporter_otlp_endpoint is None:
        return None
    recorder = SpanRecorder(settings.otel_exporter_otlp_endpoint, is_behind_proxy=settings.trusted_proxy_hops > 0)
    app.before_request(recorder.start_request_span)
    app.after_request(recorder.record_response)
    app.teardown_request(recorder.end_request_span)
    return recorder


class SpanRecorder:
    """The spans of one worker. Unsent spans are sent when the process ends."""

    def __init__(self, endpoint: str, *, is_behind_proxy: bool):
        # imported here, so that OpenTelemetry is needed only for tracing
        from opentelemetry import trace
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create()  # reads OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
        if str(resource.attributes.get(SERVICE_NAME, "unknown_service")).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "broadcast"}))
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(_build_span_processor(endpoint))
        self._trace, self._tracer = trace, provider.get_tracer("broadcast")
        self._propagator, self._is_behind_proxy = TraceContextTextMapPropagator(), is_behind_proxy

    def start_request_span(self) -> None:
        """Start the span of a request, once it has its correlation id."""
        correlation.set_traceparent(None)  # of the previous request of this connection
        if request.endpoint in _UNTRACED_ENDPOINTS:
            return
        g.span = self._tracer.start_span(
            f"{request.method} {request.url_rule.rule}",
            context=self._propagator.extract(request.headers) if self._is_behind_proxy else None,
            kind=self._trace.SpanKind.SERVER,
            attributes={
                "http.request.method": request.method,
                "http.route": request.url_rule.rule,
                "broadcast.correlation": correlation.current_id(),
            },
        )
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._trace.set_span_in_context(g.span))
        correlation.set_traceparent(carrier.get("traceparent"))

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
        span = self._tracer.start_span(
            "event.delivered",
            context=self._propagator.extract({"traceparent": event.traceparent or ""}),
            kind=self._trace.SpanKind.CONSUMER,
            start_time=_to_nanoseconds(event.at),
            attributes={
                "broadcast.seq": event.seq,
                "broadcast.type": event.type.value,
                "broadcast.id": event.broadcast_id or 0,
                "broadcast.correlation": event.correlation_id or "",
            },
        )
        span.end(_to_nanoseconds(max(now, event.at)))


def _build_span_processor(endpoint: str) -> Any:
    """Exports spans in batches, some seconds later. Its thread is a greenlet, as gunicorn patches threading before this
    module is loaded, and nothing waits for its network calls.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return BatchSpanProcessor(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_TIMEOUT_SECONDS))


def _to_nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1e9)
