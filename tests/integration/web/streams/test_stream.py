"""Streams on every path: opening, resuming, role changes, and ending."""

import pytest
from sqlalchemy import update

from broadcast.actions import broadcasts, edits, receipts, users
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.domain.audience import EveryoneAudience
from broadcast.domain.events import EventType
from broadcast.store import log
from broadcast.store.models import LogEvent, UserSession
from broadcast.store.transactions import write_transaction
from broadcast.streams.hub import HUB
from broadcast.worker.runtime import RUNTIME
from tests.conftest import deliver_new_events
from tests.support.builders import build_message, build_role_message, build_user_message, load_actor, publish_message
from tests.support.routes import make_bearer_headers
from tests.support.stream_reader import StreamReader
from tests.support.users import BrowserClient

pytestmark = pytest.mark.usefixtures("stream_path")


def publish(app, *raws: dict, reach: bool = True) -> list[int]:
    """Send each message as Alice; with `reach`, the tail of this worker delivers them."""
    with app.app_context():
        ids = [publish_message(load_actor("alice"), raw) for raw in raws]
    if reach:
        deliver_new_events(app)
    return ids


def titles(frames) -> list[str]:
    return [frame.data["title"] for frame in frames if frame.event == "MESSAGE"]


def head(app) -> str:
    with app.app_context():
        return str(log.get_head())


# ---- opening


@pytest.mark.parametrize("path", ["/api/sse/connect", "/inbox/stream"])
def test_each_path_is_taken_by_sessions_and_tokens(app, client, stream_path, path):
    by_session = StreamReader(client_of(client, "bob"), path)
    by_token = StreamReader(app.test_client(), path, headers=make_bearer_headers(app, "bob", ["inbox"]))
    assert [by_session.path_taken, by_token.path_taken] == [stream_path] * 2
    by_session.close()
    by_token.close()
    assert len(HUB.of(app)) == 0


def test_first_connection_gets_what_is_pending_then_connected_then_live(app, client):
    """Without a cursor, the unread messages in the order of the log."""
    one, two = publish(app, build_message(title="one"), build_role_message("ops", title="two"))
    with app.app_context():
        receipts.mark_read([one], by=load_actor("bob"), now=clock.now())
    stream = StreamReader(client_of(client, "bob"))
    publish(app, build_message(title="three"))
    *pending, connected = stream.read_until("CONNECTED")
    assert [frame.data["id"] for frame in pending] == [two]
    assert connected.data["unread"] == 1
    assert connected.data["cursor"] == connected.id
    assert HUB.of(app).find(connected.data["connectionId"])
    live = stream.next_frame()
    assert (live.event, live.data["title"], live.id) == ("MESSAGE", "three", head(app))
    stream.close()


def test_unread_message_is_encoded_once_for_all_who_come_without_a_cursor(app, client, monkeypatch):
    [id] = publish(app, build_message(title="one"))
    hub, encoded = HUB.of(app), []
    encoders = hub.replay_buffer._encoders
    encode = encoders["json"]
    monkeypatch.setitem(encoders, "json", lambda event: encoded.append(event.seq) or encode(event))
    for title in ("one", "two"):
        for name in ("bob", "charlie"):
            assert titles(StreamReader(client_of(client, name)).read_until("CONNECTED")) == [title]
        with app.app_context():
            edits.edit(id, {"title": "two"}, by=load_actor("alice"), now=clock.now(), version=None)
    assert encoded == [1, 1]


def client_of(client, name: str):
    return client(name).http


