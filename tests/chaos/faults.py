"""The faults of the table, but for those of Kafka and of a standby: each breaks something for a while, and heals it.

`scale` shortens them: 1 is the table's length. What a fault measures it puts into `world.figures`; what it must see at once,
and the checker cannot, it asserts.
"""

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

import sqlalchemy
from redis import Redis

from tests.chaos.client import Answered, ask
from tests.chaos.world import World
from tests.failpoints.sitecustomize import POINTS
from tests.processes import wait_for_workers
from tests.streams import Stream
from tests.system import wait_for

Fault = Callable[[World, float], None]
FAULTS: dict[str, tuple[str, Fault]] = {}
NEEDS: dict[str, str] = {}
# the short sets: of `make test`, and of `make test-services`
ON_SQLITE = ("F01", "F04", "F09", "F10k", "F11", "F12", "F21", "F24", "F32")
ON_SERVERS = ("F02", "F03", "F09d", "F10", "F18", "F19", "F21", "F23")
OF_THEIR_OWN = ("F28", "F30", "F31")  # on servers too, each in a place of its own
AT_POINTS = [point for point in POINTS if point != "offsets"]


def fault(id: str, name: str, *, needs: str = "") -> Callable[[Fault], Fault]:
    """Add it to the table. `needs` is what its place has besides, see `tests.chaos.place`."""

    def register(function: Fault) -> Fault:
        FAULTS[id] = (name, function)
        NEEDS[id] = needs
        return function

    return register


@contextmanager
def workers_begin(world: World) -> Iterator[None]:
    """In this block workers come and go; one that has just begun has no link to Redis or Kafka yet, and may say so."""
    with world.readiness.may_name("redis", "kafka"):
        yield


@contextmanager
def slowest_answer(world: World, figure: str) -> Iterator[None]:
    """Note the slowest answer to a publish in this block."""
    known = len(world.answers)
    yield
    world.figures[figure] = round(max((a.seconds for a in world.answers[known:]), default=0.0), 2)


@fault("F01", "Redis killed")
def redis_killed(world: World, scale: float) -> None:
    world.place.redis.signal(signal.SIGKILL)
    with world.readiness.names("redis") as away:
        with slowest_answer(world, "slowest answer s"):
            time.sleep(10 * scale)
            for _ in range(20):
                world.publish({"kind": "everyone"})
        world.readiness.wait_until_named(away)
    world.place.redis.start()


@fault("F02", "Redis frozen")
def redis_frozen(world: World, scale: float) -> None:
    world.place.redis.signal(signal.SIGSTOP)
    try:
        with slowest_answer(world, "slowest answer s"), world.readiness.names("redis") as away:
            time.sleep(15 * scale)
            world.readiness.wait_until_named(away)
        assert ask(world.system.port, "GET", "/healthz", "").status == 200
    finally:
        world.place.redis.signal(signal.SIGCONT)


@fault("F03", "link to Redis silent for 1.5 s, then cut")
def redis_link_cut(world: World, scale: float) -> None:
    for _ in range(max(1, int(4 * scale))):
        with world.readiness.may_name("redis"):
            world.place.redis_link.hold()
            time.sleep(1.5)
            world.place.redis_link.cut()
            world.place.redis_link.release()
        time.sleep(0.5)


@fault("F04", "Redis emptied, full, read-only")
def redis_unfit(world: World, scale: float) -> None:
    with Redis.from_url(world.place.redis.url) as redis, world.readiness.may_name("redis"):
        redis.flushall()
        time.sleep(3 * scale)
        redis.config_set("maxmemory", 1)
        time.sleep(3 * scale)
        redis.config_set("maxmemory", 0)
        redis.replicaof("127.0.0.1", "1")
        time.sleep(3 * scale)
        redis.replicaof("NO", "ONE")


