"""Message text on every path: nothing invisible, nothing too complex, and no writer waits for it."""

import contextlib
import html
import json
import re

import pytest

from broadcast.actions import broadcasts, edits, inbound_events, library
from broadcast.content import markdown
from broadcast.domain import clock
from broadcast.store import broadcasts as stored
from broadcast.store import dead_letters
from broadcast.store.database import db
from broadcast.store.models import Broadcast
from broadcast.store.transactions import write_transaction
from tests.integration.actions.test_inbound_events import arrivals, ingest
from tests.support.builders import build_message, load_actor, publish_message
from tests.support.inbound_records import build_bare_record, build_cloud_event
from tests.support.routes import make_bearer_headers

FORM = {"title": "T", "content": "C", "targetType": "ALL", "priority": "NORMAL", "when": "now"}
UNSEEN = [
    {"title": "\u3164"}, {"title": "\u200b\u2800"}, {"title": "\u0301"}, {"content": "\u200b"},
    {"content": "\u2800\n\u3164"},
    {"content": "![A plan](https://a.example/plan.png)"}, {"content": "[](https://a.example)"}, {"content": "---"},
]  # fmt: skip
INTRICATE = [
    {"content": "http://[" * 2048},
    {"content": "[" * 16_000},
    {"content": "|a" * 99 + "\n" + "|-" * 99 + "\n|" * 1500},
]
REFUSED = UNSEEN + INTRICATE


def text_of(response) -> str:
    return html.unescape(response.get_data(as_text=True))


def by_api(app, client, words) -> str:
    answer = client("alice").send("POST", "/api/admin/broadcasts", build_message(**words))
    assert answer.status_code == 422
    assert answer.json["fields"].keys() == words.keys()
    return answer.json["fields"].popitem()[1]


def by_edit(app, client, words) -> str:
    alice = client("alice")
    with app.app_context():
        sent = publish_message(load_actor("alice"))
    answer = alice.send("PATCH", f"/api/admin/broadcasts/{sent}", words, headers={"If-Match": "*"})
    assert answer.status_code == 422
    return answer.json["fields"].popitem()[1]


def by_form(app, client, words) -> str:
    answer = client("alice").post("/console/broadcasts", FORM | words | {"do": "send", "understood": "yes"})
    assert answer.status_code == 422
    return text_of(answer)


def by_review(app, client, words) -> str:
    return text_of(client("alice").post("/console/review", FORM | words))


def by_preview(app, client, words) -> str:
    return text_of(client("alice").post("/console/preview", FORM | words))


def by_test(app, client, words) -> str:
    answer = client("alice").post("/console/broadcasts", FORM | words | {"do": "test"})
    assert answer.status_code == 422
    return text_of(answer)


def by_webhook(app, client, words) -> str:
    client()
    headers = make_bearer_headers(app, "charlie", ["events"]) | {"Content-Type": "application/cloudevents+json"}
    answer = app.test_client().post(
        "/api/events", data=json.dumps(build_cloud_event(data=build_message(**words))), headers=headers
    )
    assert answer.status_code == 422
    return answer.json["detail"]


def by_kafka(app, client, words) -> str:
    client()
    with app.app_context():
        assert ingest(
            inbound_events.get_ingest_actor(now=clock.now()), build_bare_record(build_message(**words), offset=7)
        ) == ["rejected"]
        return db.session.scalars(db.select(dead_letters.DeadLetter)).one().reason


def by_command(app, client, words) -> str:
    client()
    said = FORM | words
    result = app.test_cli_runner().invoke(args=["publish", "--title", said["title"], "--content", said["content"]])
    assert result.exit_code == 1
    return result.output


def by_template(app, client, words) -> str:
    answer = client("alice").post("/console/library/templates", {"name": "N"} | FORM | words)
    assert answer.status_code == 422
    return text_of(answer)


DOORS = [by_api, by_edit, by_form, by_review, by_preview, by_test, by_webhook, by_kafka, by_command, by_template]


@pytest.mark.parametrize("words", REFUSED, ids=lambda words: re.sub(r"[^ -~]", "", str(words)[:30]))
@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_what_nobody_can_see_and_what_is_too_intricate_comes_in_by_no_door(app, client, door, words):
    sentence = door(app, client, words)
    assert re.search("no visible|a title of 1 to|a text of at most|too complex to show", sentence), sentence
    with app.app_context():
        sent = [row.title for row in db.session.scalars(db.select(Broadcast)) if row.status != "DRAFT"]
        assert sent == (["Lifts"] if door is by_edit else [])


