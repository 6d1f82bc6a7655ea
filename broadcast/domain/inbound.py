"""What came from outside: a record as it arrived, and what the contract made of it.

Owner, source and id together name an event; the second arrival of the same name is a repeat. The source is what an event says
of itself, in its canonical form; the owner is the account or topic that it came from.
"""

from dataclasses import dataclass, replace

from broadcast.domain.message import Draft

MAX_VALUE_BYTES = 64 * 1024  # more is refused, and only this much of it is kept


@dataclass(frozen=True, slots=True)
class RecordPosition:
    """Where in Kafka a record lies: no two records share one. `timestamp_ms` is the broker's, since 1970.

    `last_offset` is of a whole batch that cannot be read, and so is kept as one.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int | None = None
    last_offset: int | None = None

    def __str__(self) -> str:
        return f"{self.topic}:{self.partition}:{format_offsets(self.offset, self.last_offset)}"


def format_offsets(first: int, last: int | None) -> str:
    """`17`, or `17-42` of a whole batch."""
    return str(first) if last in (None, first) else f"{first}-{last}"


@dataclass(frozen=True, slots=True)
class InboundRecord:
    """One event as raw bytes, from Kafka (`position`) or from the webhook (None). Header names are lower case.

    `full_size_bytes` is the size of the whole value where only its beginning is in `value`.
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
    """At most `limit` broadcasts of one source in `window_seconds`, and `sender_limit` of one account or topic whatever sources
    it names; counted for each `rule` by itself.
    """

    limit: int
    window_seconds: int
    rule: str
    sender_limit: int | None = None  # None: no more than of one source

    @property
    def effective_sender_limit(self) -> int:
        return self.limit if self.sender_limit is None else self.sender_limit


@dataclass(frozen=True, slots=True)
class PublishCommand:
    """Send this draft. `sender_name` is shown on the card. `owner` is the key of who sent it (`event_source.EventOwner`):
    the id is theirs. `source_as_written` is how they wrote the source.

    With a `collapse_key`, it becomes the newest text of the live card of its source that has the same key, if there is one.
    With `acknowledge_again` whoever acknowledged that card is asked anew; without, it is a correction of it.
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
    """Recall what the same owner announced as `cancelled_source_id` in the name of the same source."""

    source: str
    source_id: str
    cancelled_source_id: str
    reason: str
    owner: str
    source_as_written: str


@dataclass(frozen=True, slots=True)
class Rejection:
    """What cannot be understood or is not allowed. `code` is for machines and metrics, `reason` a sentence for people.

    `source` and `source_id` are None when the record was not even understood that far.
    """

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
