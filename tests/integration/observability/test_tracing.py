"""Tracing: a request and its effects in other workers are one trace; without the setting no trace and no cost."""

import subprocess
import sys
from dataclasses import replace

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from broadcast.base import correlation
from broadcast.config.settings import Settings, SettingsError
from broadcast.observability import tracing
from broadcast.worker.runtime import RUNTIME
from tests.conftest import add_test_users, deliver_new_events
from tests.support.builders import build_message
from tests.support.system import PROJECT_ROOT
from tests.support.users import BrowserClient


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traced(make_app, exporter: InMemorySpanExporter, monkeypatch):
    """Makes applications that are traced, as workers of one system."""
    monkeypatch.setattr(tracing, "_build_span_processor", lambda endpoint: SimpleSpanProcessor(exporter))
    return lambda **settings: make_app(otel_exporter_otlp_endpoint="http://127.0.0.1:1", **settings)


def test_publishing_and_its_deliveries_in_every_worker_are_one_trace(traced, exporter):
    here, elsewhere = traced(), traced()
    with here.app_context():
        add_test_users()
    answer = BrowserClient.for_user(here, "alice").send("POST", "/api/admin/broadcasts", build_message())
    assert answer.status_code == 201
    for app in (here, elsewhere):
        deliver_new_events(app)
    [published] = [span for span in exporter.get_finished_spans() if span.name == "POST /api/admin/broadcasts"]
    delivered = [span for span in exporter.get_finished_spans() if span.name == "event.delivered"]
    assert len(delivered) == 2
    for span in delivered:
        assert span.context.trace_id == published.context.trace_id
        assert span.parent.span_id == published.context.span_id
        assert span.attributes["broadcast.correlation"] == answer.headers["X-Request-ID"]
        assert span.attributes["broadcast.id"] == answer.json["id"]
    assert len({span.context.span_id for span in (published, *delivered)}) == 3
    assert published.attributes["http.response.status_code"] == 201


def test_requests_are_named_by_their_route_and_health_checks_are_left_out(traced, exporter):
    app = traced()
    browser = app.test_client()
    for path in ("/healthz", "/readyz", "/metrics", "/static/core/app.css", "/nothing", "/inbox/5"):
        browser.get(path).close()
    assert [span.name for span in exporter.get_finished_spans()] == ["GET /inbox/<int:broadcast_id>"]


def test_two_requests_over_one_connection_are_two_traces(traced, exporter):
    browser = traced().test_client()
    browser.get("/login")
    browser.get("/login")
    first, second = exporter.get_finished_spans()
    assert first.context.trace_id != second.context.trace_id


@pytest.mark.parametrize("hops", [0, 1])
def test_request_continues_the_trace_of_its_caller_only_behind_a_proxy(traced, exporter, hops):
    caller = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    traced(trusted_proxy_hops=hops).test_client().get("/login", headers=caller)
    [span] = exporter.get_finished_spans()
    assert (f"{span.context.trace_id:032x}" in caller["traceparent"]) == (hops == 1)


@pytest.mark.parametrize("value", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "f" * 10_000])
def test_broken_traceparent_begins_a_new_trace(traced, exporter, value):
    traced(trusted_proxy_hops=1).test_client().get("/login", headers={"traceparent": value})
    [span] = exporter.get_finished_spans()
    assert span.parent is None


def test_event_without_a_request_has_a_trace_of_its_own(traced, exporter):
    app = traced()
    with app.app_context():
        add_test_users()
    alice = BrowserClient.for_user(app, "alice")
    alice.send("POST", "/api/admin/broadcasts", build_message())
    exporter.clear()
    event = RUNTIME.of(app).tailer._read_new_events()[-1]
    RUNTIME.of(app).tailer.on_event_logged(replace(event, traceparent=None), event.at)
    [span] = exporter.get_finished_spans()
    assert span.parent is None
    assert span.end_time == span.start_time


def test_error_is_an_error_of_the_span(traced, exporter):
    app = traced()
    app.add_url_rule("/broken", "broken", _broken)
    assert app.test_client().get("/broken").status_code == 500
    [span] = exporter.get_finished_spans()
    assert span.status.status_code.name == "ERROR"
    assert correlation.is_safe_id(span.attributes["broadcast.correlation"])


def test_collector_must_be_an_address():
    with pytest.raises(SettingsError, match="^OTEL_EXPORTER_OTLP_ENDPOINT: "):
        Settings.load({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"})


def test_package_that_is_missing_is_a_hint(monkeypatch):
    monkeypatch.setattr("broadcast.config.settings.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="requirements-otel.txt"):
        Settings.load({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})


def test_without_the_settings_nothing_optional_is_imported(tmp_path):
    """Of ours: redis-py imports opentelemetry.sdk by itself where it is installed."""
    program = (
        "import sys; from broadcast.factory import create_app; from broadcast.config.settings import Settings\n"
        "app = create_app(Settings(app_env='test', data_dir=sys.argv[1], secret_key='k' * 40))\n"
        "assert app.extensions['runtime'].tailer.on_event_logged is None\n"
        "print({'authlib', 'joserfc', 'requests', 'opentelemetry.exporter'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "set()", done.stderr


def _broken():
    raise ZeroDivisionError


_broken.rule = "anyone"
