"""Composing with plain forms: drafts, review, confirmation, undo, conflicts, recipient lists, templates, audiences."""

import html
import io
import re

import pytest

from broadcast.actions import accounts
from broadcast.actions import users as people_actions
from broadcast.content import message_templates
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.domain.confirmation import ConfirmationRequirement, get_requirement_for
from broadcast.domain.message import Priority
from broadcast.store import audiences, broadcasts, log
from broadcast.store import message_templates as templates
from broadcast.store.models import MessageTemplate
from broadcast.store.transactions import write_transaction
from tests.support.builders import build_message, build_role_message, count_rows, load_actor, publish_message
from tests.support.users import BrowserClient

FORM = {"title": "T", "content": "C", "targetType": "ALL", "priority": "NORMAL", "when": "now"}
URL = "/console/broadcasts"


def text_of(response) -> str:
    return html.unescape(response.get_data(as_text=True))


def id_of(response) -> int:
    assert response.status_code == 303, text_of(response)
    return int(re.search(r"/broadcasts/(\d+)", response.location)[1])


def stored(app, broadcast_id: int):
    with app.app_context():
        broadcast = broadcasts.get(broadcast_id)
        return broadcast.status, broadcast.title, broadcast.version


# ---- drafts


def test_unfinished_draft_comes_back_as_it_was_typed(app, client):
    alice = client("alice")
    typed = {
        "title": "x" * 300,
        "content": "",
        "targetType": "SELECTED",
        "people": "bob, nob",
        "scheduledAt": "2026-99",
        "when": "later",
    }
    broadcast_id = id_of(alice.post(URL, typed | {"do": "save"}))
    page = text_of(alice.get(f"{URL}/{broadcast_id}/edit"))
    for value in ("x" * 300, "bob, nob", "2026-99"):
        assert value in page
    assert alice.post(f"{URL}/{broadcast_id}/send").location.endswith(f"/{broadcast_id}/edit#step-review")
    assert stored(app, broadcast_id)[0] == "DRAFT"


def test_autosave_makes_one_draft_and_follows_its_version(app, client):
    alice = client("alice")
    first = alice.post("/console/drafts", FORM).json
    second = alice.post(
        "/console/drafts", FORM | {"title": "U", "broadcastId": first["id"], "version": first["version"]}
    )
    assert (second.status_code, second.json["id"]) == (200, first["id"])
    late = alice.post("/console/drafts", FORM | {"title": "V", "broadcastId": first["id"], "version": first["version"]})
    assert late.status_code == 409
    assert stored(app, first["id"]) == ("DRAFT", "U", second.json["version"])
    with app.app_context():
        assert count_rows()["broadcasts"] == 1


@pytest.mark.parametrize(
    "what", [{"title": "\ud800"}, {"title": "\0"}, {"content": "\0x"}, {"roles": ["\0"] * 500}, {}]
)
def test_autosave_takes_whatever_is_typed(client, what):
    form = {name: value for name, value in what.items() if value != "\ud800"}
    assert client("alice").post("/console/drafts", form).status_code == 200


def test_second_editor_gets_a_page_with_both_texts(app, client):
    """F20"""
    alice = client("alice")
    broadcast_id = id_of(alice.post(URL, FORM | {"do": "save"}))
    version = stored(app, broadcast_id)[2]
    alice.post(f"{URL}/{broadcast_id}/edit", FORM | {"do": "save", "content": "Hers alone", "version": version})
    late = alice.post(f"{URL}/{broadcast_id}/edit", FORM | {"do": "save", "content": "His alone", "version": version})
    page = text_of(late)
    assert late.status_code == 409
    assert "Hers" in page
    assert "His" in page
    again = re.search(r'name="version" value="([^"]+)"', page)[1]
    assert (
        alice.post(f"{URL}/{broadcast_id}/edit", FORM | {"do": "save", "content": "His", "version": again}).status_code
        == 303
    )


def test_edit_against_send_is_told_and_the_text_is_kept(app, client):
    """F20: the plan went out while it was edited."""
    alice = client("alice")
    later = FORM | {"when": "later", "scheduledAt": "2998-01-01T10:00"}
    broadcast_id = id_of(alice.post(URL, later))
    version = stored(app, broadcast_id)[2]
    alice.post(f"{URL}/{broadcast_id}/send")
    late = alice.post(f"{URL}/{broadcast_id}/edit", later | {"content": "Too late", "version": version})
    assert late.status_code == 409
    assert "Too late" in re.sub(r"<[^>]+>", "", text_of(late))
    assert stored(app, broadcast_id)[:2] == ("ACTIVE", "T")


