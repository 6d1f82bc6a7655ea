"""Every error that a person may be told about.

    BroadcastError
    ├── Invalid            422  the input; `fields` has a sentence for each field
    │   └── ConfirmationRequired  somebody at a browser must confirm first that this reaches many people
    ├── NotSignedIn        401
    ├── SignInRefused      401  one sentence for an unknown name and for a wrong password
    ├── IdentityProviderUnavailable       503  the organisation's sign-in does not answer, or not as it should
    ├── Forbidden          403
    ├── NotFound           404  also for what exists but is not the asker's to see
    ├── Conflict           409
    │   ├── IllegalTransition   a broadcast in this status cannot do that
    │   ├── VersionConflict            somebody else changed it meanwhile; `version` is the one that is true now
    │   └── AcknowledgedTextChanged         an acknowledgement of words that are no longer the ones to acknowledge
    ├── TooManyEvents            429  a source sent more than its rule lets out, and more than may wait
    ├── TooManyRequests    429  a person or a client asked more often than the limits allow
    ├── VersionRequired     428  an edit that does not say which version it was made from
    └── TemporarilyUnavailable               503  the database is locked or away; nothing was written
        └── CommitOutcomeUnknown         504  it went away during or after a commit: written, or not

The message is a sentence fit for a person: what happened, and what to do. `broadcast.web.core.error_handlers` turns each
into a page, an htmx reply or `application/problem+json`; no other place does.
"""

from typing import Any


class BroadcastError(Exception):
    """Base of the tree. `status` is the HTTP status, `title` the short name of the kind of problem."""

    status = 500
    title = "Something went wrong"


class Invalid(BroadcastError):
    """Input that cannot be accepted. `fields` maps a field's public name to one sentence; nothing was written."""

    status = 422
    title = "Please check the form"

    def __init__(self, fields: dict[str, str]):
        self.fields = fields
        super().__init__(" ".join(fields.values()))


class ConfirmationRequired(Invalid):
    """Nothing was done: somebody must confirm first. `requirement` says how (`domain.pop_confirmation`),
    `recipient_count` how many people.
    """

    title = "Please confirm"

    def __init__(self, fields: dict[str, str], requirement: Any, recipient_count: int):
        self.requirement, self.recipient_count = requirement, recipient_count
        super().__init__(fields)


class NotSignedIn(BroadcastError):
    status = 401
    title = "Please sign in"

    def __init__(self, sentence: str = "Sign in to see this."):
        super().__init__(sentence)


class SignInRefused(BroadcastError):
    status = 401
    title = "Please try again"

    def __init__(self, sentence: str = "Wrong username or password. Please try again.") -> None:
        super().__init__(sentence)


class IdentityProviderUnavailable(BroadcastError):
    status = 503
    title = "Please try again"

    def __init__(self) -> None:
        super().__init__("Your organisation's sign-in service does not answer. Please try again in a moment.")


class Forbidden(BroadcastError):
    status = 403
    title = "Not allowed"

    def __init__(self, sentence: str = "You do not have permission to do this. Ask an administrator for access."):
        super().__init__(sentence)


class NotFound(BroadcastError):
    status = 404
    title = "Not found"

    def __init__(self, sentence: str = "This does not exist, or you do not have access to it."):
        super().__init__(sentence)


class Conflict(BroadcastError):
    status = 409
    title = "Already changed"


class IllegalTransition(Conflict):
    """A broadcast in `status` cannot do `action` (see `broadcast.domain.lifecycle`)."""

    def __init__(self, current_status: str, action: str):
        self.current_status, self.action = current_status, action
        super().__init__(
            _REFUSAL_SENTENCES.get(action, f"A broadcast that is {_STATUS_LABELS[current_status]} cannot be {action}.")
        )


_STATUS_LABELS = {
    "DRAFT": "a draft",
    "SCHEDULED": "scheduled",
    "ACTIVE": "live",
    "EXPIRED": "ended",
    "CANCELLED": "recalled",
}
_REFUSAL_SENTENCES = {
    "withdrawn": "This broadcast has already been sent or cancelled. Refresh the page. If it is live, you can recall it.",
    "discarded": "Only a draft can be deleted. Recall a broadcast that is scheduled or live; archive one that has ended.",
    "archived": "Only a broadcast that has ended can be archived. Recall it first.",
}


class VersionConflict(Conflict):
    """An edit was made from a version that is no longer the newest. Nothing was written."""

    def __init__(self, version: str):
        self.version = version
        super().__init__("Someone else has changed this broadcast since you opened it. Your changes were not saved.")


class AcknowledgedTextChanged(Conflict):
    """Somebody acknowledged a message as they saw it, and it says something else by now. Nothing was written for it."""

    title = "Message changed"

    def __init__(self) -> None:
        super().__init__("This message has changed since you opened it. Read the new version, then acknowledge it.")


class VersionRequired(BroadcastError):
    status = 428
    title = "If-Match required"

    def __init__(self) -> None:
        super().__init__("Send the ETag of the version you edited in If-Match, so that no changes are overwritten.")


class TooManyEvents(BroadcastError):
    """What came from outside is too much. Nothing was kept; `retry_after_seconds` says when to come back."""

    status = 429
    title = "Too many events"
    retry_after_seconds = 60


class TooManyRequests(BroadcastError):
    """One request too many; `retry_after_seconds` says when to come back."""

    status = 429
    title = "Too many requests"

    def __init__(self, limit: str, retry_after_seconds: int):
        self.retry_after_seconds = retry_after_seconds
        super().__init__(f"The limit is {limit}. Please wait a moment.")


class TemporarilyUnavailable(BroadcastError):
    """The database could not be asked or written in time; `retry_after_seconds` says when to come back.

    Nothing was written, unless it is CommitOutcomeUnknown: who catches TemporarilyUnavailable and tries again must do
    what can be done twice.
    """

    status = 503
    title = "Busy"
    sentence = "The database is busy. Nothing was saved; please try again in a moment."
    retry_after_seconds = 2

    def __init__(self) -> None:
        super().__init__(self.sentence)


class CommitOutcomeUnknown(TemporarilyUnavailable):
    """The database was lost during a commit, or before the answer was made: what was asked for may be done or not."""

    status = 504
    title = "Outcome unknown"
    sentence = (
        "The connection to the database was lost while saving. Your change may or may not have been "
        "saved. Check before you try again."
    )
