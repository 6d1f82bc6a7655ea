"""Acknowledging on pages and by API: the revision that was seen, confirmation again, and what the sender sees."""

import re

import pytest

from broadcast.actions import edits
from broadcast.domain import clock
from broadcast.domain.revisions import hash_text
from tests.conftest import deliver_new_events
from tests.integration.web.api.test_api import publish
from tests.integration.web.console.test_plain_forms import text_of
from tests.support.builders import build_message, load_actor
from tests.support.stream_reader import StreamReader

SCRIPT = {"Accept": "application/json"}
URL = "/api/admin/broadcasts"


@pytest.fixture
def asked(app, client) -> int:
    client()
    return publish(app, build_message(requiresAck=True, content="First words"))


def edit(app, broadcast_id: int, content: str = "Second words", **wishes: bool) -> None:
    with app.app_context():
        edits.edit(broadcast_id, {"content": content}, version=None, by=load_actor("alice"), now=clock.now(), **wishes)


def delivery(client, broadcast_id: int, name: str) -> dict:
    items = client("alice").get(f"{URL}/{broadcast_id}/deliveries?limit=200").json["items"]
    return next(item for item in items if item["username"] == name)


def test_card_names_its_revision_and_the_form_sends_it(app, client, asked):
    bob = client("bob")
    edit(app, asked)
    form = re.search(r'<form class="action-acknowledge".*?</form>', text_of(bob.get("/inbox")), re.S)[0]
    revision = re.search(r'name="revision" value="(\d+)"', form)[1]
    assert bob.post(f"/inbox/{asked}/acknowledge", {"revision": revision}).status_code == 303
    given = delivery(client, asked, "bob")
    assert (given["acknowledgedRevision"], given["acknowledgedHash"]) == (2, hash_text("Lifts", "Second words", []))


def test_page_that_shows_older_words_leads_to_the_new_ones_instead(app, client, asked):
    """A page without JavaScript hears of no edit: nothing is acknowledged that was not seen."""
    bob = client("bob")
    edit(app, asked, acknowledge_again=True)
    answer = bob.post(f"/inbox/{asked}/acknowledge", {"revision": "1"})
    assert (answer.status_code, answer.location) == (303, f"/inbox/{asked}?done=changed")
    page = text_of(bob.get(answer.location))
    assert "Not acknowledged." in page
    assert "Second words" in page
    refused = bob.post(f"/inbox/{asked}/acknowledge", {"revision": "1"}, headers=SCRIPT)
    assert (refused.status_code, refused.mimetype) == (409, "application/problem+json")
    assert delivery(client, asked, "bob")["acknowledgedAt"] is None


@pytest.mark.parametrize("revision", ["0", "-1", "x", "9" * 30, "", "2"])
def test_odd_revision_of_a_form_never_fails_and_acknowledges_no_other_text(app, client, asked, revision):
    answer = client("bob").post(f"/inbox/{asked}/acknowledge", {"revision": revision})
    assert answer.status_code == 303
    assert delivery(client, asked, "bob")["acknowledgedRevision"] in (None, 1)


def test_whoever_is_asked_again_is_told_when_they_acknowledged_before(app, client, asked):
    bob = client("bob")
    bob.post(f"/inbox/{asked}/acknowledge")
    assert "You acknowledged this" in text_of(bob.get(f"/inbox/{asked}"))
    edit(app, asked, acknowledge_again=True)
    page = text_of(bob.get("/inbox"))
    assert re.search(r"You acknowledged an earlier version on <time [^>]*>\w{3} \d", page)
    assert f'id="card-{asked}"' in page[page.index('id="pinned"') : page.index('id="feed"')]
    [item] = bob.get("/api/user/messages").json["items"]
    assert (item["acknowledgedAt"], item["acknowledgedRevision"]) == (None, None)
    assert (item["earlierAcknowledgedRevision"], item["ackRevision"], item["revision"]) == (1, 2, 2)
    assert item["earlierAcknowledgedAt"]


def test_after_a_correction_the_card_says_that_an_earlier_version_was_acknowledged(app, client, asked):
    bob = client("bob")
    bob.post(f"/inbox/{asked}/acknowledge")
    edit(app, asked)
    page = text_of(bob.get(f"/inbox/{asked}"))
    assert "You acknowledged an earlier version" in page
    assert "It has been corrected since. You do not need to acknowledge it again." in page
    [item] = bob.get("/api/user/messages").json["items"]
    assert (item["acknowledgedRevision"], item["revision"]) == (1, 2)


def test_program_names_the_revisions_it_showed(app, client, asked):
    bob, other = client("bob"), publish(app, build_message(requiresAck=True))
    edit(app, asked, acknowledge_again=True)
    body = {"broadcastIds": [asked, other], "revisions": {str(asked): 1, str(other): 1}}
    done = bob.send("POST", "/api/user/messages/acknowledge", body)
    assert (done.status_code, done.json["refused"]) == (200, [asked])
    alone = bob.send("POST", "/api/user/messages/acknowledge", {"broadcastIds": [asked], "revisions": {str(asked): 1}})
    assert (alone.status_code, alone.mimetype) == (409, "application/problem+json")
    assert bob.send("POST", "/api/user/messages/acknowledge", {"broadcastIds": [asked]}).json.keys() == {"unread"}
    assert delivery(client, asked, "bob")["acknowledgedRevision"] == 2


