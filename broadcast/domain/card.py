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
        return {
            "id": self.id,
            "title": self.title,
            "content": self.content,
            "contentHtml": self.content_html,
            "priority": self.priority,
            "category": self.category,
            "senderName": self.sender_name,
            "createdAt": clock.to_rfc3339(self.created_at),
            "publishedAt": clock.to_rfc3339(self.published_at),
            "expiresAt": clock.to_rfc3339(self.expires_at),
            "requiresAck": self.requires_ack,
            "ackDueAt": clock.to_rfc3339(self.ack_due_at),
            "ackRevision": self.ack_revision,
            "revision": self.revision,
            "editedAt": clock.to_rfc3339(self.edited_at),
            "actions": [{"label": link.label, "url": link.url} for link in self.actions],
            "targetType": self.target_type,
            "why": self.why,
            "times": self.times,
            "repeatedAt": clock.to_rfc3339(self.repeated_at),
            "fromSource": self.is_from_source,
        }

    @classmethod
    def from_payload(cls, payload: dict[str, Any]) -> "Card":
        """Read back what `to_payload` wrote into the log."""
        return cls(
            id=payload["id"],
            title=payload["title"],
            content=payload["content"],
            content_html=payload["contentHtml"],
            priority=payload["priority"],
            category=payload["category"],
            sender_name=payload["senderName"],
            created_at=clock.parse_rfc3339(payload["createdAt"]),
            published_at=_parse_optional_time(payload["publishedAt"]),
            expires_at=_parse_optional_time(payload["expiresAt"]),
            requires_ack=payload["requiresAck"],
            ack_due_at=_parse_optional_time(payload["ackDueAt"]),
            revision=payload["revision"],
            edited_at=_parse_optional_time(payload["editedAt"]),
            actions=tuple(Link(**link) for link in payload["actions"]),
            target_type=payload["targetType"],
            why=payload["why"],
            times=payload.get("times", 1),  # log events of an earlier version lack these
            repeated_at=_parse_optional_time(payload.get("repeatedAt")),
            ack_revision=payload.get("ackRevision", 1),
            is_from_source=payload.get("fromSource", False),
        )


def _parse_optional_time(text: str | None) -> datetime | None:
    return clock.parse_rfc3339(text) if text else None
