"""Indexes of open connections, for every lookup of the hub."""

from collections import Counter
from collections.abc import Iterator, Set

from broadcast.base.cooperative import Yielder
from broadcast.domain.audience import NO_USER_ID, Audience, Viewer
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
        self.by_user.setdefault(connection.viewer.user_id, set()).add(connection)
        self._add_to_group(connection)

    def remove(self, connection: Connection) -> None:
        del self.by_id[connection.id]
        client = get_client_key(connection.address)
        self.client_counts[client] -= 1
        if not self.client_counts[client]:
            del self.client_counts[client]
        self.heartbeat_slots[connection.slot].discard(connection)
        streams = self.by_user[connection.viewer.user_id]
        streams.discard(connection)
        if not streams:
            del self.by_user[connection.viewer.user_id]
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

    def find_online_ids(self, user_ids: frozenset[int]) -> Set[int]:
        """Those of `user_ids` who have a stream, in the time that the smaller of both takes."""
        online = self.by_user.keys()
        return online & user_ids if len(user_ids) < len(online) else user_ids.intersection(online)

    def find_reached_user_ids(self, audience: Audience) -> list[int]:
        """Users with a stream whom the audience includes."""
        groups = (
            members
            for (_, roles), members in self.fanout_groups.items()
            if audience.includes(Viewer(NO_USER_ID, roles))
        )
        reached = {connection.viewer.user_id for members in groups for connection in members}
        named = self.find_online_ids(audience.named_user_ids)
        included = {user_id for user_id in named if audience.includes(next(iter(self.by_user[user_id])).viewer)}
        return list(reached - named | included)

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
