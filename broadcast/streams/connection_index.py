"""Who is connected, found in every way the hub asks."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from broadcast.base.cooperative import Breath
from broadcast.domain.audience import Viewer
from broadcast.domain.client_address import client_of
from broadcast.streams.connection import Connection

SLOTS = 15  # heartbeats are spread over this many moments of the period

Kind = tuple[str, frozenset[str]]  # representation and roles: what decides which bytes a stream gets


class Index:
    """Open connections by id, person, kind and heartbeat slot, and how many each client has.

    Fan-out goes by kind: there are few of them, every member gets the same bytes, and one membership test answers for all.
    Members are kept in the order in which they came (a dict without values): neighbours in memory, here and in the kernel.
    """

    def __init__(self) -> None:
        self.by_id: dict[str, Connection] = {}
        self.by_user: dict[int, set[Connection]] = {}
        self.by_kind: dict[Kind, dict[Connection, None]] = {}
        self.slots: list[set[Connection]] = [set() for _ in range(SLOTS)]
        self.clients: Counter[str] = Counter()  # by address, as `client_of` reads it

    def add(self, connection: Connection) -> None:
        self.by_id[connection.id] = connection
        self.clients[client_of(connection.address)] += 1
        self.slots[connection.slot].add(connection)
        _add(self.by_user, connection.viewer.user_id, connection)
        self._add_kind(connection)

    def remove(self, connection: Connection) -> None:
        del self.by_id[connection.id]
        client = client_of(connection.address)
        self.clients[client] -= 1
        if not self.clients[client]:
            del self.clients[client]
        self.slots[connection.slot].discard(connection)
        _remove(self.by_user, connection.viewer.user_id, connection)
        self._remove_kind(connection)

    def change_viewer(self, connection: Connection, viewer: Viewer) -> None:
        self._remove_kind(connection)
        connection.viewer = viewer
        self._add_kind(connection)

    def change_role(self, role: str, to: str | None) -> Iterator[Connection]:
        """Give everybody who has a role `to` instead, or nothing, and yield their streams. Lets other greenlets run.

        A stream that opens meanwhile has read its roles after the change: `Hub.subscribe` refuses others.
        """
        breath = Breath()
        for connection in list(self.by_id.values()):
            viewer = connection.viewer
            if connection.is_open and role in viewer.roles:
                roles = viewer.roles - {role} | ({to} if to else set())
                self.change_viewer(connection, Viewer(viewer.user_id, roles))
                yield connection
            breath.take()

    def of_user(self, user_id: int) -> list[Connection]:
        return list(self.by_user.get(user_id, ()))

    def count_from(self, address: str) -> int:
        """How many connections the client at this address has open."""
        return self.clients[client_of(address)]

    def _add_kind(self, connection: Connection) -> None:
        members = self.by_kind.setdefault(connection.kind, {})
        if members:  # thousands of people have the same roles: one set of names serves them all
            connection.viewer = Viewer(connection.viewer.user_id, next(iter(members)).viewer.roles)
        members[connection] = None

    def _remove_kind(self, connection: Connection) -> None:
        members = self.by_kind[connection.kind]
        del members[connection]
        if not members:
            del self.by_kind[connection.kind]


def _add(index: dict[Any, set[Connection]], key: Any, connection: Connection) -> None:
    index.setdefault(key, set()).add(connection)


def _remove(index: dict[Any, set[Connection]], key: Any, connection: Connection) -> None:
    members = index[key]
    members.discard(connection)
    if not members:
        del index[key]
