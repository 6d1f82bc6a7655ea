"""Pages offer only what is allowed: every link, form and section of every console page, for each role."""

import re
from collections.abc import Iterator
from datetime import timedelta
from html import unescape
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import pytest
from flask import Flask
from werkzeug.exceptions import HTTPException

from broadcast.actions import broadcasts, invitations, library, tokens, users, webhooks
from broadcast.channels.webhooks import run_planning
from broadcast.domain import clock, permissions
from broadcast.domain.actor import SYSTEM
from broadcast.domain.permissions import CONSOLE_ROLES, Permission
from broadcast.store.models import Delivery
from broadcast.store.transactions import write_transaction
from tests.support.builders import (
    build_message,
    build_role_message,
    build_user_message,
    expire_broadcast,
    load_actor,
    publish_message,
)
from tests.support.users import BrowserClient

_ADDRESSES = {"href", "action", "formaction", "hx-get", "hx-post", "data-names"}


class _Offers(HTMLParser):
    """The requests that a page can make by itself or by a press: (method, address)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[tuple[str, str]] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        for name in given.keys() & _ADDRESSES:
            is_post = name == "hx-post" or name == "data-names"
            is_post = is_post or (tag == "form" and given.get("method", "get").lower() == "post")
            self.found.add(("POST" if is_post else "GET", unescape(given[name])))


@pytest.fixture
def filled(app, client) -> None:
    """Something of everything that a page of the console can be about."""
    client()
    now = clock.now()
    with app.app_context():
        alice = load_actor("alice")
        soon = clock.to_rfc3339(now + timedelta(hours=1))
        webhooks.create_endpoint("https://example.com/", ["broadcast.published"], by=alice, now=now)
        publish_message(
            alice, build_role_message("ops", requiresAck=True, ackDueAt=clock.to_rfc3339(now + timedelta(seconds=2)))
        )
        publish_message(alice, build_message(priority="URGENT"))
        publish_message(alice, build_message(draft=True))
        publish_message(alice, build_user_message("bob", scheduledAt=soon))
        recalled, ended = publish_message(alice), publish_message(alice)
        broadcasts.cancel(recalled, reason="Wrong", by=alice, now=now)
        expire_broadcast(ended, now=now)
        run_planning(now=now)
        with write_transaction() as session:
            values = {
                "channel": "email",
                "revision": 1,
                "message_id": "1",
                "state": "SENT",
                "due_at": now,
                "attempts": 1,
            }
            session.add(Delivery(broadcast_id=ended, user_id=alice.user_id, created_at=now, ended_at=now, **values))
        fields = {"name": "T", "title": "{{ place }}", "content": "x", "priority": "LOW", "category": ""}
        library.save_template(None, fields, by=alice, now=now)
        invitations.invite_users([load_actor("charlie").user_id], valid_for=timedelta(days=1), by=alice, now=now)
        tokens.create_token(alice.user_id, scopes=["inbox"], label="x", by=SYSTEM, now=now)


def walk(app: Flask, reader: BrowserClient) -> Iterator[tuple[str, str, str]]:
    """(page, method, address) of everything offered on any page of the console that the reader can come to."""
    waiting, seen = ["/console/", "/inbox"], set()
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        response = reader.get(page)
        if response.status_code >= 400:
            yield page, "GET", f"{page} answered {response.status_code}"
            continue
        if response.mimetype != "text/html":
            continue
        offers = _Offers()
        offers.feed(response.get_data(as_text=True))
        for method, address in sorted(offers.found):
            target = urlsplit(urljoin(f"http://localhost{page}", address))
            if target.netloc != "localhost" or target.scheme != "http":
                continue
            yield page, method, target.path
            is_new = not re.search(r"[?&](sort|priority|category|author|size|filter|part)=", f"?{target.query}")
            if method == "GET" and target.path.startswith("/console/") and is_new:
                waiting.append(target.path + (f"?{target.query}" if "after=" in target.query else ""))


@pytest.fixture(params=["filled", "empty"])
def console(request) -> None:
    if request.param == "filled":
        request.getfixturevalue("filled")


@pytest.mark.parametrize("role", CONSOLE_ROLES)
@pytest.mark.usefixtures("console")
def test_nothing_is_offered_that_the_reader_may_not_do(app, client, role):
    client()  # the cast exists
    with app.app_context():
        users.set_roles(load_actor("bob").user_id, [role], by=SYSTEM, now=clock.now())
    may, routes = permissions.get_role_permissions([role]), app.url_map.bind("localhost")
    refused, pages = set(), set()
    for page, method, path in walk(app, client("bob")):
        pages.add(page)
        try:
            endpoint, _ = routes.match(path, method=method)
        except HTTPException as problem:
            refused.add((page, method, path, f"leads nowhere: {problem}"))
            continue
        rule = getattr(app.view_functions[endpoint], "rule", None)
        if isinstance(rule, Permission) and rule not in may:
            refused.add((page, method, path, f"needs {rule}"))
    assert sorted(refused) == []
    assert len(pages) > 3


@pytest.mark.usefixtures("filled")
def test_walk_comes_to_every_page_that_an_administrator_may_open(app, client):
    """Or the test above would look away."""
    routes = app.url_map.bind("localhost")
    met = {routes.match(path, method=method)[0] for _, method, path in walk(app, client("alice"))}
    pages = {
        rule.endpoint
        for rule in app.url_map.iter_rules()
        if "GET" in rule.methods and isinstance(getattr(app.view_functions[rule.endpoint], "rule", None), Permission)
    }
    pages = {name for name in pages if not name.startswith(("api", "dlt", "figures.deliveries", "events"))}
    assert pages - met <= {
        "console.dead_letters.detail", "console.rules.detail", "console.parts.search_users", "figures.stats", "stream.stats",
        "console.one.stats", "figures.missing", "figures.acknowledged_revisions", "figures.acknowledged_text",
        "console.one.revision", "console.library.audience",
    }  # fmt: skip
