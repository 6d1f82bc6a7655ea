"""An inbox read from memory answers every question as the queries do, after any history."""

import random
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

import pytest
from sqlalchemy import update

from broadcast.actions import broadcasts, edits, receipts, reminders, roles, users
from broadcast.base.errors import BroadcastError
from broadcast.domain import clock
from broadcast.domain.audience import Viewer
from broadcast.store import broadcasts as stored_broadcasts
from broadcast.store import live_broadcasts, live_inbox, log
from broadcast.store import users as stored_users
from broadcast.store.database import db
from broadcast.store.inbox import VIEWS, InboxFilters
from broadcast.store.live_broadcasts import LIVE_BROADCASTS, LiveBroadcasts
from broadcast.store.models import Broadcast, Receipt
from broadcast.store.transactions import write_transaction
from tests.support.builders import (
    build_message,
    build_role_message,
    build_user_message,
    expire_broadcast,
    load_actor,
    lose_commits,
    publish_message,
)

NAMES = ("alice", "bob", "charlie")
FILTERS = [
    *(InboxFilters(view) for view in VIEWS),
    InboxFilters(category="News"),
    InboxFilters("all", priority="URGENT"),
    InboxFilters("unread", q="lift"),
]


class History:
    """Random acts of three users, one second apart, on an application that may have a past."""

    def __init__(self, seed: int):
        self.random, self.now, self.ids = random.Random(seed), clock.now(), [publish_message(load_actor("alice"))]
        self.role, self.done = "ops", set()

    def act(self) -> None:
        """Do something that may be refused; then nothing has changed."""
        self.now += timedelta(seconds=self.random.choice([1, 1, 90, 1200]))
        weights: dict[Callable[[], object], int] = {
            self.publish: 8, self.edit: 4, self.end: 1, self.remind: 2, self.mark: 8, self.snooze: 3,
            self.read_all: 1, self.acknowledge: 4, self.see: 2, self.change_roles: 1, self.rename_role: 1,
        }  # fmt: skip
        [act] = self.random.choices(list(weights), list(weights.values()))
        with suppress(BroadcastError):
            act()
            self.done.add(act.__name__)
        db.session.rollback()

    def publish(self) -> None:
        choose = self.random.choice
        audience = choose([build_message(), build_role_message(self.role), build_role_message(self.role, "admin"),
                           build_user_message("charlie"), build_user_message("bob", "alice")])  # fmt: skip
        excluded = choose([{}, {}, {"exceptRoles": [self.role]}, {"exceptIds": ["bob"]}])
        ends = choose([{}, {"expiresAt": clock.to_rfc3339(self.now + timedelta(minutes=choose([2, 90])))}])
        ack = choose([{}, {"requiresAck": True}, {"requiresAck": True, "ackDueAt": self._in_minutes(choose([50, 90]))}])
        raw = audience | excluded | ends | ack
        raw |= {"priority": choose(["LOW", "NORMAL", "HIGH", "URGENT"]), "category": choose([None, "News", "IT"])}
        given = {name: value for name, value in raw.items() if value is not None}
        self.ids.append(publish_message(load_actor("alice"), given, now=self.now))

    def _in_minutes(self, minutes: int) -> str:
        return clock.to_rfc3339(self.now + timedelta(minutes=minutes))

    def edit(self) -> None:
        choose, id = self.random.choice, self._choose_id()
        changes = choose([{"title": "Lifts again"}, {"category": "News"}, {"priority": "HIGH"}, {"content": "Stairs"}])
        again = choose([{}, {"notify_again": True}, {"acknowledge_again": True}])
        edits.edit(id, changes, by=load_actor("alice"), now=self.now, version=None, **again)

    def end(self) -> None:
        id = self._choose_id()
        if self.random.random() < 0.5:
            broadcasts.cancel(id, reason="Wrong", by=load_actor("alice"), now=self.now)
        elif stored_broadcasts.get(id).is_live:
            expire_broadcast(id, now=self.now)

    def remind(self) -> None:
        reminders.remind(self._choose_id(), by=load_actor("alice"), now=self.now)

    def mark(self) -> None:
        actions = [receipts.mark_read, receipts.mark_unread, receipts.archive, receipts.unarchive, receipts.dismiss]
        self.random.choice(actions)([self._choose_id()], by=self._choose_actor(), now=self.now)

    def snooze(self) -> None:
        until = self.now + timedelta(minutes=self.random.choice([2, 30]))
        receipts.snooze([self._choose_id()], until=until, by=self._choose_actor(), now=self.now)

    def read_all(self) -> None:
        receipts.mark_all_read(InboxFilters(), through=log.get_head().seq, by=self._choose_actor(), now=self.now)

    def acknowledge(self) -> None:
        receipts.acknowledge([self._choose_id()], by=self._choose_actor(), now=self.now)

    def see(self) -> None:
        """As the buffer of deliveries writes it."""
        broadcast_id, user_id = self._choose_id(), self._choose_actor().user_id
        with write_transaction() as session:
            receipt = session.get(Receipt, (broadcast_id, user_id)) or Receipt(
                broadcast_id=broadcast_id, user_id=user_id
            )
            receipt.first_seen_at = receipt.first_seen_at or self.now
            session.add(receipt)

    def change_roles(self) -> None:
        name, names = self.random.choice(["bob", "charlie"]), self.random.choice([[], [self.role]])
        users.set_roles(load_actor(name).user_id, names, by=load_actor("alice"), now=self.now)

    def rename_role(self) -> None:
        new = f"ops-{self.random.randrange(10**6)}"
        roles.rename(self.role, new, by=load_actor("alice"), now=self.now)
        self.role = new

    def _choose_id(self) -> int:
        return self.random.choice(self.ids[-12:])

    def _choose_actor(self):
        return load_actor(self.random.choice(NAMES))


