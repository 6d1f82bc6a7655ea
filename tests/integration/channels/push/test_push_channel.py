"""Push messages: what a browser gets, who gets none, and what push services answer."""

from datetime import timedelta

import pytest
import sqlalchemy

from broadcast.actions import accounts, edits, push_subscriptions, retention, sessions, users
from broadcast.channels import escalation, outgoing_http
from broadcast.channels.protocol import Accepted, Message, Refused, Retry
from broadcast.channels.push import PushChannel
from broadcast.channels.vapid import VapidKey
from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.domain.push_subscription import PushEndpoint
from broadcast.store.database import db
from broadcast.store.models import Broadcast, PushSubscription
from broadcast.store.push_subscriptions import Browser
from tests.integration.channels.test_escalation import publish_urgent, read_outcomes, recall, see

pytestmark = pytest.mark.usefixtures("in_app")


def read_messages(push_service, endpoint: PushEndpoint) -> list[dict]:
    path = endpoint.url.removeprefix(push_service.origin)
    return [message for message in push_service.messages if message["path"] == path]


def count_subscriptions() -> int:
    db.session.rollback()
    return db.session.scalar(sqlalchemy.select(sqlalchemy.func.count()).select_from(PushSubscription))


def test_unseen_urgent_message_is_pushed_to_each_browser_of_a_user(cast, subscribe, push_out, push_service):
    browsers = [subscribe(cast["bob"]) for _ in range(2)]
    seen = subscribe(cast["charlie"])
    broadcast_id = publish_urgent(cast, title="Störung: 北 🔥")
    see(broadcast_id, cast["charlie"])
    push_out(50)
    assert read_messages(push_service, browsers[0]) == []
    push_out(65)
    for browser in browsers:
        [message] = read_messages(push_service, browser)
        link = f"/inbox/{broadcast_id}"
        content = {"id": broadcast_id, "revision": 1, "title": "Störung: 北 🔥", "priority": "URGENT", "link": link}
        assert message["content"] == content
        assert (message["Urgency"], message["Topic"]) == ("high", f"broadcast-{broadcast_id}")
    assert read_messages(push_service, seen) == []
    assert read_outcomes() == [("SENT", None)]


def sign_out(actor, endpoint) -> None:
    row = db.session.scalar(sqlalchemy.select(PushSubscription).where(PushSubscription.endpoint == endpoint.url))
    sessions.sign_out(row.session_id, by=actor, now=clock.now())


def end_all_sessions(actor, endpoint) -> None:
    sessions.end_sessions(actor.user_id, by=SYSTEM, now=clock.now())


def disable_and_enable(actor, endpoint) -> None:
    users.disable_user(actor.user_id, by=SYSTEM, now=clock.now())
    users.enable_user(actor.user_id, by=SYSTEM, now=clock.now())


def want_no_push(actor, endpoint) -> None:
    accounts.save_preferences({"push": "NEVER"}, by=actor, now=clock.now())


def turn_off(actor, endpoint) -> None:
    push_subscriptions.remove_endpoint(endpoint.url, by=actor, now=clock.now())


@pytest.mark.parametrize("finish", [sign_out, end_all_sessions, disable_and_enable, want_no_push, turn_off])
@pytest.mark.parametrize("is_planned", [False, True])
def test_browser_gets_nothing_after(cast, subscribe, push_out, push_service, finish, is_planned):
    endpoint, other = subscribe(cast["bob"]), subscribe(cast["charlie"])
    publish_urgent(cast)
    if is_planned:
        escalation.run_once(now=clock.now())
        escalation.run_once(now=clock.now() + timedelta(seconds=65))
    finish(cast["bob"], endpoint)
    push_out(70)
    assert read_messages(push_service, endpoint) == []
    assert len(read_messages(push_service, other)) == 1


def test_message_shown_again_replaces_the_one_before(cast, subscribe, push_out, push_service):
    endpoint = subscribe(cast["bob"])
    broadcast_id = publish_urgent(cast, title="At nine")
    push_out(65)
    changes = {"title": "At ten"}
    edits.edit(broadcast_id, changes, version=None, by=cast["alice"], now=clock.now(), notify_again=True)
    push_out(200)
    messages = read_messages(push_service, endpoint)
    assert [(message["content"]["title"], message["content"]["revision"]) for message in messages] == [
        ("At nine", 1),
        ("At ten", 2),
    ]
    assert len({message["Topic"] for message in messages}) == 1


def test_push_service_keeps_a_message_until_its_end(cast, subscribe, push_out, push_service):
    endpoint = subscribe(cast["bob"])
    publish_urgent(cast, title="Short", expiresAt=clock.to_rfc3339(clock.now() + timedelta(hours=1)))
    publish_urgent(cast, title="Endless")
    push_out(65)
    ttl = {message["content"]["title"]: int(message["TTL"]) for message in read_messages(push_service, endpoint)}
    assert 3500 <= ttl["Short"] <= 3540
    assert ttl["Endless"] == 28 * 24 * 3600


@pytest.mark.parametrize("status", [404, 410])
def test_browser_that_ended_its_subscription_is_forgotten(cast, subscribe, push_out, push_service, status):
    gone, working = subscribe(cast["bob"]), subscribe(cast["bob"])
    push_service.answer(gone, status)
    publish_urgent(cast)
    push_out(65)
    assert len(read_messages(push_service, working)) == 1
    assert (read_outcomes(), count_subscriptions()) == ([("SENT", None)], 1)


def test_user_whose_only_browser_is_gone_is_reported(cast, subscribe, push_out, push_service):
    push_service.answer(subscribe(cast["bob"]), 410)
    publish_urgent(cast)
    push_out(65)
    assert read_outcomes() == [("FAILED", "The browser has ended its subscription.")]
    assert count_subscriptions() == 0


