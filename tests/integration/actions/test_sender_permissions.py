"""Sending checks the permissions of the sender, not of the author."""

from datetime import timedelta

import pytest

from broadcast.actions import broadcasts as actions
from broadcast.actions import edits, users
from broadcast.base.errors import Forbidden
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM, Actor
from broadcast.domain.permissions import get_role_permissions
from broadcast.store import broadcasts
from tests.support.builders import build_user_message, publish_message

NOW = clock.now()
LATER = clock.to_rfc3339(NOW + timedelta(hours=1))


@pytest.fixture
def author(cast) -> Actor:
    """Dora, who may write and send, and has no say about people."""
    user_id = users.create_user("dora", None, roles=["author"], by=SYSTEM, now=NOW)
    return Actor(user_id, "Dora", frozenset({"author"}), permissions=get_role_permissions(["author"]))


@pytest.fixture
def plan(cast) -> int:
    """Alice's plan that signs Bob out."""
    return publish_message(cast["alice"], build_user_message("bob", scheduledAt=LATER, closeSessions=True))


@pytest.mark.parametrize(
    "act",
    [
        lambda id, by: actions.release(id, by=by, now=NOW),
        lambda id, by: edits.send_delayed(id, by=by, now=NOW, until=NOW + timedelta(seconds=10)),
        lambda id, by: edits.edit(id, {"title": "Changed"}, version=None, by=by, now=NOW),
        lambda id, by: edits.edit(id, {"scheduledAt": clock.to_rfc3339(NOW)}, version=None, by=by, now=NOW),
    ],
    ids=["release", "hold", "edit", "reschedule"],
)
def test_plan_that_signs_people_out_is_not_moved_by_who_may_not_do_that(author, plan, act):
    before = broadcasts.get(plan).version
    with pytest.raises(Forbidden):
        act(plan, author)
    assert broadcasts.get(plan).version == before


def test_who_may_write_can_still_stop_it_and_not_send_the_draft_it_becomes(author, plan):
    edits.withdraw_broadcast(plan, by=author, now=NOW)
    assert broadcasts.get(plan).status == "DRAFT"
    with pytest.raises(Forbidden):
        actions.release(plan, by=author, now=NOW)
