"""Ladders in random histories of publishing, showing again, recalling, seeing, reading, acknowledging, kills and time: who
should have had a step has it once, and nobody else.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple
from unittest import mock

import pytest
import sqlalchemy
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule
from sqlalchemy import true

from broadcast.actions import broadcasts, edits
from broadcast.actions import receipts as receipt_actions
from broadcast.channels import escalation
from broadcast.channels.registry import CHANNELS
from broadcast.domain import clock
from broadcast.domain.lifecycle import Status
from broadcast.store import escalation as stored_escalation
from broadcast.store import receipts
from broadcast.store.database import db
from broadcast.store.models import Broadcast, Delivery, EscalationStep
from broadcast.store.transactions import write_transaction
from tests.support.app_state_machine import AppStateMachine, run_state_machine
from tests.support.builders import build_message, load_actor, publish_message
from tests.support.escalation import by_channel, set_policy

NAMES = ("alice", "bob", "charlie")
STEPS = (by_channel(1, "a"), by_channel(2, "b", "READ"), by_channel(4, "a", "ACKNOWLEDGED"))
one_of_them = st.sampled_from(NAMES)


class _Killed(BaseException):
    """The worker is killed."""


class _Channel:
    def __init__(self, name: str):
        self.name = self.label = name

    def has_address(self):
        return true()

    def is_wanted(self, preferences, **message) -> bool:
        return True


class _Expected(NamedTuple):
    """Who must have had a step: whoever it awaited each time it was tried. Who may: whoever it awaited at one of them."""

    must: frozenset[int]
    may: frozenset[int]


class Ladders(AppStateMachine):
    @initialize()
    def begin(self) -> None:
        self.now, self.expected = clock.now(), {}
        self.reached: dict[tuple[int, int], set[str]] = {}
        CHANNELS.attach(self.app, {name: _Channel(name) for name in "ab"})
        with self.app.app_context():
            set_policy("URGENT", *STEPS)
            self.people = {name: load_actor(name) for name in NAMES}
        self.publish(requires_ack=False, is_for_ops=False)

    @contextmanager
    def live_broadcast(self, number: int) -> Iterator[Broadcast]:
        """One of the live broadcasts, if there is one, a moment later."""
        self.now += timedelta(milliseconds=10)
        with self.app.app_context():
            rows = list(db.session.scalars(sqlalchemy.select(Broadcast).where(Broadcast.status == Status.ACTIVE)))
            yield rows[number % len(rows)] if rows else None

    @rule(requires_ack=st.booleans(), is_for_ops=st.booleans())
    def publish(self, requires_ack: bool, is_for_ops: bool) -> None:
        audience = {"targetType": "ROLE", "targetIds": ["ops"]} if is_for_ops else {}
        message = build_message(priority="URGENT", requiresAck=requires_ack, **audience)
        with self.app.app_context():
            publish_message(self.people["alice"], message, now=self.now)

    @rule(number=st.integers(0, 9), name=one_of_them, did=st.sampled_from(["seen", "read", "acknowledged"]))
    def respond(self, number: int, name: str, did: str) -> None:
        with self.live_broadcast(number) as broadcast:
            is_member = broadcast and (broadcast.audience_kind == "everyone" or name == "bob")
            if not is_member or (did == "acknowledged" and not broadcast.requires_ack):
                return
            actor, key = self.people[name], (broadcast.id, self.people[name].user_id)
            if did == "seen":
                with write_transaction() as session:
                    receipts.set_timestamp(session, [key], "first_seen_at", at=self.now)
            elif did == "read":
                receipt_actions.mark_read([broadcast.id], by=actor, now=self.now)
            else:
                receipt_actions.acknowledge([broadcast.id], by=actor, now=self.now)
            self.reached.setdefault(key, set()).add(did)

    @rule(number=st.integers(0, 9))
    def show_again(self, number: int) -> None:
        with self.live_broadcast(number) as broadcast:
            if broadcast is not None:
                changes = {"content": f"At {self.now}"}
                by = self.people["alice"]
                edits.edit(broadcast.id, changes, version=None, by=by, now=self.now, notify_again=True)
                for (broadcast_id, _), did in self.reached.items():
                    if broadcast_id == broadcast.id:
                        did -= {"seen", "read"}

    @rule(number=st.integers(0, 9))
    def recall(self, number: int) -> None:
        with self.live_broadcast(number) as broadcast:
            if broadcast is not None:
                broadcasts.cancel(broadcast.id, reason="Wrong", by=self.people["alice"], now=self.now)

    @rule(seconds=st.sampled_from([1, 65, 130]))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(kill_at=st.none() | st.integers(1, 4), is_committed=st.booleans())
    def run_worker(self, kill_at: int | None, is_committed: bool) -> None:
        """A worker takes the due steps, one person in a transaction; it may be killed before or after a commit."""
        plan_batch, calls = stored_escalation.plan_batch, []

        def plan(*values, **named):
            state = plan_batch(*values, **named)
            calls.append(state)
            if len(calls) == kill_at and not is_committed:
                raise _Killed
            return state

        def pause(seconds: float) -> None:
            if len(calls) == kill_at:
                raise _Killed

        with self.app.app_context():
            with write_transaction() as session:
                stored_escalation.add_steps(session)
            self._expect_due()
            with (
                mock.patch.object(stored_escalation, "USERS_PER_BATCH", 1),
                mock.patch.object(stored_escalation, "plan_batch", plan),
                mock.patch.object(escalation.gevent, "sleep", pause),
            ):
                try:
                    escalation.run_once(now=self.now)
                except _Killed:
                    db.session.rollback()

    def _expect_due(self) -> None:
        is_due = (EscalationStep.planned_at.is_(None), EscalationStep.due_at <= self.now)
        for step in db.session.scalars(sqlalchemy.select(EscalationStep).where(*is_due)):
            awaited = frozenset(self._list_awaited(db.session.get(Broadcast, step.broadcast_id), step))
            earlier = self.expected.get(step.id, _Expected(awaited, frozenset()))
            self.expected[step.id] = _Expected(earlier.must & awaited, earlier.may | awaited)

    def _list_awaited(self, broadcast: Broadcast, step: EscalationStep) -> Iterator[int]:
        """Who is in the audience and has not done what the step awaits, by the rules in docs/channels.md."""
        if broadcast.status != Status.ACTIVE or (broadcast.renewed_at or step.started_at) > step.started_at:
            return
        enough = {"SEEN": {"seen", "read", "acknowledged"}, "READ": {"read", "acknowledged"}}
        enough["ACKNOWLEDGED"] = {"acknowledged"} if broadcast.requires_ack else enough["READ"]
        for name, actor in self.people.items():
            is_member = broadcast.audience_kind == "everyone" or name == "bob"
            did = self.reached.get((broadcast.id, actor.user_id), set())
            if is_member and not did & self._sufficient(broadcast, enough[step.awaits]):
                yield actor.user_id

    def _sufficient(self, broadcast: Broadcast, enough: set[str]) -> set[str]:
        """Of one that was shown again the first view is known alone."""
        return enough - {"seen"} if broadcast.renewed_at else enough

    @invariant()
    def each_had_it_once_and_nobody_else(self) -> None:
        with self.app.app_context():
            planned = set(
                db.session.scalars(sqlalchemy.select(EscalationStep.id).where(EscalationStep.planned_at.is_not(None)))
            )
            had: dict[int, list[int]] = {}
            for step_id, user_id in db.session.execute(sqlalchemy.select(Delivery.step_id, Delivery.user_id)):
                had.setdefault(step_id, []).append(user_id)
        for step_id, user_ids in had.items():
            assert len(user_ids) == len(set(user_ids))
            assert set(user_ids) <= self.expected[step_id].may
        for step_id in planned:
            assert self.expected[step_id].must <= set(had.get(step_id, ()))


@pytest.mark.timeout(300)
def test_who_should_have_had_a_step_has_it_once_whatever_happens(request):
    run_state_machine(Ladders, request, max_examples=15, stateful_step_count=20)
