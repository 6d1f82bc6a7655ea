"""The list of broadcasts: the URL determines what the page, the rows and the CSV show."""

import csv
import html
import io
import re

import pytest

from broadcast.actions import broadcasts as actions
from broadcast.domain import clock
from broadcast.store import broadcasts
from broadcast.store.broadcasts import BroadcastQuery
from tests.support.builders import build_message, build_role_message, load_actor, publish_message

URL = "/console/broadcasts"


@pytest.fixture
def several(app, client) -> dict[str, int]:
    """One broadcast in each state, by its title."""
    client()
    with app.app_context():
        by, later = load_actor("alice"), "2998-01-01T00:00:00Z"
        ids = {
            "draft": publish_message(by, build_message(title="draft", draft=True)),
            "planned": publish_message(
                by, build_role_message("ops", title="planned", scheduledAt=later, category="News")
            ),
            "live": publish_message(by, build_message(title="live", priority="HIGH")),
            "=SUM(A1)": publish_message(by, build_role_message("ops", title="=SUM(A1)", category="News")),
            "ended": publish_message(by, build_message(title="ended")),
            "archived": publish_message(by, build_message(title="archived")),
        }
        for name in ("ended", "archived"):
            actions.cancel(ids[name], reason="Wrong", by=by, now=clock.now())
        actions.archive(ids["archived"], by=by, now=clock.now())
    return ids


def titles(response) -> list[str]:
    text = html.unescape(response.get_data(as_text=True))
    return re.findall(r'<a href="/console/broadcasts/\d+">([^<]+)</a>', text)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["ended", "=SUM(A1)", "live", "planned", "draft"]),
        ("filter=draft", ["draft"]),
        ("filter=scheduled", ["planned"]),
        ("filter=active", ["=SUM(A1)", "live"]),
        ("filter=ended", ["ended"]),
        ("filter=archived", ["archived"]),
        ("category=News", ["=SUM(A1)", "planned"]),
        ("priority=HIGH", ["live"]),
        ("q=LIV", ["live"]),
        ("filter=active&category=News", ["=SUM(A1)"]),
        ("sort=oldest&size=50", ["draft", "planned", "live", "=SUM(A1)", "ended"]),
        ("sort=title", ["=SUM(A1)", "draft", "ended", "live", "planned"]),
        ("sort=reach", ["ended", "live", "draft", "=SUM(A1)", "planned"]),
        ("sort=start", ["planned", "ended", "=SUM(A1)", "live", "draft"]),
        ("page=2", []),
    ],
)
def test_list_shows_what_its_address_says(client, several, query, expected):
    alice = client("alice")
    assert titles(alice.get(f"{URL}?{query}")) == expected
    assert titles(alice.get(f"{URL}?{query}&part=rows")) == expected
    rows = list(csv.reader(io.StringIO(alice.get(f"{URL}.csv?{query}").get_data(as_text=True))))
    if query != "page=2":
        assert [row[1].lstrip("'") for row in rows[1:]] == expected


def test_spreadsheet_takes_nothing_for_a_formula(client, several):
    rows = list(csv.reader(io.StringIO(client("alice").get(f"{URL}.csv").get_data(as_text=True))))
    assert "'=SUM(A1)" in [row[1] for row in rows]


def test_tabs_count_what_they_show(app, client, several):
    with app.app_context():
        for tab in broadcasts.TABS:
            for more in ({}, {"category": "News"}, {"q": "live"}):
                look = BroadcastQuery(tab=tab, **more)
                assert broadcasts.count_by_tab(look)[tab] == len(broadcasts.list_matching(look))


def test_pages_go_on_without_gap(app, client):
    client()
    with app.app_context():
        ids = [publish_message(load_actor("alice")) for _ in range(45)]
        pages = [[b.id for b in broadcasts.list_matching(BroadcastQuery(number=n))] for n in (1, 2, 3)]
    assert [len(page) for page in pages] == [20, 20, 5]
    assert sum(pages, []) == ids[::-1]
    text = client("alice").get(f"{URL}?page=2").get_data(as_text=True)
    assert "Page 2 of 3" in text


@pytest.mark.parametrize(
    "query",
    [
        "page=0", "page=-1", "page=x", "page=" + "9" * 30, "size=7", "sort=x", "author=x", "author=" + "9" * 30,
        "priority=LOUD", "category=%00", "part=x", "q=%00%25_", "filter=x",
    ],
)  # fmt: skip
def test_list_takes_any_address(client, several, query):
    assert client("alice").get(f"{URL}?{query}").status_code == 200
    assert client("alice").get(f"{URL}.csv?{query}").status_code == 200


def test_several_are_recalled_and_what_was_refused_is_told(app, client, several):
    alice = client("alice")
    ids = [several[name] for name in ("live", "planned", "ended")]
    answer = alice.post(f"{URL}/several", {"act": "cancel", "reason": "Wrong", "ids": ids, "category": "News"})
    assert (answer.status_code, answer.location) == (303, f"{URL}?category=News")
    told = html.unescape(alice.get(answer.location).get_data(as_text=True))
    assert "2 recalled." in told
    assert "1 left as it was" in told
    with app.app_context():
        assert [broadcasts.get(n).status for n in ids] == ["CANCELLED"] * 3


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"act": "cancel", "ids": ["live"]}, "Give a reason"),
        ({"act": "archive", "ids": ["live", "ended"]}, "1 archived."),
        ({"act": "delete", "ids": ["draft", "live"]}, "1 deleted."),
        ({"act": "archive"}, "Select up to 100 broadcasts"),
        ({"act": "archive", "ids": ["nonsense"]}, "Select up to 100 broadcasts"),
    ],
)
def test_acts_on_several_say_what_they_did(app, client, several, form, words):
    alice = client("alice")
    form["ids"] = [several.get(name, name) for name in form.get("ids", [])]
    alice.post(f"{URL}/several", form)
    assert words in html.unescape(alice.get(URL).get_data(as_text=True))
    with app.app_context():
        assert broadcasts.get(several["live"]).status == "ACTIVE"
