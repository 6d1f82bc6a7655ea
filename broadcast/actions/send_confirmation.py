"""Require a signed-in user to confirm a broadcast that reaches many or interrupts everybody before it is sent.

It belongs to the action, whichever page or request calls it. API tokens are exempt: nobody is there to answer, and
whoever granted the scope has already decided.
"""

from dataclasses import dataclass
from datetime import datetime

from broadcast.actions import passwords
from broadcast.actions.sessions import RECENT_SIGN_IN
from broadcast.base.errors import ConfirmationRequired
from broadcast.domain.actor import Actor
from broadcast.domain.confirmation import ConfirmationInput, ConfirmationRequirement, get_requirement_for
from broadcast.domain.message import Priority
from broadcast.store import users
from broadcast.store.models import Broadcast

_PASSWORD_MISSING = "Enter your password to confirm: this interrupts everyone."
_PASSWORD_WRONG = "The password is incorrect. Try again."
_NO_PASSWORD = "You have no password here. Save the draft, sign in again, and send it within 10 minutes."


@dataclass(frozen=True, slots=True)
class ConfirmationProof:
    """What the user confirmed, with the password verified. `is_required` is False for an API token."""

    is_required: bool
    given: ConfirmationInput = ConfirmationInput()  # noqa: RUF009 - frozen
    is_reauthenticated: bool = False
    has_password: bool = False


def verify_confirmation(given: ConfirmationInput | None, *, by: Actor, now: datetime) -> ConfirmationProof:
    """Verify what was given. Call it before a transaction: a password takes a while. Lets other greenlets run."""
    if by.signed_in_at is None:
        return ConfirmationProof(is_required=False)
    given = given or ConfirmationInput()
    user = users.get(by.user_id)
    if user is None or user.password_hash is None:  # signs in at the organisation's provider
        return ConfirmationProof(True, given, is_reauthenticated=now - by.signed_in_at <= RECENT_SIGN_IN)
    is_reauthenticated = bool(given.password) and passwords.verify_password(given.password, user.password_hash)
    return ConfirmationProof(True, given, is_reauthenticated, has_password=True)


def require_row_proof(proof: ConfirmationProof, broadcast: Broadcast, recipient_count: int) -> None:
    """The same as `require_proof` for a stored broadcast that reaches so many."""
    is_for_everyone = broadcast.audience_kind == "everyone"
    required = get_requirement_for(Priority(broadcast.priority), recipient_count, is_for_everyone=is_for_everyone)
    require_proof(proof, required, recipient_count)


def require_proof(proof: ConfirmationProof, required: ConfirmationRequirement, recipient_count: int) -> None:
    """Raise ConfirmationRequired unless `proof` meets what a broadcast to so many recipients requires."""
    if not proof.is_required or required.is_click_enough:
        return
    problems: dict[str, str] = {}
    people_text = "1 person" if recipient_count == 1 else f"{recipient_count:,} people"
    is_count_correct = proof.given.typed_count == recipient_count
    if required.needs_tick and not (proof.given.has_understood or is_count_correct):
        problems["understood"] = f"Tick the box to confirm that this reaches {people_text}."
    if required.needs_typed_count and not is_count_correct:
        problems["typedCount"] = f"Type the number of people this reaches: {recipient_count:,}."
    if required.needs_password and not proof.is_reauthenticated:
        password_problem = _PASSWORD_WRONG if proof.given.password else _PASSWORD_MISSING
        problems["password"] = password_problem if proof.has_password else _NO_PASSWORD
    if problems:
        raise ConfirmationRequired(problems, required, recipient_count)
