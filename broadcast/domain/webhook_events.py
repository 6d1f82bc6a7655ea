"""What webhooks tell about: the types of their events, and the payloads, in the form of Standard Webhooks.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from broadcast.domain import clock
from broadcast.domain.events import EventType, encode_compact_json


class WebhookType(StrEnum):
    PUBLISHED = "broadcast.published"
    UPDATED = "broadcast.updated"
    RECALLED = "broadcast.recalled"
    ENDED = "broadcast.ended"
    ACKNOWLEDGED = "broadcast.acknowledged"
    ESCALATED = "broadcast.escalated"


TEST_TYPE = "webhook.test"
LOGGED_TYPES = (EventType.MESSAGE, EventType.MESSAGE_UPDATED, EventType.MESSAGE_REMOVED)  # events that webhooks tell of


def get_type(logged: EventType, payload: Mapping[str, Any]) -> WebhookType | None:
    """What an event of the log is for webhooks; None for one that they do not tell of, such as a reminder."""
    match logged:
        case EventType.MESSAGE:
            return WebhookType.PUBLISHED
        case EventType.MESSAGE_UPDATED if not payload.get("reminder"):
            return WebhookType.UPDATED
        case EventType.MESSAGE_REMOVED:
            return WebhookType.RECALLED if payload.get("reason") == "CANCELLED" else WebhookType.ENDED
    return None


def encode_body(type_: str, at: datetime, data: Mapping[str, Any]) -> str:
    """The body of a request. It is stored, and the same at every attempt."""
    return encode_compact_json({"type": type_, "timestamp": clock.to_rfc3339(at), "data": data})
