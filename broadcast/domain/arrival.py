"""What came from outside: a record as it arrived, and what the contract made of it.

`source` and `source_id` together name an event, whatever way it takes; the second arrival of the same name is a repeat.
"""

from dataclasses import dataclass, replace

from broadcast.domain.message import Draft

VALUE_BYTES = 64 * 1024  # more is refused, and only this much of it is kept


@dataclass(frozen=True, slots=True)
class Place:
    """Where in Kafka a record lies: no two records share one. `timestamp_ms` is the broker's, since 1970."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int | None = None

    def __str__(self) -> str:
        return f"{self.topic}:{self.partition}:{self.offset}"


@dataclass(frozen=True, slots=True)
class Record:
    """One event as raw bytes, from Kafka (`place`) or from the webhook (None). Header names are lower case."""

    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Cap:
    """At most `most` broadcasts of one source in `per_seconds`, counted for each `rule` by itself."""

    most: int
    per_seconds: int
    rule: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Send this draft. `sender_name` is shown on the card.

    With a `collapse_key`, it becomes the newest text of the live card of its source that has the same key, if there is one.
    With `acknowledge_again` whoever acknowledged that card is asked anew; without, it is a correction of it.
    """

    source: str
    source_id: str
    draft: Draft
    sender_name: str
    collapse_key: str | None = None
    cap: Cap | None = None
    acknowledge_again: bool = False


@dataclass(frozen=True, slots=True)
class Cancel:
    """Recall what the same source announced as `cancels`."""

    source: str
    source_id: str
    cancels: str
    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """What cannot be understood or is not allowed. `code` is for machines and metrics, `reason` a sentence for people.

    `source` and `source_id` are None when the record was not even understood that far.
    """

    code: str
    reason: str
    source: str | None = None
    source_id: str | None = None

    def of(self, source: str, source_id: str) -> "Rejected":
        return replace(self, source=source, source_id=source_id)


Reading = Publish | Cancel | Rejected


@dataclass(frozen=True, slots=True)
class Arrival:
    record: Record
    reading: Reading
