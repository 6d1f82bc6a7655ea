"""Dead letters in the console and as JSON: a redrive is handled like a first arrival, and reports its result."""

import base64
import json
import re
from html import unescape

import pytest
import sqlalchemy

from broadcast.actions import inbound_events, users
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.domain.inbound import InboundEvent, InboundRecord, RecordPosition, Rejection
from broadcast.ingest import contract
from broadcast.store import broadcasts, dead_letters
from broadcast.store.database import db
from broadcast.store.models import AuditEntry, Broadcast
from tests.support.builders import build_message, build_role_message, count_rows, load_actor
from tests.support.inbound_records import (
    POISON_RECORDS,
    build_bare_record,
    build_cancel_event,
    build_cloud_event,
    build_structured_record,
)

HALF = b'{"title": "Lifts'


@pytest.fixture
def alice(client):
    return client("alice")


def bury(app, *records) -> list[int]:
    """Let records arrive that become dead letters; return their ids."""
    with app.app_context():
        now = clock.now()
        by = inbound_events.get_ingest_actor(now=now)
        read = [InboundEvent(record, contract.read_command(record, now=now)) for record in records]
        assert {outcome.kind for outcome in inbound_events.ingest(read, by=by, now=now)} == {"rejected"}
        return sorted(letter.id for letter in dead_letters.list_page(None, limit=len(records)))


def letter(app, letter_id: int):
    with app.app_context():
        found = dead_letters.get(letter_id)
        db.session.expunge(found)
        return found


def audited(app) -> list[tuple[str, str]]:
    with app.app_context():
        query = sqlalchemy.select(AuditEntry).where(AuditEntry.object_type == "dead_letter").order_by(AuditEntry.id)
        return [(row.action, row.actor_name, row.detail.get("outcome")) for row in db.session.scalars(query)]


def test_list_shows_each_letter_with_its_reason_and_place(app, alice):
    bury(
        app,
        build_bare_record(HALF, offset=7),
        build_structured_record(build_cloud_event(data=build_role_message("nosuchrole")), offset=8),
    )
    page = alice.get("/console/dead-letters").get_data(as_text=True)
    assert "ext.events:1:7" in page
    assert "There is no role nosuchrole." in page
    assert "2" in re.search(r"Redrive all (\d+)", page)[1]


def test_nothing_waits_in_an_empty_list(alice):
    assert "No dead letters waiting" in alice.get("/console/dead-letters").get_data(as_text=True)


def test_list_goes_on_after_a_page(app, alice):
    ids = bury(app, *(build_bare_record(HALF, offset=n) for n in range(35)))
    first = alice.get("/console/dead-letters").get_data(as_text=True)
    more = re.search(r'hx-get="([^"]+)"', first)[1].replace("&amp;", "&")
    rest = alice.http.get(more, headers={"HX-Request": "true"}).get_data(as_text=True)
    shown = [int(n) for n in re.findall(r'/console/dead-letters/(\d+)"', first + rest)]
    assert shown == sorted(ids, reverse=True)


@pytest.mark.parametrize("row", POISON_RECORDS, ids=[row[0] for row in POISON_RECORDS])
def test_page_of_any_letter_shows_it_and_unchanged_it_stays_refused(app, alice, row):
    """What cannot be text is shown as far as it can, and the bytes that came are what is redriven."""
    [letter_id] = bury(app, row[1]) if row[1].position else bury(app, build_structured_record(row[1].value))
    page = alice.get(f"/console/dead-letters/{letter_id}").get_data(as_text=True)
    typed = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", page, re.S)[1]
    before = letter(app, letter_id)
    answer = alice.post(f"/console/dead-letters/{letter_id}/redrive", {"value": unescape(typed).replace("\n", "\r\n")})
    assert answer.status_code == 422
    after = letter(app, letter_id)
    assert (after.status, after.tries, after.code) == ("WAITING", 1, before.code)
    assert after.reason in unescape(answer.get_data(as_text=True))
    assert audited(app) == [("dead_letter.redriven", "Alice", "rejected")]


def test_letter_whose_cause_is_gone_becomes_a_broadcast_and_says_which(app, alice):
    [letter_id] = bury(
        app, build_structured_record(build_cloud_event("9", data=build_role_message("night", title="Line 4")))
    )
    with app.app_context():
        users.set_roles(load_actor("bob").user_id, ["ops", "night"], by=SYSTEM, now=clock.now())
    page = alice.get(f"/console/dead-letters/{letter_id}").get_data(as_text=True)
    typed = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", page, re.S)[1]
    done = alice.post(f"/console/dead-letters/{letter_id}/redrive", {"value": unescape(typed)})
    assert done.status_code == 303
    found = letter(app, letter_id)
    with app.app_context():
        broadcast = broadcasts.get(found.broadcast_id)
        assert (broadcast.title, broadcast.source_id, broadcast.status) == ("Line 4", "9", "ACTIVE")
    assert f"broadcast {found.broadcast_id}" in alice.get(done.location).get_data(as_text=True)


