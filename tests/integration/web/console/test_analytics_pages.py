"""Analytics as pages, JSON and CSV, and reminders to those who are missing."""

import re
from datetime import timedelta

import pytest

from broadcast.actions import reminders
from broadcast.actions import users as actions
from broadcast.base.errors import Conflict, Forbidden, NotFound
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM, Actor
from broadcast.domain.signed_csv import has_valid_signature
from broadcast.store import broadcasts, log
from tests.conftest import deliver_new_events
from tests.support.builders import build_message, build_user_message, count_rows, load_actor, publish_message
from tests.support.stream_reader import StreamReader

NOW = clock.now()


def text_of(response) -> str:
    return response.get_data(as_text=True)


def publish(app, raw=None) -> int:
    with app.app_context():
        return publish_message(load_actor("alice"), raw)


# ---- pages, JSON, CSV


def test_page_tells_the_funnel_the_pace_and_who_is_missing(app, client):
    alice, bob, broadcast_id = client("alice"), client("bob"), publish(app)
    bob.post(f"/inbox/{broadcast_id}/read")
    page = text_of(alice.get(f"/console/broadcasts/{broadcast_id}/figures"))
    assert re.search(r">Read <[^>]*>[^<]*</span></dt><dd>1 <span class=\"muted\">33 %", page)
    assert '<polyline class="chart-read" points="' in page
    assert "Remind 2 people" in page
    rows = page[page.index("Progress") :]
    assert rows.index("Alice") < rows.index("Charlie")
    assert not re.search(r"\bBob\b", rows)  # a token may have these three letters
    part = text_of(alice.get(f"/console/broadcasts/{broadcast_id}/figures", headers={"HX-Request": "true"}))
    assert part.lstrip().startswith('<div class="stats-section"')


@pytest.mark.parametrize(
    "raw", [build_message(draft=True), build_message(scheduledAt="2998-01-01T00:00:00Z"), build_user_message("bob")]
)
def test_every_kind_of_broadcast_has_its_figures(app, client, raw):
    alice, broadcast_id = client("alice"), publish(app, raw)
    for path in (
        "figures",
        "missing",
        "missing?after=9-9",
        "missing?after=%00-x",
        "missing?after=" + "9" * 30,
        "figures.csv",
    ):
        assert alice.get(f"/console/broadcasts/{broadcast_id}/{path}").status_code == 200, path
    assert alice.get("/console/broadcasts/99999/figures").status_code == 404


def test_missing_people_are_paged(app, client):
    alice = client("alice")
    with app.app_context():
        for n in range(60):
            actions.create_user(f"p{n:02}", None, by=SYSTEM, now=NOW)
    broadcast_id = publish(app)
    page = text_of(alice.get(f"/console/broadcasts/{broadcast_id}/figures"))
    following = re.search(r'hx-get="(/console/broadcasts/\d+/missing\?after=[^"]+)"', page)[1]
    rest = text_of(alice.get(following, headers={"HX-Request": "true"}))
    names = re.findall(r'href="/console/people/(\d+)"', page + rest)
    assert len(names) == len(set(names)) == 63
    assert "<h1" in text_of(alice.get(following))  # without JavaScript it is a page


def test_deliveries_as_json_sorted_and_paged(app, client):
    alice, bob, broadcast_id = client("alice"), client("bob"), publish(app)
    bob.post(f"/inbox/{broadcast_id}/read")
    url = f"/api/admin/broadcasts/{broadcast_id}/deliveries"
    answer = alice.get(f"{url}?sort=-read&limit=2").json
    assert [item["username"] for item in answer["items"]] == ["bob", "alice"]
    assert answer["items"][0]["readAt"]
    assert answer["items"][1]["readAt"] is None
    assert [item["username"] for item in alice.get(f"{url}?sort=-read&after={answer['next']}").json["items"]] == [
        "charlie"
    ]


@pytest.mark.parametrize(
    "query", ["sort=x", "sort=--read", "limit=0", "limit=201", "limit=x", "after=-1", "after=" + "9" * 30]
)
def test_odd_question_about_deliveries_is_refused(app, client, query):
    response = client("alice").get(f"/api/admin/broadcasts/{publish(app)}/deliveries?{query}")
    assert (response.status_code, response.mimetype) == (422, "application/problem+json")


@pytest.mark.parametrize(
    "path", ["/api/admin/broadcasts/{}/deliveries?format=csv", "/console/broadcasts/{}/figures.csv"]
)
def test_csv_is_signed_and_has_everybody(app, client, monkeypatch, path):
    """Also in pieces, without the context of the request."""
    monkeypatch.setattr("broadcast.web.console.analytics._CHUNK_ROWS", 2)
    response = client("alice").get(path.format(publish(app)))
    assert response.mimetype == "text/csv"
    assert has_valid_signature(response.data, [app.secret_key])
    assert [line.split(",")[1] for line in text_of(response).splitlines()[1:-1]] == ["alice", "bob", "charlie"]


