"""What a push message says, and how its push service is asked to treat it. The service sees only the headers.

The title is all that leaves this system of a message: the person opens the rest here.
"""

import json
from datetime import datetime, timedelta
from typing import Any

from broadcast.domain.card import Card
from broadcast.domain.message import Priority

MAX_TTL = timedelta(days=28)  # push services keep nothing for longer
_URGENCY = {  # RFC 8030, 5.3: what wakes a device that saves power
    Priority.LOW: "low",
    Priority.NORMAL: "normal",
    Priority.HIGH: "high",
    Priority.URGENT: "high",
}


def build_content(card: Card) -> bytes:
    """What the service worker shows for a message."""
    values = {"id": card.id, "revision": card.revision, "title": card.title, "priority": card.priority}
    return _encode(values | {"link": f"/inbox/{card.id}"})


def build_withdrawal(card: Card) -> bytes:
    """What it shows in the place of a message that was recalled: nothing of what that said."""
    return _encode({"id": card.id, "revision": card.revision, "withdrawn": True, "link": "/inbox"})


def build_test(name: str) -> bytes:
    """A message that only shows that push messages arrive."""
    values = {"id": 0, "revision": 1, "title": f"A test for {name}", "priority": Priority.NORMAL}
    return _encode(values | {"link": "/inbox"})


def build_headers(broadcast_id: int, priority: str, *, expires_at: datetime | None, now: datetime) -> dict[str, str]:
    """The headers for a push service: it keeps the message until its end, and only the newest of a broadcast (Topic)."""
    ttl = min(expires_at - now, MAX_TTL) if expires_at else MAX_TTL
    return {
        "Content-Encoding": "aes128gcm",
        "Content-Type": "application/octet-stream",
        "TTL": str(max(0, int(ttl.total_seconds()))),
        "Urgency": _URGENCY[Priority(priority)],
        "Topic": f"broadcast-{broadcast_id}",
    }


def _encode(values: dict[str, Any]) -> bytes:
    """Far below MAX_CONTENT_BYTES: a title of 200 characters has up to 2400 bytes."""
    return json.dumps(values, separators=(",", ":")).encode()
