"""Asking somebody at a browser to confirm what reaches many or interrupts everybody, before it is done.

It belongs to the action, whichever page or request brings it. A program with a token is not asked: nobody is there to answer,
and whoever gave it the scope has decided already.
"""

from dataclasses import dataclass
from datetime import datetime

from broadcast.actions import passwords
from broadcast.actions.users import JUST_NOW
from broadcast.base.errors import ConfirmationNeeded
from broadcast.domain.actor import Actor
from broadcast.domain.confirmation import Confirmation, Given
from broadcast.store import users

_MISSING = "Type your password to confirm: this interrupts everybody."
_NOT_YOURS = "That is not your password. Please try again."
_SIGN_IN_ANEW = "You have no password here. Save the draft, sign out and in again, and send it within ten minutes."


@dataclass(frozen=True, slots=True)
class Proof:
    """What somebody confirmed, with their password looked at. `is_asked` is False for a program."""

    is_asked: bool
    given: Given = Given()  # noqa: RUF009 - frozen
    is_present: bool = False
    has_password: bool = False


def prove(given: Given | None, *, by: Actor, now: datetime) -> Proof:
    """Look at what was given. Before a transaction: a password takes a while. Lets other greenlets run."""
    if by.signed_in_at is None:
        return Proof(is_asked=False)
    given = given or Given()
    user = users.by_id(by.user_id)
    if user is None or user.password_hash is None:  # signs in at the organisation's provider
        return Proof(True, given, is_present=now - by.signed_in_at <= JUST_NOW)
    is_present = bool(given.password) and passwords.matches(given.password, user.password_hash)
    return Proof(True, given, is_present, has_password=True)


def demand(proof: Proof, wanted: Confirmation, reach: int) -> None:
    """Raise ConfirmationNeeded unless `proof` has what is wanted of who reaches so many people."""
    if not proof.is_asked or wanted.is_click:
        return
    problems: dict[str, str] = {}
    people = "1 person" if reach == 1 else f"{reach:,} people"
    is_counted = proof.given.people == reach
    if wanted.tick and not (proof.given.understood or is_counted):
        problems["understood"] = f"Tick that you understand that this reaches {people}."
    if wanted.number and not is_counted:
        problems["typedCount"] = f"Type the number of people this reaches: {reach:,}."
    if wanted.password and not proof.is_present:
        wrong = _NOT_YOURS if proof.given.password else _MISSING
        problems["password"] = wrong if proof.has_password else _SIGN_IN_ANEW
    if problems:
        raise ConfirmationNeeded(problems, wanted, reach)
