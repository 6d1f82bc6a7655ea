"""The audit log's hash chain: each row's hash covers the row and the previous hash, so no row can change unnoticed.

The hashed form can never change: rows of any age are verified with it.
"""

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

_encode_json = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
GENESIS_HASH = "0" * 64  # precedes the first row


def next_hash(
    previous_hash: str,
    *,
    id: int,
    at: datetime,
    actor_id: int | None,
    actor_name: str,
    action: str,
    object_type: str,
    object_id: str | None,
    detail: dict[str, Any],
) -> str:
    """The hash of the row that follows the row with `previous_hash`. `detail` is plain JSON."""
    timestamp = at.astimezone(UTC).isoformat(timespec="microseconds")
    row = [previous_hash, id, timestamp, actor_id, actor_name, action, object_type, object_id, detail]
    return hashlib.sha256(_encode_json(row).encode()).hexdigest()
