"""The webhook: the Kafka contract over HTTP; refusals go to the caller, so no dead letter is stored."""

import gzip
import json
import zlib

import pytest
import sqlalchemy

from broadcast.domain import flood_control
from broadcast.domain.inbound import RateCap
from broadcast.ingest import rules_file
from broadcast.ingest.rules import RULES, Rule
from broadcast.store import dead_letters
from broadcast.store.database import db
from broadcast.store.models import AuditEntry
from tests.support.builders import build_message, build_role_message, count_rows
from tests.support.inbound_records import POISON_RECORDS, SOURCE, build_cancel_event, build_cloud_event
from tests.support.kafka_batches import build_gzip_bomb
from tests.support.routes import make_bearer_headers

STRUCTURED = {"Content-Type": "application/cloudevents+json"}


@pytest.fixture
def program(app, client):
    """Posts one event as a program with the scope `events`; Charlie's token, who has no role."""
    client()
    headers, http = make_bearer_headers(app, "charlie", ["events"]), app.test_client()

    def post(event, **more):
        data = event if isinstance(event, bytes) else json.dumps(event)
        return http.post("/api/events", data=data, headers=headers | STRUCTURED | more)

    return post


def test_event_is_accepted_with_the_address_of_its_broadcast(app, client, program):
    response = program(build_cloud_event(data=build_role_message("ops", title="Line 4")))
    assert response.status_code == 202
    headers = make_bearer_headers(app, "alice", ["admin"])
    told = app.test_client().get(response.location, headers=headers).json
    assert (told["title"], told["senderName"], told["status"]) == ("Line 4", SOURCE, "ACTIVE")


def test_repeat_answers_200_with_the_same_address(program):
    first, second = program(build_cloud_event()), program(build_cloud_event())
    assert (first.status_code, second.status_code) == (202, 200)
    assert first.location == second.location
    assert second.json["outcome"] == "repeated"


def test_binary_event_is_accepted(app, program):
    headers = {"ce-id": "caf%C3%A9", "ce-source": SOURCE, "ce-type": "broadcast.publish.v1", "ce-specversion": "1.0"}
    response = program(build_message(), **headers | {"Content-Type": "application/json"})
    assert response.status_code == 202


def test_recall_answers_with_the_broadcast_that_it_took_back(program):
    announced = program(build_cloud_event("1"))
    recalled = program(build_cancel_event("1"))
    assert (recalled.status_code, recalled.json["outcome"]) == (202, "cancelled")
    assert recalled.location == announced.location


HTTP_POISON = [
    row for row in POISON_RECORDS if row[1].value is not None and len(row[1].value) < 256 * 1024 and not row[1].key
]


@pytest.mark.parametrize("row", HTTP_POISON, ids=[row[0] for row in HTTP_POISON])
def test_poison_is_answered_422_with_its_reason_and_leaves_nothing(app, program, row):
    """F08 through the web. Without a place to come from, even a bare message is refused."""
    _, record, _ = row
    with app.app_context():
        before = count_rows()
    headers = {name.title(): value.decode("latin-1") for name, value in record.headers}
    response = program(record.value, **headers)
    assert (response.status_code, response.mimetype) == (422, "application/problem+json")
    assert response.json["detail"].endswith(".")
    with app.app_context():
        assert count_rows() == before
        assert dead_letters.list_page(None) == []


def test_event_for_a_role_that_does_not_exist_is_answered_with_its_name(app, program):
    response = program(build_cloud_event(data=build_role_message("nosuchrole")))
    assert response.status_code == 422
    assert "nosuchrole" in response.json["detail"]


def test_more_than_a_request_may_carry_is_413(program):
    assert program(b"x" * (256 * 1024 + 1)).status_code == 413


@pytest.mark.parametrize("scopes", [["inbox"], ["admin"]])
def test_token_without_the_scope_is_refused(app, client, scopes):
    client()
    headers = make_bearer_headers(app, "alice", scopes)
    response = app.test_client().post("/api/events", json=build_cloud_event(), headers=headers)
    assert response.status_code == 403
    assert "scope events" in response.json["detail"]


def test_browser_of_an_administrator_cannot_send_events(client):
    assert client("alice").send("POST", "/api/events", build_cloud_event()).status_code == 403


def test_event_with_the_key_of_a_live_card_answers_with_that_card(program):
    first = program(build_cloud_event("1", data=build_message(collapseKey="line-4")))
    second = program(build_cloud_event("2", data=build_message(collapseKey="line-4")))
    assert (second.status_code, second.json["outcome"]) == (202, "collapsed")
    assert second.location == first.location
    again = program(build_cloud_event("2", data=build_message(collapseKey="line-4")))
    assert (again.status_code, again.location) == (200, first.location)


def test_too_many_events_are_held_back_and_then_refused_with_when_to_come_back(app, program, monkeypatch):
    monkeypatch.setattr(flood_control, "MAX_QUARANTINED_PER_SOURCE", 2)
    RULES.attach(app, (Rule(patterns={"source": ("*",)}, rate_cap=RateCap(1, 60, "r")),))
    answers = [program(build_cloud_event(str(n), data=build_message(title=f"t{n}"))) for n in range(4)]
    assert [answer.status_code for answer in answers] == [202, 202, 202, 429]
    assert [answer.json.get("outcome") for answer in answers[:3]] == ["published", "quarantined", "quarantined"]
    assert answers[3].headers["Retry-After"] == "60"
    assert "more than 1 broadcast in 60 s" in answers[3].json["detail"]