@pytest.mark.parametrize("revisions", [[1], "1", {"x": 1}, {"1": "1"}, {"1": True}, {"1": 0}, {"1": 2**63}, {"2": 1}])
def test_odd_revisions_of_a_program_are_refused(client, asked, revisions):
    body = {"broadcastIds": [asked], "revisions": revisions}
    answer = client("bob").send("POST", "/api/user/messages/acknowledge", body)
    assert (answer.status_code, list(answer.json["fields"])) == (422, ["revisions"])


def test_asking_again_reaches_open_pages_and_programs(app, client, asked):
    bob = client("bob")
    bob.post(f"/inbox/{asked}/acknowledge")
    deliver_new_events(app)
    program, page = StreamReader(bob.http), StreamReader(bob.http, "/inbox/stream")
    for stream in (program, page):
        stream.read_until("CONNECTED")
    headers = {"If-Match": "*"}
    done = client("alice").send("PATCH", f"{URL}/{asked}", {"title": "New", "acknowledgeAgain": True}, headers=headers)
    assert (done.status_code, done.json["ackRevision"]) == (200, 2)
    deliver_new_events(app)
    told = program.next_frame()
    assert (told.event, told.data["again"], told.data["ackRevision"]) == ("MESSAGE_UPDATED", True, 2)
    card = page.next_frame().data
    assert 'data-ack-revision="2"' in card
    assert "data-again" in card
    for stream in (program, page):
        stream.close()


@pytest.mark.parametrize("wish", ["yes", 1, None])
def test_program_says_true_or_false_whether_it_asks_again(client, asked, wish):
    answer = client("alice").send("PATCH", f"{URL}/{asked}", {"acknowledgeAgain": wish}, headers={"If-Match": "*"})
    assert (answer.status_code, list(answer.json["fields"])) == (422, ["acknowledgeAgain"])


def test_edit_by_a_program_is_a_correction_unless_it_says_otherwise(client, asked):
    client("bob").post(f"/inbox/{asked}/acknowledge")
    client("alice").send("PATCH", f"{URL}/{asked}", {"title": "New"}, headers={"If-Match": "*"})
    assert delivery(client, asked, "bob")["acknowledgedRevision"] == 1


def test_author_must_choose_whether_acknowledgements_stand(app, client, asked):
    alice = client("alice")
    client("bob").post(f"/inbox/{asked}/acknowledge")
    page = text_of(alice.get(f"/console/broadcasts/{asked}/edit"))
    assert "Keep them: this is a correction" in page
    form = {
        "live": "yes",
        "version": "1-ACTIVE",
        "title": "Lifts",
        "requiresAck": "true",
        "priority": "NORMAL",
        "do": "send",
    }
    unsaid = alice.post(f"/console/broadcasts/{asked}/edit", form | {"content": "Other"})
    assert unsaid.status_code == 422
    assert "Choose whether existing acknowledgements still count." in text_of(unsaid)
    untouched = form | {"content": "First words\r\n", "category": "News"}
    assert alice.post(f"/console/broadcasts/{asked}/edit", untouched).status_code == 303, "no word of it changed"
    chosen = form | {"version": "2-ACTIVE", "content": "Other", "acknowledgeAgain": "yes"}
    assert alice.post(f"/console/broadcasts/{asked}/edit", chosen).status_code == 303
    assert delivery(client, asked, "bob")["acknowledgedAt"] is None
    assert "asked for a new acknowledgement" in text_of(alice.get(f"/console/broadcasts/{asked}"))


def test_sender_sees_which_text_was_acknowledged_by_whom(app, client, asked):
    alice = client("alice")
    client("bob").post(f"/inbox/{asked}/acknowledge")
    edit(app, asked)
    client("charlie").post(f"/inbox/{asked}/acknowledge")
    page = text_of(alice.get(f"/console/broadcasts/{asked}/figures?show=done"))
    assert re.search(r"Bob</a>.*?Acknowledged revision 1</td>", page, re.S)
    assert re.search(r"Charlie</a>.*?Acknowledged revision 2 \(current\)</td>", page, re.S)
    text = text_of(alice.get(f"/console/broadcasts/{asked}/acknowledged/1"))
    assert "First words" in text
    assert hash_text("Lifts", "First words", []) in text
    told = alice.get(f"{URL}/{asked}/revisions").json
    assert [(one["revision"], one["content"]) for one in told["items"]] == [(2, "Second words"), (1, "First words")]
    for unknown in ("3", "0", "9" * 30):
        assert alice.get(f"/console/broadcasts/{asked}/acknowledged/{unknown}").status_code == 404


def test_csv_names_revision_hash_and_earlier_acknowledgements(app, client, asked):
    client("bob").post(f"/inbox/{asked}/acknowledge")
    edit(app, asked, acknowledge_again=True)
    client("bob").post(f"/inbox/{asked}/acknowledge")
    lines = text_of(client("alice").get(f"/console/broadcasts/{asked}/figures.csv")).splitlines()
    [bob] = [line for line in lines if ",bob," in line]
    assert hash_text("Lifts", "Second words", []) in bob
    assert re.search(r",2,[0-9a-f]{64},revision 1 at \S+ \([0-9a-f]{64}\),", bob)
