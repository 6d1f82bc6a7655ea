"""Every metric has a name and a documented meaning, and changes with what it measures."""

import json
import re
import shutil
import subprocess
from datetime import timedelta

import prometheus_client
import pytest
import yaml
from structlog.testing import capture_logs

from broadcast.bus.protocol import BUS
from broadcast.domain import clock
from broadcast.observability import metrics
from broadcast.store.models import Broadcast
from broadcast.store.transactions import write_transaction
from broadcast.streams.hub import HUB
from broadcast.worker import gauges
from tests.conftest import deliver_new_events
from tests.support.builders import load_actor, publish_message
from tests.support.system import PROJECT_ROOT
from tests.support.users import BrowserClient

ALERTS = PROJECT_ROOT / "deploy/alerts.yaml"
_NAME = r"\bbroadcast_[a-z_]+\b"


def names_in_code() -> set[str]:
    """As Prometheus shows them: counters end in _total."""
    kinds = (prometheus_client.Counter, prometheus_client.Gauge, prometheus_client.Histogram)
    families = [family for value in vars(metrics).values() if isinstance(value, kinds) for family in value.describe()]
    return {family.name + ("_total" if family.type == "counter" else "") for family in families}


def family_of(name: str) -> str:
    return re.sub(r"_(bucket|count|sum)$", "", name)


def test_every_metric_is_explained_and_no_other():
    rows = re.findall(rf"^\| `({_NAME})` \|", (PROJECT_ROOT / "docs/operations.md").read_text(), re.M)
    assert sorted(rows) == sorted(names_in_code())


RULES = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]


def test_alerts_ask_for_metrics_that_exist():
    asked = {family_of(name) for rule in RULES for name in re.findall(_NAME, rule["expr"])}
    assert asked <= names_in_code()


def test_every_alert_has_a_runbook_and_every_runbook_an_alert():
    text = (PROJECT_ROOT / "docs/runbook.md").read_text()
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", text, re.M | re.S))
    assert list(sections) == [rule["alert"] for rule in RULES]
    for rule in RULES:
        name = rule["alert"]
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
        for part in ("**Means:**", "**Look", "**Do:**"):
            assert part in sections[name].replace("**Look and do:**", "**Look:** **Do:**"), name


def test_runbook_names_only_lines_of_the_log_and_metrics_that_exist():
    text = (PROJECT_ROOT / "docs/runbook.md").read_text()
    code = "".join(path.read_text() for path in (PROJECT_ROOT / "broadcast").rglob("*.py"))
    for line in set(re.findall(r"`([a-z_]+\.[a-z_]+)`", text)):
        assert f'"{line}"' in code, line
    assert {family_of(name) for name in re.findall(_NAME, text)} <= names_in_code()


def test_prometheus_accepts_the_alert_rules():
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed: apt-get install prometheus")
    done = subprocess.run(["promtool", "check", "rules", ALERTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dashboard_shows_every_metric_and_none_that_does_not_exist():
    dashboard = json.loads((PROJECT_ROOT / "deploy/grafana.json").read_text())
    shown = {
        family_of(name)
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(_NAME, target["expr"])
    }
    assert shown == names_in_code()


def value(name: str, **labels: str) -> float:
    [sample] = [
        sample
        for family in metrics.REGISTRY.collect()
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    return sample.value


def measure(app) -> None:
    with app.app_context():
        gauges.update_all(HUB.of(app), BUS.of(app))


def test_lag_is_what_the_log_has_and_the_streams_have_not(app, client):
    client()
    with app.app_context():
        publish_message(by=load_actor("alice"))
        publish_message(by=load_actor("alice"))
    measure(app)
    assert value("broadcast_tail_lag_events") == 2
    assert value("broadcast_tail_lag_seconds") > 0
    deliver_new_events(app)
    measure(app)
    assert value("broadcast_tail_lag_events") == 0
    assert value("broadcast_tail_lag_seconds") == 0


def test_delivery_is_timed_from_the_moment_of_the_event(app, client):
    client()
    before = value("broadcast_delivery_seconds_count")
    with app.app_context():
        publish_message(by=load_actor("alice"))
    deliver_new_events(app)
    assert value("broadcast_delivery_seconds_count") == before + 1


def test_overdue_clock_shows(app, client):
    client()
    with app.app_context():
        measure(app)
        assert value("broadcast_scheduler_lag_seconds") == 0
        sent = publish_message(by=load_actor("alice"))
        with write_transaction() as session:
            session.get(Broadcast, sent).expires_at = clock.now() - timedelta(seconds=90)
    measure(app)
    assert value("broadcast_scheduler_lag_seconds") >= 90


def test_slow_client_shows_as_backlog(app, client):
    bob = client("bob")
    stream = bob.get("/api/sse/connect", buffered=False)
    [connection] = HUB.of(app).connections
    connection.backlog = bytearray(1000)
    measure(app)
    assert (value("broadcast_backlog_bytes"), value("broadcast_backlog_streams")) == (1000, 1)
    assert value("broadcast_users_online") == 1
    connection.backlog = None
    stream.close()


def test_one_id_goes_from_the_request_through_the_log_to_the_delivery(make_app, client):
    client()
    app = make_app(trusted_proxy_hops=1, log_level="info")
    alice = BrowserClient.for_user(app, "alice")
    draft = {"title": "Traced", "content": "Text", "targetType": "ALL"}
    with capture_logs() as lines:
        answer = alice.send("POST", "/api/admin/broadcasts", draft, headers={"X-Request-ID": "from-the-proxy-1"})
        deliver_new_events(app)
    assert answer.headers["X-Request-ID"] == "from-the-proxy-1"
    [delivered] = [line for line in lines if line["event"] == "event.delivered"]
    assert delivered["correlation"] == "from-the-proxy-1"
    assert delivered["broadcast"] == answer.json["id"]


@pytest.mark.parametrize(
    ("hops", "given"), [(0, "from-a-stranger"), (1, "with\x0bcontrol"), (1, "x" * 65), (1, "short")]
)
def test_id_of_a_stranger_or_with_odd_characters_is_replaced(make_app, hops: int, given: str):
    answer = make_app(trusted_proxy_hops=hops).test_client().get("/healthz", headers={"X-Request-ID": given})
    assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["X-Request-ID"])
