"""PATCH and the audience preview, as JSON."""

import pytest

from broadcast.store import broadcasts
from tests.conftest import deliver_new_events
from tests.support.builders import build_message, build_role_message, count_rows, load_actor, publish_message
from tests.support.stream_reader import StreamReader

URL = "/api/admin/broadcasts"


@pytest.fixture
def live(app, client) -> int:
    client()
    with app.app_context():
        broadcast_id = publish_message(load_actor("alice"), build_role_message("ops"))
    deliver_new_events(app)
    return broadcast_id


def patch(client, broadcast_id: int, changes: dict, **headers: str):
    return client("alice").send("PATCH", f"{URL}/{broadcast_id}", changes, headers=headers)


def test_a11_edit_needs_the_version_it_was_made_from(app, client, live):
    """428 without If-Match, 412 with the newest version when it is old, 200 and a new ETag otherwise."""
    tag = client("alice").get(f"{URL}/{live}").headers["ETag"]
    assert patch(client, live, {"title": "New"}).status_code == 428
    done = patch(client, live, {"title": "New"}, **{"If-Match": tag})
    assert (done.status_code, done.json["title"], done.json["revision"]) == (200, "New", 2)
    assert done.headers["ETag"] != tag
    late = patch(client, live, {"title": "Late"}, **{"If-Match": tag})
    assert (late.status_code, late.mimetype) == (412, "application/problem+json")
    assert late.json["current"]["title"] == "New"
    assert late.headers["ETag"] == done.headers["ETag"]
    assert patch(client, live, {"title": "Any"}, **{"If-Match": "*"}).status_code == 200


def test_a11_open_streams_get_the_new_text(app, client, live):
    """The program's stream gets JSON, the page's stream the card."""
    bob, charlie = client("bob"), client("charlie")
    program, page, other = StreamReader(bob.http), StreamReader(bob.http, "/inbox/stream"), StreamReader(charlie.http)
    for stream in (program, page, other):
        stream.read_until("CONNECTED")
    patch(client, live, {"title": "New words", "notifyAgain": True}, **{"If-Match": "*"})
    with app.app_context():
        publish_message(load_actor("alice"), build_message(title="To all"))
    deliver_new_events(app)
    data = program.next_frame()
    assert (data.event, data.data["title"], data.data["revision"], data.data["again"]) == (
        "MESSAGE_UPDATED", "New words", 2, True,
    )  # fmt: skip
    card = page.next_frame()
    assert card.event == "MESSAGE_UPDATED"
    assert "New words" in card.data
    assert "data-again" in card.data
    assert other.next_frame().data["title"] == "To all"
    for stream in (program, page, other):
        stream.close()


@pytest.mark.parametrize(
    "changes",
    [{"title": ""}, {"notifyAgain": "yes"}, {"status": "ENDED"}, {"targetType": "ALL"}, {"content": "x" * 17_000}],
)
def test_a11_bad_edit_is_told_and_writes_nothing(app, client, live, changes):
    client("alice")
    with app.app_context():
        before = count_rows()
    answer = patch(client, live, changes, **{"If-Match": "*"})
    assert (answer.status_code, set(answer.json["fields"])) == (422, set(changes))
    with app.app_context():
        assert {n for n, rows in count_rows().items() if rows != before[n]} <= {"sessions"}
        assert broadcasts.get(live).version == "1-ACTIVE"


def test_a14_preview_counts_names_and_explains(client):
    alice = client("alice")
    ask = lambda **fields: alice.send("POST", "/api/admin/audience/preview", fields)  # noqa: E731
    told = ask(targetType="ALL", exceptRoles=["ops"], user="bob").json
    assert (told["people"], told["online"]) == (2, 0)
    assert [person["username"] for person in told["sample"]] == ["alice", "charlie"]
    assert (told["user"]["included"], told["user"]["because"]) == (False, "people with the role ops are excluded")
    assert ask(targetType="ROLE", targetIds=["ops"], user="BOB ").json["user"]["included"] is True
    assert ask(targetType="ROLE", targetIds=["ops", "admin"], targetMatch="ALL").json["people"] == 0
    for wrong in (
                  {"targetType": "ALL", "user": "nobody"}, {"targetType": "ALL", "user": []}, {"targetType": "ALL", "user": 0},
                  {"targetType": "ALL", "user": "a\0"}, {"targetType": "ROLE"}, {"targetType": "ALL", "title": "x"},
                  {"targetType": "ROLE", "targetIds": ["ops"], "exceptRoles": ["ops"]},
                  {"targetType": "ALL", "exceptRoles": ["nosuch"]}, {"targetType": "ALL", "exceptIds": ["nobody"]},
    ):  # fmt: skip
        assert ask(**wrong).status_code == 422, wrong
