"""Parse and normalise what is typed about a user: username, name and roles."""

import re
from collections.abc import Iterable

from broadcast.base.errors import Invalid
from broadcast.domain.message import is_single_line

MAX_ROLES = 200  # per user
_USERNAME_PATTERN = re.compile(r"[a-z][a-z0-9._@-]{0,63}")  # starts with a letter: digits alone are a user id
_ROLE_PATTERN = re.compile(r"[a-z][a-z0-9_-]{0,63}")


def clean_display_name(name: str) -> str:
    """A normalised display name. Raises Invalid."""
    name = " ".join(name.split())
    if not 0 < len(name) <= 200 or not is_single_line(name):
        raise Invalid({"name": "A name must have 1 to 200 characters."})
    return name


def read_user_fields(username: str, name: str | None, roles: Iterable[str]) -> tuple[str, str, set[str]]:
    """Normalised username, name and roles. Raises Invalid with a message for each invalid field."""
    problems: dict[str, str] = {}
    username = username.strip().lower()
    if not _USERNAME_PATTERN.fullmatch(username):
        problems["username"] = "A username starts with a letter and has up to 64 letters, digits, dots, -, _ or @."
    name = " ".join((name or "").split()) or username.capitalize()
    try:
        name = name if "username" in problems else clean_display_name(name)
    except Invalid as invalid:
        problems |= invalid.fields
    try:
        roles = read_role_names(roles)
    except Invalid as invalid:
        problems |= invalid.fields
    if problems:
        raise Invalid(problems)
    return username, name, set(roles)


def read_role_names(roles: Iterable[str]) -> set[str]:
    """Normalised role names. Raises Invalid."""
    names = {role.strip().lower() for role in roles}
    if len(names) > MAX_ROLES:
        raise Invalid({"roles": f"A user can have at most {MAX_ROLES} roles."})
    if invalid_names := sorted(name for name in names if not _ROLE_PATTERN.fullmatch(name)):
        raise Invalid({"roles": f"{invalid_names[0]!r} cannot be a role: use a letter, then letters, digits, - or _."})
    return names