def test_draft_with_a_text_that_is_not_shown_is_kept_as_it_was_typed(app, client):
    typed = FORM | {"content": "http://[" * 2000}
    saved = client("alice").post("/console/drafts", typed)
    assert saved.status_code == 200
    with app.app_context():
        draft = stored.get(saved.json["id"])
        assert draft.typed["content"] == typed["content"]


def test_text_that_was_sent_before_there_were_bounds_stays_while_the_rest_is_edited(app, client):
    alice = client("alice")
    with app.app_context():
        sent = publish_message(load_actor("alice"))
        with write_transaction() as session:
            session.get(Broadcast, sent).content = "[" * 3000
    fields = {"title": "Other", "content": "[" * 3000}
    answer = alice.send("PATCH", f"/api/admin/broadcasts/{sent}", fields, headers={"If-Match": "*"})
    assert answer.status_code == 200
    assert (answer.json["title"], answer.json["content"]) == ("Other", "[" * 3000)
    assert alice.get(f"/console/broadcasts/{sent}").status_code == 200


@pytest.fixture
def rendered(monkeypatch) -> list[str]:
    """Texts that were rendered; one that is rendered while a transaction writes fails the test."""
    texts, inside = [], []
    render = markdown.render

    @contextlib.contextmanager
    def noticed():
        with write_transaction() as session:
            inside.append(session)
            try:
                yield session
            finally:
                inside.pop()

    def rendered(text: str) -> str:
        assert not inside, "everybody who wants to write waits for this"
        texts.append(text)
        return render(text)

    for module in (broadcasts, edits, inbound_events, library):
        monkeypatch.setattr(module, "write_transaction", noticed)
    monkeypatch.setattr(markdown, "render", rendered)
    return texts


def test_nothing_is_rendered_inside_a_write_transaction(app, client, rendered):
    alice = client("alice")
    made = alice.send("POST", "/api/admin/broadcasts", build_message(content="by *api*")).json["id"]
    alice.send("PATCH", f"/api/admin/broadcasts/{made}", {"content": "by *edit*"}, headers={"If-Match": "*"})
    draft = alice.post("/console/drafts", FORM | {"content": "by *draft*"}).json
    form = FORM | {"content": "by *form*", "version": draft["version"], "do": "send", "understood": "yes"}
    assert alice.post(f"/console/broadcasts/{draft['id']}/edit", form).status_code == 303
    alice.post("/console/library/templates", FORM | {"name": "N", "content": "by *template*"})
    with app.app_context():
        assert ingest(
            inbound_events.get_ingest_actor(now=clock.now()),
            build_bare_record(build_message(content="by *event*"), offset=7),
        ) == ["published"]
    assert {text.split("*")[1] for text in rendered} == {"api", "edit", "draft", "form", "template", "event"}


def test_burst_of_intricate_events_lets_others_run(app, client, monkeypatch):
    client()
    turns: list[int] = []
    monkeypatch.setattr("broadcast.base.cooperative.yield_to_loop", lambda: turns.append(1))
    monkeypatch.setattr("broadcast.base.cooperative._MAX_WORK_SECONDS", 0)
    texts = [f"{n} " + "*a* [b](https://c.example) " * 300 for n in range(20)]
    records = [build_bare_record(build_message(content=text), offset=n) for n, text in enumerate(texts)]
    with app.app_context():
        prepared = inbound_events.prepare(arrivals(*records))
    assert all(one.html for one in prepared)
    assert len(turns) > 20 * 1000


def test_page_of_a_broadcast_compares_no_texts_until_it_is_asked(app, client, monkeypatch):
    alice = client("alice")
    made = alice.send("POST", "/api/admin/broadcasts", build_message(content="first word")).json["id"]
    for n in range(2, 25):
        words = {"title": f"t{n}", "content": f"word {n}"}
        alice.send("PATCH", f"/api/admin/broadcasts/{made}", words, headers={"If-Match": "*"})
    with monkeypatch.context() as patch:
        patch.setattr("broadcast.web.core.text_diff.compare", None)
        page = text_of(alice.get(f"/console/broadcasts/{made}"))
    assert page.count("Show what changed") == 20
    assert "Changed: Title, Text" in page
    revision = alice.get(f"/console/broadcasts/{made}/revisions/24")
    assert "<del>23</del><ins>24</ins>" in text_of(revision)
    assert "Revision 24 · Broadcast</title>" in text_of(revision)
    part = alice.get(f"/console/broadcasts/{made}/revisions/24", headers={"HX-Request": "true"})
    assert text_of(part).lstrip().startswith('<div class="change">')
    for number in (1, 2, 99):
        assert alice.get(f"/console/broadcasts/{made}/revisions/{number}").status_code == 404
    assert alice.get("/console/broadcasts/99/revisions/2").status_code == 404