# ---- who may announce what

RULES_FILE = """
[[rule]]
source = "https://grid.example.com/*"
from = "account:charlie"
sender = "Grid control"
priorities = ["LOW", "NORMAL"]

[[rule]]
source = ["https://meter.example.com/*", "urn:meter:*"]
"""


@pytest.fixture
def ruled(app, tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text(RULES_FILE)
    RULES.attach(app, rules_file.load_rules(path))


@pytest.fixture
def other(app, client):
    """As `program`, with a token of Bob's."""
    client()
    headers, http = make_bearer_headers(app, "bob", ["events"]), app.test_client()
    return lambda event: http.post("/api/events", data=json.dumps(event), headers=headers | STRUCTURED)


@pytest.mark.parametrize(
    "source", ["https://GRID.example.com/a", "https://grid.example.com./a", "https://gr%69d.example.com:443/a",
               "Alice Adler", "https://grid.example.com@evil.example/", "https://grid.example.com.evil.example/a", "alice"],
)  # fmt: skip
def test_token_says_nothing_more_under_another_name(ruled, program, source):
    answer = program(build_cloud_event(source=source, data=build_message(priority="URGENT")))
    assert answer.status_code == 422
    assert answer.json["fields"].keys() <= {"not-allowed", "no-rule"}


def test_token_of_somebody_else_may_not_speak_for_a_source_nor_touch_what_it_sent(ruled, program, other):
    assert program(build_cloud_event("1")).status_code == 202
    refused = other(build_cloud_event("2"))
    assert (refused.status_code, list(refused.json["fields"])) == (422, ["no-rule"])
    assert "account:bob" in refused.json["detail"]
    assert list(other(build_cancel_event("1")).json["fields"]) == ["not-found"]
    assert other(build_cloud_event("3", source="urn:METER:1")).status_code == 202


def test_id_that_another_token_has_used_can_be_used(program, other):
    taken, own = other(build_cloud_event("1")), program(build_cloud_event("1"))
    assert (taken.status_code, own.status_code, own.json["outcome"]) == (202, 202, "published")
    assert taken.location != own.location
    assert program(build_cloud_event("1")).location == own.location
    assert program(build_cancel_event("1")).location == own.location
    assert other(build_cancel_event("1")).location == taken.location


def test_audit_names_the_account_and_the_source_is_a_detail(app, program):
    program(build_cloud_event("1", source="Alice Adler"))
    with app.app_context():
        row = db.session.scalar(sqlalchemy.select(AuditEntry).where(AuditEntry.action == "broadcast.published"))
        assert (row.actor_name, row.detail["source"]) == ("Charlie", "Alice Adler")


def test_source_that_calls_itself_like_a_person_is_shown_as_a_source(app, client, program):
    program(build_cloud_event("1", source="Alice Adler", data=build_message(title="Hello")))
    page = client("bob").get("/inbox").get_data(as_text=True)
    assert "via <bdi>Source “Alice Adler”</bdi>" in page
    assert "From </span>" not in page.partition("Hello")[2].partition("</article>")[0]
    listed = client("alice").get("/console/broadcasts").get_data(as_text=True)
    assert "via Source “Alice Adler”" in listed
    assert "by Alice Adler" not in listed


# ---- what is compressed


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("GZIP", gzip.compress),
                                              ("identity", bytes), ("x-gzip", gzip.compress)])  # fmt: skip
def test_compressed_body_is_read(program, coding, pack):
    answer = program(pack(json.dumps(build_cloud_event()).encode()), **{"Content-Encoding": coding})
    assert answer.status_code == 202


@pytest.mark.parametrize(
    ("coding", "body", "code"),
    [("gzip", b"{}", "content-encoding"), ("gzip", gzip.compress(b"{}" * 99, mtime=0)[:-9], "content-encoding"),
     ("gzip", b"", "empty"),
     ("br", b"{}", "content-encoding"), ("gzip, gzip", b"{}", "content-encoding"),
     ("deflate", b"\x78\x9c!", "content-encoding")],
)  # fmt: skip
def test_body_that_is_not_what_its_coding_says_is_refused_with_a_sentence(program, coding, body, code):
    answer = program(body, **{"Content-Encoding": coding})
    assert (answer.status_code, list(answer.json["fields"])) == (422, [code])
    assert answer.json["detail"].endswith(".")


def test_bomb_is_refused_as_what_it_would_become(program):
    bomb = build_gzip_bomb(50)
    assert len(bomb) < 64 * 1024
    answer = program(bomb, **{"Content-Encoding": "gzip"})
    assert (answer.status_code, list(answer.json["fields"])) == (422, ["size"])


def test_time_before_2000_is_a_time(program):
    assert program(build_cloud_event(time="1999-12-31T23:59:59Z")).status_code == 202
    assert program(build_cloud_event("2", time="1970-01-01T00:00:00+02:00")).status_code == 202


def test_byte_order_mark_is_passed_over(program):
    assert program(b"\xef\xbb\xbf" + json.dumps(build_cloud_event()).encode()).status_code == 202


def test_key_that_stands_twice_is_refused_with_its_name(program):
    """Two readers may take either: what was checked is not what is sent."""
    whole = json.dumps(build_cloud_event())
    for body in (whole[:-1] + ', "id": "2"}', whole.replace('"data": {', '"data": {"title": "x", ', 1)):
        answer = program(body.encode())
        assert (answer.status_code, list(answer.json["fields"])) == (422, ["not-json"])
        assert "twice" in answer.json["detail"]
