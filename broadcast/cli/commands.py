"""`flask --app app …`: people, tokens, publishing, the demo, the log. A failure is a sentence and a status, no traceback."""

import sys
from datetime import timedelta
from typing import IO

import click
from flask import Flask, current_app

from broadcast.actions import accounts, broadcasts, demo, initial_setup, invitations, notify, overdue_schedules, users
from broadcast.cli.reporting import told
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock, signed_csv
from broadcast.domain.actor import SYSTEM, Actor
from broadcast.domain.message import Priority, read_draft
from broadcast.store import audit, log
from broadcast.store import users as known
from broadcast.store.database import writing


def init_app(app: Flask) -> None:
    for command in (
        setup_code,
        create_user,
        set_roles,
        disable_user,
        rename_user,
        delete_user,
        invite_user,
        create_token,
        publish,
        seed_demo,
        new_epoch,
        audit_group,
        verify_csv,
    ):
        app.cli.add_command(command)


def _person(username: str):
    user = known.by_username(username)
    if user is None:
        raise click.ClickException(f"There is nobody called {username}.")
    return user


@click.command("setup-code")
@click.option("--if-needed", is_flag=True, help="Print nothing when there is an administrator, instead of failing.")
@told
def setup_code(if_needed: bool) -> None:
    """Print a code with which the first administrator is made, in a browser at /setup; it is good once."""
    code = initial_setup.make_code(now=clock.now())
    if code is None and not if_needed:
        raise click.ClickException("There is an administrator already. Make more people in the console.")
    if code:
        click.echo(code)


@click.command("create-user")
@click.option("--username", required=True)
@click.option("--name", help="Shown as the sender; the username by default.")
@click.option("--role", "roles", multiple=True, help="May be given several times; `admin` runs the console.")
@click.option("--password-stdin", is_flag=True, required=True, help="Read the password from standard input.")
@told
def create_user(username: str, name: str | None, roles: tuple[str, ...], password_stdin: bool) -> None:
    """Add a person."""
    password = sys.stdin.readline().rstrip("\r\n")
    users.create_person(username, password, roles=roles, name=name, by=SYSTEM, now=clock.now())
    click.echo(f"Created {username.lower()}.")


@click.command("set-roles")
@click.option("--username", required=True)
@click.option("--role", "roles", multiple=True, help="The roles from now on; none takes all away.")
@told
def set_roles(username: str, roles: tuple[str, ...]) -> None:
    """Replace a person's roles; open pages follow within a second."""
    users.set_roles(_person(username).id, roles, by=SYSTEM, now=clock.now())
    click.echo(f"{username.lower()} has {', '.join(sorted(roles)) or 'no role'} now.")


@click.command("disable-user")
@click.option("--username", required=True)
@told
def disable_user(username: str) -> None:
    """Close an account and everything it has open."""
    users.disable(_person(username).id, by=SYSTEM, now=clock.now())
    click.echo(f"{username.lower()} is disabled.")


@click.command("rename-user")
@click.option("--username", required=True)
@click.option("--name", required=True, help="Shown as the sender from now on.")
@told
def rename_user(username: str, name: str) -> None:
    """Correct a person's name; what was sent keeps the name it was sent with."""
    accounts.rename(_person(username).id, name, by=SYSTEM, now=clock.now())
    click.echo(f"{username.lower()} is called {' '.join(name.split())} now.")


@click.command("delete-user")
@click.option("--username", required=True)
@click.option("--yes", is_flag=True, required=True, help="Say that you mean it: this cannot be taken back.")
@told
def delete_user(username: str, yes: bool) -> None:
    """Delete an account for good; its receipts stay, as those of a former user."""
    accounts.delete(_person(username).id, typed_username=username, by=SYSTEM, now=clock.now())
    click.echo(f"{username.lower()} is deleted.")


@click.command("invite-user")
@click.option("--username", required=True)
@click.option("--days", type=click.IntRange(1, 90), help="How long it is good; INVITATION_DAYS by default.")
@told
def invite_user(username: str, days: int | None) -> None:
    """Print the path of a link with which somebody who has no password chooses one. It is shown this once."""
    valid_for = timedelta(days=days or SETTINGS.current.invitation_days)
    [made] = invitations.invite([_person(username).id], valid_for=valid_for, by=SYSTEM, now=clock.now())
    click.echo(f"/invitation/{made.token}")


