"""The console's search treats words and accents as the inbox does; its lists and statistics name their filters."""

import html
import re
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from broadcast.actions import accounts, broadcasts, edits, tokens, users
from broadcast.actions import passwords as password_actions
from broadcast.domain import clock, email_address, message, outgoing_url, time_zones
from broadcast.domain.actor import SYSTEM
from broadcast.domain.escalation import MAX_MINUTES
from tests.support.builders import build_message, load_actor, publish_message

TEMPLATES = Path(__file__).resolve().parents[4] / "templates"
URL = "/console/broadcasts"


def titles(client, path: str) -> list[str]:
    page = html.unescape(client.get(path).get_data(as_text=True))
    return re.findall(r'class="row-title"[^>]*><a href="/console/broadcasts/\d+">([^<]*)</a>', page)


@pytest.fixture
def exercise(app, client):
    alice = client("alice")
    with app.app_context():
        publish_message(
            load_actor("alice"), build_message(title="Feuerwehrübung am Freitag", content="Treffpunkt: Straße 7")
        )
        publish_message(load_actor("alice"), build_message(title="Lunch", content="Crème brûlée, 100% sugar"))
    return alice


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("feuerwehrubung", "Feuerwehrübung am Freitag"), ("FREITAG feuer", "Feuerwehrübung am Freitag"),
        ("strasse treffpunkt", "Feuerwehrübung am Freitag"), ("creme brulee", "Lunch"), ("100%", "Lunch"),
        ("alice lunch", "Lunch"), ("nothing here", None),
    ],
)  # fmt: skip
def test_broadcasts_are_found_by_folded_words_everywhere(exercise, q, found):
    expected = [found] if found else []
    query = {"q": q}
    assert titles(exercise, f"{URL}?q={q.replace('%', '%25')}") == expected
    items = exercise.get("/api/admin/broadcasts", query_string=query).json["items"]
    assert [item["title"] for item in items] == expected
    file = exercise.get(f"{URL}.csv", query_string=query).get_data(as_text=True)
    assert [line for line in ("Feuerwehrübung", "Lunch") if line in file] == [title.split()[0] for title in expected]
    inbox = exercise.get("/api/user/messages", query_string=query).json["items"]
    assert [item["title"] for item in inbox] == expected


def test_audit_calls_accounts_users(client):
    page = client("alice").get("/console/audit?objectType=person").get_data(as_text=True)
    assert '<option value="person" selected>user</option>' in page


def test_audit_finds_people_by_folded_words(app, client):
    alice = client("alice")
    with app.app_context():
        now = clock.now()
        users.create_user("zoe", None, name="Zoë Müller-Ångström", roles=["admin"], by=SYSTEM, now=now)
        publish_message(load_actor("zoe"))
    for who in ("zoe", "muller", "angstrom zoe", "Müller"):
        page = alice.get("/console/audit", query_string={"who": who}).get_data(as_text=True)
        assert "broadcast.published" in page, who
    assert "broadcast.published" not in alice.get("/console/audit?who=nobody").get_data(as_text=True)


def test_next_due_is_first_on_the_overview_and_in_the_list(app, client):
    alice, now = client("alice"), clock.now()
    with app.app_context():
        for hours in (5, 1, 9, 3):
            at = clock.to_rfc3339(now + timedelta(hours=hours))
            publish_message(load_actor("alice"), build_message(title=f"In {hours}", scheduledAt=at))
    expected = ["In 1", "In 3", "In 5", "In 9"]
    assert titles(alice, "/console/") == expected
    assert titles(alice, f"{URL}?filter=scheduled&sort=due") == expected


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/Los_Angeles"])
def test_sent_today_counts_the_day_of_whoever_looks(app, client, zone):
    alice, now = client("alice"), clock.now()
    midnight = time_zones.get_start_of_day(now, ZoneInfo(zone))
    with app.app_context():
        by = load_actor("alice")
        accounts.save_preferences({"timeZone": zone}, by=by, now=now)
        publish_message(by, now=midnight - timedelta(seconds=1))
        publish_message(by, now=midnight)
        recalled = publish_message(by, now=now)
        broadcasts.cancel(recalled, reason="x", by=by, now=now)
        draft = message.parse_draft(build_message(), now=now)
        broadcasts.publish(draft, by=by, now=now, is_test=True)
        held = broadcasts.publish(draft, by=by, now=now, undo_seconds=60).id
        edits.withdraw_broadcast(held, by=by, now=now)
        broadcasts.publish(draft, by=by, now=now, undo_seconds=60)
    page = " ".join(html.unescape(alice.get("/console/").get_data(as_text=True)).split())
    assert f'<dd>2 <span class="hint">since 00:00 ({zone}), including recalled</span></dd>' in page