@pytest.mark.parametrize("act", ["undo", "delete", "archive"])
def test_illegal_move_is_409_with_a_sentence(app, client, act):
    alice = client("alice")
    with app.app_context():
        live = publish_message(load_actor("alice"))
    answer = alice.post(f"{URL}/{live}/{act}")
    assert answer.status_code == 409
    assert "ACTIVE" not in text_of(answer)
    assert stored(app, live)[0] == "ACTIVE"


def test_draft_is_duplicated_and_deleted(app, client):
    alice = client("alice")
    with app.app_context():
        live = publish_message(load_actor("alice"), build_role_message("ops"))
    copy = id_of(alice.post(f"{URL}/{live}/duplicate"))
    assert 'value="ops" checked' in text_of(alice.get(f"{URL}/{copy}/edit"))
    assert alice.post(f"{URL}/{copy}/delete").status_code == 303
    assert alice.get(f"{URL}/{copy}/edit").status_code == 409
    assert "Deleted" in text_of(alice.get(f"{URL}/{copy}"))


# ---- undo


def test_sent_form_waits_and_can_be_undone(make_app, client):
    client()
    app = make_app(undo_seconds=10)
    alice = BrowserClient.for_user(app, "alice")
    broadcast_id = id_of(alice.post(URL, FORM))
    assert stored(app, broadcast_id)[0] == "SCHEDULED"
    assert 'id="undo"' in text_of(alice.get(f"{URL}/{broadcast_id}"))
    undone = alice.post(f"{URL}/{broadcast_id}/undo")
    assert undone.location == f"{URL}/{broadcast_id}/edit"
    assert stored(app, broadcast_id)[0] == "DRAFT"
    with app.app_context():
        assert log.get_head().seq == 0


# ---- review and confirmation


@pytest.mark.parametrize(
    ("priority", "reach", "is_for_all", "expected"),
    [
        ("NORMAL", 49, True, ConfirmationRequirement()),
        ("NORMAL", 50, True, ConfirmationRequirement(needs_tick=True)),
        ("LOW", 999, False, ConfirmationRequirement(needs_tick=True)),
        ("NORMAL", 1000, False, ConfirmationRequirement(needs_typed_count=True)),
        ("URGENT", 1, False, ConfirmationRequirement(needs_tick=True)),
        ("URGENT", 200, False, ConfirmationRequirement(needs_typed_count=True)),
        ("URGENT", 3, True, ConfirmationRequirement(needs_tick=True, needs_password=True)),
        ("URGENT", 1284, True, ConfirmationRequirement(needs_typed_count=True, needs_password=True)),
    ],
)
def test_effort_grows_with_reach_and_priority(priority, reach, is_for_all, expected):
    assert get_requirement_for(Priority(priority), reach, is_for_everyone=is_for_all) == expected


def test_urgent_to_everyone_needs_tick_and_password(app, client):
    client()
    urgent = FORM | {"priority": "URGENT"}
    with app.app_context():
        by = load_actor("alice")
        accounts.set_password(by.user_id, "a long enough one", by=SYSTEM, now=clock.now())
    alice = BrowserClient.for_user(app, "alice")  # the new password ended her session
    for more, words in (
        ({}, "Tick the box to confirm"),
        ({"understood": "yes"}, "Enter your password"),
        ({"understood": "yes", "password": "guess"}, "password is incorrect"),
    ):
        answer = alice.post(URL, urgent | more)
        assert answer.status_code == 422
        assert words in text_of(answer)
        assert "guess" not in text_of(answer)
    assert id_of(alice.post(URL, urgent | {"understood": "yes", "password": "a long enough one"}))


def test_number_must_be_the_one_that_is_true_now(app, client, monkeypatch):
    monkeypatch.setattr("broadcast.domain.confirmation.MIN_RECIPIENTS_TO_TYPE_COUNT", 3)
    alice = client("alice")
    for wrong in ("", "4", "three", "-3", "3.0"):
        assert alice.post(URL, FORM | {"typedCount": wrong}).status_code == 422
    assert id_of(alice.post(URL, FORM | {"typedCount": " 3 "}))


def test_review_shows_everything_and_links_mistakes_to_fields(client):
    alice = client("alice")
    page = text_of(alice.post(URL, FORM | {"do": "review", "exceptRoles": "ops"}))
    assert "Everyone, except the role ops" in page
    assert "2 people" in page
    wrong = text_of(alice.post("/console/review", FORM | {"title": "", "targetType": "ROLE"}))
    assert 'href="#title"' in wrong
    assert 'href="#roles"' in wrong