def test_corrected_letter_is_tried_first_and_then_sent(app, alice):
    [letter_id] = bury(app, build_bare_record(HALF, key=b"incident-9"))
    form = {"value": json.dumps(build_role_message("ops", title="Lifts again"))}
    with app.app_context():
        before = count_rows()
    tried = alice.post(f"/console/dead-letters/{letter_id}/redrive", form | {"check": "1"})
    page = tried.get_data(as_text=True)
    assert (tried.status_code, "This would be sent to 1 person" in page, "Lifts again" in page) == (200, True, True)
    with app.app_context():
        assert count_rows() == before
    assert alice.post(f"/console/dead-letters/{letter_id}/redrive", form).status_code == 303
    with app.app_context():
        [broadcast] = db.session.scalars(sqlalchemy.select(Broadcast))
        assert (broadcast.title, broadcast.source, broadcast.source_id) == (
            "Lifts again", "kafka:ext.events", "incident-9",
        )  # fmt: skip
    assert audited(app) == [("dead_letter.redriven", "Alice", "published")]


def test_trying_says_what_is_still_wrong(app, alice):
    [letter_id] = bury(app, build_bare_record(HALF))
    tried = alice.post(f"/console/dead-letters/{letter_id}/redrive", {"value": '{"title": "x"}', "check": "1"})
    assert "The message is missing." in tried.get_data(as_text=True)
    assert letter(app, letter_id).tries == 0


def test_redriven_twice_is_one_broadcast(app, alice):
    [letter_id] = bury(app, build_bare_record(HALF))
    form = {"value": json.dumps(build_message())}
    answers = [alice.post(f"/console/dead-letters/{letter_id}/redrive", form).status_code for _ in range(2)]
    assert answers == [303, 409]
    with app.app_context():
        assert len(broadcasts.list_page("all")) == 1


def test_redrive_of_what_came_by_another_way_meanwhile_is_a_repeat(app, alice):
    [letter_id] = bury(app, build_structured_record(build_cloud_event("1", data={"title": "half"})))
    with app.app_context():
        now = clock.now()
        record = build_structured_record(build_cloud_event("1"), offset=99)
        inbound_events.ingest(
            [InboundEvent(record, contract.read_command(record, now=now))],
            by=inbound_events.get_ingest_actor(now=now),
            now=now,
        )
    answer = alice.send("POST", f"/api/admin/dlt/{letter_id}/redrive", {"value": json.dumps(build_cloud_event("1"))})
    assert answer.json["outcome"] == "repeated"
    with app.app_context():
        assert len(broadcasts.list_page("all")) == 1


def test_all_are_redriven_with_partial_success_told(app, alice):
    bury(app, build_structured_record(build_cancel_event("1"), offset=1), build_bare_record(HALF, offset=2))
    with app.app_context():
        now = clock.now()
        record = build_structured_record(build_cloud_event("1"), offset=99)
        inbound_events.ingest(
            [InboundEvent(record, contract.read_command(record, now=now))],
            by=inbound_events.get_ingest_actor(now=now),
            now=now,
        )
    done = alice.send("POST", "/api/admin/dlt/redrive")
    assert done.json == {"done": 1, "rejected": 1, "left": 0, "unconfirmed": 0}
    page = alice.get("/console/dead-letters").get_data(as_text=True)
    through = re.search(r'name="through" value="(\d+)"', page)[1]
    answer = alice.post("/console/dead-letters/redrive", {"through": through})
    assert "0 redriven, 1 refused again" in alice.get(answer.location).get_data(as_text=True)


def test_purged_letter_is_empty_and_does_not_return(app, alice):
    record = build_bare_record(HALF, key=b"secret")
    [letter_id] = bury(app, record)
    assert alice.post(f"/console/dead-letters/{letter_id}/purge").status_code == 303
    found = letter(app, letter_id)
    assert (found.status, found.value, found.key, found.headers) == ("PURGED", None, None, [])
    assert "Purged" in alice.get(f"/console/dead-letters/{letter_id}").get_data(as_text=True)
    with app.app_context():
        now = clock.now()
        inbound_events.ingest(
            [InboundEvent(record, contract.read_command(record, now=now))],
            by=inbound_events.get_ingest_actor(now=now),
            now=now,
        )
        assert dead_letters.count_by_status() == {"WAITING": 0, "REDRIVEN": 0, "PURGED": 1}
    assert audited(app)[0][:2] == ("dead_letter.purged", "Alice")


def test_purge_of_all_spares_what_came_after_the_page(app, alice):
    bury(app, build_bare_record(HALF, offset=1), build_bare_record(HALF, offset=2))
    page = alice.get("/console/dead-letters").get_data(as_text=True)
    through = re.search(r'name="through" value="(\d+)"', page)[1]
    bury(app, build_bare_record(HALF, offset=3))
    answer = alice.post("/console/dead-letters/purge", {"through": through})
    assert "2 purged" in alice.get(answer.location).get_data(as_text=True)
    with app.app_context():
        assert dead_letters.count_by_status()["WAITING"] == 1


