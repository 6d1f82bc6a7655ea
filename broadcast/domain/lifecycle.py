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


# by action: the statuses that it is possible in, and the one that it leads to (None: the status stays)
_TRANSITIONS: dict[str, tuple[set[Status], Status | None]] = {
    "saved": ({Status.DRAFT}, None),
    "edited": ({Status.DRAFT, Status.SCHEDULED, Status.ACTIVE}, None),
    "scheduled": ({Status.DRAFT, Status.SCHEDULED}, Status.SCHEDULED),
    "held": ({Status.DRAFT, Status.SCHEDULED}, Status.SCHEDULED),
    "withdrawn": ({Status.SCHEDULED}, Status.DRAFT),
    "published": ({Status.DRAFT, Status.SCHEDULED}, Status.ACTIVE),
    "cancelled": ({Status.DRAFT, Status.SCHEDULED, Status.ACTIVE}, Status.CANCELLED),
    "discarded": ({Status.DRAFT}, Status.CANCELLED),
    "expired": ({Status.SCHEDULED, Status.ACTIVE}, Status.EXPIRED),
    "archived": ({Status.EXPIRED, Status.CANCELLED}, None),
}


def transition(current: Status, action: str) -> Status:
    """The status after `action` (a past participle: "published"). Raises IllegalTransition."""
    if not can_transition(current, action):
        raise IllegalTransition(current, action)
    return _TRANSITIONS[action][1] or Status(current)


def can_transition(current: Status, action: str) -> bool:
    return action in _TRANSITIONS and current in _TRANSITIONS[action][0]
