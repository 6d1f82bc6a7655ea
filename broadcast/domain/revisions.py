"""Which words of a broadcast somebody acknowledged, and whether that still counts.

A broadcast has a revision, which every edit raises. An edit is a correction, after which acknowledgements stand, or it asks for
them anew: then only those of its own revision and later ones stand (`required_revision`).
"""

import hashlib
import json
from collections.abc import Iterable

from broadcast.domain.message import Link

MAX_UNACKNOWLEDGED_TEXTS = 20  # texts that nobody acknowledged and that may still be on somebody's screen


def hash_text(title: str, content: str, actions: Iterable[Link]) -> str:
    """SHA-256 in hexadecimal of what a person confirms: the title, the Markdown as it was typed, and the links.

    Of the JSON object {"actions": [{"label", "url"}…], "content", "title"} in UTF-8, without blanks and with its names in
    this order, so that whoever has the text can work it out (docs/acknowledgements.md).
    """
    links = [{"label": link.label, "url": link.url} for link in actions]
    document = {"actions": links, "content": content, "title": title}
    document_json = json.dumps(document, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(document_json.encode()).hexdigest()


def is_acknowledgement_valid(acked_revision: int | None, required_revision: int) -> bool:
    """Whether an acknowledgement of this revision counts. One whose revision is not known counts as of the first."""
    return (acked_revision or 1) >= required_revision