def test_programs_see_the_bytes_as_they_came(app, alice):
    [letter_id] = bury(app, build_structured_record(b"\xff\x00", key=b"\xfe"))
    listed = alice.http.get("/api/admin/dlt").json
    [item] = listed["items"]
    assert item == alice.http.get(f"/api/admin/dlt/{letter_id}").json
    assert (base64.b64decode(item["value"]), base64.b64decode(item["key"])) == (b"\xff\x00", b"\xfe")
    assert (item["topic"], item["partition"], item["offset"], item["code"]) == ("ext.events", 1, 42, "not-json")
    assert listed["counts"]["WAITING"] == 1


def test_programs_correct_and_purge(app, alice):
    first, second = bury(app, build_bare_record(HALF, offset=1), build_bare_record(HALF, offset=2))
    wrong = alice.send("POST", f"/api/admin/dlt/{first}/redrive", {"value": "{"})
    assert (wrong.status_code, wrong.mimetype) == (422, "application/problem+json")
    right = alice.send("POST", f"/api/admin/dlt/{first}/redrive", {"value": json.dumps(build_message())})
    assert (right.status_code, right.json["outcome"]) == (200, "published")
    assert alice.send("DELETE", f"/api/admin/dlt/{second}").status_code == 204
    assert alice.send("DELETE", f"/api/admin/dlt/{second}").status_code == 409
    assert alice.send("DELETE", "/api/admin/dlt").json == {"purged": 0}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/admin/dlt?status=LOST", None), ("GET", "/api/admin/dlt?limit=0", None),
        ("GET", "/api/admin/dlt?after=x", None), ("DELETE", "/api/admin/dlt?through=x", None),
        ("POST", "/api/admin/dlt/{}/redrive", {"value": 1}), ("POST", "/api/admin/dlt/{}/redrive", {"values": "x"}),
        ("POST", "/api/admin/dlt/{}/redrive", [1]),
    ],
)  # fmt: skip
def test_bad_input_is_told_and_changes_nothing(app, alice, method, path, body):
    [letter_id] = bury(app, build_bare_record(HALF))
    answer = alice.send(method, path.format(letter_id), body)
    assert (answer.status_code, answer.mimetype) == (422, "application/problem+json")
    assert letter(app, letter_id).tries == 0


@pytest.mark.parametrize("path", ["/console/dead-letters/99", f"/api/admin/dlt/{10**20}"])
def test_letter_that_does_not_exist_is_404(alice, path):
    assert alice.get(path).status_code == 404


def test_payload_in_a_page_is_inert(app, alice):
    value = b"</textarea><script>alert(1)</script>"
    [letter_id] = bury(app, build_structured_record(value, key=b"<img src=x>"))
    page = alice.get(f"/console/dead-letters/{letter_id}").get_data(as_text=True)
    assert "<script>alert" not in page
    assert "<img src=x>" not in page


def test_all_are_purged_some_at_a_time(app, alice, monkeypatch):
    monkeypatch.setattr(dead_letters, "PURGE_BATCH_SIZE", 3)
    bury(app, *(build_bare_record(HALF, offset=n) for n in range(8)))
    assert alice.send("DELETE", "/api/admin/dlt").json == {"purged": 8}
    with app.app_context():
        details = db.session.scalars(
            sqlalchemy.select(AuditEntry.detail).where(AuditEntry.action == "dead_letter.purged")
        )
        assert [detail["count"] for detail in details] == [3, 3, 2]


def test_letter_of_a_whole_batch_tells_its_offsets_and_offers_no_text(app, alice):
    place = RecordPosition("ext.events", 1, 17, last_offset=42)
    broken = InboundEvent(
        InboundRecord(b"\0\1", position=place, full_size_bytes=70_000), Rejection("undecodable", "It cannot be read.")
    )
    with app.app_context():
        now = clock.now()
        inbound_events.ingest([broken], by=inbound_events.get_ingest_actor(now=now), now=now)
        [kept] = dead_letters.list_page(None)
        letter_id = kept.id
    page = alice.get(f"/console/dead-letters/{letter_id}").get_data(as_text=True)
    assert "17 to 42" in page
    assert "<textarea" not in page
    told = alice.get("/api/admin/dlt").json["items"][0]
    assert (told["offset"], told["lastOffset"], told["size"]) == (17, 42, 70_000)
    assert "ext.events:1:17-42" in alice.get("/console/dead-letters").get_data(as_text=True)
    again = alice.post(f"/api/admin/dlt/{letter_id}/redrive")
    assert again.json.get("outcome") == "rejected" or again.status_code == 422
    assert letter(app, letter_id).reason == "It cannot be read."