@fault("F09", "database locked")
def database_locked(world: World, scale: float) -> None:
    """Streams stay open; writes are answered 503, never with another error, and nothing is half written."""
    opened, known = [len(page.heads) for page in world.pages], len(world.answers)
    with locked(world), slowest_answer(world, "slowest answer s"), world.readiness.may_name("database"):
        time.sleep(max(5.0, 10 * scale))  # longer than DATABASE_BUSY_SECONDS
    refused = [answered for answered in world.answers[known:] if answered.result == "fail"]
    world.figures["answered 503"] = len(refused)
    assert {answered.status for answered in refused} <= {503}, {answered.status for answered in refused}
    assert all(answered.headers["Retry-After"] for answered in refused)
    assert [len(page.heads) for page in world.pages] == opened, "a stream was closed by a locked database"


@contextmanager
def locked(world: World) -> Iterator[None]:
    if world.place.is_sqlite:
        database = sqlite3.connect(world.system.folder / "var/broadcast.sqlite3", isolation_level=None, timeout=20)
        database.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            database.execute("ROLLBACK")
            database.close()
        return
    engine = sqlalchemy.create_engine(world.place.database_url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("LOCK TABLE log_head IN EXCLUSIVE MODE")
        yield


@fault("F09d", "database down (PostgreSQL)")
def database_down(world: World, scale: float) -> None:
    if world.place.is_sqlite:
        return
    with (
        world.place.database_link.closed(),
        slowest_answer(world, "slowest answer s"),
        world.readiness.names("database") as away,
    ):
        time.sleep(20 * scale)
        world.readiness.wait_until_named(away)


@fault("F10", "worker killed at each failpoint")
def killed_at_failpoints(world: World, scale: float) -> None:
    with workers_begin(world):
        for point in AT_POINTS * max(1, int(5 * scale)):
            wait_for_workers(world.system)
            armed = world.place.failpoints / point
            armed.touch()
            world.publish({"kind": "everyone"})
            wait_for(lambda armed=armed: not armed.exists(), what=f"a worker to pass {point}")
        wait_for_workers(world.system)


@fault("F10k", "worker killed 0–500 ms after a publish")
def killed_after_publish(world: World, scale: float) -> None:
    with workers_begin(world):
        kills = max(3, int(200 * scale / 5))
        for _ in range(kills):
            victim = world.choose.choice(wait_for_workers(world.system))
            world.publish({"kind": "everyone"})
            time.sleep(world.choose.uniform(0, 0.5))
            os.kill(victim, signal.SIGKILL)
        world.figures["kills"] = kills
        wait_for_workers(world.system)


@fault("F11", "everything killed and started again")
def all_killed(world: World, scale: float) -> None:
    system = world.system
    processes = [system.process.pid, system.master, *system.workers()]
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    world.place.redis.signal(signal.SIGKILL)
    system.process.wait()
    time.sleep(2 * scale)
    world.place.redis.start()
    began = time.monotonic()
    with workers_begin(world):
        system.start()
    world.figures["ready after s"] = round(time.monotonic() - began, 1)


@fault("F12", "HUP")
def hang_up(world: World, scale: float) -> None:
    with workers_begin(world):
        for _ in range(max(1, int(3 * scale))):
            old = wait_for_workers(world.system)
            began = time.monotonic()
            os.kill(world.system.master, signal.SIGHUP)
            wait_for(
                lambda old=old: not set(old) & set(world.system.workers()), seconds=30, what="the old workers to leave"
            )
            world.figures["old workers gone s"] = round(time.monotonic() - began, 1)
            wait_for_workers(world.system)


@fault("F32", "HUP, then stop and start: nobody waits for a node that boots")
def reload_and_restart(world: World, scale: float) -> None:
    """All through the reload every request is answered; through the restart it is answered or refused at once."""
    with workers_begin(world):
        for _ in range(max(1, int(3 * scale))):
            with asking(world) as answers:
                hang_up(world, 0)
            assert {answered.status for answered in answers} == {200}, "somebody was not served during a reload"
            slowest = max(answered.seconds for answered in answers)
            with asking(world) as answers:
                world.system.stop()
                began = time.monotonic()
                world.system.start()
                boot = time.monotonic() - began
            assert {answered.status for answered in answers} <= {200, None}
            waited = max(answered.seconds for answered in answers)
            assert waited < max(boot, 1.0), f"somebody waited {waited:.1f} s for a node that needs {boot:.1f} s to boot"
        world.figures |= {"slowest answer in the reload s": round(slowest, 2), "in the restart s": round(waited, 2)}


@contextmanager
def asking(world: World) -> Iterator[list[Answered]]:
    """Somebody who asks again and again, with a new connection each time."""
    answers: list[Answered] = []
    over = threading.Event()

    def ask_on() -> None:
        while not over.is_set():
            answers.append(ask(world.system.port, "GET", "/healthz", ""))
            time.sleep(0.01)

    thread = threading.Thread(target=ask_on)
    thread.start()
    try:
        yield answers
    finally:
        over.set()
        thread.join()


@fault("F18", "1,000 due at once, workers killed at due time")
def schedulers_killed(world: World, scale: float) -> None:
    count, due = max(20, int(1000 * scale)), datetime.now(UTC) + timedelta(seconds=4 + 20 * scale)

    def schedule(n: int) -> None:
        key, began = f"due-{world.seed}-{n}", time.monotonic()
        body = {"title": key, "content": "Due", "targetType": "ALL", "scheduledAt": due.isoformat()}
        answered = ask(world.system.port, "POST", "/api/admin/broadcasts", world.place.admin, body, Idempotency_Key=key)
        world.history.note(
            "publish", key=key, audience={"kind": "everyone"}, began=began, result=answered.result,
            id=answered.body["id"] if answered.result == "ok" else None,
        )  # fmt: skip

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(schedule, range(count)))
    time.sleep(max(0.0, (due - datetime.now(UTC)).total_seconds() + 0.05))
    with workers_begin(world):
        for worker in world.system.workers():
            os.kill(worker, signal.SIGKILL)
        back = time.monotonic()
        wait_for_workers(world.system)
    scheduled = "/api/admin/broadcasts?filter=scheduled&limit=1"
    wait_for(
        lambda: ask(world.system.port, "GET", scheduled, world.place.admin).body == {"items": [], "next": None},
        seconds=120,
        what="all that was due to be sent",
    )
    world.figures |= {"due": count, "all sent s after the kill": round(time.monotonic() - back, 1)}