@pytest.mark.parametrize("how", ["header", "query"])
def test_resume_gives_exactly_what_was_missed(app, client, how):
    """Replay, CONNECTED, live; nothing lost and nothing twice, though more is published in between."""
    http = client_of(client, "bob")
    publish(app, build_message(title="before"))
    cursor = head(app)
    publish(app, *(build_message(title=f"missed {n}") for n in range(50)))
    options = {"headers": {"Last-Event-ID": cursor}} if how == "header" else {"query_string": {"after": cursor}}
    stream = StreamReader(http, **options)
    publish(app, *(build_message(title=f"live {n}") for n in range(50)))
    frames = stream.read_until("CONNECTED") + [stream.next_frame() for _ in range(50)]
    assert [frame.event for frame in frames].index("CONNECTED") == 50
    assert titles(frames) == [f"missed {n}" for n in range(50)] + [f"live {n}" for n in range(50)]
    numbers = [int(frame.id.split("-")[1]) for frame in frames]
    assert numbers == sorted(numbers)
    stream.close()


def test_resume_from_the_log_is_the_same_as_from_memory(app, client):
    """A worker that has just started remembers nothing, and reads the log."""
    http = client_of(client, "bob")
    cursor = head(app)
    publish(app, *(build_message(title=str(n)) for n in range(5)), reach=False)
    with app.app_context():
        HUB.of(app).start(log.get_head())
    stream = StreamReader(http, headers={"Last-Event-ID": cursor})
    assert titles(stream.read_until("CONNECTED")) == ["0", "1", "2", "3", "4"]
    stream.close()


def test_cursor_that_another_worker_gave_is_honest_though_this_one_lags(app, client):
    http = client_of(client, "bob")
    publish(app, build_message(title="seen there"), reach=False)
    stream = StreamReader(http, headers={"Last-Event-ID": head(app)})
    assert [frame.event for frame in stream.read_until("CONNECTED")] == ["CONNECTED"]
    publish(app, build_message(title="next"))
    assert stream.next_frame().data["title"] == "next"
    stream.close()


def test_message_data_has_what_programs_rely_on(app, client):
    """The fields of MESSAGE and MESSAGE_REMOVED."""
    stream = StreamReader(client_of(client, "bob"))
    stream.read_until("CONNECTED")
    link = {"label": "Go", "url": "https://a.example"}
    [broadcast_id] = publish(
        app, build_message(title="T", content="**C**", priority="HIGH", category="News", actions=[link])
    )
    data = stream.next_frame().data
    assert set(data) >= {
        "id", "title", "content", "contentHtml", "priority", "category", "senderName", "createdAt", "publishedAt",
        "expiresAt", "requiresAck", "revision", "actions", "targetType",
    }  # fmt: skip
    assert (data["id"], data["title"], data["content"], data["actions"]) == (broadcast_id, "T", "**C**", [link])
    assert (data["contentHtml"], data["targetType"]) == ("<p><strong>C</strong></p>\n", "ALL")
    with app.app_context():
        broadcasts.cancel(broadcast_id, reason="Wrong", by=load_actor("alice"), now=clock.now())
    deliver_new_events(app)
    removed = stream.next_frame()
    assert (removed.event, removed.data) == ("MESSAGE_REMOVED", {"id": broadcast_id, "reason": "CANCELLED"})
    stream.close()


def test_page_stream_carries_the_card_of_the_page(app, client):
    stream = StreamReader(client_of(client, "bob"), "/inbox/stream")
    stream.read_until("CONNECTED")
    [broadcast_id] = publish(app, build_message(title="<b>&"))
    card = stream.next_frame().data
    assert f'id="card-{broadcast_id}"' in card
    assert "&lt;b&gt;&amp;" in card
    assert "csrf_token" not in card, "one rendering is sent to many people"
    stream.close()


def test_line_breaks_in_a_message_cannot_forge_a_frame(app, client):
    stream = StreamReader(client_of(client, "bob"))
    stream.read_until("CONNECTED")
    publish(app, build_message(content="x\n\nevent: RESET\ndata: {}\n\nid: 1\r\rretry: 1"), build_message(title="next"))
    assert [stream.next_frame().event, stream.next_frame().data["title"]] == ["MESSAGE", "next"]
    stream.close()


# ---- F24: cursors that cannot be honest


