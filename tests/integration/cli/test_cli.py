"""The command line: scripts rely on its output; a failure is one sentence and exit code 1."""

import re

import pytest

from broadcast.actions import accounts, sessions
from broadcast.actions import users as actions
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.store import broadcasts, log, users
from tests.support.builders import build_message, count_rows, load_actor, publish_message

PASSWORD = "correct horse battery"


@pytest.fixture
def run(app, client):
    """Runs `flask …` with the cast in the database: `run("publish", "--title", "T", …)`."""
    client()
    runner = app.test_cli_runner()

    def run(*words: str, given: str = "", status: int = 0) -> str:
        result = runner.invoke(args=words, input=given)
        assert result.exit_code == status, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.output.strip()

    return run


def test_created_person_can_sign_in(app, run):
    run(
        "create-user",
        "--username",
        "Dana",
        "--role",
        "ops",
        "--role",
        "sales",
        "--password-stdin",
        given=PASSWORD + "\n",
    )
    with app.app_context():
        assert users.get_by_username("dana").roles == {"ops", "sales"}
        assert sessions.sign_in("dana", PASSWORD, client=sessions.SignInClient(), now=clock.now())


@pytest.mark.parametrize(
    ("words", "given", "told"),
    [
        (["create-user", "--username", "bob", "--password-stdin"], PASSWORD, "called bob already"),
        (["create-user", "--username", "dana", "--password-stdin"], "short", "password"),
        (["create-user", "--username", "dana", "--password-stdin"], "", "password"),
        (["create-user", "--username", "dana", "--role", "a b", "--password-stdin"], PASSWORD, "role"),
        (["create-token", "--user", "nobody"], "", "no user called nobody"),
        (["create-token", "--user", "bob", "--scope", "admin"], "", "has no access to the console"),
        (["publish", "--title", "T", "--content", "C", "--role", "nosuch"], "", "no role nosuch"),
        (["publish", "--title", "", "--content", "C"], "", "title is missing"),
        (["publish", "--title", "T", "--content", "C", "--as", "bob"], "", "do not have permission"),
        (["set-roles", "--username", "nobody"], "", "no user called nobody"),
        (["setup-code"], "", "There is already an administrator"),
    ],
)
def test_failure_is_a_sentence_and_status_1(app, run, words, given, told):
    with app.app_context():
        before = count_rows()
    output = run(*words, given=given, status=1)
    assert told in output
    assert "Traceback" not in output
    with app.app_context():
        assert count_rows() == before


def test_token_is_printed_alone_and_works(app, run):
    token = run("create-token", "--user", "alice", "--scope", "admin")
    assert token.startswith("bms_")
    assert len(token.split()) == 1
    response = app.test_client().get("/api/admin/broadcasts", headers={"Authorization": f"Bearer {token}"})
    assert response.status_code == 200


def test_setup_code_is_printed_alone_and_only_while_it_is_needed(app, run):
    assert run("setup-code", "--if-needed") == ""
    with app.app_context():
        actions.set_roles(load_actor("alice").user_id, [], by=SYSTEM, now=clock.now())
    assert re.fullmatch("[0-9a-f]{4}(-[0-9a-f]{4}){4}", run("setup-code"))


def test_publish_prints_the_id_and_sends_as_the_administrator(app, run):
    broadcast_id = int(run("publish", "--title", "T", "--content", "C", "--role", "OPS", "--priority", "HIGH"))
    with app.app_context():
        broadcast = broadcasts.get(broadcast_id)
        assert (broadcast.status, broadcast.sender_name, broadcast.role_names) == ("ACTIVE", "Alice", ["ops"])


def test_publish_without_an_administrator_says_how_to_make_one(app, run):
    run("disable-user", "--username", "alice")
    assert "create-user --role admin" in run("publish", "--title", "T", "--content", "C", status=1)


def test_roles_are_replaced(app, run):
    run("set-roles", "--username", "bob", "--role", "Sales")
    with app.app_context():
        assert load_actor("bob").roles == {"sales"}
    run("set-roles", "--username", "bob")
    with app.app_context():
        assert load_actor("bob").roles == frozenset()


