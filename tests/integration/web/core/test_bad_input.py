"""Bad input: a 4xx with a sentence for each field, and no new row."""

import pytest

from broadcast.domain.message import MAX_CONTENT_BYTES
from tests.support.builders import build_message, build_role_message, build_user_message, count_rows
from tests.support.stream_reader import StreamReader

URL = "/api/admin/broadcasts"

REFUSED = {
    "empty title": (build_message(title=""), ["title"]),
    "no title": (build_message(title=None), ["title"]),
    "title of 201 characters": (build_message(title="x" * 201), ["title"]),
    "empty body": (build_message(content=" \n"), ["content"]),
    "body of 16 KiB and one byte": (build_message(content="x" * (MAX_CONTENT_BYTES + 1)), ["content"]),
    "unknown role": (build_role_message("nosuch"), ["targetIds"]),
    "unknown person": (build_user_message("nobody"), ["targetIds"]),
    "person id that cannot exist": (build_user_message(10**30), ["targetIds"]),
    "no roles": (build_role_message(), ["targetIds"]),
    "nobody": (build_user_message(), ["targetIds"]),
    "roles for everyone": (build_message(targetIds=["ops"]), ["targetIds"]),
    "expiry before start": (
        build_message(scheduledAt="2998-01-02T00:00:00Z", expiresAt="2998-01-01T00:00:00Z"), ["expiresAt"],
    ),
    "expiry in the past": (build_message(expiresAt="2020-01-01T00:00:00Z"), ["expiresAt"]),
    "time without a zone": (build_message(scheduledAt="2998-01-02T00:00:00"), ["scheduledAt"]),
    "wrong priority": (build_message(priority="LOUD"), ["priority"]),
    "wrong target type": (build_message(targetType="EVERYONE"), ["targetType"]),
    "unknown fields": (build_message(senderId=1, status="ACTIVE", seq=7), ["senderId", "status", "seq"]),
    "script as a link": (build_message(actions=[{"label": "x", "url": "javascript:alert(1)"}]), ["actions"]),
    "everything wrong": (
        {"title": 1, "content": [], "targetType": {}, "priority": None, "draft": "no"},
        ["title", "content", "targetType", "draft"],
    ),
    "NUL": (build_message(title="a\0", content="b\0", category="c\0"), ["title", "content", "category"]),
    "half a character": (build_message(title="\ud800", content="\udfff"), ["title", "content"]),
    "unknown field with half a character": (build_message(**{"\ud800": 1}), ["\ud800"]),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_bad_message_is_told_field_by_field_and_not_written(app, client, what):
    raw, fields = REFUSED[what]
    alice = client("alice")
    with app.app_context():
        before = count_rows()
    response = alice.send("POST", URL, raw, headers={"Idempotency-Key": "k"})
    assert (response.status_code, response.mimetype) == (422, "application/problem+json")
    assert sorted(response.json["fields"]) == sorted(fields)
    for sentence in response.json["fields"].values():
        assert sentence.endswith(".")
        assert len(sentence) < 300
    with app.app_context():
        assert count_rows() == before


MALFORMED = {
    "nothing": b"", "half": b'{"title": "x', "list": b"[]", "text": b'"x"', "number": b"1", "null": b"null",
    "not UTF-8": b'{"title": "\xff"}', "NaN": b'{"title": NaN, "content": "x", "targetType": "ALL"}',
    "endless number": b'{"title": ' + b"9" * 5000 + b"}", "deep": b"[" * 100_000, "deep objects": b'{"a":' * 40_000,
    "two": b"{}{}", "form": b"title=x&content=y",
}  # fmt: skip


@pytest.mark.parametrize("what", MALFORMED)
@pytest.mark.parametrize("path", [URL, "/api/user/messages/read", "/api/user/messages/read-all"])
def test_malformed_json_is_refused(app, client, what, path):
    alice = client("alice")
    with app.app_context():
        before = count_rows()
    options = {"data": MALFORMED[what], "headers": {"Content-Type": "application/json"}}
    response = alice.send("POST", path, **options)
    if what == "nothing" and path.endswith("read-all"):
        assert response.status_code == 200  # no filter is a filter
    else:
        assert (response.status_code, response.mimetype) == (422, "application/problem+json")
    with app.app_context():
        assert count_rows() == before


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml"])
def test_json_under_another_name_is_refused(client, kind):
    """A form of another site can send these without asking; they must not count as JSON."""
    response = client("alice").send("POST", URL, data=b'{"title":"x"}', headers={"Content-Type": kind})
    assert (response.status_code, set(response.json["fields"])) == (422, {"body"})


def test_body_of_300_kib_is_too_large(app, client):
    alice = client("alice")
    with app.app_context():
        before = count_rows()
    response = alice.send("POST", URL, build_message(content="x" * 300 * 1024))
    assert (response.status_code, response.mimetype) == (413, "application/problem+json")
    assert "256 KiB" in response.json["detail"]
    response = alice.post("/login", {"username": "x", "password": "x" * 300 * 1024})
    assert response.status_code == 413
    assert "256 KiB" in response.get_data(as_text=True)
    response = alice.post(
        "/console/broadcasts", {"title": "x", "people": "x" * 5 * 1024 * 1024}
    )  # may hold 50,000 names
    assert response.status_code == 413
    with app.app_context():
        assert count_rows() == before


def test_unknown_cursor_is_answered_with_reset(client):
    stream = StreamReader(client("bob").http, query_string={"after": "never-given"})
    assert stream.next_frame().event == "RESET"
    stream.close()


def test_unknown_address_and_wrong_method(client):
    alice = client("alice")
    response = alice.get("/api/nothing")
    assert (response.status_code, response.mimetype) == (404, "application/problem+json")
    assert alice.get("/nothing").status_code == 404
    response = alice.send("PUT", URL, {})
    assert (response.status_code, response.mimetype) == (405, "application/problem+json")
    assert {"GET", "POST"} <= set(response.headers["Allow"].replace(" ", "").split(","))


def test_mistake_of_ours_is_told_without_its_detail(app, client, monkeypatch):
    alice = client("alice")

    def fail(*args, **options):
        raise ValueError("secret detail")

    for module in ("broadcast.web.inbox.pages", "broadcast.web.api.inbox"):
        monkeypatch.setattr(f"{module}.open_inbox", fail)
    app.config["PROPAGATE_EXCEPTIONS"] = False
    for path in ("/inbox", "/api/user/messages"):
        response = alice.get(path)
        assert response.status_code == 500
        assert "secret detail" not in response.get_data(as_text=True)