@pytest.mark.parametrize(
    "cursor",
    ["{epoch}-999999", "{epoch}-999999999999999999", "{epoch}--1", "-1", "{epoch}-", "zzzz-1", "{epoch}-01", "garbage", "1",
     "0", "x" * 10_240, "{epoch}-1; DROP TABLE events", "{epoch}-１", "%00", "null", "{epoch}-1 "],
)  # fmt: skip
def test_cursor_that_proves_nothing_is_answered_with_reset(app, client, cursor):
    """F24: never silence, never an error."""
    http = client_of(client, "bob")
    publish(app, build_message(), build_message())
    stream = StreamReader(http, query_string={"after": cursor.format(epoch=head(app).split("-")[0])})
    frames = stream.read_until("CONNECTED")
    assert [frame.event for frame in frames] == ["RESET", "CONNECTED"]
    assert frames[0].data["cursor"] == frames[1].data["cursor"] == head(app)
    publish(app, build_message(title="live"))
    assert stream.next_frame().data["title"] == "live"
    stream.close()


def test_cursor_of_an_older_epoch_is_answered_with_reset(app, client):
    http = client_of(client, "bob")
    publish(app, build_message())
    old = head(app)
    with app.app_context(), write_transaction() as session:
        log.start_epoch(session)
    deliver_new_events(app)
    stream = StreamReader(http, headers={"Last-Event-ID": old})
    assert [frame.event for frame in stream.read_until("CONNECTED")] == ["RESET", "CONNECTED"]
    stream.close()


def test_cursor_beyond_memory_is_served_from_the_log_and_too_far_back_is_answered_with_reset(make_app, client):
    app = make_app(replay_events=5)
    client()
    http = BrowserClient.for_user(app, "bob").http
    too_far = head(app)
    publish(app, build_message())
    cursor = head(app)
    publish(app, *(build_message() for _ in range(200)))
    stream = StreamReader(http, headers={"Last-Event-ID": cursor})
    assert len(stream.read_until("CONNECTED")) == 200 + 1
    stream.close()
    stream = StreamReader(http, headers={"Last-Event-ID": too_far})
    assert [frame.event for frame in stream.read_until("CONNECTED")] == ["RESET", "CONNECTED"]
    stream.close()


def test_empty_cursor_is_no_cursor(app, client):
    http = client_of(client, "bob")
    publish(app, build_message(title="pending"))
    stream = StreamReader(http, headers={"Last-Event-ID": ""})
    assert titles(stream.read_until("CONNECTED")) == ["pending"]
    stream.close()


# ---- what never comes back


@pytest.mark.parametrize("memory", [True, False])
def test_recalled_message_is_not_replayed(app, client, memory):
    """I9: only its removal is told."""
    http = client_of(client, "bob")
    cursor = head(app)
    recalled, kept = publish(app, build_message(title="recalled"), build_message(title="kept"))
    with app.app_context():
        broadcasts.cancel(recalled, reason="Wrong", by=load_actor("alice"), now=clock.now())
    deliver_new_events(app)
    if not memory:
        with app.app_context():
            HUB.of(app).start(log.get_head())
    stream = StreamReader(http, headers={"Last-Event-ID": cursor})
    frames = stream.read_until("CONNECTED")[:-1]
    assert [(frame.event, frame.data["id"]) for frame in frames] == [("MESSAGE", kept), ("MESSAGE_REMOVED", recalled)]
    stream.close()


def test_expired_message_is_not_replayed(app, client, monkeypatch):
    http = client_of(client, "bob")
    cursor = head(app)
    ends = clock.parse_rfc3339("2998-01-01T00:00:00Z")
    publish(app, build_message(expiresAt=clock.to_rfc3339(ends)), build_message(title="kept"))
    monkeypatch.setattr(clock, "now", lambda: ends)
    with app.app_context(), write_transaction() as session:
        session.query(UserSession).update({"seen_at": ends, "created_at": ends})
    stream = StreamReader(http, headers={"Last-Event-ID": cursor})
    assert titles(stream.read_until("CONNECTED")) == ["kept"]
    stream.close()


# ---- I3: no leak


