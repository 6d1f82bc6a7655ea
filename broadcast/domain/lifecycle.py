"""The status transitions of a broadcast, as one table.

DRAFT ──scheduled, held──▶ SCHEDULED ──published──▶ ACTIVE ──expired──▶ EXPIRED
  ▲ └─────────published────────┼─────────────────▶  │ └──cancelled──▶ CANCELLED
  └──────────withdrawn─────────┘
(A draft may be discarded, a scheduled broadcast cancelled: nobody got them. "edited" and "archived" keep the status.)
"""

from enum import StrEnum

from broadcast.base.errors import IllegalTransition


class Status(StrEnum):
    DRAFT = "DRAFT"
    SCHEDULED = "SCHEDULED"
    ACTIVE = "ACTIVE"
    EXPIRED = "EXPIRED"
    CANCELLED = "CANCELLED"


_TRANSITIONS = {
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


def transition(current: Status, action: str) -> Status:
    """The status after `action` (a past participle: "published"). Raises IllegalTransition."""
    try:
        return _TRANSITIONS[Status(current), action]
    except KeyError:
        raise IllegalTransition(current, action) from None


def can_transition(current: Status, action: str) -> bool:
    return (Status(current), action) in _TRANSITIONS
