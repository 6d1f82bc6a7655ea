"""The Redis of the bus dies and another takes over: by Sentinel, or in the cluster. Nothing is lost."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from broadcast.bus.redis_client import CONNECTION_ERRORS, make_client
from broadcast.streams.presence import PRESENCE
from tests.support import measurements as figures
from tests.support.http_session import HttpSession
from tests.support.ports import find_free_port
from tests.support.process_fixtures import StreamOpener
from tests.support.servers import RedisServer, ServerProcess, find_program_or_skip
from tests.support.system import System, wait_for

pytestmark = [pytest.mark.service, pytest.mark.alike]

_DOWN_AFTER_MS = 1000
_RESTORED_SECONDS = 5.0
_ROOM_SECONDS = 15.0  # for a machine that is busy with other tests
_WORKERS = 2


@dataclass
class Group:
    """Servers that stand in for each other, and the address to give to the system."""

    url: str
    servers: list[RedisServer]

    def listeners(self) -> dict[RedisServer, int]:
        """How many workers listen at each server that answers and takes writes."""
        found = {}
        for server in self.servers:
            with suppress(*CONNECTION_ERRORS), _client(server) as client:
                if client.info("replication")["role"] == "master" or client.info("cluster")["cluster_enabled"]:
                    found[server] = dict(client.pubsub_numsub("broadcast:ring"))[b"broadcast:ring"]
        return found

    def has_all_workers(self) -> bool:
        return sum(self.listeners().values()) == _WORKERS


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[Group]:
    """One master with two replicas, and three Sentinels that watch it."""
    with ExitStack() as stack:
        start = _starter(stack)
        master = start(RedisServer(tmp_path))
        replicas = [start(RedisServer(tmp_path, "--replicaof", f"127.0.0.1 {master.port}")) for _ in range(2)]
        watchers = [start(_sentinel(tmp_path, master.port)) for _ in range(3)]
        wait_for(
            lambda: all(_knows_the_others(watcher) for watcher in watchers), seconds=30, description="Sentinels to meet"
        )
        hosts = ",".join(f"127.0.0.1:{watcher.port}" for watcher in watchers)
        yield Group(f"redis+sentinel://{hosts}/ringer/0", [master, *replicas])


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Group]:
    """A cluster of three masters, each with a replica."""
    options = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(_DOWN_AFTER_MS), "--cluster-port"]
    with ExitStack() as stack:
        start = _starter(stack)
        servers = [start(RedisServer(tmp_path, *options, str(find_free_port()))) for _ in range(6)]
        hosts = [f"127.0.0.1:{server.port}" for server in servers]
        create = ["--cluster", "create", *hosts, "--cluster-replicas", "1", "--cluster-yes"]
        done = subprocess.run(
            [find_program_or_skip("redis-cli", "redis-tools"), *create], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout
        wait_for(lambda: all(map(_is_whole, servers)), seconds=30, description="the cluster to be whole")
        yield Group(f"redis+cluster://{','.join(hosts)}", servers)


def test_workers_follow_the_sentinels_to_the_next_master(sentinels: Group, own_system, streams: StreamOpener):
    _expect_to_survive("Sentinel", sentinels, own_system, streams)


def test_workers_stay_with_a_cluster_that_lost_the_node_they_listened_at(
    cluster: Group, own_system, streams: StreamOpener
):
    _expect_to_survive("cluster", cluster, own_system, streams)


@pytest.mark.parametrize("kind", ["sentinels", "cluster"])
def test_register_and_limits_work_on(kind: str, request: pytest.FixtureRequest, make_app, client):
    """What the bus, presence and the limits ask for is answered by a real group; no key is refused by a cluster."""
    client()
    group: Group = request.getfixturevalue(kind)
    app = make_app(redis_url=group.url, ratelimit_enabled=True, limit_default="2/minute")
    presence = PRESENCE.of(app)
    presence.renew_lease()
    presence.write_changes()
    assert presence.get_online_ids() == set()
    browser = app.test_client()
    assert [browser.get("/login").status_code for _ in range(3)] == [200, 200, 429]
    counted = make_client(group.url, timeout_seconds=1)
    assert list(counted.scan_iter("broadcast:limit:*")), "limits were counted in memory"


def _expect_to_survive(what: str, group: Group, own_system: Callable[..., System], streams: StreamOpener) -> None:
    system = own_system(redis_url=group.url)
    readers = streams.open_many(system, "bob", 6)
    wait_for(group.has_all_workers, seconds=20, description="both workers to listen")
    alice = HttpSession(system, token=system.get_token("alice", "admin"))
    sent = [alice.publish("Before")]
    victim = max(group.listeners().items(), key=lambda found: found[1])[0]
    victim.send_signal(signal.SIGKILL)
    killed_at = time.monotonic()
    sent += [alice.publish(f"Meanwhile {n}") for n in range(10)]
    wait_for(
        group.has_all_workers, seconds=_RESTORED_SECONDS + _ROOM_SECONDS, description="both workers to listen again"
    )
    restored = time.monotonic() - killed_at
    sent.append(alice.publish("After"))
    for reader in readers:
        reader.wait_for_message(sent[-1])
        assert reader.message_ids == sent
    figures.measurements.append(f"{what}: master killed → both workers listen at the next one: {restored:.1f} s")


def _starter(stack: ExitStack) -> Callable[[ServerProcess], ServerProcess]:
    def start(server: ServerProcess) -> ServerProcess:
        stack.callback(server.stop)
        server.start()
        return server

    return start


def _sentinel(folder: Path, master: int) -> ServerProcess:
    port = find_free_port()
    conf = folder / f"sentinel-{port}.conf"
    conf.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor ringer 127.0.0.1 {master} 2\n"
        f"sentinel down-after-milliseconds ringer {_DOWN_AFTER_MS}\n"
        "sentinel failover-timeout ringer 5000\n"
    )
    command = [find_program_or_skip("redis-server", "redis-server"), str(conf), "--sentinel"]
    return ServerProcess(command, port, folder / f"sentinel-{port}.log")


def _client(server: ServerProcess) -> redis.Redis:
    return redis.Redis(port=server.port, socket_timeout=1, retry=None)


def _knows_the_others(sentinel: ServerProcess) -> bool:
    with _client(sentinel) as client:
        known = client.sentinel_master("ringer")
        return known["num-other-sentinels"] == 2 and known["num-slaves"] == 2


def _is_whole(server: ServerProcess) -> bool:
    """It knows all the others, and if it is a replica it has what its master has: no other may take the master's place."""
    with _client(server) as client:
        knows_all = client.cluster("INFO")["cluster_state"] == "ok" and len(client.cluster("NODES")) == 6
        return knows_all and client.info("replication").get("master_link_status", "up") == "up"