def test_totals_only_where_the_system_is_set_so(make_app):
    """A setting turns figures of persons off: everywhere, for administrators too."""
    from tests.conftest import add_test_users
    from tests.support.users import BrowserClient

    app = make_app(stats_per_recipient=False)
    with app.app_context():
        add_test_users()
    alice, broadcast_id = BrowserClient.for_user(app, "alice"), publish(app)
    page = text_of(alice.get(f"/console/broadcasts/{broadcast_id}/figures"))
    assert "shows totals only" in page
    assert "Remind everyone who has not read it" in page
    assert not re.search(r"\bbob\b", page, re.I)
    assert ">ops<" not in page  # a role of one person
    for path in (
        "/console/broadcasts/{}/missing",
        "/console/broadcasts/{}/figures.csv",
        "/api/admin/broadcasts/{}/deliveries",
    ):
        assert alice.get(path.format(broadcast_id)).status_code == 403


def test_viewer_sees_totals_and_no_names(app, client):
    broadcast_id = publish(app) if client() else 0
    with app.app_context():
        actions.set_roles(load_actor("bob").user_id, ["viewer"], by=SYSTEM, now=NOW)
    page = text_of(client("bob").get(f"/console/broadcasts/{broadcast_id}/figures"))
    assert "shows totals only" in page
    assert "Charlie" not in page
    assert "Remind" not in page


@pytest.mark.parametrize(("due", "told"), [(-1, "Overdue"), (1, "Awaiting acknowledgement")])
def test_acknowledgements_that_are_late_are_marked(app, client, due, told):
    raw = build_message(requiresAck=True, ackDueAt=clock.to_rfc3339(NOW + timedelta(days=due)))
    alice = client("alice")
    with app.app_context():
        broadcast_id = publish_message(load_actor("alice"), raw, now=NOW - timedelta(days=2))
    page = text_of(alice.get(f"/console/broadcasts/{broadcast_id}/figures"))
    assert re.search(rf'class="ack-summary.*{told}', page, re.S)
    assert "Who has not acknowledged" in page


# ---- reminding


def test_reminder_goes_to_those_who_have_not_read_and_to_nobody_else(app, client):
    alice, bob, charlie, broadcast_id = client("alice"), client("bob"), client("charlie"), publish(app)
    bob.post(f"/inbox/{broadcast_id}/read")
    deliver_new_events(app)
    streams = {name: StreamReader(c.http) for name, c in (("bob", bob), ("charlie", charlie))}
    page = StreamReader(charlie.http, "/inbox/stream")
    for stream in (*streams.values(), page):
        stream.read_until("CONNECTED")
    response = alice.post(f"/console/broadcasts/{broadcast_id}/remind")
    assert response.status_code == 303
    assert "Reminded 2 people" in text_of(alice.get(response.location))
    later = publish(app, build_message(title="Later"))
    deliver_new_events(app)
    reminded = streams["charlie"].next_frame()
    assert (reminded.event, reminded.data["id"], reminded.data["reminder"]) == ("MESSAGE_UPDATED", broadcast_id, True)
    assert streams["bob"].next_frame().data["id"] == later
    frame = page.next_frame()
    assert (frame.event, "data-reminder" in frame.data) == ("MESSAGE_UPDATED", True)
    for stream in (*streams.values(), page):
        stream.close()
    assert "sent a reminder" in text_of(alice.get(f"/console/broadcasts/{broadcast_id}"))


def test_whoever_was_away_is_reminded_on_return(app, client):
    charlie, broadcast_id = client("charlie"), publish(app)
    with app.app_context():
        cursor = log.get_head()
        reminders.remind(broadcast_id, by=load_actor("alice"), now=clock.now())
    deliver_new_events(app)
    stream = StreamReader(charlie.http, query_string={"after": str(cursor)})
    assert [frame.event for frame in stream.read_until("CONNECTED")] == ["MESSAGE_UPDATED", "CONNECTED"]
    stream.close()


def test_reminder_is_possible_once_an_hour(cast):
    broadcast_id, alice = publish_message(cast["alice"]), cast["alice"]
    assert reminders.remind(broadcast_id, by=alice, now=NOW) == 3
    with pytest.raises(Conflict, match="next one in 1 min"):
        reminders.remind(broadcast_id, by=alice, now=NOW + timedelta(minutes=59, seconds=30))
    assert reminders.remind(broadcast_id, by=alice, now=NOW + timedelta(hours=1)) == 3


def test_reminder_of_many_is_several_events_and_one_act(cast, monkeypatch):
    monkeypatch.setattr(reminders, "_MAX_IDS_PER_EVENT", 2)
    before, broadcast_id = count_rows(), publish_message(cast["alice"])
    reminders.remind(broadcast_id, by=cast["alice"], now=NOW)
    assert [len(event.audience.ids) for event in log.read_events(1)] == [2, 1]
    assert count_rows()["audit"] == before["audit"] + 2
    assert broadcasts.get(broadcast_id).reminded_at == NOW