def test_demo_is_seeded_once_and_prints_the_logins(app, run):
    first = run("seed-demo")
    with app.app_context():
        before = count_rows()
        assert before["broadcasts"] == 4
    assert run("seed-demo") == first
    assert "charlie-demo-1" in first
    with app.app_context():
        assert count_rows() == before


def test_demo_is_refused_in_production(make_app, run):
    app = make_app(app_env="production", secret_key="k" * 40)
    result = app.test_cli_runner().invoke(args=["seed-demo"])
    assert result.exit_code == 1
    assert "refused" in result.output


def test_new_epoch_ends_the_cursors_given_before(app, run):
    with app.app_context():
        before = log.get_head()
    epoch = run("new-epoch").split()[3]
    with app.app_context():
        assert log.get_head().epoch == epoch != before.epoch


@pytest.mark.parametrize(("options", "expected"), [((), "RESTORED"), (("--resume-schedules",), None)])
def test_plans_wait_after_a_restore_unless_nothing_was_sent_since(app, run, options, expected):
    with app.app_context():
        plan = publish_message(load_actor("alice"), build_message(scheduledAt="2030-01-01T10:00:00Z"))
    run("new-epoch", *options)
    with app.app_context():
        assert broadcasts.get(plan).decision_reason == expected


def test_disabled_person_is_out(app, run):
    run("disable-user", "--username", "bob")
    with app.app_context():
        assert users.get_by_username("bob").disabled_at


def test_audit_is_verified_and_what_to_note_is_printed(app, run):
    noted = run("audit", "verify").rpartition(" ")[2]
    run("disable-user", "--username", "bob")
    assert "4 rows" in run("audit", "verify", "--checkpoint", noted)
    assert "row 3" in run("audit", "verify", "--checkpoint", "3:" + "0" * 64, status=1)
    run("audit", "verify", "--checkpoint", "nonsense", status=2)


def test_exported_csv_is_verified(app, run, client, tmp_path):
    file = tmp_path / "audit.csv"
    file.write_bytes(data := client("alice").get("/console/audit/csv").data)
    assert "is unchanged since its export" in run("verify-csv", str(file))
    file.write_bytes(data.replace(b"person.created", b"person.deleted"))
    assert "was changed" in run("verify-csv", str(file), status=1)


def test_rules_are_read_before_they_take_their_place(run, tmp_path):
    good, wrong = tmp_path / "good.toml", tmp_path / "wrong.toml"
    good.write_text('[[rule]]\nsource = "x"\n')
    wrong.write_text('[[rule]]\nsource = "x"\ncolour = "red"\n')
    told = run("check-rules", str(good))
    assert "1 rule, no problems found." in told
    assert "May be sent by every account and topic" in told
    assert "Events that match no rule are refused." in told
    good.write_text('[[rule]]\nsource = ["x", "y"]\nfrom = ["account:grid-bot", "topic:grid.*"]\n')
    told = run("check-rules", str(good))
    assert "source x, y\n  May be sent by account:grid-bot, topic:grid.*.\n  There is no account grid-bot yet." in told
    assert "wrong.toml, line 3: rule 1: colour is not a field of a rule" in run("check-rules", str(wrong), status=1)
    assert "EVENT_RULES is not set" in run("check-rules")


def test_person_is_renamed_and_deleted(app, run):
    run("rename-user", "--username", "bob", "--name", "Robert  B.")
    with app.app_context():
        assert users.get_by_username("bob").name == "Robert B."
    run("delete-user", "--username", "bob", status=2)  # without --yes
    run("delete-user", "--username", "bob", "--yes")
    with app.app_context():
        assert users.get_by_username("bob") is None
    assert "only administrator" in run("delete-user", "--username", "alice", "--yes", status=1)


def test_invitation_is_printed_and_can_be_accepted(app, client, run):
    path = run("invite-user", "--username", "bob", "--days", "2")
    assert re.fullmatch(r"/invitation/[\w-]{43}", path)
    assert client().get(path).status_code == 200
    with app.app_context():
        accounts.set_password(users.get_by_username("bob").id, PASSWORD, by=SYSTEM, now=clock.now())
    assert "Nobody to invite" in run("invite-user", "--username", "bob", status=1)
