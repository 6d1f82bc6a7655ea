"""Random histories compared with a trivially correct model: who was targeted, how far they got, who is missing.

After each step page, CSV, JSON, list, overview, roles and reminder agree about every broadcast.
"""

import csv
import re
from dataclasses import dataclass, field
from datetime import timedelta
from io import StringIO

import pytest
from hypothesis import Phase
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from broadcast.actions import broadcasts as sending
from broadcast.actions import edits, receipts, reminders, users
from broadcast.base.errors import Conflict, NotFound
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.store import audiences, broadcast_stats, broadcast_totals, broadcasts, log
from broadcast.store.fast.count_cache import COUNT_CACHE, CountCache
from broadcast.store.inbox import InboxFilters
from broadcast.store.models import Broadcast
from broadcast.store.transactions import write_transaction
from broadcast.streams.receipt_buffer import RECEIPT_BUFFER
from tests.support.app_state_machine import AppStateMachine, run_state_machine
from tests.support.builders import build_message, build_role_message, build_user_message, load_actor, publish_message
from tests.support.users import BrowserClient

ROLES = ("ops", "sales")
AUDIENCES = ("all", "ops", "sales", "both", "all but sales", "named")
STEPS = ("delivered", "seen", "read", "acknowledged")


@dataclass
class Sent:
    """What the model knows of a broadcast: names of people at each step, and which revision each acknowledged."""

    audience: str
    asks_ack: bool
    sent_to: int
    targeted: set[str]
    named: frozenset[str]
    is_live: bool = True
    revision: int = 1
    ack_revision: int = 1
    delivered: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    opened: set[str] = field(default_factory=set)
    given: dict[str, int] = field(default_factory=dict)

    @property
    def acknowledged(self) -> set[str]:
        return {name for name, revision in self.given.items() if revision >= self.ack_revision}

    @property
    def read(self) -> set[str]:
        return self.opened | self.acknowledged

    @property
    def done(self) -> set[str]:
        return self.acknowledged if self.asks_ack else self.read

    def includes(self, name: str, roles: set[str]) -> bool:
        return {
            "all": True,
            "ops": "ops" in roles,
            "sales": "sales" in roles,
            "both": roles >= {"ops", "sales"},
            "all but sales": "sales" not in roles,
            "named": name in self.named,
        }[self.audience]