@pytest.mark.parametrize("raw", [build_message(draft=True), build_message(scheduledAt="2998-01-01T00:00:00Z")])
def test_what_is_not_live_cannot_be_reminded_of(cast, raw):
    broadcast_id = publish_message(cast["alice"], raw)
    before = count_rows()
    with pytest.raises(Conflict):
        reminders.remind(broadcast_id, by=cast["alice"], now=NOW)
    assert count_rows() == before


def test_reminding_needs_somebody_missing_a_broadcast_and_the_permission(app, client):
    alice, bob = client("alice"), client("bob")
    broadcast_id = publish(app, build_user_message("bob"))
    bob.post(f"/inbox/{broadcast_id}/read")
    assert alice.send("POST", f"/api/admin/broadcasts/{broadcast_id}/remind").status_code == 409
    with app.app_context():
        with pytest.raises(NotFound):
            reminders.remind(99999, by=load_actor("alice"), now=NOW)
        with pytest.raises(Forbidden):
            reminders.remind(broadcast_id, by=Actor(1, "x"), now=NOW)


# ---- what was never sent


@pytest.mark.parametrize(
    ("raw", "recalled", "words", "in_list"),
    [
        (build_message(draft=True), False, "Would reach", "Would reach 3 people"),
        (build_message(scheduledAt="2998-01-01T00:00:00Z"), False, "Would reach", "Would reach 3 people"),
        (build_message(scheduledAt="2998-01-01T00:00:00Z"), True, "Would have reached", "Never sent"),
    ],
)
def test_what_was_never_sent_would_reach_people_and_was_sent_to_none(app, client, raw, recalled, words, in_list):
    alice, broadcast_id = client("alice"), publish(app, raw)
    if recalled:
        alice.post(f"/console/broadcasts/{broadcast_id}/cancel", {"reason": "Not needed"})
    for path in ("", "/stats", "/figures"):
        page = text_of(alice.get(f"/console/broadcasts/{broadcast_id}{path}"))
        assert f">{words} <span" in page, path
        assert "people it was sent to" not in page
        assert "Targeted" not in page
    if recalled:
        page = text_of(alice.get(f"/console/broadcasts/{broadcast_id}"))
        assert "It was never sent." in page
        assert "It has been removed from every inbox." not in page
    assert in_list in text_of(alice.get("/console/broadcasts"))
    told = alice.get(f"/api/admin/broadcasts/{broadcast_id}/stats").json
    assert (told["targeted"], told["wouldReach"], told["sentTo"], told["missing"]) == (0, 3, None, 0)
    assert alice.get(f"/api/admin/broadcasts/{broadcast_id}/deliveries").json["items"] == []
    [header, row] = text_of(alice.get("/console/broadcasts.csv")).splitlines()
    assert dict(zip(header.split(","), row.split(","), strict=True))["would reach"] == "3"


def test_what_is_planned_would_reach_whoever_is_there_now(app, client):
    alice = client("alice")
    broadcast_id = publish(app, build_message(scheduledAt=clock.to_rfc3339(clock.now() + timedelta(days=1))))
    with app.app_context():
        actions.create_user("dora", None, by=SYSTEM, now=clock.now())
    assert alice.get(f"/api/admin/broadcasts/{broadcast_id}/stats").json["wouldReach"] == 4
    assert "Would reach 4 people" in text_of(alice.get("/console/broadcasts"))


def test_complete_never_stands_beside_somebody_who_is_missing(app, client):
    alice, bob = client("alice"), client("bob")
    broadcast_id = publish(app, build_user_message("bob", requiresAck=True))
    bob.post(f"/inbox/{broadcast_id}/acknowledge")
    url = f"/console/broadcasts/{broadcast_id}/figures"
    assert "Complete" in text_of(alice.get(url))
    role = publish(app, build_message(targetType="ROLE", targetIds=["ops"], requiresAck=True))
    bob.post(f"/inbox/{role}/acknowledge")
    with app.app_context():
        actions.set_roles(load_actor("charlie").user_id, ["ops"], by=SYSTEM, now=clock.now())
    page = text_of(alice.get(f"/console/broadcasts/{role}/figures"))
    assert "Complete" not in page
    assert re.search(r"<strong>1</strong> of 2 have acknowledged, <strong>1</strong> has not", page)
    assert "1 when it was sent, 1 joined since" in page
    with app.app_context():
        actions.disable_user(load_actor("bob").user_id, by=SYSTEM, now=clock.now())
    page = text_of(alice.get(f"/console/broadcasts/{role}/figures?show=gone"))
    assert re.search(r"1 is no longer a recipient; 1 of them had acknowledged", page)
    assert "Account disabled" in page