@fault("F19", "50 parallel posts with one key")
def parallel_posts(world: World, scale: float) -> None:
    for _ in range(max(1, int(10 * scale))):
        key = world.new_key()
        body = {"title": key, "content": "Once", "targetType": "ALL"}

        def post(_: int, key: str = key, body: dict = body) -> None:
            world.try_to_publish(key, {"kind": "everyone"}, body)

        with ThreadPoolExecutor(50) as pool:
            list(pool.map(post, range(50)))


@fault("F21", "roles given and taken while streaming")
def roles_change(world: World, scale: float) -> None:
    for _ in range(max(2, int(6 * scale))):
        user = world.choose.choice(sorted(world.roles))
        world.set_roles(user, sorted(world.choose.sample(["ops", "sales", "night"], world.choose.randrange(4))))


@fault("F23", "streams cut at random under load")
def streams_cut(world: World, scale: float) -> None:
    until = time.monotonic() + 20 * scale
    cuts = 0
    while time.monotonic() < until:
        time.sleep(world.choose.uniform(0, 0.05))
        world.choose.choice(world.pages).cut()
        cuts += 1
    world.figures["cuts"] = cuts


@fault("F24", "cursors that prove nothing")
def dishonest_cursors(world: World, scale: float) -> None:
    user = next(iter(world.roles))
    now = next(page.cursor for page in world.pages if page.user == user)
    epoch, _, seq = now.rpartition("-")
    strange = ["unknown", f"{epoch}-{int(seq) + 10**6}", f"{epoch}--5", "x" * 3_000, f"ffff0000-{seq}", f"{epoch}-1e3"]
    slowest = 0.0
    for n, cursor in enumerate(strange):
        name, began = f"stranger/{n}", time.monotonic()
        headers = {"Authorization": f"Bearer {world.tokens[user]}"}
        stream = Stream(world.system.url, headers=headers, after=cursor)
        try:
            stream.wait_for("CONNECTED")
        finally:
            stream.close()
        slowest = max(slowest, time.monotonic() - began)
        assert [frame.event for frame in stream.frames][:2] == ["RESET", "CONNECTED"], (name, stream.frames)
    world.figures["slowest RESET s"] = round(slowest, 2)
