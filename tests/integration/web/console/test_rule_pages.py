"""The console's rule pages: the contents of the rules file, and a dry run on real events that publishes nothing."""

import re
from pathlib import Path

import pytest

from broadcast.actions import inbound_events
from broadcast.domain import clock
from broadcast.domain.inbound import InboundEvent
from broadcast.ingest import contract
from broadcast.ingest.rules import RULES
from broadcast.store import event_sources
from tests.support.builders import build_message, build_role_message, count_rows
from tests.support.inbound_records import (
    SOURCE,
    build_bare_record,
    build_cancel_event,
    build_cloud_event,
    build_structured_record,
)
from tests.support.users import BrowserClient

FILE = """
[[rule]]
source = "https://grid.example.com/*"
sender = "Grid control"
audiences = ["role:ops"]
collapse_key = "{{ data.category|default('none') }}"
limit = 2
window_seconds = 60

[[rule]]
type = "com.example.check.*"
title = "{{ data.check }} fails"
content = "On *{{ data.host }}*."
defaults = { targetType = "ROLE", targetIds = ["ops"] }
draft = true

[[rule]]
topic = "ext.*"
"""


@pytest.fixture
def ruled(make_app, client, tmp_path: Path):
    """An application with the rules of FILE, and the cast."""
    client()
    path = tmp_path / "rules.toml"
    path.write_text(FILE)
    return make_app(event_rules=path)


def arrive(app, *records) -> list[str]:
    with app.app_context():
        now, held = clock.now(), RULES.of(app)
        read = [InboundEvent(record, contract.read_command(record, now=now, rules=held)) for record in records]
        return [
            outcome.kind
            for outcome in inbound_events.ingest(read, by=inbound_events.get_ingest_actor(now=now), now=now)
        ]


def page(app, path: str = "/console/rules") -> str:
    return BrowserClient.for_user(app, "alice").get(path).get_data(as_text=True)


def cards(html: str) -> list[str]:
    return [re.sub(r"<[^>]+>", "", title).strip() for title in re.findall(r'class="card-title".*?</h3>', html, re.S)]


def test_page_tells_every_rule_and_where_they_are_changed(ruled):
    html = page(ruled)
    assert "rules.toml" in html
    assert "check-rules" in html
    assert [f'id="rule-{n}"' in html for n in (1, 2, 3, 4)] == [True, True, True, False]
    for text in (
        "https://grid.example.com/*",
        "Grid control",
        "role:ops",
        "2 per source and 2 per account or topic in 60 s",
        "{{ data.check }} fails",
    ):
        assert text in html, text


def test_without_rules_the_page_says_what_holds_and_how_to_begin(app, client):
    html = client("alice").get("/console/rules").get_data(as_text=True)
    assert "No source rules" in html
    assert "EVENT_RULES" in html


def test_dry_run_shows_the_card_and_the_reach_of_real_events(ruled):
    check = build_cloud_event(
        "7", type="com.example.check.v1", source="https://monitor", data={"check": "Disk", "host": "web-1"}
    )
    assert arrive(ruled, build_structured_record(check)) == ["published"]
    html = page(ruled, "/console/rules/2")
    assert "Disk fails" in html
    assert "<em>web-1</em>" in html
    assert "<strong>1 person</strong>" in html
    assert "Kept as a draft" in html


def test_dry_run_tells_why_an_event_would_be_refused(ruled):
    assert arrive(ruled, build_structured_record(build_cloud_event("1", data=build_role_message("admin")))) == [
        "rejected"
    ]
    html = page(ruled, "/console/rules/1")
    assert "Its source may not send to role:admin." in html
    assert not cards(html)


def test_dry_run_is_of_the_newest_twenty_for_which_the_rule_holds(ruled):
    arrive(
        ruled,
        *(
            build_structured_record(build_cloud_event(str(n), data=build_role_message("ops", title=f"t{n}")), offset=n)
            for n in range(30)
        ),
    )
    arrive(ruled, *(build_bare_record(build_message(title=f"bare {n}"), offset=n) for n in range(3)))
    html = page(ruled, "/console/rules/1")
    assert [re.search(r"[\w ]+$", title)[0] for title in cards(html)] == [f"t{n}" for n in range(29, 9, -1)]
    assert len(re.findall(r"bare \d</h3>", page(ruled, "/console/rules/3"))) == 3


def test_dry_run_publishes_and_keeps_nothing(ruled):
    arrive(
        ruled,
        *(
            build_structured_record(build_cloud_event(str(n), data=build_role_message("ops")), offset=n)
            for n in range(5)
        ),
    )
    with ruled.app_context():
        before = count_rows()
    alice = BrowserClient.for_user(ruled, "alice")
    assert alice.get("/console/rules/1").status_code == 200
    with ruled.app_context():
        after = count_rows()
    assert {name for name in after if after[name] != before[name]} <= {"sessions"}


