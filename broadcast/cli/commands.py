"""Every command of `flask --app app …`. A failure is a sentence and a status, no traceback."""

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import IO, Any, TextIO

import click
from flask import current_app
from flask.cli import AppGroup
from sqlalchemy.exc import SQLAlchemyError

from broadcast.actions import (
    accounts,
    broadcasts,
    demo,
    invitations,
    notify,
    overdue_schedules,
    retention,
    tokens,
    transfer,
    users,
)
from broadcast.base.errors import BroadcastError, CommitOutcomeUnknown, TemporarilyUnavailable
from broadcast.base.numbers import parse_number
from broadcast.config.settings import SETTINGS, SettingsError
from broadcast.domain import clock, signed_csv
from broadcast.domain.actor import SYSTEM, Actor
from broadcast.domain.message import Priority, parse_draft
from broadcast.ingest import rules_file
from broadcast.ingest.rules import Rule
from broadcast.maintenance import doctor
from broadcast.store import audit, log, schema
from broadcast.store import users as known
from broadcast.store.transactions import write_transaction

_STATE_LABELS = {"ok": "ok     ", "warning": "WARNING", "failure": "FAILURE"}


class CommandGroup(AppGroup):
    """Commands that run inside an application context; an error becomes its sentence and exit status 1.

    So does a database that is away, or that has not the tables of this version.
    """

    def command(self, *args: Any, **options: Any) -> Callable:
        make_command = super().command(*args, **options)
        return lambda function: make_command(_report_errors(function))


def _report_errors(command: Callable) -> Callable:
    @wraps(command)
    def wrapper(**options):
        try:
            return command(**options)
        except BroadcastError as problem:
            sentence = str(problem)
            if isinstance(problem, TemporarilyUnavailable) and not isinstance(problem, CommitOutcomeUnknown):
                # operators are told what is wrong; people, that the database is busy, whatever it is
                sentence = schema.find_database_problem(should_include_reason=True) or sentence
            raise click.ClickException(sentence) from None
        except SQLAlchemyError as problem:
            if (sentence := schema.explain_error(problem)) is None:
                raise
            raise click.ClickException(sentence) from None

    return wrapper


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
    code = accounts.create_setup_code(now=clock.now())
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
    fields = {"title": title, "content": content, "priority": priority, "category": category}
    fields |= {"targetType": "ROLE" if roles else "ALL", "targetIds": list(roles) or None}
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


@COMMANDS.group("retention", cls=CommandGroup)
def retention_group() -> None:
    """Delete old events, broadcasts and receipts (RETENTION_… in docs/settings.md)."""


@COMMANDS.command("check-rules")
@click.argument("file", required=False, type=click.Path(path_type=Path))
def check_rules(file: Path | None) -> None:
    """Check FILE as EVENT_RULES is checked at start, before you use it; without FILE, check EVENT_RULES itself.

    Errors are printed, with exit code 1. Run it before a reload: the system does not start with rules it cannot read.
    """
    path = file or SETTINGS.current.event_rules
    try:
        rules = rules_file.load_rules(path)
    except SettingsError as problem:
        raise click.ClickException(str(problem)) from None
    for number, rule in enumerate(rules, 1):
        patterns = "; ".join(f"{name} {', '.join(patterns)}" for name, patterns in sorted(rule.patterns.items()))
        senders = ", ".join(rule.senders) if rule.senders else "every account and topic (restrict this with `from`)"
        click.echo(f"Rule {number}: {patterns}\n  May be sent by {senders}.")
        for username in _unknown_accounts(rule):
            click.echo(f"  There is no account {username} yet.")
    click.echo(f"{path or 'EVENT_RULES is not set'}: {len(rules)} rule{'s' * (len(rules) != 1)}, no problems found.")
    if path:
        is_refused = SETTINGS.current.event_rules_default == "refuse"
        click.echo(f"Events that match no rule are {'refused' if is_refused else 'allowed (EVENT_RULES_DEFAULT)'}.")


def _unknown_accounts(rule: Rule) -> list[str]:
    """Usernames in `from`, written without a pattern, that nobody has; none when the database cannot be asked."""
    usernames = [sender.removeprefix("account:") for sender in rule.senders or () if sender.startswith("account:")]
    try:
        known_usernames = known.find_taken_usernames(usernames)
    except SQLAlchemyError:
        return []
    return [name for name in usernames if name not in known_usernames and not set(name) & set("*?[")]


@retention_group.command("run")
def run_retention() -> None:
    """Delete now what is older than the settings keep; workers also do this once an hour."""
    deleted = retention.delete_expired(retention.RetentionPolicy.from_settings(SETTINGS.current), now=clock.now())
    click.echo(
        f"Deleted {deleted.events:,} events, {deleted.broadcasts:,} broadcasts and {deleted.receipts:,} receipts."
    )


@COMMANDS.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def export_dump(file: Path) -> None:
    """Write everything except sessions to FILE, as JSON lines; only its owner may read it."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as problem:
        raise click.ClickException(f"{file} cannot be created: {problem.strerror}.") from None
    count = -2  # the first and last line are not rows
    with open(descriptor, "w", encoding="utf-8") as output:
        for line in transfer.export_dump(now=clock.now()):
            output.write(line + "\n")
            count += 1
    click.echo(f"Wrote {count:,} rows to {file}.")


@COMMANDS.command("import")
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option(
    "--resume-schedules", is_flag=True, help="The old system sent nothing since the export: keep schedules as they are."
)
def import_dump(file: TextIO, resume_schedules: bool) -> None:
    """Import an export into an empty, migrated database and begin a new epoch. Scheduled broadcasts wait for a decision."""
    count = transfer.import_dump(file, now=clock.now(), may_resume_schedules=resume_schedules)
    notify.notify_workers()
    click.echo(f"Imported {count:,} rows. All users must sign in again.")


@COMMANDS.command("doctor")
@click.option("--url", help="The public address: also checks the proxy in front of it.")
@click.option(
    "--token", envvar="BROADCAST_TOKEN", help="A token with the scope inbox: also checks that a stream gets through."
)
def run_doctor(url: str | None, token: str | None) -> None:
    """Check settings, database, Redis, Kafka, clock, files and disk, and the proxy. Exit code 1 on a failure."""
    findings = doctor.run_checks(current_app._get_current_object(), is_thorough=True)
    if url:
        findings += doctor.check_public_url(url, token=token)
    for finding in findings:
        click.echo(f"{_STATE_LABELS[finding.state]}  {finding.part:<10} {finding.sentence}")
    if any(finding.state == "failure" for finding in findings):
        raise SystemExit(1)
