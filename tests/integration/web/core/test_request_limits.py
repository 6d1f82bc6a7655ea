"""Request limits besides bytes: number of fields and parameters, and nothing long is decoded in one go."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import MultiDict
from werkzeug.formparser import FormDataParser

from broadcast.actions.audiences import resolve_audience
from broadcast.base import cooperative
from broadcast.base.errors import Invalid
from broadcast.web.console.broadcasts import compose_form, recipient_import
from broadcast.web.core import bounded_request
from tests.support.builders import build_message, load_actor
from tests.support.users import BrowserClient

FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def turns(monkeypatch) -> list[None]:
    """One entry for each turn that other greenlets get, now that every pause is one."""
    taken: list[None] = []
    monkeypatch.setattr(cooperative, "_MAX_WORK_SECONDS", 0)
    monkeypatch.setattr(cooperative, "yield_to_loop", lambda: taken.append(None))
    return taken


def read(body: bytes) -> MultiDict:
    _, form, _ = bounded_request._FormParser().parse(io.BytesIO(body), FORM, len(body))
    return form


@pytest.mark.parametrize("body", ["&".join(["a=b"] * 60_000), "&" * 200_000, "a&" * 100_000])
def test_form_of_too_many_fields_is_refused_before_it_is_parsed(client, body):
    answer = client().http.post("/login", data=body, content_type=FORM)
    assert answer.status_code == 413
    assert "more than 2,000 fields" in answer.get_data(as_text=True)


def test_form_of_too_many_parts_is_refused_with_the_same_sentence(client):
    fields = {f"f{n}": "x" for n in range(2100)}
    answer = client("alice").post("/console/broadcasts", fields, content_type="multipart/form-data")
    assert answer.status_code == 413
    assert "more than 2,000 fields" in answer.get_data(as_text=True)


@pytest.mark.parametrize("path", ["/login", "/static/core/app.css", "/api/user/messages", "/no/such/page"])
def test_address_of_too_many_parameters_is_refused(client, path):
    answer = client("bob").http.get(f"{path}?{'a=b&' * 1000}", headers={"Accept": "text/html"})
    assert answer.status_code == 400
    assert "more than 200 parameters" in answer.get_data(as_text=True)


def test_thousand_chosen_messages_still_fit_into_a_form(client):
    answer = client("bob").post("/inbox/chosen", {"verb": "read", "ids": [str(n) for n in range(1, 1001)]})
    assert answer.status_code == 404  # they are nobody's, and the form was read


@given(st.binary(max_size=300))
def test_fields_are_read_as_werkzeug_reads_them(body):
    expected = FormDataParser().parse(io.BytesIO(body), FORM, len(body))[1]
    assert list(read(body).items(multi=True)) == list(expected.items(multi=True)) or not _is_utf_8(body)


def _is_utf_8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(st.text(min_size=1, max_size=60), st.integers(3, 9))
def test_a_long_value_is_the_same_however_it_is_cut(text, slice_bytes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounded_request, "_SLICE_BYTES", slice_bytes)
        quoted = "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))
        if text.isprintable():
            assert read(f"a={quoted}".encode())["a"] == text


def test_long_value_lets_others_run_while_it_is_decoded(turns):
    read(b"people=" + b"%41" * 1_300_000)
    assert len(turns) > 100


def test_object_of_too_many_fields_is_refused_in_one_sentence(client):
    answer = client("alice").send("POST", "/api/admin/broadcasts", json={f"f{n}": 1 for n in range(15_000)})
    assert answer.status_code == 422
    assert len(answer.data) < 1000


@pytest.mark.parametrize("text", ["a," * 900_000, "a\n" * 470_000, "a;b\n" * 400_000])
def test_list_of_too_many_names_lets_others_run_and_is_told(in_app, turns, text):
    report = recipient_import.check_recipients(text)
    assert len(turns) > 500
    assert len(report.bad) <= 50_003


def test_row_of_too_many_cells_is_told_and_never_taken_apart(in_app):
    [_, row] = recipient_import.check_recipients("x,\n" + "a," * 900_000).bad
    assert (row.line, row.problem) == (2, "this row is too long")


def test_names_typed_into_the_form_are_cut_before_they_are_split():
    assert len(compose_form.split_usernames("a," * 1_000_000)) <= 50_003


def test_looking_up_fifty_thousand_names_lets_others_run(in_app, cast, turns):
    form = MultiDict({"targetType": "SELECTED", "people": " ".join(f"p{n}" for n in range(50_000))})
    with pytest.raises(Invalid, match="no user called"):
        resolve_audience(compose_form.read_audience(form))
    assert len(turns) > 100


def test_message_within_the_bounds_still_passes(client):
    assert BrowserClient.send(client("alice"), "POST", "/api/admin/broadcasts", json=build_message()).status_code == 201


def test_more_roles_than_a_statement_takes_are_refused_and_no_failure(app, client):
    alice, names = client("alice"), [f"r{n:x}" for n in range(32_770)]
    for field in ("targetIds", "exceptRoles"):
        message = build_message(targetType="ROLE") | {"targetIds": ["ops"], field: names}
        body = json.dumps(message, separators=(",", ":"))
        answer = alice.send("POST", "/api/admin/broadcasts", data=body, content_type="application/json")
        assert answer.status_code == 422
        assert "There is no role" in answer.json["fields"][field]
    with app.app_context():
        bob = load_actor("bob").user_id
    answer = alice.post(f"/console/people/{bob}/roles", {"newRoles": " ".join(names)})
    assert answer.status_code == 422
    assert "at most 200 roles" in answer.get_data(as_text=True)


def test_place_to_go_back_to_is_no_work_however_long(client):
    answer = client("bob").post("/inbox/undo", {"key": "x", "back": "/inbox?" + "view=all&" * 20_000})
    assert answer.status_code == 409