LIMITS = {
    ("console/broadcasts/_fields.html", "title"): message.MAX_TITLE_CHARACTERS,
    ("console/broadcasts/_fields.html", "category"): message.MAX_CATEGORY_CHARACTERS,
    ("console/broadcasts/_fields.html", "label{{ n }}"): message.MAX_LABEL_CHARACTERS,
    ("console/broadcasts/template.html", "category"): message.MAX_CATEGORY_CHARACTERS,
    ("console/broadcasts/template.html", "name"): 80,
    ("console/broadcasts/template.html", "title"): 400,
    ("console/broadcasts/compose.html", "audienceName"): 80,
    ("console/broadcasts/use.html", "var-{{ name }}"): 2000,
    ("console/broadcasts/list.html", "reason"): 500,
    ("console/broadcasts/detail.html", "reason"): 500,
    ("console/users/tokens.html", "label"): tokens.MAX_LABEL_CHARACTERS,
    ("console/users/new.html", "username"): 64,
    ("console/users/new.html", "name"): 200,
    ("console/users/new.html", "password"): password_actions.MAX_LENGTH,
    ("auth/invitation.html", "password"): password_actions.MAX_LENGTH,
    ("auth/invitation.html", "again"): password_actions.MAX_LENGTH,
    ("console/users/detail.html", "name"): 200,
    ("console/users/detail.html", "typedUsername"): 64,
    ("console/users/roles.html", "name"): 64,
    ("console/users/role.html", "name"): 64,
    ("console/escalation/policy.html", "name"): message.MAX_POLICY_CHARACTERS,
    ("console/escalation/policy.html", "minutes{{ n }}"): len(str(MAX_MINUTES)),
    ("console/webhooks/_macros.html", "url"): outgoing_url.MAX_URL_CHARACTERS,
    ("auth/account.html", "email"): email_address.MAX_CHARACTERS,
    ("console/users/detail.html", "email"): email_address.MAX_CHARACTERS,
    ("auth/account.html", "new"): password_actions.MAX_LENGTH,
    ("auth/account.html", "again"): password_actions.MAX_LENGTH,
}


def test_no_field_takes_more_or_less_than_what_is_accepted():
    found = {}
    for path in TEMPLATES.rglob("*.html"):
        for tag in re.findall(r"<(?:input|textarea)[^>]*maxlength[^>]*>", path.read_text()):
            found[str(path.relative_to(TEMPLATES)), re.search(r'name="([^"]+)"', tag)[1]] = int(
                re.search(r'maxlength="(\d+)"', tag)[1]
            )
    assert found == LIMITS


@pytest.mark.parametrize(
    ("field", "most"),
    [
        ("title", message.MAX_TITLE_CHARACTERS),
        ("category", message.MAX_CATEGORY_CHARACTERS),
        ("label1", message.MAX_LABEL_CHARACTERS),
    ],
)
def test_form_accepts_as_many_characters_as_its_field_takes(client, field, most):
    form = {"title": "T", "content": "C", "targetType": "ALL", "priority": "NORMAL", "when": "now"}
    form |= {"label1": "L", "url1": "https://a.example/"}
    alice = client("alice")
    assert alice.post(URL, form | {field: "x" * most}).status_code == 303
    assert alice.post(URL, form | {field: "x" * (most + 1)}).status_code == 422