def test_push_service_that_is_asked_too_often_says_when_to_come_back(cast, subscribe, push_out, push_service):
    endpoint = subscribe(cast["bob"])
    push_service.answer(endpoint, 429, Retry_After="120")
    publish_urgent(cast)
    push_out(65)
    push_out(180)
    assert read_messages(push_service, endpoint) == []
    push_out(190)
    assert len(read_messages(push_service, endpoint)) == 1
    assert read_outcomes() == [("SENT", None)]


def test_failing_push_service_is_tried_again(cast, subscribe, push_out, push_service):
    endpoint = subscribe(cast["bob"])
    push_service.answer(endpoint, 500, 503)
    publish_urgent(cast)
    push_out(65)
    assert read_outcomes() == [("WAITING", "Its push service answered 500: No: sorry.")]
    push_out(100)
    push_out(300)
    assert len(read_messages(push_service, endpoint)) == 1


@pytest.mark.parametrize("status", [302, 400, 401, 403, 413])
def test_message_that_a_push_service_refuses_is_given_up(cast, subscribe, push_out, push_service, status):
    push_service.answer(subscribe(cast["bob"]), status, Location="https://127.0.0.1/")
    publish_urgent(cast)
    push_out(65)
    assert read_outcomes() == [("FAILED", f"Its push service answered {status}: No: sorry.")]
    assert count_subscriptions() == 1


def test_correction_says_nothing_of_the_message(cast, subscribe, push_channel, push_service):
    endpoint = subscribe(cast["bob"])
    broadcast = db.session.get(Broadcast, publish_urgent(cast, title="Secret"))
    message = Message("1", broadcast.to_card(), 1, "Bob", Browser(1, 1, endpoint))
    assert push_channel.send_correction(message) == Accepted()
    [sent] = read_messages(push_service, endpoint)
    assert sent["content"] == {"id": broadcast.id, "revision": 1, "withdrawn": True, "link": "/inbox"}


def test_recall_replaces_what_was_pushed_and_tells_nobody_else(cast, subscribe, push_out, push_service):
    told, unwilling, seen = (subscribe(cast[name]) for name in ("bob", "alice", "charlie"))
    broadcast_id = publish_urgent(cast)
    see(broadcast_id, cast["charlie"])
    push_out(65)
    want_no_push(cast["alice"], unwilling)
    recall(broadcast_id, cast)
    for seconds in (70, 80):
        push_out(seconds)
    withdrawn = {"id": broadcast_id, "revision": 1, "withdrawn": True, "link": "/inbox"}
    assert [message["content"] for message in read_messages(push_service, told)][1:] == [withdrawn]
    assert len(read_messages(push_service, unwilling)) == 1
    assert read_messages(push_service, seen) == []


def test_another_key_than_that_of_the_subscription_is_refused_by_the_push_service(push_channel, push_service):
    other_key = VapidKey(Settings(vapid_private_key="A" * 42 + "E"))
    endpoint = push_service.subscribe(other_key.public_key)
    outcome = push_channel.send_test(Browser(1, 1, endpoint), "Bob")
    assert isinstance(outcome, Refused)
    assert "403" in outcome.reason


@pytest.fixture
def no_connection(monkeypatch) -> list[tuple[str, int]]:
    """Where connections would have gone."""
    tried = []

    def refuse(address, **_):
        tried.append(address)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(outgoing_http.socket, "create_connection", refuse)
    return tried


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1"])
def test_name_that_leads_into_the_internal_network_later_is_refused(
    settings, push_service, push_channel, no_connection, monkeypatch, address
):
    endpoint = push_service.subscribe(push_channel.key.public_key)
    monkeypatch.setattr(outgoing_http.socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", (address, 443))])
    outcome = PushChannel(settings).send_test(Browser(1, 1, endpoint), "Bob")
    assert isinstance(outcome, Refused)
    assert no_connection == []


def test_service_that_is_no_longer_in_the_settings_gets_nothing(settings, push_service, push_channel, no_connection):
    endpoint = push_service.subscribe(push_channel.key.public_key)
    outcome = PushChannel(settings.model_copy(update={"push_services": []})).send_test(Browser(1, 1, endpoint), "Bob")
    assert outcome == Refused("Its address is not that of a push service that is known here.")
    assert no_connection == []


def test_unreachable_push_service_is_tried_again(settings, push_service, push_channel, no_connection):
    endpoint = push_service.subscribe(push_channel.key.public_key)
    outcome = push_channel.send_test(Browser(1, 1, endpoint), "Bob")
    assert isinstance(outcome, Retry)
    assert no_connection == [("127.0.0.1", push_service.port)]


def test_unusable_key_holds_everything_up_with_a_sentence(settings, push_service, push_channel):
    endpoint = push_service.subscribe(push_channel.key.public_key)
    (settings.data_dir / "vapid_key").write_text("nonsense")
    outcome = PushChannel(settings).send_test(Browser(1, 1, endpoint), "Bob")
    assert isinstance(outcome, Retry)
    assert outcome.is_server_down
    assert "does not hold a key" in outcome.reason


def test_browsers_of_ended_sessions_are_deleted_in_time(cast, subscribe):
    kept, ended = subscribe(cast["bob"]), subscribe(cast["charlie"])
    sign_out(cast["charlie"], ended)
    retention.delete_expired(retention.RetentionPolicy(0, 0, 0), now=clock.now())
    assert db.session.scalars(sqlalchemy.select(PushSubscription.endpoint)).all() == [kept.url]


def test_deleted_account_leaves_no_browser(cast, subscribe):
    subscribe(cast["bob"])
    accounts.delete(cast["bob"].user_id, typed_username="bob", by=SYSTEM, now=clock.now())
    assert count_subscriptions() == 0