class Histories(AppStateMachine):
    """`roles` has everybody, `closed` those without an open account."""

    def __init__(self) -> None:
        super().__init__()
        COUNT_CACHE.attach(self.app, CountCache(clock=lambda: 0.0))  # nothing is slow, so nothing is kept
        self.sent: dict[int, Sent] = {}
        self.roles: dict[str, set[str]] = {"alice": {"admin"}, "bob": {"ops"}, "charlie": set()}
        self.closed: set[str] = set()

    @initialize()
    def begin(self) -> None:
        with self.app.app_context():
            users.set_roles(load_actor("charlie").user_id, ["sales"], by=SYSTEM, now=clock.now())
        self.roles["charlie"] = {"sales"}
        self.alice = BrowserClient.for_user(self.app, "alice")

    # ---- what the model says

    def here(self, sent: Sent) -> set[str]:
        return self.members(sent) & sent.targeted

    def members(self, sent: Sent) -> set[str]:
        return {name for name, roles in self.roles.items() if name not in self.closed and sent.includes(name, roles)}

    def see_who_is_targeted(self) -> None:
        for sent in self.sent.values():
            if sent.is_live:
                sent.targeted |= self.members(sent)

    def some(self, number: int, *, live: bool = True) -> int | None:
        ids = [id for id, sent in self.sent.items() if sent.is_live or not live]
        return ids[number % len(ids)] if ids else None

    # ---- acts

    @rule(audience=st.sampled_from(AUDIENCES), asks_ack=st.booleans())
    def publish(self, audience: str, asks_ack: bool) -> None:
        named = frozenset(sorted(set(self.roles) - self.closed)[:2])
        due = (
            {"requiresAck": True, "ackDueAt": clock.to_rfc3339(clock.now() + timedelta(minutes=1))} if asks_ack else {}
        )
        raw = {
            "all": build_message(**due),
            "ops": build_role_message("ops", **due),
            "sales": build_role_message("sales", **due),
            "both": build_role_message("ops", "sales", targetMatch="ALL", **due),
            "all but sales": build_message(exceptRoles=["sales"], **due),
            "named": build_user_message(*named, **due),
        }[audience]
        new = Sent(audience, asks_ack, 0, set(), named)
        reached = self.members(new)
        if not reached or len(self.sent) > 2:
            return
        new.sent_to, new.targeted = len(reached), reached
        with self.app.app_context():
            self.sent[publish_message(load_actor("alice"), raw)] = new

    @rule(number=st.integers(0, 9))
    def recall(self, number: int) -> None:
        if id := self.some(number):
            with self.app.app_context():
                sending.cancel(id, reason="A mistake", by=load_actor("alice"), now=clock.now())
            self.sent[id].is_live = False

    @rule(number=st.integers(0, 9), again=st.sampled_from(["correction", "shown again", "acknowledge again"]))
    def edit(self, number: int, again: str) -> None:
        id = self.some(number)
        if not id or again == "acknowledge again" and not self.sent[id].asks_ack:
            return
        sent = self.sent[id]
        wishes = {"notify_again": again == "shown again", "acknowledge_again": again == "acknowledge again"}
        with self.app.app_context():
            text = {"content": f"Revision {sent.revision + 1}"}
            edits.edit(id, text, version=None, by=load_actor("alice"), now=clock.now(), **wishes)
        sent.revision += 1
        if again != "correction":
            sent.opened.clear()
        if again == "acknowledge again":
            sent.ack_revision = sent.revision

    @rule(
        number=st.integers(0, 9),
        who=st.integers(0, 9),
        act=st.sampled_from(["deliver", "see", "read", "acknowledge", "archive"]),
    )
    def receive(self, number: int, who: int, act: str) -> None:
        id, name = self.some(number), sorted(self.roles)[who % len(self.roles)]
        if not id or name in self.closed:
            return
        sent = self.sent[id]
        with self.app.app_context():
            try:
                self._receive(id, load_actor(name), act)
            except (NotFound, Conflict):
                assert name not in self.here(sent) or not sent.asks_ack or act == "archive"
                return
        if name in self.here(sent):
            self._note(sent, name, act)

    def _receive(self, id: int, by, act: str) -> None:
        now = clock.now()
        match act:
            case "deliver" | "see":
                mark = "delivered_at" if act == "deliver" else "first_seen_at"
                if audiences.get_audience(broadcasts.get(id)).includes(by.viewer):
                    RECEIPT_BUFFER.of(self.app).add(id, [by.user_id], mark=mark)
                    RECEIPT_BUFFER.of(self.app).flush(now)
            case "read":
                receipts.mark_read([id], by=by, now=now)
            case "acknowledge":
                receipts.acknowledge([id], by=by, now=now)
            case "archive":
                receipts.archive([id], by=by, now=now)

    def _note(self, sent: Sent, name: str, act: str) -> None:
        sent.delivered.add(name)
        if act in ("see", "read", "acknowledge"):
            sent.seen.add(name)
        if act in ("read", "acknowledge"):
            sent.opened.add(name)
        if act == "acknowledge" and name not in sent.acknowledged:
            sent.given[name] = sent.revision

    @rule(who=st.integers(0, 9))
    def read_all(self, who: int) -> None:
        name = sorted(self.roles)[who % len(self.roles)]
        if name in self.closed:
            return
        with self.app.app_context():
            done = receipts.mark_all_read(
                InboxFilters(), through=log.get_head().seq, by=load_actor(name), now=clock.now()
            )
        for id in done.ids:
            self._note(self.sent[id], name, "read")

    @rule(number=st.integers(0, 9))
    def remind(self, number: int) -> None:
        if not (id := self.some(number)):
            return
        sent = self.sent[id]
        missing = self.here(sent) - sent.done
        with self.app.app_context():
            with write_transaction() as session:
                session.get(Broadcast, id).reminded_at = None
            try:
                assert reminders.remind(id, by=load_actor("alice"), now=clock.now()) == len(missing) > 0
            except Conflict:
                assert not missing

    @rule(name=st.sampled_from(["bob", "charlie", "dora"]), roles=st.sets(st.sampled_from(ROLES)))
    def change_roles(self, name: str, roles: set[str]) -> None:
        with self.app.app_context():
            if name not in self.roles:
                users.create_user(name, None, roles=roles, by=SYSTEM, now=clock.now())
            else:
                users.set_roles(load_actor(name).user_id, roles, by=SYSTEM, now=clock.now())
        self.roles[name] = set(roles)
        self.see_who_is_targeted()

    @rule(name=st.sampled_from(["bob", "charlie", "dora"]))
    def close_or_open(self, name: str) -> None:
        if name not in self.roles:
            return
        act = users.enable_user if name in self.closed else users.disable_user
        with self.app.app_context():
            act(load_actor(name).user_id, by=SYSTEM, now=clock.now())
        self.closed ^= {name}
        self.see_who_is_targeted()

    # ---- what holds after each

    @invariant()
    def everything_adds_up(self) -> None:
        if not self.sent:
            return
        listed = {
            row["id"]: row for row in csv.DictReader(StringIO(self._text("/console/broadcasts.csv").lstrip("\ufeff")))
        }
        for id, sent in self.sent.items():
            self._totals_are_the_model(id, sent)
            self._rows_are_the_model(id, sent)
            self._roles_are_the_model(id, sent)
            row = listed[str(id)]
            assert (row["reach"], row["read"]) == (str(len(sent.targeted)), str(len(sent.read)))
            assert row["no longer here"] == str(len(sent.targeted - self.here(sent)))
        self._overview_is_the_model()

    def _text(self, path: str) -> str:
        response = self.alice.get(path)
        assert response.status_code == 200, path
        return response.get_data(as_text=True)

    def _totals_are_the_model(self, id: int, sent: Sent) -> None:
        told, here = self.alice.get(f"/api/admin/broadcasts/{id}/stats").json, self.here(sent)
        expected = {"targeted": len(sent.targeted), "sentTo": sent.sent_to, "wouldReach": None}
        expected |= {step: len(getattr(sent, step)) for step in STEPS}
        expected |= {"missing": len(here - sent.done), "noLongerHere": len(sent.targeted - here)}
        assert {name: told[name] for name in expected} == expected
        assert told["targeted"] == len(here & sent.done) + told["missing"] + told["noLongerHere"]
        page = self._text(f"/console/broadcasts/{id}/figures")
        shown = dict(re.findall(r'>([A-Z][a-z ]+) <span class="count">([\d,]+)</span></a>', page))
        done = "Acknowledged" if sent.asks_ack else "Read"
        assert shown[done] == str(len(here & sent.done))
        assert shown["No longer recipients"] == str(told["noLongerHere"])
        assert ("Complete" in page) == (sent.asks_ack and bool(here) and not here - sent.done)

    def _rows_are_the_model(self, id: int, sent: Sent) -> None:
        here = self.here(sent)
        rows = list(csv.DictReader(StringIO(self._text(f"/console/broadcasts/{id}/figures.csv").lstrip("\ufeff"))))
        rows = [row for row in rows if row["username"]]
        assert sorted(row["username"] for row in rows) == sorted(sent.targeted)
        for step in STEPS:
            assert {row["username"] for row in rows if row[f"{step} at"]} == getattr(sent, step), step
        assert {row["username"] for row in rows if row["no longer here"]} == sent.targeted - here
        revisions = {row["username"]: int(row["acknowledged revision"]) for row in rows if row["acknowledged revision"]}
        assert revisions == {name: sent.given[name] for name in sent.acknowledged}
        items = self.alice.get(f"/api/admin/broadcasts/{id}/deliveries?limit=200").json["items"]
        assert [item["username"] for item in items] == [row["username"] for row in rows]
        assert {item["username"] for item in items if item["noLongerHere"]} == sent.targeted - here
        with self.app.app_context():
            broadcast = broadcasts.get(id)
            missing = {one.username for one in broadcast_stats.list_missing(broadcast, limit=99)}
            assert missing == here - sent.done
            for only, names in (("done", here & sent.done), ("gone", sent.targeted - here)):
                assert {
                    one.username for one in broadcast_stats.list_recipient_progress(broadcast, limit=99, subset=only)
                } == names

    def _roles_are_the_model(self, id: int, sent: Sent) -> None:
        here = self.here(sent)
        groups = {role: {n for n in here if role in self.roles[n]} for role in ("admin", *ROLES)}
        groups[broadcast_stats.NO_ROLE] = {name for name in here if not self.roles[name]}
        groups[broadcast_stats.NO_LONGER_HERE] = sent.targeted - here
        with self.app.app_context():
            broadcast = broadcasts.get(id)
            found = broadcast_stats.count_by_role(broadcast, broadcast_totals.count_totals([broadcast])[id])
            by_revision = broadcast_stats.count_by_revision(broadcast)
        expected = {
            name: (len(names), *(len(names & getattr(sent, step)) for step in ("delivered", "read", "acknowledged")))
            for name, names in groups.items()
            if names
        }
        assert {row.name: (row.people, row.delivered, row.read, row.acknowledged) for row in found} == expected
        assert sum(one.people for one in by_revision if one.stands) == len(sent.acknowledged)

    def _overview_is_the_model(self) -> None:
        with self.app.app_context():
            overdue = broadcasts.list_overdue(clock.now() + timedelta(minutes=2), limit=9)
            found = broadcast_totals.count_totals(overdue)
            assert {row.id: found[row.id].missing for row in overdue} == {
                id: len(self.here(sent) - sent.done) for id, sent in self.sent.items() if sent.is_live and sent.asks_ack
            }


@pytest.mark.timeout(300)
def test_figures_add_up_whatever_happened(request: pytest.FixtureRequest):
    # no shrinking: a history of a few steps is short enough to read
    run_state_machine(Histories, request, max_examples=8, stateful_step_count=18, phases=[Phase.generate])
