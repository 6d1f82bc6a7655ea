"""A message as its audience sees it: the payload in the log, the data of the stream, and the input of the card partial.

Nothing here depends on the viewer, so one encoding serves every client; the page adds read or unread.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from broadcast.domain import clock
from broadcast.domain.message import Link


@dataclass(frozen=True, slots=True)
class Card:
    """`content` is the Markdown as typed, `content_html` the sanitised HTML made from it. `times` is the number of
    inbound events that the card stands for, `repeated_at` the time of the newest if there are several. `is_from_source`
    is True if another system sent it, not a user. Acknowledgements of revisions before `ack_revision` no longer count.
    """

    id: int
    title: str
    content: str
    content_html: str
    priority: str
    category: str | None
    sender_name: str
    created_at: datetime
    published_at: datetime | None
    expires_at: datetime | None
    requires_ack: bool
    ack_due_at: datetime | None
    revision: int
    edited_at: datetime | None
    actions: tuple[Link, ...]
    target_type: str
    why: str
    times: int = 1
    repeated_at: datetime | None = None
    ack_revision: int = 1
    is_from_source: bool = False

    def to_payload(self) -> dict[str, Any]:
        payload = {name: getattr(self, attribute) for attribute, name in _PAYLOAD_NAMES.items()}
        for name in _TIME_NAMES:
            payload[name] = clock.to_rfc3339(payload[name])
        payload["actions"] = [{"label": link.label, "url": link.url} for link in self.actions]
        return payload

    @classmethod
    def from_payload(cls, payload: dict[str, Any]) -> "Card":
        """Read back what `to_payload` wrote into the log; what an earlier version did not write has its default."""
        values = {attribute: payload[name] for attribute, name in _PAYLOAD_NAMES.items() if name in payload}
        for attribute in _TIME_ATTRIBUTES & values.keys():
            values[attribute] = values[attribute] and clock.parse_rfc3339(values[attribute])
        values["actions"] = tuple(Link(**link) for link in values["actions"])
        return cls(**values)


_PAYLOAD_NAMES = {
    "id": "id",
    "title": "title",
    "content": "content",
    "content_html": "contentHtml",
    "priority": "priority",
    "category": "category",
    "sender_name": "senderName",
    "created_at": "createdAt",
    "published_at": "publishedAt",
    "expires_at": "expiresAt",
    "requires_ack": "requiresAck",
    "ack_due_at": "ackDueAt",
    "ack_revision": "ackRevision",
    "revision": "revision",
    "edited_at": "editedAt",
    "actions": "actions",
    "target_type": "targetType",
    "why": "why",
    "times": "times",
    "repeated_at": "repeatedAt",
    "is_from_source": "fromSource",
}
_TIME_ATTRIBUTES = frozenset(attribute for attribute in _PAYLOAD_NAMES if attribute.endswith("_at"))
_TIME_NAMES = [_PAYLOAD_NAMES[attribute] for attribute in _TIME_ATTRIBUTES]
