"""Rate limits: 429 with Retry-After, graceful on streams, and counted even without Redis."""

import pytest
from redis import Redis

from broadcast.web.core.limits import limiter
from tests.support.builders import build_message, count_rows
from tests.support.ports import find_free_port
from tests.support.stream_reader import StreamReader
from tests.support.users import BrowserClient


@pytest.fixture
def limited(make_app, client):
    """Makes an application with limits on; the cast exists. Each counts in a new memory."""
    client()
    yield lambda **changes: make_app(**{"ratelimit_enabled": True, "redis_url": None} | changes)
    limiter.enabled = False  # there is one limiter in a process; other tests expect it off


def test_publishing_is_limited_per_person(limited):
    app = limited(limit_publish_per_user="2/minute")
    alice, other = BrowserClient.for_user(app, "alice"), BrowserClient.for_user(app, "bob")
    answers = [alice.send("POST", "/api/admin/broadcasts", build_message()) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 201, 429]
    assert answers[2].mimetype == "application/problem+json"
    assert 1 <= int(answers[2].headers["Retry-After"]) <= 60
    form = alice.post("/console/broadcasts", {"title": "T", "content": "C", "targetType": "ALL"})
    assert (form.status_code, form.mimetype) == (429, "text/html")
    assert "Retry-After" in form.headers
    assert other.send("POST", "/api/admin/broadcasts", build_message()).status_code == 403
    assert alice.get("/api/admin/broadcasts").status_code == 200, "looking is not publishing"
    with app.app_context():
        assert count_rows()["broadcasts"] == 2


def sign_in(app, username: str = "bob", address: str = "192.0.2.1"):
    browser = BrowserClient.for_user(app, None)
    browser.get("/login", environ_base={"REMOTE_ADDR": address})
    form = {"username": username, "password": "wrong wrong"}
    return browser.post("/login", form, environ_base={"REMOTE_ADDR": address})


def test_sign_in_is_limited_per_account_without_locking_the_owner_out(limited):
    app = limited(limit_login_per_account="2/minute")
    answers = [sign_in(app), sign_in(app, " BOB "), sign_in(app)]
    assert [answer.status_code for answer in answers] == [401, 401, 429]
    assert "Retry-After" in answers[2].headers
    assert sign_in(app, "charlie").status_code == 401, "another account"
    assert sign_in(app, address="192.0.2.2").status_code == 401, "the owner, from elsewhere"


def test_sign_in_is_limited_per_address(limited):
    app = limited(limit_login_per_address="2/minute")
    assert [sign_in(app, f"name{n}").status_code for n in range(3)] == [401, 401, 429]


@pytest.mark.parametrize("path", ["/api/sse/connect", "/inbox/stream"])
@pytest.mark.parametrize("which", ["limit_stream_per_user", "limit_stream_per_address"])
def test_stream_over_its_limit_is_busy_with_status_200(limited, path, which):
    """A 429 would end a browser's InboundSourceStats for good."""
    app = limited(**{which: "1/minute"})
    bob = BrowserClient.for_user(app, "bob")
    first = StreamReader(bob.http, path)
    assert first.read_until("CONNECTED")
    first.close()
    refused = StreamReader(bob.http, path)
    assert refused.response.status_code == 200
    assert [refused.next_frame().event, refused.next_frame()] == ["BUSY", None]


def test_everything_else_has_a_limit_too_but_health_has_none(limited):
    app = limited(limit_default="2/minute")
    bob = BrowserClient.for_user(app, "bob")
    assert [bob.get("/inbox/count").status_code for _ in range(3)] == [200, 200, 429]
    assert {bob.get("/healthz").status_code for _ in range(5)} == {200}


def test_limits_hold_in_memory_while_redis_is_away(limited):
    """F04: a limiter whose store is gone falls back, never open."""
    app = limited(redis_url=f"redis://127.0.0.1:{find_free_port()}", limit_publish_per_user="2/minute")
    alice = BrowserClient.for_user(app, "alice")
    answers = [alice.send("POST", "/api/admin/broadcasts", build_message()).status_code for _ in range(3)]
    assert answers == [201, 201, 429]


def test_limits_can_be_switched_off(make_app, client):
    client()
    app = make_app(ratelimit_enabled=False, limit_publish_per_user="1/minute")
    alice = BrowserClient.for_user(app, "alice")
    assert {alice.send("POST", "/api/admin/broadcasts", build_message()).status_code for _ in range(3)} == {201}


@pytest.mark.service
@pytest.mark.parametrize(
    ("ill", "well"),
    [("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"), ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE")],
    ids=["out of memory", "read-only"],
)
def test_limits_hold_while_redis_refuses_and_are_in_redis_again_at_once(limited, own_redis, ill: str, well: str):
    """F04, and emptied in the end: nobody is shut out for what was counted before."""
    app = limited(redis_url=own_redis.url, limit_default="2/minute")
    with Redis.from_url(own_redis.url) as redis:
        for username, order in (("bob", ill), ("charlie", well)):
            redis.execute_command(*order.split())
            asker = BrowserClient.for_user(app, username)
            assert [asker.get("/inbox/count").status_code for _ in range(3)] == [200, 200, 429]
            assert bool(redis.keys("broadcast:limit:*")) == (order is well)
        redis.flushall()
        assert asker.get("/inbox/count").status_code == 200


@pytest.mark.parametrize("forged", ["text", "no number", "list", "hash", "too large", "for ever", "for a century"])
def test_counter_that_somebody_else_wrote_shuts_nobody_out(limited, own_redis, forged):
    """It is a 500 for nobody; a count that is none begins anew, and one without an end gets one."""
    app = limited(redis_url=own_redis.url, limit_publish_per_user="3/minute")
    alice = BrowserClient.for_user(app, "alice")
    assert alice.send("POST", "/api/admin/broadcasts", build_message()).status_code == 201
    with Redis.from_url(own_redis.url) as redis:
        [key] = [key for key in redis.keys("broadcast:limit:*") if b"publish" in key]
        redis.delete(key)
        match forged:
            case "text":
                redis.set(key, b"\xff")
            case "no number":
                redis.set(key, "1.5")
            case "list":
                redis.rpush(key, "1")
            case "hash":
                redis.hset(key, "a", "1")
            case "too large":
                redis.set(key, 2**63 - 1)
            case "for ever":
                redis.set(key, 99)
            case "for a century":
                redis.set(key, 99, ex=3_000_000_000)
        answers = [alice.send("POST", "/api/admin/broadcasts", build_message()).status_code for _ in range(4)]
        assert 0 < redis.ttl(key) <= 60
    assert answers == ([429] * 4 if forged.startswith("for") else [201, 201, 201, 429])
