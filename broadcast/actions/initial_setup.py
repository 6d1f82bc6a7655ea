"""Create the first administrator with a one-time setup code, valid only while there is none.

The code is created and shown where the system is started, so that a stranger who finds the page first can do nothing.
"""

import secrets
from datetime import datetime

from sqlalchemy.exc import IntegrityError

from broadcast.actions import passwords, tokens, users
from broadcast.base.errors import Conflict, Invalid
from broadcast.domain.actor import SYSTEM
from broadcast.store import audit, invitations
from broadcast.store.transactions import write_transaction
from broadcast.store.users import has_administrator

_WRONG_CODE = "This setup code is not valid. Use the newest code that was printed. Each code works once."
_ALREADY_SET_UP = "There is an administrator already. Sign in, or ask an administrator for an account."


def create_setup_code(*, now: datetime) -> str | None:
    """Create a code and return it; the previous one becomes void. None when there is an administrator."""
    with write_transaction() as session:
        if has_administrator():
            return None
        code = "-".join(secrets.token_hex(2) for _ in range(5))  # 80 bits, in groups that can be read out
        invitations.replace_setup_code(session, tokens.hash_token(code), at=now)
    return code


def create_first_administrator(code: str, username: str, password: str, *, name: str | None, now: datetime) -> int:
    """Consume the code and create the first administrator; return the id. Raises Invalid, Conflict."""
    if has_administrator():
        raise Conflict(_ALREADY_SET_UP)
    username, name, roles = users.read_user_fields(username, name, ["admin"])
    passwords.check_password(password, username=username, name=name)
    password_hash = passwords.hash_password(password)
    try:
        with write_transaction() as session:
            if has_administrator():
                raise Conflict(_ALREADY_SET_UP)
            if not invitations.consume_setup_code(session, tokens.hash_token(code.strip().lower())):
                raise Invalid({"code": _WRONG_CODE})
            user = users.add_user(session, username, name, roles, password_hash=password_hash, now=now)
            audit.record(session, SYSTEM, "person.first_administrator", "person", user.id, now=now, username=username)
            return user.id
    except IntegrityError:
        raise Invalid({"username": f"There is a user called {username} already."}) from None
