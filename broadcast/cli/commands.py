"""`flask --app app …`: people, tokens, publishing, the demo, the log. A failure is a sentence and a status, no traceback."""

import sys
from datetime import timedelta
from typing import IO

import click
from flask import current_app

from broadcast.actions import (
    accounts,
    broadcasts,
    demo,
    initial_setup,
    invitations,
    notify,
    overdue_schedules,
    tokens,
    users,
)
from broadcast.base.numbers import parse_number
from broadcast.cli.reporting import CommandGroup
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock, signed_csv
from broadcast.domain.actor import SYSTEM, Actor
from broadcast.domain.message import Priority, parse_draft
from broadcast.store import audit, log
from broadcast.store import users as known
from broadcast.store.transactions import write_transaction

COMMANDS = CommandGroup()


def _get_user(username: str):
    user = known.get_by_username(username)
    if user is None:
        raise click.ClickException(f"There is no user called {username}.")
    return user


@COMMANDS.command("setup-code")
@click.option(
    "--if-needed", is_flag=True, help="Print nothing if there is already an administrator, instead of failing."
)
def print_setup_code(if_needed: bool) -> None:
    """Print a one-time code to create the first administrator in a browser at /setup."""
    code = initial_setup.create_setup_code(now=clock.now())
    if code is None and not if_needed:
        raise click.ClickException("There is already an administrator. Add more users in the console.")
    if code:
        click.echo(code)


@COMMANDS.command("create-user")
@click.option("--username", required=True)
@click.option("--name", help="Name shown as the sender. Default: the username.")
@click.option(
    "--role", "roles", multiple=True, help="Can be given several times; `admin` gives full access to the console."
)
@click.option("--password-stdin", is_flag=True, required=True, help="Read the password from standard input.")
def create_user(username: str, name: str | None, roles: tuple[str, ...], password_stdin: bool) -> None:
    """Add a user."""
    password = sys.stdin.readline().rstrip("\r\n")
    users.create_user(username, password, roles=roles, name=name, by=SYSTEM, now=clock.now())
    click.echo(f"Created {username.lower()}.")


@COMMANDS.command("set-roles")
@click.option("--username", required=True)
@click.option("--role", "roles", multiple=True, help="The new roles; without any, all roles are removed.")
def set_roles(username: str, roles: tuple[str, ...]) -> None:
    """Replace a user's roles; open pages update within a second."""
    users.set_roles(_get_user(username).id, roles, by=SYSTEM, now=clock.now())
    click.echo(f"{username.lower()} has {', '.join(sorted(roles)) or 'no role'} now.")


@COMMANDS.command("disable-user")
@click.option("--username", required=True)
def disable_user(username: str) -> None:
    """Disable an account and end its sessions and streams."""
    users.disable_user(_get_user(username).id, by=SYSTEM, now=clock.now())
    click.echo(f"{username.lower()} is disabled.")


@COMMANDS.command("rename-user")
@click.option("--username", required=True)
@click.option("--name", required=True, help="New name, shown as the sender from now on.")
def rename_user(username: str, name: str) -> None:
    """Change a user's name; broadcasts that have already been sent keep the old name."""
    accounts.rename(_get_user(username).id, name, by=SYSTEM, now=clock.now())
    click.echo(f"{username.lower()} is called {' '.join(name.split())} now.")


@COMMANDS.command("delete-user")
@click.option("--username", required=True)
@click.option("--yes", is_flag=True, required=True, help="Confirm the deletion: it cannot be undone.")
def delete_user(username: str, yes: bool) -> None:
    """Delete an account; its receipts are kept, as those of a former user."""
    accounts.delete(_get_user(username).id, typed_username=username, by=SYSTEM, now=clock.now())
    click.echo(f"{username.lower()} is deleted.")


@COMMANDS.command("invite-user")
@click.option("--username", required=True)
@click.option("--days", type=click.IntRange(1, 90), help="How long it is valid. Default: INVITATION_DAYS.")
def invite_user(username: str, days: int | None) -> None:
    """Print the path of a link with which a user who has no password chooses one. It is shown only once."""
    valid_for = timedelta(days=days or SETTINGS.current.invitation_days)
    [invitation] = invitations.invite_users([_get_user(username).id], valid_for=valid_for, by=SYSTEM, now=clock.now())
    click.echo(f"/invitation/{invitation.token}")