def list_answers(opened: live_inbox.Inbox) -> dict:
    ids = [item.card.id for item in opened.list_page(InboxFilters("all"), limit=99)]
    return {
        "unread": opened.count_unread(),
        "views": opened.count_views(),
        "categories": opened.list_categories(),
        "alerts": opened.list_alerts(limit=5),
        "backlog": opened.list_unread_backlog(through=log.get_head().seq - 1, limit=4),
        "pages": [
            (
                filters,
                opened.list_page(filters, limit=3),
                opened.list_page(filters, before=max(ids, default=9), limit=99, excluded_ids=ids[-2:]),
                opened.list_to_acknowledge(filters, limit=3),
                opened.list_by_ids(filters, ids[1:3]),
                opened.count_unread_filtered(filters),
            )
            for filters in FILTERS
        ],
    }


def assert_same_answers(name: str, now: datetime) -> None:
    viewer = stored_users.get_by_username(name).as_viewer
    opened = live_inbox.open_inbox(viewer, now=now)
    assert isinstance(opened, live_inbox._LiveInbox)
    assert list_answers(opened) == list_answers(live_inbox.Inbox(viewer, now, opened.head))
    db.session.rollback()


@pytest.fixture
def always_reloads(monkeypatch):
    monkeypatch.setattr(live_broadcasts, "_RELOAD_INTERVAL_SECONDS", 0)


@pytest.mark.parametrize("seed", range(6))
def test_memory_answers_as_the_database_does_after_any_history(cast, always_reloads, seed):
    history = History(seed)
    for _ in range(40):
        history.act()
        assert_same_answers(history.random.choice(NAMES), history.now)
    for name in NAMES:  # some have expired, and some woken, with no event yet
        assert_same_answers(name, history.now + timedelta(minutes=3))
    assert len(history.done) >= 7


def test_user_who_does_not_exist_has_an_empty_inbox(cast):
    publish_message(cast["alice"])
    opened = live_inbox.open_inbox(Viewer(99_999, frozenset({"ops"})), now=clock.now())
    assert opened.list_page(InboxFilters()) == []
    assert opened.count_unread().count == 0


