"""The page "Where it went" and its download."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy
from flask import Flask

from broadcast.actions import broadcasts
from broadcast.actions import receipts as receipt_actions
from broadcast.domain import clock
from broadcast.store import delivery_list
from broadcast.store.database import db
from broadcast.store.models import Broadcast, Delivery
from broadcast.store.transactions import write_transaction
from broadcast.web.console import deliveries
from tests.support.builders import build_message, load_actor, publish_message


@pytest.fixture
def add_delivery(app: Flask, client) -> Callable[..., None]:
    """Add what the outbox would: `add_delivery("bob", "email", "FAILED", reason="550")`."""
    client()

    def add(username: str, channel: str, state: str, **changes: Any) -> None:
        now = clock.now()
        values = {"revision": 1, "due_at": now, "attempts": 1, "created_at": now, "message_id": "1"}
        values |= {"ended_at": None if state == "WAITING" else now, "channel": channel, "state": state} | changes
        with app.app_context():
            user_id = load_actor(username).user_id
            with write_transaction() as session:
                session.add(Delivery(broadcast_id=1, user_id=user_id, **values))

    return add


@pytest.fixture
def broadcast_id(app: Flask, client) -> int:
    client()
    with app.app_context():
        return publish_message(load_actor("alice"), build_message(title="Lifts <b>stand</b>"))


def test_page_lists_by_person_and_channel_what_became_of_it(app, client, broadcast_id, add_delivery):
    add_delivery("bob", "email", "FAILED", reason="550 No <such> user")
    add_delivery("charlie", "email", "SENT")
    add_delivery("charlie", "email", "WAITING", revision=2)
    add_delivery("charlie", "digest", "CANCELLED", reason="They have seen it.")
    with app.app_context():
        receipt_actions.mark_read([broadcast_id], by=load_actor("charlie"), now=clock.now())
    page = client("alice").get(f"/console/broadcasts/{broadcast_id}/deliveries").text
    assert "Lifts &lt;b&gt;stand&lt;/b&gt;" in page
    assert "550 No &lt;such&gt; user" in page
    for words in ("Sent", "Waiting", "Failed", "No longer needed", "Digest", "They have seen it.", "Not seen", "Read"):
        assert words in page
    assert f'href="/console/broadcasts/{broadcast_id}/deliveries"' in client("alice").get(
        f"/console/broadcasts/{broadcast_id}"
    ).text.replace("?", '"')


def test_recall_shows_whom_it_reached(app, client, broadcast_id, add_delivery):
    add_delivery("bob", "email", "SENT")
    add_delivery("bob", "correction", "SENT")
    with app.app_context():
        broadcasts.cancel(broadcast_id, reason="Wrong", by=load_actor("alice"), now=clock.now())
    page = client("alice").get(f"/console/broadcasts/{broadcast_id}/deliveries").text
    assert "Correction by e-mail" in page
    assert "The recall has removed it from every inbox" in page


def test_filters_and_pages_hold_together(client, broadcast_id, add_delivery, monkeypatch):
    monkeypatch.setattr(deliveries, "PAGE_SIZE", 2)
    for name in ("alice", "bob", "charlie"):
        add_delivery(name, "email", "SENT")
        add_delivery(name, "digest", "FAILED")
    alice, path = client("alice"), f"/console/broadcasts/{broadcast_id}/deliveries?channel=email&state=SENT"
    first = alice.get(path).text
    assert "after=1-2-3" in first
    rest = alice.get(f"{path}&after=1-2-3", headers={"HX-Request": "true"}).text
    assert "<html" not in rest
    assert rest.count('<th scope="row">') == 1
    assert "charlie" in rest
    assert "Load more" not in rest
    assert "Nothing matches" in alice.get(path.replace("SENT", "WAITING")).text
    for odd in (
        "after=x",
        "after=1-2",
        "after=1-2-3-4",
        "after=99999999999999999999-1-1",
        "state=%00",
        "channel=nosuch",
    ):
        assert alice.get(f"/console/broadcasts/{broadcast_id}/deliveries?{odd}").status_code == 200


def test_download_has_all_rows_in_chunks_and_cells_that_are_no_formulas(
    client, broadcast_id, add_delivery, monkeypatch
):
    monkeypatch.setattr(deliveries, "_CHUNK_ROWS", 2)
    for name in ("alice", "bob", "charlie"):
        add_delivery(name, "email", "FAILED", reason="=HYPERLINK()")
    response = client("alice").get(f"/console/broadcasts/{broadcast_id}/deliveries.csv?state=FAILED")
    lines = response.text.splitlines()
    assert lines[0].startswith("user id,username,name,channel,revision,state,at,reason,attempts,seen at")
    assert [line.split(",")[1] for line in lines[1:4]] == ["alice", "bob", "charlie"]
    assert ",=HYPERLINK" not in response.text
    assert f"deliveries-{broadcast_id}" in response.headers["Content-Disposition"]
    none = client("alice").get(f"/console/broadcasts/{broadcast_id}/deliveries.csv?state=SENT").text
    assert "alice" not in none


def test_draft_and_nothing_have_no_such_page(app, client):
    client()
    with app.app_context():
        draft_id = publish_message(load_actor("alice"), build_message(draft=True))
    alice = client("alice")
    assert alice.get(f"/console/broadcasts/{draft_id}/deliveries").status_code == 404
    assert alice.get("/console/broadcasts/99999/deliveries").status_code == 404
    assert client("bob").get(f"/console/broadcasts/{draft_id}/deliveries").status_code == 403


def test_system_that_shows_totals_only_names_nobody(client, broadcast_id, monkeypatch):
    monkeypatch.setattr(deliveries.viewer_stats, "has_per_recipient_stats", lambda: False)
    for path in ("deliveries", "deliveries.csv"):
        assert client("alice").get(f"/console/broadcasts/{broadcast_id}/{path}").status_code == 403


def test_pages_of_a_large_audience_follow_the_index(app, client, broadcast_id):
    """SQLite sorts nothing for a page: it reads the index from where the page begins."""
    with app.app_context():
        if db.engine.dialect.name != "sqlite":
            pytest.skip("the plan of SQLite")
        statements: list[str] = []

        def record(connection, cursor, statement, *_: Any) -> None:
            statements.append(statement)

        sqlalchemy.event.listen(db.engine, "before_cursor_execute", record)
        position = delivery_list.Position(1, 1, 1)
        broadcast = db.session.get(Broadcast, broadcast_id)
        delivery_list.list_deliveries(broadcast, delivery_list.DeliveryFilters("email"), after=position, limit=50)
        statement = next(text for text in statements if "FROM deliveries" in text)
        plan = db.session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", (1,) * statement.count("?"))
        details = [row[3] for row in plan]
    assert any("deliveries USING INDEX" in detail and "revision" in detail for detail in details), details
    assert not any(detail == "USE TEMP B-TREE FOR ORDER BY" for detail in details), details