@COMMANDS.command("create-token")
@click.option("--user", "username", required=True)
@click.option(
    "--scope", "scopes", multiple=True, type=click.Choice(tokens.TOKEN_SCOPES), default=("inbox",), show_default=True
)
@click.option("--label", default="command line", show_default=True)
@click.option("--days", type=click.IntRange(1, 3650), help="How long it is valid. Default: no expiration.")
def create_token(username: str, scopes: tuple[str, ...], label: str, days: int | None) -> None:
    """Create a token for programs and print only the token. It is shown only once."""
    valid_for = timedelta(days=days) if days else None
    user_id = _get_user(username).id
    click.echo(
        tokens.create_token(user_id, scopes=scopes, label=label, by=SYSTEM, now=clock.now(), valid_for=valid_for)
    )


@COMMANDS.command("publish")
@click.option("--title", required=True)
@click.option("--content", required=True, help="Markdown.")
@click.option("--role", "roles", multiple=True, help="Send only to users with this role. Default: everyone.")
@click.option("--priority", type=click.Choice([p.value for p in Priority]), default="NORMAL", show_default=True)
@click.option("--category")
@click.option("--as", "username", default=None, help="The sender. Default: the first administrator.")
def publish(
    title: str, content: str, roles: tuple[str, ...], priority: str, category: str | None, username: str | None
) -> None:
    """Send a broadcast and print its id."""
    sender = _get_user(username) if username else known.get_first_admin()
    if sender is None:
        raise click.ClickException("There is no administrator yet. Create one with create-user --role admin.")
    fields = {
        "title": title,
        "content": content,
        "targetType": "ROLE" if roles else "ALL",
        "targetIds": list(roles) or None,
    }
    fields |= {"priority": priority, "category": category}
    actor, now = Actor(sender.id, sender.name, sender.roles, sender.is_admin), clock.now()
    click.echo(broadcasts.publish(parse_draft(fields, now=now), by=actor, now=now).id)


@COMMANDS.command("seed-demo")
def seed_demo() -> None:
    """Create the demo users and a few broadcasts, and print the logins."""
    if SETTINGS.current.is_production:
        raise click.ClickException("Demo users have public passwords and are refused when APP_ENV=production.")
    demo.seed()
    click.echo("Demo users (never use them in production):")
    for demo_user in demo.DEMO_USERS:
        click.echo(f"  {demo_user.username:<8} {demo_user.password:<15} {', '.join(demo_user.roles) or 'no role'}")


@COMMANDS.command("new-epoch")
@click.option(
    "--resume-schedules", is_flag=True, help="Nothing was sent since the copy was made: keep schedules as they are."
)
def new_epoch(resume_schedules: bool) -> None:
    """After restoring an older database: begin a new epoch, so that every open page reloads its list.

    Scheduled broadcasts wait for a decision, since they may have been sent after the copy was made.
    """
    with write_transaction() as session:
        epoch = log.start_epoch(session)
        count = 0 if resume_schedules else overdue_schedules.suspend_all(session, now=clock.now())
    notify.notify_workers()
    click.echo(f"The epoch is {epoch} now. {count:,} plan{'s' * (count != 1)} wait{'s' * (count == 1)} for a decision.")


@COMMANDS.group("audit", cls=CommandGroup)
def audit_group() -> None:
    """The record of who did what."""


@audit_group.command("verify")
@click.option("--checkpoint", metavar="ID:HASH", help="A row and its hash that you noted earlier, outside this system.")
def verify_audit(checkpoint: str | None) -> None:
    """Check the whole hash chain and print the first broken row. Note the output, to check against it next time."""
    id_text, _, row_hash = (checkpoint or "").partition(":")
    row_id = parse_number(id_text)
    if checkpoint and (row_id is None or not row_hash):
        raise click.BadParameter(
            "give it as printed: the row's number, a colon, and its hash", param_hint="--checkpoint"
        )
    verification = audit.verify_chain(checkpoint=None if row_id is None else (row_id, row_hash))
    if verification.broken_id is not None:
        raise click.ClickException(f"The chain breaks at row {verification.broken_id}. {verification.problem}")
    click.echo(
        f"{verification.row_count} rows, none changed and none missing. Newest: "
        f"{verification.row_count}:{verification.head_hash}"
    )


@COMMANDS.command("verify-csv")
@click.argument("file", type=click.File("rb"))
def verify_csv(file: IO[bytes]) -> None:
    """Check that an exported CSV is unchanged."""
    keys = [current_app.secret_key, *(current_app.config["SECRET_KEY_FALLBACKS"] or ())]
    if not signed_csv.has_valid_signature(file.read(), keys):
        raise click.ClickException("This file was changed or truncated, or was not exported by this system.")
    click.echo("This file is unchanged since its export.")
