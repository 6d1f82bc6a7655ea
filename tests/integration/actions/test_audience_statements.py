"""How often a send resolves and counts its audience: once, however it is sent."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import event

from broadcast.actions import broadcasts as actions
from broadcast.actions import edits
from broadcast.domain import clock
from broadcast.domain.confirmation import ConfirmationInput
from broadcast.domain.message import parse_draft
from broadcast.store import broadcasts
from broadcast.store.database import db
from tests.support.builders import build_role_message

NOW = clock.now()
WINDOW = timedelta(seconds=10)
_COUNT = re.compile(r"SELECT (\(SELECT )?count\(")
_RESOLVE = re.compile(r"SELECT roles\.name\s+FROM roles")


@contextmanager
def audience_statements() -> Iterator[list[str]]:
    """The statements that resolve role names ("resolve") or count recipients ("count"), in order."""
    noted: list[str] = []

    def note(_connection, _cursor, statement: str, *_rest) -> None:
        noted.extend(name for name, kind in (("resolve", _RESOLVE), ("count", _COUNT)) if kind.match(statement))

    event.listen(db.engine, "before_cursor_execute", note)
    try:
        yield noted
    finally:
        event.remove(db.engine, "before_cursor_execute", note)


@pytest.fixture
def by(cast):
    """Alice in a session, who is asked to confirm what reaches many."""
    return replace(cast["alice"], signed_in_at=NOW)


@pytest.fixture
def draft(cast):
    return parse_draft(build_role_message("ops", "admin"), now=NOW)


def test_send_at_once(by, draft):
    with audience_statements() as noted:
        sent = actions.publish(draft, by=by, now=NOW, confirmed=ConfirmationInput())
    assert noted == ["resolve", "count"]
    assert broadcasts.get(sent.id).audience_count == 2


def test_send_with_time_to_undo_counts_before_the_window_and_not_again(by, draft):
    with audience_statements() as noted:
        held = actions.publish(draft, by=by, now=NOW, undo_seconds=WINDOW.seconds, confirmed=ConfirmationInput())
        actions.release_due([held.id], now=NOW + WINDOW)
    assert noted == ["resolve", "count"]
    row = broadcasts.get(held.id)
    assert (row.status, row.audience_count) == ("ACTIVE", 2)


def test_send_of_a_draft(by, draft):
    saved = edits.save_draft({}, draft, broadcast_id=None, version=None, by=by, now=NOW)
    with audience_statements() as noted:
        actions.publish(
            draft, broadcast_id=saved.id, version=saved.version, by=by, now=NOW, confirmed=ConfirmationInput()
        )
    assert noted == ["resolve", "count"]


@pytest.mark.parametrize("is_delayed", [False, True])
def test_send_of_a_stored_broadcast(by, draft, is_delayed):
    stored = actions.publish(replace(draft, keep_as_draft=True), by=by, now=NOW)
    with audience_statements() as noted:
        if is_delayed:
            edits.send_delayed(stored.id, by=by, now=NOW, until=NOW + WINDOW, confirmed=ConfirmationInput())
            actions.release_due([stored.id], now=NOW + WINDOW)
        else:
            actions.release(stored.id, by=by, now=NOW, confirmed=ConfirmationInput())
    assert noted == ["count"]
    assert broadcasts.get(stored.id).is_live


def test_edit_of_a_scheduled_broadcast(by, draft):
    later = NOW + timedelta(hours=1)
    planned = actions.publish(replace(draft, scheduled_at=later), by=by, now=NOW, confirmed=ConfirmationInput())
    with audience_statements() as noted:
        edits.edit(planned.id, {"title": "Changed"}, version=None, by=by, now=NOW, confirmed=ConfirmationInput())
    assert noted == ["resolve", "count"]


def test_scheduled_broadcast_is_counted_again_when_it_goes_out(by, draft):
    later = NOW + timedelta(hours=1)
    planned = actions.publish(replace(draft, scheduled_at=later), by=by, now=NOW, confirmed=ConfirmationInput())
    with audience_statements() as noted:
        actions.release_due([planned.id], now=later)
    assert noted == ["count"]
