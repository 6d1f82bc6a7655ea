"""Inbound events: the record as received, and the command made from it.

Owner, source and id together identify an event; a second one with the same three is a repeat. The source is what the
event says about its origin, in canonical form; the owner is the account or topic that it came from.
"""

from dataclasses import dataclass, replace

from broadcast.domain.message import Draft

MAX_VALUE_BYTES = 64 * 1024  # larger values are rejected, and only this much of them is kept


@dataclass(frozen=True, slots=True)
class RecordPosition:
    """The position of a record in Kafka; `last_offset` is set for an unreadable batch, which is kept as a whole."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int | None = None
    last_offset: int | None = None

    def __str__(self) -> str:
        return f"{self.topic}:{self.partition}:{format_offsets(self.offset, self.last_offset)}"


def format_offsets(first: int, last: int | None) -> str:
    """`17`, or `17-42` for a whole batch."""
    return str(first) if last in (None, first) else f"{first}-{last}"


@dataclass(frozen=True, slots=True)
class InboundRecord:
    """One event as raw bytes, from Kafka (`position`) or from the webhook (None). Header names are lower case. If
    `value` is only a beginning, `full_size_bytes` is the size of the whole.
    """

    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    position: RecordPosition | None = None
    full_size_bytes: int | None = None

    @property
    def size(self) -> int:
        return len(self.value or b"") if self.full_size_bytes is None else self.full_size_bytes


@dataclass(frozen=True, slots=True)
class RateCap:
    """At most `limit` broadcasts per source in `window_seconds`, and `sender_limit` per account or topic over all its
    sources. Counted separately for each `rule`.
    """

    limit: int
    window_seconds: int
    rule: str
    sender_limit: int | None = None  # None: the same as `limit`

    @property
    def effective_sender_limit(self) -> int:
        return self.limit if self.sender_limit is None else self.sender_limit


@dataclass(frozen=True, slots=True)
class PublishCommand:
    """Publish this draft. The id is in the namespace of `owner`, the key of an `EventOwner`. `source_as_written` is the
    source before canonicalization.

    With a `collapse_key`, it becomes the newest text of the live card of its source with the same key, if there is one.
    With `acknowledge_again`, users who acknowledged that card are asked again; without, it is a correction.
    """

    source: str
    source_id: str
    draft: Draft
    sender_name: str
    owner: str
    source_as_written: str
    collapse_key: str | None = None
    rate_cap: RateCap | None = None
    acknowledge_again: bool = False


@dataclass(frozen=True, slots=True)
class CancelCommand:
    """Recall what the same owner published as `cancelled_source_id` for the same source."""

    source: str
    source_id: str
    cancelled_source_id: str
    reason: str
    owner: str
    source_as_written: str


@dataclass(frozen=True, slots=True)
class Rejection:
    """An invalid or forbidden event: a `code` for programs, a sentence, and source and id if they could be read."""

    code: str
    reason: str
    source: str | None = None
    source_id: str | None = None

    def with_source(self, source: str, source_id: str) -> "Rejection":
        return replace(self, source=source, source_id=source_id)


Command = PublishCommand | CancelCommand | Rejection


@dataclass(frozen=True, slots=True)
class InboundEvent:
    record: InboundRecord
    command: Command
