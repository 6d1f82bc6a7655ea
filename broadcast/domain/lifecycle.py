"""What a broadcast may do next: one table.

DRAFT ──scheduled, held──▶ SCHEDULED ──published──▶ ACTIVE ──expired──▶ EXPIRED
  ▲ └─────────published────────┼─────────────────▶  │ └──cancelled──▶ CANCELLED
  └──────────withdrawn─────────┘
(a draft may be discarded and a scheduled one cancelled: it then never reached anybody. "edited" and "archived" change no
status.)
"""

from enum import StrEnum

from broadcast.base.errors import IllegalTransition


class Status(StrEnum):
    DRAFT = "DRAFT"
    SCHEDULED = "SCHEDULED"
    ACTIVE = "ACTIVE"
    EXPIRED = "EXPIRED"
    CANCELLED = "CANCELLED"


_NEXT = {
    (Status.DRAFT, "saved"): Status.DRAFT,
    (Status.DRAFT, "edited"): Status.DRAFT,
    (Status.DRAFT, "scheduled"): Status.SCHEDULED,
    (Status.DRAFT, "held"): Status.SCHEDULED,
    (Status.DRAFT, "published"): Status.ACTIVE,
    (Status.DRAFT, "cancelled"): Status.CANCELLED,
    (Status.DRAFT, "discarded"): Status.CANCELLED,
    (Status.SCHEDULED, "edited"): Status.SCHEDULED,
    (Status.SCHEDULED, "scheduled"): Status.SCHEDULED,
    (Status.SCHEDULED, "held"): Status.SCHEDULED,
    (Status.SCHEDULED, "withdrawn"): Status.DRAFT,
    (Status.SCHEDULED, "published"): Status.ACTIVE,
    (Status.SCHEDULED, "cancelled"): Status.CANCELLED,
    (Status.SCHEDULED, "expired"): Status.EXPIRED,
    (Status.ACTIVE, "edited"): Status.ACTIVE,
    (Status.ACTIVE, "cancelled"): Status.CANCELLED,
    (Status.ACTIVE, "expired"): Status.EXPIRED,
    (Status.EXPIRED, "archived"): Status.EXPIRED,
    (Status.CANCELLED, "archived"): Status.CANCELLED,
}


def after(current: Status, action: str) -> Status:
    """The status after `action` (a past participle: "published"). Raises IllegalTransition if the table has no such move."""
    try:
        return _NEXT[Status(current), action]
    except KeyError:
        raise IllegalTransition(current, action) from None


def may(current: Status, action: str) -> bool:
    return (Status(current), action) in _NEXT


def sources(action: str) -> list[Status]:
    """Statuses from which `action` is legal: what a conditional UPDATE claims from."""
    return [status for status, name in _NEXT if name == action]
