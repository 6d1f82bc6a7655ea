"""Lists of recipients and of new users as spreadsheets export them, on the pages that import them."""

import html
import io
import re

import pytest

from broadcast.store import users
from tests.support.builders import build_message, build_user_message, load_actor


def text_of(response) -> str:
    return html.unescape(response.get_data(as_text=True))


def upload(client, path: str, data: bytes, **form: str) -> str:
    form |= {"file": (io.BytesIO(data), "list.csv")}
    return text_of(client.post(path, form, content_type="multipart/form-data"))


def good(report: str) -> list[str]:
    return re.search(r'data-good="([^"]*)"', report)[1].split()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_recipients_are_read_from_every_spreadsheet(client, delimiter, encoding):
    rows = [["Name", "Username"], ['"Älter; Bob, Dr."', "bob"], ['"Charlie\nZwei"', "charlie"]]
    data = "\r\n".join(delimiter.join(row) for row in rows).encode(encoding)
    assert good(upload(client("alice"), "/console/names", data)) == ["bob", "charlie"]


def test_recipients_named_by_id_are_the_people_who_get_it(app, client):
    alice = client("alice")
    with app.app_context():
        bob, charlie = load_actor("bob").user_id, load_actor("charlie").user_id
    report = upload(alice, "/console/names", f"id;name\n{bob};B\n{charlie};C\n99999;X\n".encode())
    assert good(report) == ["bob", "charlie"]
    assert "<code>99999</code> nobody has this id" in report
    reach = text_of(alice.post("/console/audience", {"targetType": "SELECTED", "people": f"{bob} charlie {charlie}"}))
    assert "2 people will get this" in reach
    answer = alice.send("POST", "/api/admin/broadcasts", json=build_user_message(str(bob)))
    assert answer.json["targetIds"] == [bob]


def test_id_and_username_of_one_person_are_told_as_repeated(app, client):
    alice = client("alice")
    with app.app_context():
        bob = load_actor("bob").user_id
    report = text_of(alice.post("/console/names", {"list": f"bob, {bob}, BOB"}))
    assert good(report) == ["bob"]
    assert "2 repeated" in report


def test_workbook_is_refused_with_what_to_do(client):
    assert "save it as “CSV UTF-8”" in upload(client("alice"), "/console/names", b"PK\x03\x04" + bytes(100))
    assert "save it as “CSV UTF-8”" in upload(client("alice"), "/console/people/import", b"PK\x03\x04", act="check")


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16"])
def test_people_are_imported_from_a_european_excel(app, client, encoding):
    data = 'username;name;roles\r\njuergen;"Müller; Jürgen";ops\r\n'.encode(encoding)
    report = upload(client("alice"), "/console/people/import", data, act="import")
    assert ("read as Windows-1252" in report) == (encoding == "cp1252")
    with app.app_context():
        assert users.get_by_username("juergen").name == "Müller; Jürgen"


def test_role_that_does_not_exist_is_made_from_the_report(app, client):
    alice = client("alice")
    report = upload(alice, "/console/people/import", b"username,roles\ndana,nurses\nerin,ops\n", act="import")
    assert "Create the role <strong>nurses</strong>" in report
    table = re.search(r"<textarea id=\"table\"[^>]*>(.*?)</textarea>", report, re.DOTALL)[1]
    assert table == "username,roles\ndana,nurses"
    done = text_of(alice.post("/console/people/import", {"table": table, "newRoles": "nurses", "act": "import"}))
    assert "<strong>1</strong> user was added" in done
    with app.app_context():
        assert users.get_by_username("dana").roles == {"nurses"}


def test_export_of_figures_can_be_read_back_as_recipients(app, client):
    alice = client("alice")
    sent = alice.send("POST", "/api/admin/broadcasts", json=build_message()).json["id"]
    data = alice.get(f"/console/broadcasts/{sent}/figures.csv").data
    assert good(upload(alice, "/console/names", data)) == ["alice", "bob", "charlie"]
