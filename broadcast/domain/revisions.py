"""Which text of a broadcast a user acknowledged, and whether that still counts.

Every edit raises a broadcast's revision. An edit is either a correction, after which acknowledgements still count, or
it asks for new ones: then only those of its own and later revisions count (`required_revision`).
"""

import hashlib
import json
from collections.abc import Iterable

from broadcast.domain.message import Link

MAX_UNACKNOWLEDGED_TEXTS = 20  # unacknowledged texts that may still be on somebody's screen


def hash_text(title: str, content: str, actions: Iterable[Link]) -> str:
    """SHA-256 in hexadecimal of what a user acknowledges: the title, the Markdown as typed, and the links.

    The input is the JSON object {"actions": [{"label", "url"}…], "content", "title"} in UTF-8, without spaces and with
    keys in this order, so that anyone who has the text can compute it (docs/acknowledgements.md).
    """
    links = [{"label": link.label, "url": link.url} for link in actions]
    document = {"actions": links, "content": content, "title": title}
    document_json = json.dumps(document, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(document_json.encode()).hexdigest()


def is_acknowledgement_valid(acked_revision: int | None, required_revision: int) -> bool:
    """Whether an acknowledgement of this revision counts. An unknown revision counts as the first."""
    return (acked_revision or 1) >= required_revision
