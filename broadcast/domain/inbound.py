"""What came from outside: a record as it arrived, and what the contract made of it.

Owner, source and id together name an event; the second arrival of the same name is a repeat. The source is what an event says
of itself, in its canonical form; the owner is the account or topic that it came from.
"""

from dataclasses import dataclass, replace

from broadcast.domain.message import Draft

VALUE_BYTES = 64 * 1024  # more is refused, and only this much of it is kept


@dataclass(frozen=True, slots=True)
class Place:
    """Where in Kafka a record lies: no two records share one. `timestamp_ms` is the broker's, since 1970.

    `last_offset` is of a whole batch that cannot be read, and so is kept as one.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int | None = None
    last_offset: int | None = None

    def __str__(self) -> str:
        return f"{self.topic}:{self.partition}:{offsets(self.offset, self.last_offset)}"


def offsets(first: int, last: int | None) -> str:
    """`17`, or `17-42` of a whole batch."""
    return str(first) if last in (None, first) else f"{first}-{last}"


@dataclass(frozen=True, slots=True)
class Record:
    """One event as raw bytes, from Kafka (`place`) or from the webhook (None). Header names are lower case.

    `whole_bytes` is the size of the whole value where only its beginning is in `value`.
    """

    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    place: Place | None = None
    whole_bytes: int | None = None

    @property
    def size(self) -> int:
        return len(self.value or b"") if self.whole_bytes is None else self.whole_bytes


@dataclass(frozen=True, slots=True)
class Cap:
    """At most `most` broadcasts of one source in `per_seconds`, and `most_of_sender` of one account or topic whatever sources
    it names; counted for each `rule` by itself.
    """

    most: int
    per_seconds: int
    rule: str
    most_of_sender: int | None = None  # None: no more than of one source

    @property
    def of_sender(self) -> int:
        return self.most if self.most_of_sender is None else self.most_of_sender


@dataclass(frozen=True, slots=True)
class Publish:
    """Send this draft. `sender_name` is shown on the card. `owner` is the key of who sent it (`event_source.Owner`): the id is
    theirs. `spelt` is how they wrote the source.

    With a `collapse_key`, it becomes the newest text of the live card of its source that has the same key, if there is one.
    With `acknowledge_again` whoever acknowledged that card is asked anew; without, it is a correction of it.
    """

    source: str
    source_id: str
    draft: Draft
    sender_name: str
    owner: str
    spelt: str
    collapse_key: str | None = None
    cap: Cap | None = None
    acknowledge_again: bool = False


@dataclass(frozen=True, slots=True)
class Cancel:
    """Recall what the same owner announced as `cancels` in the name of the same source."""

    source: str
    source_id: str
    cancels: str
    reason: str
    owner: str
    spelt: str


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