def test_nothing_outside_the_audience_reaches_anybody(app, client):
    """I3: on the stream, pending or live or replayed, in the inbox, as one message, by reading, in the count."""
    people_ = {name: client(name) for name in ("alice", "bob", "charlie")}
    raws = {
        "ops": build_role_message("ops", title="ops"),
        "all": build_message(title="all"),
        "bob": build_user_message("bob", title="bob"),
    }
    raws["charlie"] = build_user_message("charlie", title="charlie")
    mine = {"alice": ["all"], "bob": ["ops", "all", "bob"], "charlie": ["all", "charlie"]}
    cursor = head(app)
    live = {name: StreamReader(person.http) for name, person in people_.items()}
    for stream in live.values():
        stream.read_until("CONNECTED")
    ids = dict(zip(raws, publish(app, *raws.values()), strict=True))
    publish(app, build_message(title="end"))
    for name, person in people_.items():
        expected = [*mine[name], "end"]
        assert titles(live[name].next_frame() for _ in expected) == expected
        for options in ({}, {"headers": {"Last-Event-ID": cursor}}):
            again = StreamReader(person.http, **options)
            assert titles(again.read_until("CONNECTED")) == expected
            again.close()
        inbox = person.http.get("/api/user/messages").json
        assert [item["title"] for item in inbox["items"]] == expected[::-1]
        assert inbox["unread"] == len(expected)
        for title, broadcast_id in ids.items():
            status = 200 if title in mine[name] else 404
            assert person.get(f"/inbox/{broadcast_id}").status_code == status
            marked = person.send("POST", f"/api/sse/read?messageId={broadcast_id}")
            assert marked.status_code == status
        live[name].close()


# ---- people change


def test_change_of_roles_reindexes_the_open_stream(app, client):
    """F21: RESET, then nothing more of the old role, and what the new one gets."""
    stream = StreamReader(client_of(client, "bob"))
    stream.read_until("CONNECTED")
    with app.app_context():
        users.set_roles(load_actor("bob").user_id, ["sales"], by=SYSTEM, now=clock.now())
        users.set_roles(load_actor("charlie").user_id, ["ops"], by=SYSTEM, now=clock.now())
    publish(app, build_role_message("ops", title="old role"), build_role_message("sales", title="new role"))
    reset = stream.next_frame()
    assert reset.event == "RESET"
    assert stream.next_frame().data["title"] == "new role"
    stream.close()


def test_event_of_a_newer_version_stops_nothing_and_everybody_begins_anew(app, client):
    """What it says is not known here: lists are loaded anew, and streams end soon, so that people are looked up anew."""
    stream = StreamReader(client_of(client, "bob"))
    cursor = stream.read_until("CONNECTED")[-1].id
    with app.app_context(), write_transaction() as session:
        [row] = log.append(
            session, [log.NewEvent(EventType.ROLE_CHANGED, None, EveryoneAudience(), {})], at=clock.now()
        )
        session.execute(update(LogEvent).where(LogEvent.seq == row.seq).values(type="MOOD_CHANGED"))
    publish(app, build_message(title="after"))
    assert [stream.next_frame().event for _ in range(2)] == ["RESET", "MESSAGE"]
    for _ in range(15):
        RUNTIME.of(app).hub.send_heartbeats()
    while stream.next_frame():
        pass
    stream = StreamReader(client_of(client, "bob"), headers={"Last-Event-ID": cursor})
    assert [frame.event for frame in stream.read_until("CONNECTED")] == ["RESET", "CONNECTED"]
    stream.close()


def test_replay_over_a_change_of_roles_is_a_reset(app, client):
    http = client_of(client, "bob")
    cursor = head(app)
    with app.app_context():
        users.set_roles(load_actor("bob").user_id, ["sales"], by=SYSTEM, now=clock.now())
    deliver_new_events(app)
    stream = StreamReader(http, headers={"Last-Event-ID": cursor})
    assert [frame.event for frame in stream.read_until("CONNECTED")] == ["RESET", "CONNECTED"]
    stream.close()
