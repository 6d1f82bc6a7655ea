"""Indexes of open connections, for every lookup of the hub."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from broadcast.base.cooperative import Yielder
from broadcast.domain.audience import Viewer
from broadcast.domain.client_address import get_client_key
from broadcast.streams.connection import Connection

HEARTBEAT_SLOTS = 15  # heartbeats are spread over this many slots per period

FanoutGroup = tuple[str, frozenset[str]]  # representation and roles; they decide which bytes a stream gets


class ConnectionIndex:
    """Open connections by id, user, fan-out group and heartbeat slot, and the number per client address.

    Fan-out goes group by group: there are few, every member gets the same bytes, and one audience check answers for
    all. Members keep their order of arrival (a dict without values), so neighbours are adjacent in memory, here and in
    the kernel.
    """

    def __init__(self) -> None:
        self.by_id: dict[str, Connection] = {}
        self.by_user: dict[int, set[Connection]] = {}
        self.fanout_groups: dict[FanoutGroup, dict[Connection, None]] = {}
        self.heartbeat_slots: list[set[Connection]] = [set() for _ in range(HEARTBEAT_SLOTS)]
        self.client_counts: Counter[str] = Counter()  # keyed by `get_client_key`

    def add(self, connection: Connection) -> None:
        self.by_id[connection.id] = connection
        self.client_counts[get_client_key(connection.address)] += 1
        self.heartbeat_slots[connection.slot].add(connection)
        _add_to_set(self.by_user, connection.viewer.user_id, connection)
        self._add_to_group(connection)

    def remove(self, connection: Connection) -> None:
        del self.by_id[connection.id]
        client = get_client_key(connection.address)
        self.client_counts[client] -= 1
        if not self.client_counts[client]:
            del self.client_counts[client]
        self.heartbeat_slots[connection.slot].discard(connection)
        _remove_from_set(self.by_user, connection.viewer.user_id, connection)
        self._remove_from_group(connection)

    def change_viewer(self, connection: Connection, viewer: Viewer) -> None:
        self._remove_from_group(connection)
        connection.viewer = viewer
        self._add_to_group(connection)

    def replace_role(self, role: str, new_role: str | None) -> Iterator[Connection]:
        """Replace a role by `new_role`, or remove it, for every viewer, and yield their streams. Lets other greenlets
        run.

        A stream that opens meanwhile has read its roles after the change; `Hub.subscribe` refuses others.
        """
        yielder = Yielder()
        for connection in list(self.by_id.values()):
            viewer = connection.viewer
            if connection.is_open and role in viewer.roles:
                roles = viewer.roles - {role} | ({new_role} if new_role else set())
                self.change_viewer(connection, Viewer(viewer.user_id, roles))
                yield connection
            yielder.maybe_yield()

    def get_user_connections(self, user_id: int) -> list[Connection]:
        return list(self.by_user.get(user_id, ()))

    def count_client_connections(self, address: str) -> int:
        """Number of open connections of the client at this address."""
        return self.client_counts[get_client_key(address)]

    def _add_to_group(self, connection: Connection) -> None:
        members = self.fanout_groups.setdefault(connection.fanout_group, {})
        if members:  # thousands of users have the same roles: share one set of names
            connection.viewer = Viewer(connection.viewer.user_id, next(iter(members)).viewer.roles)
        members[connection] = None

    def _remove_from_group(self, connection: Connection) -> None:
        members = self.fanout_groups[connection.fanout_group]
        del members[connection]
        if not members:
            del self.fanout_groups[connection.fanout_group]


def _add_to_set(index: dict[Any, set[Connection]], key: Any, connection: Connection) -> None:
    index.setdefault(key, set()).add(connection)


def _remove_from_set(index: dict[Any, set[Connection]], key: Any, connection: Connection) -> None:
    members = index[key]
    members.discard(connection)
    if not members:
        del index[key]