def test_test_goes_to_oneself_alone_and_into_no_list(app, client):
    alice = client("alice")
    answer = alice.post(URL, FORM | {"do": "test", "title": "Trial", "priority": "URGENT", "when": "later"})
    assert answer.status_code == 200
    assert "Test: Trial" in text_of(alice.get("/inbox"))
    assert "Test: Trial" not in text_of(client("bob").get("/inbox"))
    assert "Test: Trial" not in text_of(alice.get(URL))


# ---- people


def test_list_is_judged_row_by_row(client):
    alice = client("alice")
    rows = '\ufeffName;Username\r\nAlice;alice\nBob;BOB\nX;nobody-here\nBob again;bob\nno cell\n\n"broken;quote\n'
    upload = {"file": (io.BytesIO(rows.encode()), "list.csv")}
    report = text_of(alice.post("/console/names", upload, content_type="multipart/form-data"))
    assert 'data-good="alice bob"' in report
    assert "1 repeated" in report
    for words in ("Row 4: <code>nobody-here", "Row 6: <code>no cell"):
        assert words in report


def test_list_of_fifty_thousand_rows_is_judged(client):
    """Bad input of the console: most rows are nobody; the first are told, the others counted, nothing is cut in silence."""
    rows = "\n".join(["alice", *(f"ghost{n}" for n in range(50_000)), "bob"])
    upload = {"file": (io.BytesIO(rows.encode()), "list.csv")}
    report = text_of(client("alice").post("/console/names", upload, content_type="multipart/form-data"))
    assert "50,001 rows skipped" in report or "50,000 rows skipped" in report
    assert "and 49,98" in report


def test_long_list_of_names_can_be_saved_and_is_not_too_large(app, client):
    names = " ".join(f"somebody-{n}" for n in range(40_000))
    assert id_of(client("alice").post(URL, FORM | {"targetType": "SELECTED", "people": names, "do": "save"}))


def test_person_disabled_while_being_picked_is_named(app, client):
    alice = client("alice")
    assert 'data-add="charlie"' in text_of(alice.get("/console/people-found?pick=CHAR"))
    with app.app_context():
        people_actions.disable_user(load_actor("charlie").user_id, by=load_actor("alice"), now=clock.now())
    assert "data-add" not in text_of(alice.get("/console/people-found?pick=char"))
    answer = alice.post(URL, FORM | {"targetType": "SELECTED", "people": "bob charlie"})
    assert answer.status_code == 422
    assert "no user called charlie" in text_of(answer)


@pytest.mark.parametrize("pick", ["", "%", "_", "\\", "%00", "x" * 500, "ä"])
def test_search_for_people_takes_anything(client, pick):
    assert client("alice").get("/console/people-found", query_string={"pick": pick}).status_code == 200


def test_sender_is_told_who_has_muted_it_and_whether_that_counts(app, client, make_app):
    alice = client("alice")
    with app.app_context():
        accounts.save_preferences({"mutedCategories": ["News"]}, by=load_actor("bob"), now=clock.now())

    def told(**form: str) -> str:
        return text_of(alice.post("/console/audience", FORM | form))

    assert "this priority" not in told()
    assert "1 person muted News or this priority: they get it in their inbox" in told(category="News")
    assert "Urgent: alerts everyone" in told(category="News", priority="URGENT")
    assert "1 person muted News" in text_of(alice.post("/console/review", FORM | {"category": "News"}))
    assert "this priority" not in told(category="News", targetType="SELECTED", people="charlie")
    mandatory = make_app(mandatory_categories=["News"])
    answer = BrowserClient.for_user(mandatory, "alice").post("/console/audience", FORM | {"category": "News"})
    assert "Nobody can mute News." in text_of(answer)


@pytest.mark.parametrize(
    "form", [{"category": "\0"}, {"category": "x" * 5000}, {"priority": "LOUD"}, {"priority": "\0"}]
)
def test_odd_words_about_muting_are_no_failure(client, form):
    assert client("alice").post("/console/audience", FORM | form).status_code == 200


def test_would_somebody_get_it(client):
    told = text_of(client("alice").post("/console/audience", FORM | {"exceptRoles": "ops", "asWhom": "bob"}))
    assert "Bob would not get it: people with the role ops are excluded." in told


# ---- what is kept


