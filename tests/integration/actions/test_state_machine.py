"""Random actions compared with a trivially correct model: who must see what, and what of it is read.

After each action every list is compared. A client with an old cursor must converge, by replay or RESET.
"""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, consumes, initialize, invariant, rule

from broadcast.actions import broadcasts, receipts, users
from broadcast.base.errors import NotFound
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.store import log
from broadcast.store.inbox import InboxFilters
from tests.conftest import deliver_new_events
from tests.support.app_state_machine import AppStateMachine, run_state_machine
from tests.support.builders import (
    build_message,
    build_role_message,
    build_user_message,
    expire_broadcast,
    load_actor,
    publish_message,
)
from tests.support.stream_reader import StreamReader
from tests.support.users import BrowserClient

NAMES = ("alice", "bob", "charlie")
ROLES = ("ops", "sales")
people_named = st.sampled_from(NAMES)


class People(AppStateMachine):
    """`live` maps each live broadcast to whom it is for; `roles` and `read` are what the model knows of people."""

    sent = Bundle("sent")
    changed_settings: dict[str, Any] = {"replay_events": 5}

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, Callable[[str], bool]] = {}
        self.roles: dict[str, set[str]] = {"alice": {"admin"}, "bob": {"ops"}, "charlie": set()}
        self.read: set[tuple[str, int]] = set()
        self.shown: dict[str, tuple[str, set[int]]] = {}

    @initialize()
    def begin(self) -> None:
        with self.app.app_context():
            publish_message(
                load_actor("alice"), build_user_message("alice")
            )  # so that every role exists before it is meant
            for role in ROLES:
                users.set_roles(load_actor("charlie").user_id, [role], by=SYSTEM, now=clock.now())
            users.set_roles(load_actor("charlie").user_id, [], by=SYSTEM, now=clock.now())
        self.clients = {name: BrowserClient.for_user(self.app, name) for name in NAMES}
        self.live[1] = lambda name: name == "alice"
        for name in NAMES:
            self.load(name)

    def load(self, name: str) -> list[int]:
        listed = self.clients[name].get("/api/user/messages?view=all&limit=200").json
        ids = [item["id"] for item in listed["items"]]
        self.shown[name] = listed["cursor"], set(ids)
        return ids

    def meant_for(self, name: str) -> set[int]:
        return {id for id, is_for in self.live.items() if is_for(name)}

    # ---- acts

    @rule(target=sent, audience=st.sampled_from(["all", *ROLES]) | st.sets(people_named, min_size=1))
    def publish(self, audience: str | set[str]) -> int:
        if isinstance(audience, set):
            return self._publish(build_user_message(*sorted(audience)), lambda name: name in audience)
        if audience == "all":
            return self._publish(build_message(), lambda name: True)
        if not any(audience in roles for roles in self.roles.values()):
            audience = "admin"  # a role that nobody has is refused
        return self._publish(build_role_message(audience), lambda name: audience in self.roles[name])

    def _publish(self, raw: dict, is_for: Callable[[str], bool]) -> int:
        with self.app.app_context():
            id = publish_message(load_actor("alice"), raw)
        self.live[id] = is_for
        return id

    @rule(id=consumes(sent))
    def recall(self, id: int) -> None:
        with self.app.app_context():
            broadcasts.cancel(id, reason="A mistake", by=load_actor("alice"), now=clock.now())
        del self.live[id]

    @rule(id=consumes(sent))
    def expire(self, id: int) -> None:
        with self.app.app_context():
            expire_broadcast(id, now=clock.now())
        del self.live[id]

    @rule(name=st.sampled_from(["bob", "charlie"]), roles=st.sets(st.sampled_from(ROLES)))
    def change_roles(self, name: str, roles: set[str]) -> None:
        with self.app.app_context():
            users.set_roles(load_actor(name).user_id, roles, by=SYSTEM, now=clock.now())
        self.roles[name] = set(roles)

    @rule(name=people_named, id=sent)
    def read_one(self, name: str, id: int) -> None:
        """What is not addressed to the reader is not found, and leaves no trace."""
        with self.app.app_context():
            if id in self.meant_for(name):
                receipts.mark_read([id], by=load_actor(name), now=clock.now())
                self.read.add((name, id))
            else:
                with pytest.raises(NotFound):
                    receipts.mark_read([id], by=load_actor(name), now=clock.now())

    @rule(name=people_named)
    def read_all(self, name: str) -> None:
        with self.app.app_context():
            unread = receipts.mark_all_read(
                InboxFilters(), through=log.get_head().seq, by=load_actor(name), now=clock.now()
            ).ids
        if unread:  # a watermark: what the person gets to see only by a later role was sent before it all the same
            self.read |= {(name, id) for id in self.live}

    @rule(name=people_named)
    def come_back(self, name: str) -> None:
        """With the cursor of the last visit: replay or RESET, and then the same as a reload."""
        deliver_new_events(self.app)
        cursor, shown = self.shown[name]
        reader = StreamReader(self.clients[name].http, f"/api/sse/connect?after={cursor}")
        frames = reader.read_until("CONNECTED")
        reader.close()
        for frame in frames:
            if frame.event == "MESSAGE":
                assert frame.data["id"] in self.meant_for(name)
                shown.add(frame.data["id"])
            elif frame.event == "MESSAGE_REMOVED":
                shown.discard(frame.data["id"])
        if frames[0].event == "RESET":
            self.load(name)
        else:
            assert shown == self.meant_for(name)
            self.shown[name] = frames[-1].data["cursor"], shown

    # ---- what holds after each

    @invariant()
    def lists_are_the_model(self) -> None:
        if not self.live:
            return
        for name in NAMES:
            listed = self.clients[name].get("/api/user/messages?view=all&limit=200").json
            ids = [item["id"] for item in listed["items"]]
            assert ids == sorted(self.meant_for(name), reverse=True)
            is_read = {item["id"] for item in listed["items"] if item["read"]}
            assert is_read == {id for id in ids if (name, id) in self.read}
            assert listed["unread"] == len(ids) - len(is_read)


def test_everybody_sees_what_the_model_says(request: pytest.FixtureRequest):
    run_state_machine(People, request, max_examples=12, stateful_step_count=25)
