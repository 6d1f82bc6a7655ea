"""Every error that may be shown to a user.

    BroadcastError
    ├── Invalid                          422  the input; `fields` has a sentence for each field
    │   └── ConfirmationRequired              a user must first confirm that this reaches many recipients
    ├── NotSignedIn                      401
    ├── SignInRefused                    401  the same sentence for an unknown name and for a wrong password
    ├── IdentityProviderUnavailable      503  the OpenID provider does not answer, or not correctly
    ├── Forbidden                        403
    ├── NotFound                         404  also for what exists but may not be seen by this user
    ├── Conflict                         409
    │   ├── IllegalTransition                 the broadcast's status does not allow the action
    │   ├── VersionConflict                   someone else changed it meanwhile; `version` is the current one
    │   └── AcknowledgedTextChanged           the acknowledged text is not the current one
    ├── TooManyEvents                    429  a source exceeded its rate cap and its quarantine is full
    ├── TooManyRequests                  429  a user or client exceeded a rate limit
    ├── VersionRequired                  428  an edit without the version that it was made from
    └── TemporarilyUnavailable           503  the database is locked or down; nothing was written
        └── CommitOutcomeUnknown         504  the connection was lost during or after a commit

The message is a sentence for users: what happened, and what to do. Only `broadcast.web.core.error_handlers` turns
errors into a page, an htmx reply or `application/problem+json`.
"""

from typing import Any


class BroadcastError(Exception):
    """Base of the tree. `status` is the HTTP status, `title` a short name for the kind of problem, `sentence` the
    message if none is given.
    """

    status = 500
    title = "Something went wrong"
    sentence = "Something went wrong."
    retry_after_seconds: int | None = None

    def __init__(self, sentence: str | None = None):
        super().__init__(self.sentence if sentence is None else sentence)


class Invalid(BroadcastError):
    """Input that cannot be accepted. `fields` maps a field's public name to one sentence. Nothing was written."""

    status = 422
    title = "Please check the form"

    def __init__(self, fields: dict[str, str]):
        self.fields = fields
        super().__init__(" ".join(fields.values()))


class ConfirmationRequired(Invalid):
    """Nothing was done: the user must confirm first. `requirement` (`domain.confirmation`) says how."""

    title = "Please confirm"

    def __init__(self, fields: dict[str, str], requirement: Any, recipient_count: int):
        self.requirement, self.recipient_count = requirement, recipient_count
        super().__init__(fields)


class NotSignedIn(BroadcastError):
    status = 401
    title = "Please sign in"
    sentence = "Sign in to see this."


class SignInRefused(BroadcastError):
    status = 401
    title = "Please try again"
    sentence = "Wrong username or password. Please try again."


class IdentityProviderUnavailable(BroadcastError):
    status = 503
    title = "Please try again"
    sentence = "Your organisation's sign-in service does not answer. Please try again in a moment."


class Forbidden(BroadcastError):
    status = 403
    title = "Not allowed"
    sentence = "You do not have permission to do this. Ask an administrator for access."


class NotFound(BroadcastError):
    status = 404
    title = "Not found"
    sentence = "This does not exist, or you do not have access to it."


class Conflict(BroadcastError):
    status = 409
    title = "Already changed"


class IllegalTransition(Conflict):
    """A broadcast in `current_status` does not allow `action` (see `broadcast.domain.lifecycle`)."""

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
    """An edit was made from an outdated version. Nothing was written."""

    sentence = "Someone else has changed this broadcast since you opened it. Your changes were not saved."

    def __init__(self, version: str):
        self.version = version
        super().__init__()


class AcknowledgedTextChanged(Conflict):
    """A user acknowledged a text that has changed since they saw it. No acknowledgement was stored."""

    title = "Message changed"
    sentence = "This message has changed since you opened it. Read the new version, then acknowledge it."


class VersionRequired(BroadcastError):
    status = 428
    title = "If-Match required"
    sentence = "Send the ETag of the version you edited in If-Match, so that no changes are overwritten."


class TooManyEvents(BroadcastError):
    """Too many inbound events. Nothing was stored; retry after `retry_after_seconds`."""

    status = 429
    title = "Too many events"
    retry_after_seconds = 60


class TooManyRequests(BroadcastError):
    """A rate limit was exceeded; retry after `retry_after_seconds`."""

    status = 429
    title = "Too many requests"

    def __init__(self, limit: str, retry_after_seconds: int):
        self.retry_after_seconds = retry_after_seconds
        super().__init__(f"The limit is {limit}. Please wait a moment.")


class TemporarilyUnavailable(BroadcastError):
    """The database could not be read or written in time; retry after `retry_after_seconds`.

    Nothing was written, except perhaps with the subclass CommitOutcomeUnknown: code that catches TemporarilyUnavailable
    and retries must be idempotent.
    """

    status = 503
    title = "Busy"
    sentence = "The database is busy. Nothing was saved; please try again in a moment."
    retry_after_seconds = 2


class CommitOutcomeUnknown(TemporarilyUnavailable):
    """The database connection was lost during a commit or before the response: the change may or may not be stored."""

    status = 504
    title = "Outcome unknown"
    sentence = (
        "The connection to the database was lost while saving. Your change may or may not have been "
        "saved. Check before you try again."
    )
