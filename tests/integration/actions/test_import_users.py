"""Importing users from a table: valid rows become users, errors name their line, and nothing is guessed."""

import pytest

from broadcast.actions.user_import import import_users
from broadcast.base.errors import Forbidden, Invalid
from broadcast.domain import clock
from broadcast.store import email_addresses, users
from broadcast.store.database import db
from broadcast.store.models import AuditEntry
from broadcast.store.transactions import write_transaction
from tests.support.builders import count_rows

NOW = clock.now()
HEAD = "username,name,roles\n"


def run(table: str, by, **options):
    return import_users(table, by=by, now=NOW, **options)


def test_good_rows_become_people_and_bad_rows_are_told_with_their_line(cast):
    table = HEAD + "\n".join(
        [
            "dana,Dana Diaz,ops", "", "Bob,,", "1x,Number,", "erin,Erin,nosuch", "dana,Again,", '"frank","Frank, F.",OPS;admin',
            "gil,Gil,ops,more", "hana", "x" * 70 + ",Long,",
        ]
    )  # fmt: skip
    report = run(table, cast["alice"])
    assert report.made == 3
    told = {bad.line: bad.problem for bad in report.bad}
    assert sorted(told) == [4, 5, 6, 7, 9, 11]
    assert "bob already" in told[4]
    assert "starts with a letter" in told[5]
    assert "no role nosuch" in told[6]
    assert "twice" in told[7]
    assert "4 cells for 3 columns" in told[9]
    assert users.get_by_username("frank").roles == {"admin", "ops"}
    assert (users.get_by_username("hana").name, users.get_by_username("hana").password_hash) == ("Hana", None)
    act = db.session.scalars(db.select(AuditEntry).order_by(AuditEntry.id.desc())).first()
    assert (act.action, act.detail) == ("people.imported", {"usernames": ["dana", "frank", "hana"]})


def test_checking_writes_nothing_and_says_the_same(cast):
    table = HEAD + "dana,Dana,ops\nbob,,\n"
    before = count_rows()
    checked = run(table, cast["alice"], is_dry_run=True)
    assert count_rows() == before
    assert (checked.made, checked.bad) == ((made := run(table, cast["alice"])).made, made.bad)


@pytest.mark.parametrize(
    "table",
    ["", "\n", "name,roles\nx,y", "username,password\nx,y", "username,username\n", "dana,Dana,ops", '"username\n'],
)
def test_table_without_its_columns_is_refused(cast, table):
    with pytest.raises(Invalid) as caught:
        run(table, cast["alice"])
    assert set(caught.value.fields) == {"table"}


@pytest.mark.parametrize("line", ["a\0b,,", '"', '"a"b,x,', "a\x1b,,", "\ufeff,,", ",,,,,", "﷽" * 100])
def test_odd_rows_are_bad_rows_and_no_failure(cast, line):
    report = run(HEAD + line + "\nzoe,Zoe,\n", cast["alice"])
    assert report.made + len(report.bad) >= 1
    assert {bad.line for bad in report.bad} <= {2, 3}


def test_file_of_a_spreadsheet_is_read(cast):
    """A byte order mark, \\r\\n, and columns in another order."""
    assert run("\ufeffRoles,Username\r\nops,dana\r\n", cast["alice"]).made == 1


def test_more_rows_than_fit_are_told(cast, monkeypatch):
    monkeypatch.setattr("broadcast.actions.user_import.MAX_ROWS", 3)
    report = run(HEAD + "".join(f"p{n},,\n" for n in range(9)), cast["alice"])
    assert report.made == 3
    assert "the rest was left out" in report.bad[-1].problem


def test_only_those_who_manage_people_import(cast):
    with pytest.raises(Forbidden):
        run(HEAD, cast["bob"])


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_every_spreadsheet_makes_the_same_people(cast, delimiter):
    table = "\r\n".join(delimiter.join(row) for row in [("username", "name", "roles"), ("dana", "Dana", '"ops;ops"')])
    assert run(table, cast["alice"]).made == 1
    assert users.get_by_username("dana").roles == {"ops"}


def test_line_break_in_a_name_becomes_a_space(cast):
    report = run(HEAD + 'dana,"Dana\r\nDiaz\u2028 D.",ops\n"erin","Erin, E."\n', cast["alice"])
    assert (report.made, report.bad) == (2, [])
    assert users.get_by_username("dana").name == "Dana Diaz D."
    assert users.get_by_username("erin").name == "Erin, E."


def test_roles_that_do_not_exist_are_counted_and_made_only_when_asked(cast):
    table = HEAD + "dana,Dana,nurses ops\nerin,Erin,nurses\nfay,Fay,porters\n"
    report = run(table, cast["alice"])
    assert (report.made, report.missing_roles) == (0, {"nurses": 2, "porters": 1})
    again = run("\n".join(report.rejected_lines), cast["alice"], new_roles=["nurses", "unused"])
    assert (again.made, again.missing_roles) == (2, {"porters": 1})
    assert set(users.list_role_names()) >= {"nurses"}
    assert not {"porters", "unused"} & set(users.list_role_names())
    made = db.session.scalars(db.select(AuditEntry).where(AuditEntry.action == "role.created")).all()
    assert [act.object_id for act in made] == ["nurses"]


def test_rows_left_out_come_back_as_a_table(cast):
    report = run("username;name\ndana;Dana\n1x;X\nbob;Bob\n", cast["alice"])
    assert report.rejected_lines == ["username;name", "1x;X", "bob;Bob"]


def get_address(username: str) -> str | None:
    row = email_addresses.get(users.get_by_username(username).id)
    return row and row.address


def test_address_of_a_row_is_verified_by_the_word_of_who_imports_it(cast):
    table = "username,email,name\ndana,Dana@Bücher.example,\nerin,,\nfrank,frank at example,\ngil,gil@example.com\r\n"
    report = run(table, cast["alice"])
    assert (report.made, report.addressed) == (3, 0)
    assert [(bad.line, "not an e-mail address" in bad.problem) for bad in report.bad] == [(4, True)]
    assert get_address("dana") == "Dana@xn--bcher-kva.example"
    assert email_addresses.get(users.get_by_username("dana").id).verified_at is not None
    assert get_address("erin") is None


def test_user_who_exists_gets_the_address_only_without_another_one(cast):
    with write_transaction() as session:
        user_id = cast["charlie"].user_id
        email_addresses.set_verified(session, user_id, "my@example.com", at=NOW, is_from_provider=False)
    table = "username,name,email\nbob,Robert,bob@example.com\ncharlie,,other@example.com\nbob,,second@example.com\n"
    checked = run(table, cast["alice"], is_dry_run=True)
    assert (checked.addressed, get_address("bob")) == (1, None)
    report = run(table, cast["alice"])
    assert (report.made, report.addressed, report.bad) == (0, 1, checked.bad)
    assert ["another address" in bad.problem for bad in report.bad] == [True, False]
    assert (get_address("bob"), get_address("charlie")) == ("bob@example.com", "my@example.com")
    assert users.get_by_username("bob").name == "Bob"


def test_imported_address_that_failed_works_again(cast):
    with write_transaction() as session:
        user_id = cast["bob"].user_id
        email_addresses.set_verified(session, user_id, "bob@example.com", at=NOW, is_from_provider=False)
        email_addresses.mark_failing(session, user_id, "bob@example.com", "550", at=NOW)
    assert run("username,email\nbob,bob@example.com\n", cast["alice"]).addressed == 1
    assert email_addresses.get(user_id).failing_since is None