def test_beyond_its_bound_nothing_is_kept_and_the_queries_answer(app, cast, always_reloads):
    LIVE_BROADCASTS.attach(app, LiveBroadcasts(max_broadcasts=2))
    for expected in (live_inbox._LiveInbox, live_inbox._LiveInbox, live_inbox.Inbox):
        publish_message(cast["alice"])
        assert type(live_inbox.open_inbox(cast["bob"].viewer, now=clock.now())) is expected
    stored = live_inbox.open_inbox(cast["bob"].viewer, now=clock.now())
    assert (len(stored.list_page(InboxFilters())), stored.head) == (3, log.get_head())


def test_everything_is_read_anew_at_most_once_in_some_seconds(app, cast):
    publish_message(cast["alice"])
    assert type(live_inbox.open_inbox(cast["bob"].viewer, now=clock.now())) is live_inbox._LiveInbox
    roles.rename("ops", "lifts", by=cast["alice"], now=clock.now())
    assert type(live_inbox.open_inbox(cast["bob"].viewer, now=clock.now())) is live_inbox.Inbox


def test_restored_database_is_read_anew(app, cast, always_reloads):
    publish_message(cast["alice"])
    before = live_inbox.open_inbox(cast["bob"].viewer, now=clock.now())
    with write_transaction() as session:
        session.execute(update(Broadcast).values(priority="URGENT"))
        log.start_epoch(session)
    after = live_inbox.open_inbox(cast["bob"].viewer, now=clock.now())
    assert (len(before.list_alerts(limit=9)), len(after.list_alerts(limit=9))) == (0, 1)
    assert before.head.epoch != after.head.epoch


@pytest.mark.parametrize("published", [0, 1, 2, 3])
def test_commits_lost_in_a_failover_are_forgotten_before_a_worker_has_begun_a_new_epoch(
    cast, always_reloads, published
):
    """Two were lost, so with two others the log is as long as before, and with three longer."""
    for _ in range(3):
        publish_message(cast["alice"])
    live_inbox.open_inbox(cast["bob"].viewer, now=clock.now())
    lose_commits(2)
    for _ in range(published):
        publish_message(cast["alice"], build_message(priority="URGENT"))
    db.session.rollback()
    db.engine.dispose()
    assert_same_answers("bob", clock.now())


def test_card_that_ended_since_its_receipts_were_read_gives_its_place_to_the_next(cast):
    """A short page would be taken for the last."""
    for number in range(3):
        publish_message(cast["alice"], build_message(title=str(number)))
    opened = live_inbox.open_inbox(cast["bob"].viewer, now=clock.now())
    broadcasts.cancel(3, reason="Wrong", by=cast["alice"], now=clock.now())
    assert [item.card.title for item in opened.list_page(InboxFilters(), limit=2)] == ["1", "0"]


def test_reminder_that_reaches_nobody_is_known_to_every_worker(cast):
    """How many are missing may be a secret, so the reminder is noted though nobody gets it."""
    publish_message(cast["alice"], build_message(requiresAck=True))
    viewer = cast["bob"].viewer
    for name in NAMES:
        receipts.acknowledge([1], by=cast[name], now=clock.now())
    live_inbox.open_inbox(viewer, now=clock.now())
    head = log.get_head()
    reminders.remind(1, by=cast["alice"], now=clock.now(), may_count_missing=False)
    [event] = log.read_events(head.seq)
    assert not any(event.audience.includes(cast[name].viewer) for name in NAMES)
    receipts.mark_unread([1], by=cast["bob"], now=clock.now())
    assert_same_answers("bob", clock.now())


def test_snooze_from_before_its_start_was_stored_counts(cast):
    id, now = publish_message(cast["alice"]), clock.now()
    with write_transaction() as session:
        session.add(
            Receipt(broadcast_id=id, user_id=cast["bob"].user_id, unread_at=now, snoozed_until=now + timedelta(hours=1))
        )
    assert live_inbox.open_inbox(cast["bob"].viewer, now=now).count_views().snoozed == 1
    for hours in (0, 2):
        assert_same_answers("bob", now + timedelta(hours=hours))
