"""`flask --app app …`: retention, export, import, doctor, check-rules. A failure is a sentence and a status, no traceback."""

import os
from pathlib import Path
from typing import TextIO

import click
from flask import current_app
from sqlalchemy.exc import SQLAlchemyError

from broadcast.actions import notify, retention, transfer
from broadcast.cli.reporting import CommandGroup
from broadcast.config.settings import SETTINGS, SettingsError
from broadcast.domain import clock
from broadcast.ingest import rules_file
from broadcast.ingest.rules import Rule
from broadcast.maintenance import doctor, public_check
from broadcast.store import users

_STATE_LABELS = {"ok": "ok     ", "warning": "WARNING", "failure": "FAILURE"}
COMMANDS = CommandGroup()


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
        known_usernames = users.find_taken_usernames(usernames)
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
        findings += public_check.check_public_url(url, token=token)
    for finding in findings:
        click.echo(f"{_STATE_LABELS[finding.state]}  {finding.part:<10} {finding.sentence}")
    if any(finding.state == "failure" for finding in findings):
        raise SystemExit(1)