@click.command("create-token")
@click.option("--user", "username", required=True)
@click.option(
    "--scope", "scopes", multiple=True, type=click.Choice(users.SCOPES), default=("inbox",), show_default=True
)
@click.option("--label", default="command line", show_default=True)
@click.option("--days", type=click.IntRange(1, 3650), help="How long it is valid; for ever by default.")
@told
def create_token(username: str, scopes: tuple[str, ...], label: str, days: int | None) -> None:
    """Make a token for programs and print it, and nothing else. It is shown this once."""
    valid_for = timedelta(days=days) if days else None
    user_id = _person(username).id
    click.echo(users.create_token(user_id, scopes=scopes, label=label, by=SYSTEM, now=clock.now(), valid_for=valid_for))


@click.command("publish")
@click.option("--title", required=True)
@click.option("--content", required=True, help="Markdown.")
@click.option("--role", "roles", multiple=True, help="Only to people with this role; everyone without it.")
@click.option("--priority", type=click.Choice([p.value for p in Priority]), default="NORMAL", show_default=True)
@click.option("--category")
@click.option("--as", "username", default=None, help="The sender; by default the first administrator.")
@told
def publish(
    title: str, content: str, roles: tuple[str, ...], priority: str, category: str | None, username: str | None
) -> None:
    """Send a broadcast and print its id."""
    sender = _person(username) if username else known.first_admin()
    if sender is None:
        raise click.ClickException("There is no administrator yet. Make one with create-user --role admin.")
    raw = {
        "title": title,
        "content": content,
        "targetType": "ROLE" if roles else "ALL",
        "targetIds": list(roles) or None,
    }
    raw |= {"priority": priority, "category": category}
    by, now = Actor(sender.id, sender.name, sender.roles, sender.is_admin), clock.now()
    click.echo(broadcasts.publish(read_draft(raw, now=now), by=by, now=now).id)


@click.command("seed-demo")
@told
def seed_demo() -> None:
    """Make the demo people and a few broadcasts, and print the logins."""
    if SETTINGS.current.is_production:
        raise click.ClickException("Demo people have public passwords and are refused when APP_ENV=production.")
    demo.seed()
    click.echo("Demo people (never use them in production):")
    for person in demo.DEMO_PEOPLE:
        click.echo(f"  {person.username:<8} {person.password:<15} {', '.join(person.roles) or 'no role'}")


@click.command("new-epoch")
@click.option("--plans-go-on", is_flag=True, help="Nothing was sent since the copy was made: plans stay as they are.")
@told
def new_epoch(plans_go_on: bool) -> None:
    """After restoring an older database: begin a new epoch, so that every open page loads its list anew.

    Plans wait for somebody to decide, since they may have gone out after the copy was made.
    """
    with writing() as session:
        epoch = log.start_epoch(session)
        count = 0 if plans_go_on else overdue_schedules.hold_back_all(session, now=clock.now())
    notify.ring()
    click.echo(f"The epoch is {epoch} now. {count:,} plan{'s' * (count != 1)} wait{'s' * (count == 1)} for a decision.")


@click.group("audit")
def audit_group() -> None:
    """The record of who did what."""


@audit_group.command("verify")
@click.option("--noted", metavar="ID:HASH", help="A row and its hash that you wrote down earlier, elsewhere.")
@told
def verify_audit(noted: str | None) -> None:
    """Walk the whole chain and name the first broken row; note what it prints, to prove more next time."""
    id, _, hash = (noted or "").partition(":")
    if noted and not (id.isdigit() and hash):
        raise click.BadParameter("give it as printed: the row's number, a colon, and its hash", param_hint="--noted")
    found = audit.verify(noted=(int(id), hash) if noted else None)
    if found.broken_id is not None:
        raise click.ClickException(f"The chain breaks at row {found.broken_id}. {found.problem}")
    click.echo(f"{found.rows} rows, none changed and none missing. Newest: {found.rows}:{found.head}")


@click.command("verify-csv")
@click.argument("file", type=click.File("rb"))
@told
def verify_csv(file: IO[bytes]) -> None:
    """Say whether a CSV that was exported here is still what was exported."""
    keys = [current_app.secret_key, *(current_app.config["SECRET_KEY_FALLBACKS"] or ())]
    if not signed_csv.is_genuine(file.read(), keys):
        raise click.ClickException("This file was changed, or cut off, or was not exported here.")
    click.echo("This file is what was exported here.")
