"""A generated history of a run without errors: the checker must accept it, and its tests then corrupt it."""

import random
from dataclasses import dataclass, field

from tests.chaos.history import HistoryEvent, is_in_audience

ROLES = ("ops", "sales", "night")


@dataclass
class _SimulatedStream:
    stream: str
    user: str
    connection_number: int = 0
    seq: int = 0
    card_ids: set[int] = field(default_factory=set)


class HealthyHistory:
    """Twelve users with two streams each get messages, some recalled; streams reconnect with their cursors."""

    def __init__(self, seed: int, broadcasts: int = 60):
        self.rng = random.Random(seed)
        self.events: list[HistoryEvent] = []
        self.now = 100.0
        self.roles = {f"user{n}": frozenset(self.rng.sample(ROLES, n % 3)) for n in range(12)}
        self.streams = [_SimulatedStream(f"{user}/{n}", user) for user in self.roles for n in range(2)]
        self.rows: list[list] = []
        self.audiences: dict[int, HistoryEvent] = {}
        self.log: list[tuple[int, str, int]] = []
        for user, roles in self.roles.items():
            self.record_event("person", user=user, roles=sorted(roles))
        for client in self.streams:
            self.record_event("reload", stream=client.stream, user=client.user, began=self.now, cards=[], cursor="e-0")
            self._connect(client)
        for n in range(1, broadcasts + 1):
            self._publish(n)
            if self.rng.random() < 0.1:
                self._recall(n)
            if self.rng.random() < 0.2:
                self._connect(self.rng.choice(self.streams))
        self._finish()

    def record_event(self, kind: str, **fields) -> None:
        self.now += 0.01
        self.events.append({"kind": kind, "at": self.now} | fields)

    def _publish(self, id: int) -> None:
        audience = self._draw_audience()
        self.audiences[id] = audience
        self.log.append((len(self.log) + 1, "MESSAGE", id))
        self.rows.append([len(self.log), id, f"key {id}"])
        attempts = [("info", None), ("ok", id)] if self.rng.random() < 0.05 else [("ok", id)]
        for result, known_id in attempts:
            self.record_event("publish", key=f"key {id}", audience=audience, began=self.now, result=result, id=known_id)
        self._deliver()

    def _draw_audience(self) -> HistoryEvent:
        kind = self.rng.choice(["everyone", "roles", "users"])
        if kind == "roles":
            return {"kind": kind, "roles": [self.rng.choice(ROLES)]}
        if kind == "users":
            return {"kind": kind, "users": sorted(self.rng.sample(sorted(self.roles), 3))}
        return {"kind": kind}

    def _recall(self, id: int) -> None:
        self.log.append((len(self.log) + 1, "MESSAGE_REMOVED", id))
        self.record_event("end", id=id, why="recalled", began=self.now, result="ok")
        self._deliver()

    def _deliver(self) -> None:
        for client in self.streams:
            for seq, event, id in self.log[client.seq :]:
                self._record_frame(client, seq, event, id)
            client.seq = len(self.log)

    def _record_frame(self, client: _SimulatedStream, seq: int, event: str, id: int) -> None:
        if not is_in_audience(self.audiences[id], client.user, self.roles[client.user]):
            return
        (client.card_ids.add if event == "MESSAGE" else client.card_ids.discard)(id)
        self.record_event(
            "frame",
            stream=client.stream,
            user=client.user,
            turn=client.connection_number,
            event=event,
            id=f"e-{seq}",
            broadcast=id,
        )

    def _connect(self, client: _SimulatedStream) -> None:
        client.connection_number += 1
        cursor = f"e-{client.seq}"
        self.record_event("connect", stream=client.stream, user=client.user, cursor=cursor, honest=True)
        self.record_event(
            "frame",
            stream=client.stream,
            user=client.user,
            turn=client.connection_number,
            event="CONNECTED",
            id=cursor,
            broadcast=None,
        )

    def _finish(self) -> None:
        self.record_event("fault", name="none", phase="heal")
        seqs = {id: seq for seq, id, _ in self.rows}
        for client in self.streams:
            self.record_event("current", stream=client.stream)
            card_ids = sorted(client.card_ids, key=seqs.__getitem__, reverse=True)
            for _ in range(2):
                self.record_event(
                    "inbox", user=client.user, began=self.now + 0.005, cards=card_ids, read=card_ids[:2], final=True
                )
        self.record_event("log", rows=self.rows)
