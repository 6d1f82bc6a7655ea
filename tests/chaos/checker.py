"""Checks a history against the invariants I1 to I11. Pure functions; a violation is a sentence with its evidence.

Like Jepsen's set-full: what was answered `ok` must exist at the end, what was refused must not, and what timed out may
exist or not, but alike for everyone. Times from the test's own clients are late on a busy machine, so rules use order
wherever order is enough.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from tests.chaos.history import HistoryEvent, is_in_audience, select_events

MAX_CONVERGENCE_SECONDS = 10.0
ROLE_CHANGE_GRACE_SECONDS = 1.0  # a removed role takes effect within this
_FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Violation:
    """`rule` is I1 … I11."""

    rule: str
    description: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.description}"


class RunHistory:
    """A history with the values that several rules need."""

    def __init__(self, events: Sequence[HistoryEvent]):
        self.events = events
        self.frames = select_events(events, "frame")
        self.inboxes = select_events(events, "inbox")

    @cached_property
    def users(self) -> list[str]:
        return [event["user"] for event in select_events(self.events, "person")]

    @cached_property
    def attempts_by_key(self) -> dict[str, list[HistoryEvent]]:
        attempts = defaultdict(list)
        for event in select_events(self.events, "publish"):
            attempts[event["key"]].append(event)
        return attempts

    @cached_property
    def rows(self) -> list[tuple[int | None, int, str]]:
        return [tuple(row) for event in select_events(self.events, "log") for row in event["rows"]]

    @cached_property
    def seq_by_id(self) -> dict[int, int]:
        return {id: seq for seq, id, _ in self.rows if seq is not None}

    @cached_property
    def key_by_id(self) -> dict[int, str]:
        return {id: key for _, id, key in self.rows}

    @cached_property
    def end_by_id(self) -> dict[int, HistoryEvent]:
        """The first end of each broadcast that may have taken effect."""
        ends: dict[int, HistoryEvent] = {}
        for event in select_events(self.events, "end"):
            if event["result"] != "fail":
                ends.setdefault(event["id"], event)
        return ends

    @cached_property
    def _role_spans(self) -> dict[str, list[tuple[float, float, frozenset[str]]]]:
        """(from, until, roles) of each user; during a change both the old and the new roles count."""
        spans: dict[str, list] = {
            event["user"]: [(0.0, _FOREVER, frozenset(event["roles"]))]
            for event in select_events(self.events, "person")
        }
        for event in select_events(self.events, "roles"):
            started_at, _, roles = spans[event["user"]].pop()
            spans[event["user"]] += [
                (started_at, event["at"], roles),
                (event["began"], _FOREVER, frozenset(event["roles"])),
            ]
        return spans

    def was_in_audience(self, audience: HistoryEvent, user: str, began: float, until: float) -> bool:
        """Whether the user was in the audience at any time in the span."""
        role_sets = (roles for start, end, roles in self._role_spans.get(user, []) if start <= until and end >= began)
        return any(is_in_audience(audience, user, roles) for roles in role_sets)

    def audience_of(self, id: int) -> HistoryEvent | None:
        attempts = self.attempts_by_key.get(self.key_by_id.get(id, ""), [])
        return attempts[0]["audience"] if attempts else None

    def is_always_in_audience(self, id: int, user: str) -> bool:
        """Whether the user was in the audience of that broadcast during the whole run."""
        audience = self.audience_of(id)
        role_sets = (roles for _, _, roles in self._role_spans.get(user, []))
        return audience is not None and all(is_in_audience(audience, user, roles) for roles in role_sets)

    @cached_property
    def surviving_ids(self) -> list[int]:
        """Broadcasts that were answered `ok` and have not ended."""
        ids = {a["id"] for key, attempts in self.attempts_by_key.items() for a in attempts if a["result"] == "ok"}
        return sorted(ids - self.end_by_id.keys())

    @cached_property
    def events_by_stream(self) -> dict[str, list[HistoryEvent]]:
        """Connects, frames and reloads of each stream, in order."""
        events_by_stream = defaultdict(list)
        for event in select_events(self.events, "connect", "frame", "reload"):
            events_by_stream[event["stream"]].append(event)
        return events_by_stream

    def iterate_final_views(self) -> Iterator[tuple[str, str, set[int]]]:
        """Yield (stream, user, cards) as each client has them at the end."""
        for stream, events in self.events_by_stream.items():
            cards: set[int] = set()
            for event in events:
                if event["kind"] == "reload":
                    cards = set(event["cards"])
                elif event["kind"] == "frame" and event["event"] == "MESSAGE":
                    cards.add(event["broadcast"])
                elif event["kind"] == "frame" and event["event"] == "MESSAGE_REMOVED":
                    cards.discard(event["broadcast"])
            yield stream, events[0]["user"], cards


def parse_seq(cursor: str | None) -> int | None:
    return int(cursor.rpartition("-")[2]) if cursor else None


def check_no_loss(run: RunHistory) -> Iterator[Violation]:
    for key, attempts in run.attempts_by_key.items():
        for id in {attempt["id"] for attempt in attempts if attempt["result"] == "ok"}:
            if run.key_by_id.get(id, key) != key:  # an id was reused
                yield Violation("I1", f"broadcast {id} was answered ok for {key!r} and is {run.key_by_id[id]!r}")
    finals = {event["user"]: set(event["cards"]) for event in run.inboxes if event["final"]}
    for id in run.surviving_ids:
        if run.audience_of(id) is None:
            yield Violation("I1", f"broadcast {id} was answered ok and does not exist")
            continue
        for user, cards in finals.items():
            if run.is_always_in_audience(id, user) and id not in cards:
                yield Violation("I1", f"broadcast {id} is not in the final inbox of {user}")
        for stream, user, cards in run.iterate_final_views():
            if run.is_always_in_audience(id, user) and id not in cards:
                yield Violation("I1", f"broadcast {id} never came to {stream} of {user}")


def check_no_phantom(run: RunHistory) -> Iterator[Violation]:
    for frame in run.frames:
        if frame["event"] == "MESSAGE" and frame["broadcast"] not in run.key_by_id:
            yield Violation("I2", f"{frame['stream']} got broadcast {frame['broadcast']}, which does not exist")
    for _, id, key in run.rows:
        attempts = run.attempts_by_key.get(key)
        if attempts is None:
            yield Violation("I2", f"broadcast {id} exists and nobody published {key!r}")
        elif all(attempt["result"] == "fail" for attempt in attempts):
            yield Violation("I2", f"broadcast {id} exists though {key!r} was refused")
    for event in run.inboxes:
        for id in set(event["cards"]) - run.key_by_id.keys():
            yield Violation("I2", f"the inbox of {event['user']} has broadcast {id}, which does not exist")


def check_no_leak(run: RunHistory, grace: float = ROLE_CHANGE_GRACE_SECONDS) -> Iterator[Violation]:
    """Only users who were in the audience since publishing get a message; who has left it gets none after `grace`."""

    def is_leak(id: int, user: str, since: float, at: float) -> bool:
        audience = run.audience_of(id)
        if audience is None:
            return False  # a phantom, not a leak
        published = min(attempt["began"] for attempt in run.attempts_by_key[run.key_by_id[id]])
        was_ever_in_audience = run.was_in_audience(audience, user, published, at)
        return not (was_ever_in_audience and run.was_in_audience(audience, user, since, at))

    for frame in run.frames:
        if frame["event"] == "MESSAGE" and is_leak(frame["broadcast"], frame["user"], frame["at"] - grace, frame["at"]):
            yield Violation("I3", f"{frame['stream']} of {frame['user']} got broadcast {frame['broadcast']}")
        if frame["event"] in ("MESSAGE_UPDATED", "MESSAGE_REMOVED"):
            audience = run.audience_of(frame["broadcast"])
            if audience and not run.was_in_audience(audience, frame["user"], 0.0, frame["at"]):
                yield Violation(
                    "I3", f"{frame['stream']} of {frame['user']} got {frame['event']} of {frame['broadcast']}"
                )
    for event in [*run.inboxes, *select_events(run.events, "reload")]:
        for id in event["cards"]:
            if is_leak(id, event["user"], event["began"], event["at"]):
                yield Violation("I3", f"a list of {event['user']} has broadcast {id}")


def check_no_duplicate(run: RunHistory) -> Iterator[Violation]:
    """A message arrives at most once per connection; after a reconnect a client may get a frame again."""
    counts = Counter((f["stream"], f["turn"], f["broadcast"]) for f in run.frames if f["event"] == "MESSAGE")
    for (stream, connection_number, id), times in counts.items():
        if times > 1:
            yield Violation("I4", f"broadcast {id} came {times} times over connection {connection_number} of {stream}")
    for event in [*run.inboxes, *select_events(run.events, "reload")]:
        for id, times in Counter(event["cards"]).items():
            if times > 1:
                yield Violation("I4", f"a list of {event['user']} has broadcast {id} {times} times")


def check_order(run: RunHistory) -> Iterator[Violation]:
    """Seqs rise on every connection and are the same everywhere for one broadcast; lists are in that order too."""
    for stream, events in run.events_by_stream.items():
        last = -1
        for event in events:
            if event["kind"] == "connect":
                last = -1
            elif event["kind"] == "frame" and event["event"].startswith("MESSAGE"):
                seq = parse_seq(event["id"])
                if seq is None or seq <= last:
                    yield Violation("I5", f"{stream} got {event['id']} after {last}")
                elif event["event"] == "MESSAGE" and run.seq_by_id.get(event["broadcast"], seq) != seq:
                    yield Violation(
                        "I5",
                        f"{stream} got {event['broadcast']} as {seq}, the log has {run.seq_by_id[event['broadcast']]}",
                    )
                last = max(last, seq or 0)
    for event in run.inboxes:
        seqs = [run.seq_by_id[id] for id in event["cards"] if id in run.seq_by_id]
        if seqs != sorted(seqs, reverse=True):
            yield Violation("I5", f"a list of {event['user']} is not in the order of the log")


def check_no_gap(run: RunHistory) -> Iterator[Violation]:
    """A client at seq n has every surviving message of its audience from its start up to n."""
    for stream, events in run.events_by_stream.items():
        user, received, start_seq, checked_count = events[0]["user"], set(), None, 0
        expected_seqs = sorted(
            run.seq_by_id[id] for id in run.surviving_ids if id in run.seq_by_id and run.is_always_in_audience(id, user)
        )
        for event in events:
            if event["kind"] == "reload":
                received |= {run.seq_by_id[id] for id in event["cards"] if id in run.seq_by_id}
            seq = parse_seq(event.get("cursor") or event.get("id"))
            if event["kind"] != "frame" or event["event"] == "RESET":  # from there on, what the client loaded counts
                start_seq = seq if event["kind"] == "reload" or start_seq is None else start_seq
                continue
            if event["event"] == "MESSAGE":
                received.add(seq)
            missing = []
            while seq is not None and checked_count < len(expected_seqs) and expected_seqs[checked_count] <= seq:
                if expected_seqs[checked_count] > (start_seq or 0) and expected_seqs[checked_count] not in received:
                    missing.append(expected_seqs[checked_count])
                checked_count += 1
            if missing:
                yield Violation("I6", f"{stream} of {user} is at {seq} and lacks {missing[:5]}")


def check_idempotency(run: RunHistory) -> Iterator[Violation]:
    for key, times in Counter(key for _, _, key in run.rows).items():
        if times > 1:
            yield Violation("I7", f"{times} broadcasts exist for {key!r}")
    for key, attempts in run.attempts_by_key.items():
        ids = {attempt["id"] for attempt in attempts if attempt["result"] == "ok"}
        if len(ids) > 1:
            yield Violation("I7", f"answers for {key!r} name {sorted(ids)}")


def check_reset_on_invalid_cursor(run: RunHistory) -> Iterator[Violation]:
    for stream, events in run.events_by_stream.items():
        for event, following in zip(events, events[1:], strict=False):
            if event["kind"] == "connect" and not event["honest"] and following.get("event") != "RESET":
                yield Violation(
                    "I8", f"{stream} came with {event['cursor']!r} and got {following.get('event')}, not RESET"
                )


def check_monotonic(run: RunHistory) -> Iterator[Violation]:
    read_at: dict[tuple[str, int], float] = {
        (event["user"], event["id"]): event["at"] for event in select_events(run.events, "receipt")
    }
    for event in sorted(run.inboxes, key=lambda inbox: inbox["at"]):
        for id in event["cards"]:
            known_read_at = read_at.get((event["user"], id))
            if known_read_at is not None and known_read_at < event["began"] and id not in event["read"]:
                yield Violation("I9", f"broadcast {id} turned unread for {event['user']}")
            end = run.end_by_id.get(id)
            if end and end["result"] == "ok" and end["at"] < event["began"]:
                yield Violation("I9", f"broadcast {id} has ended ({end['why']}) and is in a list of {event['user']}")
        for id in event["read"]:
            read_at.setdefault((event["user"], id), event["at"])
    for stream, events in run.events_by_stream.items():
        removed: set[int] = set()
        for event in events:
            if event["kind"] == "frame" and event["event"] == "MESSAGE_REMOVED":
                removed.add(event["broadcast"])
            elif event["kind"] == "frame" and event["event"] == "MESSAGE" and event["broadcast"] in removed:
                yield Violation("I9", f"{stream} got broadcast {event['broadcast']} after its end")


def check_converged(run: RunHistory, max_seconds: float = MAX_CONVERGENCE_SECONDS) -> Iterator[Violation]:
    heals = [event["at"] for event in select_events(run.events, "fault") if event["phase"] == "heal"]
    if not heals:
        return
    current = {event["stream"]: event["at"] for event in select_events(run.events, "current")}
    for stream in run.events_by_stream:
        if stream not in current:
            yield Violation("I10", f"{stream} never became current after the heal")
        elif current[stream] - heals[-1] > max_seconds:
            yield Violation("I10", f"{stream} was current {current[stream] - heals[-1]:.1f} s after the heal")


def check_page_matches_reload(run: RunHistory) -> Iterator[Violation]:
    """What a client shows from its stream is what a reload shows. Broadcasts that may have ended or not are ignored."""
    finals = {event["user"]: set(event["cards"]) for event in run.inboxes if event["final"]}
    undecided_ids = {id for id, end in run.end_by_id.items() if end["result"] != "ok"}
    for stream, user, cards in run.iterate_final_views():
        if difference := (cards ^ finals.get(user, cards)) - undecided_ids:
            yield Violation("I11", f"{stream} of {user} shows {sorted(difference)[:5]} otherwise than a reload")


RULES: list[Callable[[RunHistory], Iterator[Violation]]] = [
    check_no_loss, check_no_phantom, check_no_leak, check_no_duplicate, check_order, check_no_gap, check_idempotency,
    check_reset_on_invalid_cursor, check_monotonic, check_converged,
    check_page_matches_reload,
]  # fmt: skip


def check_history(events: Sequence[HistoryEvent]) -> list[Violation]:
    """Return every violation of every rule."""
    run = RunHistory(events)
    return [violation for rule in RULES for violation in rule(run)]


def count_by_rule(violations: Sequence[Violation]) -> Counter[str]:
    return Counter(violation.rule for violation in violations)
