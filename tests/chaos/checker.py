"""Judges a history by the invariants I1 to I11. Pure functions; a violation is a sentence with what it was found at.

Jepsen's set-full in spirit: what was answered `ok` must be there at the end, what was refused must not, and what timed out may
be or not, but for all alike. Times of the test's own clients are late by as much as the machine is busy, so rules speak of
order wherever order is enough.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from tests.chaos.history import Happened, includes, of

CONVERGED_SECONDS = 10.0
FORBIDDEN_AFTER_SECONDS = 1.0  # a role taken away is felt within this
_FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Violation:
    """`rule` is I1 … I11."""

    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}"


class Run:
    """A history with what the rules ask of it again and again."""

    def __init__(self, events: Sequence[Happened]):
        self.events = events
        self.frames = of(events, "frame")
        self.inboxes = of(events, "inbox")

    @cached_property
    def users(self) -> list[str]:
        return [event["user"] for event in of(self.events, "person")]

    @cached_property
    def attempts(self) -> dict[str, list[Happened]]:
        found = defaultdict(list)
        for event in of(self.events, "publish"):
            found[event["key"]].append(event)
        return found

    @cached_property
    def rows(self) -> list[tuple[int | None, int, str]]:
        return [tuple(row) for event in of(self.events, "log") for row in event["rows"]]

    @cached_property
    def seq(self) -> dict[int, int]:
        return {id: seq for seq, id, _ in self.rows if seq is not None}

    @cached_property
    def key(self) -> dict[int, str]:
        return {id: key for _, id, key in self.rows}

    @cached_property
    def ended(self) -> dict[int, Happened]:
        """The first end of each broadcast that may have happened."""
        found: dict[int, Happened] = {}
        for event in of(self.events, "end"):
            if event["result"] != "fail":
                found.setdefault(event["id"], event)
        return found

    @cached_property
    def _roles(self) -> dict[str, list[tuple[float, float, frozenset[str]]]]:
        """(from, until, roles) of each person; while a change is under way both the old and the new ones hold."""
        found: dict[str, list] = {
            event["user"]: [(0.0, _FOREVER, frozenset(event["roles"]))] for event in of(self.events, "person")
        }
        for event in of(self.events, "roles"):
            begun, _, roles = found[event["user"]].pop()
            found[event["user"]] += [(begun, event["at"], roles), (event["began"], _FOREVER, frozenset(event["roles"]))]
        return found

    def was_meant(self, audience: Happened, user: str, began: float, until: float) -> bool:
        """Whether the person was in the audience at any moment of the span."""
        held = (roles for start, end, roles in self._roles.get(user, []) if start <= until and end >= began)
        return any(includes(audience, user, roles) for roles in held)

    def audience_of(self, id: int) -> Happened | None:
        attempts = self.attempts.get(self.key.get(id, ""), [])
        return attempts[0]["audience"] if attempts else None

    def is_always_for(self, id: int, user: str) -> bool:
        """Whether the person was in the audience of that broadcast during the whole run."""
        audience = self.audience_of(id)
        held = (roles for _, _, roles in self._roles.get(user, []))
        return audience is not None and all(includes(audience, user, roles) for roles in held)

    @cached_property
    def lasting(self) -> list[int]:
        """Broadcasts that were answered `ok` and that nothing has ended."""
        ids = {a["id"] for key, attempts in self.attempts.items() for a in attempts if a["result"] == "ok"}
        return sorted(ids - self.ended.keys())

    @cached_property
    def by_stream(self) -> dict[str, list[Happened]]:
        """Connects, frames and reloads of each stream, in the order in which they happened."""
        found = defaultdict(list)
        for event in of(self.events, "connect", "frame", "reload"):
            found[event["stream"]].append(event)
        return found

    def views(self) -> Iterator[tuple[str, str, set[int]]]:
        """(stream, user, cards) as a client has them at the end."""
        for stream, events in self.by_stream.items():
            cards: set[int] = set()
            for event in events:
                if event["kind"] == "reload":
                    cards = set(event["cards"])
                elif event["kind"] == "frame" and event["event"] == "MESSAGE":
                    cards.add(event["broadcast"])
                elif event["kind"] == "frame" and event["event"] == "MESSAGE_REMOVED":
                    cards.discard(event["broadcast"])
            yield stream, events[0]["user"], cards


def seq_of(cursor: str | None) -> int | None:
    return int(cursor.rpartition("-")[2]) if cursor else None


def no_loss(run: Run) -> Iterator[Violation]:
    for key, attempts in run.attempts.items():
        for id in {attempt["id"] for attempt in attempts if attempt["result"] == "ok"}:
            if run.key.get(id, key) != key:  # an id that was given out again
                yield Violation("I1", f"broadcast {id} was answered ok for {key!r} and is {run.key[id]!r}")
    finals = {event["user"]: set(event["cards"]) for event in run.inboxes if event["final"]}
    for id in run.lasting:
        if run.audience_of(id) is None:
            yield Violation("I1", f"broadcast {id} was answered ok and does not exist")
            continue
        for user, cards in finals.items():
            if run.is_always_for(id, user) and id not in cards:
                yield Violation("I1", f"broadcast {id} is not in the final inbox of {user}")
        for stream, user, cards in run.views():
            if run.is_always_for(id, user) and id not in cards:
                yield Violation("I1", f"broadcast {id} never came to {stream} of {user}")


def no_phantom(run: Run) -> Iterator[Violation]:
    for frame in run.frames:
        if frame["event"] == "MESSAGE" and frame["broadcast"] not in run.key:
            yield Violation("I2", f"{frame['stream']} got broadcast {frame['broadcast']}, which does not exist")
    for _, id, key in run.rows:
        attempts = run.attempts.get(key)
        if attempts is None:
            yield Violation("I2", f"broadcast {id} exists and nobody published {key!r}")
        elif all(attempt["result"] == "fail" for attempt in attempts):
            yield Violation("I2", f"broadcast {id} exists though {key!r} was refused")
    for event in run.inboxes:
        for id in set(event["cards"]) - run.key.keys():
            yield Violation("I2", f"the inbox of {event['user']} has broadcast {id}, which does not exist")


def no_leak(run: Run, grace: float = FORBIDDEN_AFTER_SECONDS) -> Iterator[Violation]:
    """Whoever was meant at no moment since the publishing never gets it; who no longer is gets it no more after `grace`."""

    def is_leak(id: int, user: str, since: float, at: float) -> bool:
        audience = run.audience_of(id)
        if audience is None:
            return False  # a phantom, not a leak
        published = min(attempt["began"] for attempt in run.attempts[run.key[id]])
        ever = run.was_meant(audience, user, published, at)
        return not (ever and run.was_meant(audience, user, since, at))

    for frame in run.frames:
        if frame["event"] == "MESSAGE" and is_leak(frame["broadcast"], frame["user"], frame["at"] - grace, frame["at"]):
            yield Violation("I3", f"{frame['stream']} of {frame['user']} got broadcast {frame['broadcast']}")
        if frame["event"] in ("MESSAGE_UPDATED", "MESSAGE_REMOVED"):
            audience = run.audience_of(frame["broadcast"])
            if audience and not run.was_meant(audience, frame["user"], 0.0, frame["at"]):
                yield Violation(
                    "I3", f"{frame['stream']} of {frame['user']} got {frame['event']} of {frame['broadcast']}"
                )
    for event in [*run.inboxes, *of(run.events, "reload")]:
        for id in event["cards"]:
            if is_leak(id, event["user"], event["began"], event["at"]):
                yield Violation("I3", f"a list of {event['user']} has broadcast {id}")


def once(run: Run) -> Iterator[Violation]:
    """On the wire: at most once for each connection; a client that returns with its cursor may get a frame again."""
    counted = Counter((f["stream"], f["turn"], f["broadcast"]) for f in run.frames if f["event"] == "MESSAGE")
    for (stream, turn, id), times in counted.items():
        if times > 1:
            yield Violation("I4", f"broadcast {id} came {times} times over connection {turn} of {stream}")
    for event in [*run.inboxes, *of(run.events, "reload")]:
        for id, times in Counter(event["cards"]).items():
            if times > 1:
                yield Violation("I4", f"a list of {event['user']} has broadcast {id} {times} times")


def in_order(run: Run) -> Iterator[Violation]:
    """`seq` rises on every connection, and all say the same of a broadcast; lists are in that order too."""
    for stream, events in run.by_stream.items():
        last = -1
        for event in events:
            if event["kind"] == "connect":
                last = -1
            elif event["kind"] == "frame" and event["event"].startswith("MESSAGE"):
                seq = seq_of(event["id"])
                if seq is None or seq <= last:
                    yield Violation("I5", f"{stream} got {event['id']} after {last}")
                elif event["event"] == "MESSAGE" and run.seq.get(event["broadcast"], seq) != seq:
                    yield Violation(
                        "I5", f"{stream} got {event['broadcast']} as {seq}, the log has {run.seq[event['broadcast']]}"
                    )
                last = max(last, seq or 0)
    for event in run.inboxes:
        seqs = [run.seq[id] for id in event["cards"] if id in run.seq]
        if seqs != sorted(seqs, reverse=True):
            yield Violation("I5", f"a list of {event['user']} is not in the order of the log")


def no_hole(run: Run) -> Iterator[Violation]:
    """A client at `seq` n has every lasting message of its audience up to n, from where it began."""
    for stream, events in run.by_stream.items():
        user, have, begun, passed = events[0]["user"], set(), None, 0
        wanted = sorted(run.seq[id] for id in run.lasting if id in run.seq and run.is_always_for(id, user))
        for event in events:
            if event["kind"] == "reload":
                have |= {run.seq[id] for id in event["cards"] if id in run.seq}
            at = seq_of(event.get("cursor") or event.get("id"))
            if event["kind"] != "frame" or event["event"] == "RESET":  # from there on, by what the client has loaded
                begun = at if event["kind"] == "reload" or begun is None else begun
                continue
            if event["event"] == "MESSAGE":
                have.add(at)
            missing = []
            while at is not None and passed < len(wanted) and wanted[passed] <= at:
                if wanted[passed] > (begun or 0) and wanted[passed] not in have:
                    missing.append(wanted[passed])
                passed += 1
            if missing:
                yield Violation("I6", f"{stream} of {user} is at {at} and lacks {missing[:5]}")


def once_per_intent(run: Run) -> Iterator[Violation]:
    for key, times in Counter(key for _, _, key in run.rows).items():
        if times > 1:
            yield Violation("I7", f"{times} broadcasts exist for {key!r}")
    for key, attempts in run.attempts.items():
        ids = {attempt["id"] for attempt in attempts if attempt["result"] == "ok"}
        if len(ids) > 1:
            yield Violation("I7", f"answers for {key!r} name {sorted(ids)}")


def honest_recovery(run: Run) -> Iterator[Violation]:
    for stream, events in run.by_stream.items():
        for event, following in zip(events, events[1:], strict=False):
            if event["kind"] == "connect" and not event["honest"] and following.get("event") != "RESET":
                yield Violation(
                    "I8", f"{stream} came with {event['cursor']!r} and got {following.get('event')}, not RESET"
                )


def monotone(run: Run) -> Iterator[Violation]:
    read_at: dict[tuple[str, int], float] = {
        (event["user"], event["id"]): event["at"] for event in of(run.events, "receipt")
    }
    for event in sorted(run.inboxes, key=lambda inbox: inbox["at"]):
        for id in event["cards"]:
            known = read_at.get((event["user"], id))
            if known is not None and known < event["began"] and id not in event["read"]:
                yield Violation("I9", f"broadcast {id} turned unread for {event['user']}")
            end = run.ended.get(id)
            if end and end["result"] == "ok" and end["at"] < event["began"]:
                yield Violation("I9", f"broadcast {id} has ended ({end['why']}) and is in a list of {event['user']}")
        for id in event["read"]:
            read_at.setdefault((event["user"], id), event["at"])
    for stream, events in run.by_stream.items():
        removed: set[int] = set()
        for event in events:
            if event["kind"] == "frame" and event["event"] == "MESSAGE_REMOVED":
                removed.add(event["broadcast"])
            elif event["kind"] == "frame" and event["event"] == "MESSAGE" and event["broadcast"] in removed:
                yield Violation("I9", f"{stream} got broadcast {event['broadcast']} after its end")


def converged(run: Run, within: float = CONVERGED_SECONDS) -> Iterator[Violation]:
    heals = [event["at"] for event in of(run.events, "fault") if event["phase"] == "heal"]
    if not heals:
        return
    current = {event["stream"]: event["at"] for event in of(run.events, "current")}
    for stream in run.by_stream:
        if stream not in current:
            yield Violation("I10", f"{stream} never became current after the heal")
        elif current[stream] - heals[-1] > within:
            yield Violation("I10", f"{stream} was current {current[stream] - heals[-1]:.1f} s after the heal")


def page_is_its_reload(run: Run) -> Iterator[Violation]:
    """What a client made of its stream is what a reload shows. Broadcasts that may have ended or not are left aside."""
    finals = {event["user"]: set(event["cards"]) for event in run.inboxes if event["final"]}
    unsure = {id for id, end in run.ended.items() if end["result"] != "ok"}
    for stream, user, cards in run.views():
        if differs := (cards ^ finals.get(user, cards)) - unsure:
            yield Violation("I11", f"{stream} of {user} shows {sorted(differs)[:5]} otherwise than a reload")


RULES: list[Callable[[Run], Iterator[Violation]]] = [
    no_loss, no_phantom, no_leak, once, in_order, no_hole, once_per_intent, honest_recovery, monotone, converged,
    page_is_its_reload,
]  # fmt: skip


def check(events: Sequence[Happened]) -> list[Violation]:
    """Every violation of every rule."""
    run = Run(events)
    return [violation for rule in RULES for violation in rule(run)]


def by_rule(violations: Sequence[Violation]) -> Counter[str]:
    return Counter(violation.rule for violation in violations)
