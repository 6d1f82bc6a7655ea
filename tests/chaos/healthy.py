"""A run in which nothing went wrong, made up: what the checker must accept, and what its tests then spoil."""

import random
from dataclasses import dataclass, field

from tests.chaos.history import Happened, includes

ROLES = ("ops", "sales", "night")


@dataclass
class _Client:
    stream: str
    user: str
    turn: int = 0
    seq: int = 0
    cards: set[int] = field(default_factory=set)


class Healthy:
    """Twelve people with two streams each see `broadcasts` messages, some recalled; streams come back with their cursors."""

    def __init__(self, seed: int, broadcasts: int = 60):
        self.choose = random.Random(seed)
        self.events: list[Happened] = []
        self.now = 100.0
        self.roles = {f"user{n}": frozenset(self.choose.sample(ROLES, n % 3)) for n in range(12)}
        self.clients = [_Client(f"{user}/{n}", user) for user in self.roles for n in range(2)]
        self.rows: list[list] = []
        self.audiences: dict[int, Happened] = {}
        self.log: list[tuple[int, str, int]] = []
        for user, roles in self.roles.items():
            self.note("person", user=user, roles=sorted(roles))
        for client in self.clients:
            self.note("reload", stream=client.stream, user=client.user, began=self.now, cards=[], cursor="e-0")
            self._connect(client)
        for n in range(1, broadcasts + 1):
            self._publish(n)
            if self.choose.random() < 0.1:
                self._recall(n)
            if self.choose.random() < 0.2:
                self._connect(self.choose.choice(self.clients))
        self._end()

    def note(self, kind: str, **fields) -> None:
        self.now += 0.01
        self.events.append({"kind": kind, "at": self.now} | fields)

    def _publish(self, id: int) -> None:
        audience = self._audience()
        self.audiences[id] = audience
        self.log.append((len(self.log) + 1, "MESSAGE", id))
        self.rows.append([len(self.log), id, f"key {id}"])
        attempts = [("info", None), ("ok", id)] if self.choose.random() < 0.05 else [("ok", id)]
        for result, known in attempts:
            self.note("publish", key=f"key {id}", audience=audience, began=self.now, result=result, id=known)
        self._deliver()

    def _audience(self) -> Happened:
        kind = self.choose.choice(["everyone", "roles", "users"])
        if kind == "roles":
            return {"kind": kind, "roles": [self.choose.choice(ROLES)]}
        if kind == "users":
            return {"kind": kind, "users": sorted(self.choose.sample(sorted(self.roles), 3))}
        return {"kind": kind}

    def _recall(self, id: int) -> None:
        self.log.append((len(self.log) + 1, "MESSAGE_REMOVED", id))
        self.note("end", id=id, why="recalled", began=self.now, result="ok")
        self._deliver()

    def _deliver(self) -> None:
        for client in self.clients:
            for seq, event, id in self.log[client.seq :]:
                self._frame(client, seq, event, id)
            client.seq = len(self.log)

    def _frame(self, client: _Client, seq: int, event: str, id: int) -> None:
        if not includes(self.audiences[id], client.user, self.roles[client.user]):
            return
        (client.cards.add if event == "MESSAGE" else client.cards.discard)(id)
        self.note(
            "frame", stream=client.stream, user=client.user, turn=client.turn, event=event, id=f"e-{seq}", broadcast=id
        )

    def _connect(self, client: _Client) -> None:
        client.turn += 1
        cursor = f"e-{client.seq}"
        self.note("connect", stream=client.stream, user=client.user, cursor=cursor, honest=True)
        self.note(
            "frame",
            stream=client.stream,
            user=client.user,
            turn=client.turn,
            event="CONNECTED",
            id=cursor,
            broadcast=None,
        )

    def _end(self) -> None:
        self.note("fault", name="none", phase="heal")
        seqs = {id: seq for seq, id, _ in self.rows}
        for client in self.clients:
            self.note("current", stream=client.stream)
            cards = sorted(client.cards, key=seqs.__getitem__, reverse=True)
            for _ in range(2):
                self.note("inbox", user=client.user, began=self.now + 0.005, cards=cards, read=cards[:2], final=True)
        self.note("log", rows=self.rows)