def test_template_is_kept_filled_in_and_becomes_a_draft(app, client):
    alice = client("alice")
    template = {"name": "Outage", "title": "{{ what }} is down", "content": "Since {{ since }}.", "priority": "HIGH"}
    assert alice.post("/console/library/templates", template).status_code == 303
    assert alice.post("/console/library/templates", template).status_code == 409
    with app.app_context():
        [row] = templates.list_all()
        template_id = row.id
    assert 'name="var-what"' in text_of(alice.get(f"/console/library/templates/{template_id}/use"))
    values = {"var-what": "Mail {{ x }}", "var-since": "noon"}
    draft = id_of(alice.post(f"/console/library/templates/{template_id}/use", values))
    page = text_of(alice.get(f"{URL}/{draft}/edit"))
    assert "Mail {{ x }} is down" in page
    assert "Since noon." in page
    bad = template | {"name": "Bad", "content": "{% for n in range(1000000000) %}{{ n.real }}{% endfor %}"}
    assert alice.post("/console/library/templates", bad).status_code == 422
    assert alice.post(f"/console/library/templates/{template_id}/delete").status_code == 303
    assert alice.get(f"/console/library/templates/{template_id}").status_code == 404


def test_list_of_templates_reads_none_of_them(app, client, monkeypatch):
    """Also one that was saved before there were bounds: it is listed, can be mended, and says what is wrong when used."""
    alice = client("alice")
    kept = {"name": "Outage", "title": "{{ what }} is down", "content": "Since {{ since }}."}
    assert alice.post("/console/library/templates", kept).status_code == 303
    with app.app_context(), write_transaction() as session:
        user = load_actor("alice").user_id
        old = {"title": "Old", "content": "{{ 1.5|round(12000000, 'ceil') }}" + "{{a}}" * 3000, "priority": "NORMAL"}
        row = MessageTemplate(name="Old", **old, created_by=user, updated_at=clock.now())
        session.add(row)
        session.flush()
        old_id = row.id
    with monkeypatch.context() as patch:
        patch.setattr(message_templates, "_parse_template", None)
        listed = text_of(alice.get("/console/library"))
    assert '<span class="tag">since</span><span class="tag">what</span>' in listed
    assert ">Old<" in listed
    assert alice.get(f"/console/library/templates/{old_id}").status_code == 200
    for answer in (
        alice.get(f"/console/library/templates/{old_id}/use"),
        alice.post(f"/console/library/templates/{old_id}/use"),
    ):
        assert answer.status_code == 422
        assert "3,001 placeholders; at most 200 fit" in text_of(answer)


def test_template_that_never_ends_is_refused_when_used(app, client):
    alice = client("alice")
    endless = {"name": "Endless", "title": "T", "content": "{% for n in range(1000000000) %}x{% endfor %}"}
    alice.post("/console/library/templates", endless)
    with app.app_context():
        [row] = templates.list_all()
        template_id = row.id
    answer = alice.post(f"/console/library/templates/{template_id}/use")
    assert answer.status_code == 422
    assert "cannot be filled in" in text_of(answer)


def test_audience_is_kept_under_a_name_and_used(app, client):
    alice = client("alice")
    chosen = FORM | {
        "targetType": "ROLE",
        "roles": ["ops", "admin"],
        "targetMatch": "ALL",
        "do": "keep",
        "audienceName": "Ops leads",
    }
    assert "saved as “Ops leads”" in text_of(alice.post(URL, chosen))
    assert alice.post(URL, chosen).status_code == 422
    assert "audienceName-error" in text_of(alice.post(URL, chosen | {"audienceName": ""}))
    with app.app_context():
        [saved] = audiences.list_saved()
        saved_id = saved.id
    page = text_of(alice.get(f"{URL}/new?audience={saved_id}"))
    assert page.count('value="ops" checked') == 1
    assert 'value="ALL" checked' in page
    assert alice.post(f"/console/library/audiences/{saved_id}/delete").status_code == 303
    for gone in (saved_id, "x", "9" * 30):
        assert alice.get(f"{URL}/new?audience={gone}").status_code == 200


def test_message_stays_as_it_is_when_only_looked_at(app, client):
    """Review, check and difference write nothing."""
    alice = client("alice")
    alice.get("/inbox")
    with app.app_context():
        live = publish_message(load_actor("alice"), build_message())
        before = count_rows()
    alice.post(URL, FORM | {"do": "review"})
    alice.post("/console/review", FORM)
    assert "<ins>" in alice.post(f"{URL}/{live}/difference", FORM | {"title": "New"}).get_data(as_text=True)
    alice.post(f"{URL}/{live}/edit", FORM | {"live": "yes", "do": "review", "title": "New"})
    with app.app_context():
        assert count_rows() == before