def test_changed_rule_is_tried_on_events_that_came_before_it(ruled, make_app, tmp_path):
    arrive(ruled, build_structured_record(build_cloud_event("1", data=build_role_message("ops"))))
    (tmp_path / "rules.toml").write_text('[[rule]]\nsource = "https://grid*"\naudiences = ["everyone"]\n')
    changed = make_app(event_rules=tmp_path / "rules.toml")
    assert "Its source may not send to role:ops." in page(changed, "/console/rules/1")


def test_event_is_read_as_of_the_moment_at_which_it_came(ruled):
    """What ended since is no mistake of its source."""
    record = build_structured_record(
        build_cloud_event("1", data=build_role_message("ops", title="Short", expiresAt="2026-11-04T10:05:00Z"))
    )
    with ruled.app_context():
        came = clock.parse_rfc3339("2026-11-04T10:00:00Z")
        read = InboundEvent(record, contract.read_command(record, now=came, rules=RULES.of(ruled)))
        inbound_events.ingest([read], by=inbound_events.get_ingest_actor(now=came), now=came)
    assert cards(page(ruled, "/console/rules/1"))[0].endswith("Short")


def test_unknown_rule_is_not_found(ruled):
    for number in ("0", "4", "99999999999999999999"):
        assert BrowserClient.for_user(ruled, "alice").get(f"/console/rules/{number}").status_code == 404


@pytest.mark.parametrize("name", ["bob", "charlie"])
def test_only_operators_see_rules(ruled, name):
    assert BrowserClient.for_user(ruled, name).get("/console/rules").status_code == 403
    assert BrowserClient.for_user(ruled, name).get("/console/rules/1").status_code == 403


def test_twenty_events_of_each_source_are_kept_and_repeats_and_recalls_are_not(ruled):
    arrive(
        ruled,
        *(
            build_structured_record(build_cloud_event(str(n), data=build_role_message("ops")), offset=n)
            for n in range(15)
        ),
    )
    arrive(
        ruled,
        *(
            build_structured_record(build_cloud_event(str(n), data=build_role_message("ops")), offset=n)
            for n in range(15)
        ),
    )
    arrive(
        ruled,
        build_structured_record(build_cancel_event("3"), offset=99),
        build_structured_record(build_cloud_event("b", source="https://b"), offset=98),
    )
    with ruled.app_context():
        assert len(list(event_sources.iterate_samples([SOURCE]))) == 15
        assert len(list(event_sources.iterate_samples(["https://b/"]))) == 1
    arrive(
        ruled,
        *(
            build_structured_record(build_cloud_event(f"x{n}", data=build_role_message("ops")), offset=n)
            for n in range(300)
        ),
    )
    with ruled.app_context():
        kept = [
            contract.try_open_envelope(event_sources.to_record(one)).id
            for one in event_sources.iterate_samples([SOURCE])
        ]
        assert kept == [f"x{n}" for n in range(299, 279, -1)]


def test_token_of_a_webhook_is_never_kept(ruled):
    record = build_structured_record(build_cloud_event("1", data=build_role_message("ops")))
    secret = (("authorization", b"Bearer secret"), ("cookie", b"broadcast=secret"))
    arrive(ruled, type(record)(record.value, headers=(*secret, *record.headers)))
    with ruled.app_context():
        [kept] = event_sources.iterate_samples([SOURCE])
        assert [name for name, _ in kept.headers] == ["content-type"]


def test_quarantine_is_told_in_the_list_and_on_the_page_of_the_draft(ruled):
    distinct = (
        build_structured_record(
            build_cloud_event(str(n), data=build_role_message("ops", category=f"c{n}", title=f"t{n}")), offset=n
        )
        for n in range(3)
    )
    assert arrive(ruled, *distinct) == ["published", "published", "quarantined"]
    listed = page(ruled, "/console/broadcasts?filter=draft")
    assert "<strong>Quarantined.</strong> Its source sent more than 2 broadcasts in 60 s." in listed
    assert "Grid control" in listed
    [link] = set(re.findall(r"/console/broadcasts/\d+(?=\")", listed))
    one = page(ruled, link)
    assert "In quarantine." in one
    assert f"<dd>{SOURCE}</dd>" in one
    sent = BrowserClient.for_user(ruled, "alice").post(f"{link}/send")
    assert sent.status_code == 303
    assert "In quarantine." not in page(ruled, link)


def test_card_says_how_often_it_came(ruled):
    same = [
        build_structured_record(build_cloud_event(str(n), data=build_role_message("ops", title=f"t{n}")), offset=n)
        for n in range(3)
    ]
    assert arrive(ruled, *same) == ["published", "collapsed", "collapsed"]
    html = BrowserClient.for_user(ruled, "bob").get("/inbox").get_data(as_text=True)
    assert '<span aria-hidden="true">×3</span><span class="visually-hidden">Received 3 times</span>' in html
    assert "Last <time" in html
    arrive(
        ruled,
        build_structured_record(build_cloud_event("4", data=build_role_message("ops", category="Other")), offset=4),
    )
    assert BrowserClient.for_user(ruled, "bob").get("/inbox").get_data(as_text=True).count("Received ") == 1
