"""A URL becomes the right client without a connection; a request waits at most once for Redis."""

import socket
import time

import pytest

from broadcast.bus.redis_client import CONNECTION_ERRORS, CircuitBreaker, get_database_number, make_client
from tests.support.ports import find_free_port


def test_sentinels_are_asked_for_the_master_by_its_name_and_with_its_login():
    client = make_client("redis+sentinel://me:pass%3A@one:1,two/ringer/3", timeout_seconds=1)
    pool = client.connection_pool
    assert pool.service_name == "ringer"
    asked = [sentinel.connection_pool.connection_kwargs for sentinel in pool.sentinel_manager.sentinels]
    assert [(kwargs["host"], kwargs["port"]) for kwargs in asked] == [("one", 1), ("two", 26379)]
    wanted = {"username": "me", "password": "pass:", "db": 3}
    assert {name: pool.connection_kwargs[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("url", "number"),
    [("redis://one:1/3", 3), ("redis://one:1", 0), ("redis://one:1?db=2", 2), ("unix:///socket?db=4", 4),
     ("unix:///socket", 0), ("redis+sentinel://one:1/ringer/5", 5), ("redis+sentinel://one:1/ringer", 0),
     ("redis+cluster://one:1", 0)],
)  # fmt: skip
def test_number_of_the_database_is_known_without_asking(url: str, number: int):
    assert get_database_number(make_client(url, timeout_seconds=1)) == number


def test_sentinels_without_a_name_are_refused():
    with pytest.raises(ValueError, match="name the master"):
        make_client("redis+sentinel://one:1", timeout_seconds=1)


@pytest.mark.parametrize("kind", ["redis", "redis+sentinel", "redis+cluster"])
def test_client_is_made_while_nobody_is_there_and_fails_with_what_callers_expect(kind: str):
    client = make_client(f"{kind}://127.0.0.1:{find_free_port()}/0", timeout_seconds=0.2)
    with pytest.raises(CONNECTION_ERRORS):
        client.publish("channel", "")
    with pytest.raises(CONNECTION_ERRORS):
        client.ping()


def test_server_that_does_not_answer_is_waited_for_once_by_all_who_ask_until_it_is_heard_again():
    """F02: a request counts its limit, rings, and signals; a page asks for every worker."""
    silent, asked = socket.create_server(("127.0.0.1", 0), backlog=50), []

    def ping(redis):
        asked.append(time.monotonic())
        return redis.ping()

    quick, began = CircuitBreaker(f"redis://127.0.0.1:{silent.getsockname()[1]}"), time.monotonic()
    for _ in range(50):
        with pytest.raises(CONNECTION_ERRORS):
            quick.call(ping)
    assert len(asked) <= 1 + (time.monotonic() - began) / 5, "each of them waited"
    known = len(asked)
    quick.reset()
    with pytest.raises(CONNECTION_ERRORS):
        quick.call(ping)
    assert len(asked) == known + 1
    silent.close()


@pytest.mark.service
def test_server_that_refuses_is_asked_again_at_once(own_redis):
    """Read-only or out of memory, it answers in no time, and may take the next."""
    quick = CircuitBreaker(own_redis.url)
    with pytest.raises(CONNECTION_ERRORS):
        quick.call(lambda redis: redis.execute_command("NO-SUCH-COMMAND"))
    assert quick.call(lambda redis: redis.ping())
