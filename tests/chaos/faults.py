"""The faults of the table, except those of Kafka and of a standby: each breaks something for a while, and heals it.

`scale` shortens them: 1 is the table's duration. A fault puts its measurements into `scenario.measurements`, and
asserts what the checker cannot see.
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

from tests.chaos.page_client import RequestOutcome, send_request
from tests.chaos.scenario import Scenario
from tests.support.failpoints.sitecustomize import FAILPOINT_NAMES
from tests.support.process_fixtures import wait_for_workers
from tests.support.stream_client import StreamClient
from tests.support.system import wait_for

Fault = Callable[[Scenario, float], None]
FAULTS: dict[str, tuple[str, Fault]] = {}
FAULT_REQUIREMENTS: dict[str, str] = {}
# the short sets: for `make test`, and for `make test-services`
SQLITE_FAULTS = ("F01", "F04", "F09", "F10k", "F11", "F21", "F24", "F32", "F33")  # F32 begins with F12
SERVER_FAULTS = ("F02", "F03", "F09d", "F10", "F18", "F19", "F21", "F23", "F33")
STANDALONE_FAULTS = ("F28", "F30", "F31")  # on servers too, each in its own environment
WORKER_FAILPOINTS = [point for point in FAILPOINT_NAMES if point != "offsets"]


def register_fault(id: str, name: str, *, requirement: str = "") -> Callable[[Fault], Fault]:
    """Add a fault to the table. `requirement` is what its environment needs besides, see `tests.chaos.environment`."""

    def register(function: Fault) -> Fault:
        FAULTS[id] = (name, function)
        FAULT_REQUIREMENTS[id] = requirement
        return function

    return register


@contextmanager
def allow_worker_starts(scenario: Scenario) -> Iterator[None]:
    """In this block workers stop and start; a new one is not connected to Redis or Kafka yet, and may report that."""
    with scenario.readiness.may_report("redis", "kafka"):
        yield


@contextmanager
def measure_slowest_publish(scenario: Scenario, measurement: str) -> Iterator[None]:
    """Record the slowest publish response in this block."""
    known_count = len(scenario.publish_outcomes)
    yield
    scenario.measurements[measurement] = round(
        max((outcome.seconds for outcome in scenario.publish_outcomes[known_count:]), default=0.0), 2
    )


@register_fault("F01", "Redis killed")
def kill_redis(scenario: Scenario, scale: float) -> None:
    scenario.environment.redis.send_signal(signal.SIGKILL)
    with scenario.readiness.must_report("redis") as problem:
        with measure_slowest_publish(scenario, "slowest answer s"):
            time.sleep(10 * scale)
            for _ in range(20):
                scenario.publish({"kind": "everyone"})
        scenario.readiness.wait_until_reported(problem)
    scenario.environment.redis.start()


@register_fault("F02", "Redis frozen")
def freeze_redis(scenario: Scenario, scale: float) -> None:
    scenario.environment.redis.send_signal(signal.SIGSTOP)
    try:
        with measure_slowest_publish(scenario, "slowest answer s"), scenario.readiness.must_report("redis") as problem:
            time.sleep(15 * scale)
            scenario.readiness.wait_until_reported(problem)
        assert send_request(scenario.system.port, "GET", "/healthz", "").status == 200
    finally:
        scenario.environment.redis.send_signal(signal.SIGCONT)


@register_fault("F03", "link to Redis silent for 1.5 s, then cut")
def cut_redis_connection(scenario: Scenario, scale: float) -> None:
    for _ in range(max(1, int(4 * scale))):
        with scenario.readiness.may_report("redis"):
            scenario.environment.redis_proxy.pause()
            time.sleep(1.5)
            scenario.environment.redis_proxy.disconnect()
            scenario.environment.redis_proxy.resume()
        time.sleep(0.5)


@register_fault("F04", "Redis emptied, full, read-only")
def degrade_redis(scenario: Scenario, scale: float) -> None:
    with Redis.from_url(scenario.environment.redis.url) as redis, scenario.readiness.may_report("redis"):
        redis.flushall()
        time.sleep(3 * scale)
        redis.config_set("maxmemory", 1)
        time.sleep(3 * scale)
        redis.config_set("maxmemory", 0)
        redis.replicaof("127.0.0.1", "1")
        time.sleep(3 * scale)
        redis.replicaof("NO", "ONE")


@register_fault("F09", "database locked")
def hold_database_lock(scenario: Scenario, scale: float) -> None:
    """Streams stay open; writes get 503, never another error, and nothing is half written."""
    connection_counts, known_count = (
        [len(page.response_headers) for page in scenario.pages],
        len(scenario.publish_outcomes),
    )
    with (
        lock_database(scenario),
        measure_slowest_publish(scenario, "slowest answer s"),
        scenario.readiness.may_report("database"),
    ):
        time.sleep(max(5.0, 10 * scale))  # longer than DATABASE_LOCK_TIMEOUT_SECONDS
    refusals = [outcome for outcome in scenario.publish_outcomes[known_count:] if outcome.result == "fail"]
    scenario.measurements["answered 503"] = len(refusals)
    assert {answered.status for answered in refusals} <= {503}, {answered.status for answered in refusals}
    assert all(answered.headers["Retry-After"] for answered in refusals)
    assert [len(page.response_headers) for page in scenario.pages] == connection_counts, (
        "a stream was closed by a locked database"
    )


@contextmanager
def lock_database(scenario: Scenario) -> Iterator[None]:
    if scenario.environment.is_sqlite:
        sqlite_connection = sqlite3.connect(
            scenario.system.folder / "var/broadcast.sqlite3", isolation_level=None, timeout=20
        )
        sqlite_connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            sqlite_connection.execute("ROLLBACK")
            sqlite_connection.close()
        return
    engine = sqlalchemy.create_engine(scenario.environment.database_url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("LOCK TABLE log_head IN EXCLUSIVE MODE")
        yield


@register_fault("F09d", "database down (PostgreSQL)")
def stop_database(scenario: Scenario, scale: float) -> None:
    if scenario.environment.is_sqlite:
        return
    with (
        scenario.environment.database_proxy.refuse_connections(),
        measure_slowest_publish(scenario, "slowest answer s"),
        scenario.readiness.must_report("database") as problem,
    ):
        time.sleep(20 * scale)
        scenario.readiness.wait_until_reported(problem)


@register_fault("F10", "worker killed at each failpoint")
def kill_workers_at_failpoints(scenario: Scenario, scale: float) -> None:
    with allow_worker_starts(scenario):
        for failpoint in WORKER_FAILPOINTS * max(1, int(5 * scale)):
            wait_for_workers(scenario.system)
            armed_file = scenario.environment.failpoints_dir / failpoint
            armed_file.touch()
            scenario.publish({"kind": "everyone"})
            wait_for(lambda armed=armed_file: not armed.exists(), description=f"a worker to pass {failpoint}")
        wait_for_workers(scenario.system)


@register_fault("F10k", "worker killed 0–500 ms after a publish")
def kill_workers_after_publish(scenario: Scenario, scale: float) -> None:
    with allow_worker_starts(scenario):
        kill_count = max(3, int(200 * scale / 5))
        for _ in range(kill_count):
            worker_pid = scenario.rng.choice(wait_for_workers(scenario.system))
            scenario.publish({"kind": "everyone"})
            time.sleep(scenario.rng.uniform(0, 0.5))
            os.kill(worker_pid, signal.SIGKILL)
        scenario.measurements["kills"] = kill_count
        wait_for_workers(scenario.system)


@register_fault("F11", "everything killed and started again")
def kill_everything(scenario: Scenario, scale: float) -> None:
    system = scenario.system
    processes = [system.process.pid, system.master_pid, *system.get_worker_pids()]
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    scenario.environment.redis.send_signal(signal.SIGKILL)
    system.process.wait()
    time.sleep(2 * scale)
    scenario.environment.redis.start()
    started_at = time.monotonic()
    with allow_worker_starts(scenario):
        system.start()
    scenario.measurements["ready after s"] = round(time.monotonic() - started_at, 1)


@register_fault("F12", "HUP")
def reload_workers(scenario: Scenario, scale: float) -> None:
    with allow_worker_starts(scenario):
        for _ in range(max(1, int(3 * scale))):
            old_workers = wait_for_workers(scenario.system)
            started_at = time.monotonic()
            os.kill(scenario.system.master_pid, signal.SIGHUP)
            wait_for(
                lambda old=old_workers: not set(old) & set(scenario.system.get_worker_pids()),
                seconds=30,
                description="the old workers to leave",
            )
            scenario.measurements["old workers gone s"] = round(time.monotonic() - started_at, 1)
            wait_for_workers(scenario.system)


@register_fault("F32", "HUP, then stop and start: nobody waits for a node that boots")
def reload_and_restart(scenario: Scenario, scale: float) -> None:
    """During the reload every request is answered; during the restart it is answered or refused at once."""
    with allow_worker_starts(scenario):
        for _ in range(max(1, int(3 * scale))):
            with poll_health(scenario) as outcomes:
                reload_workers(scenario, 0)
            assert {outcome.status for outcome in outcomes} == {200}, "somebody was not served during a reload"
            slowest_seconds = max(answered.seconds for answered in outcomes)
            with poll_health(scenario) as outcomes:
                scenario.system.stop()
                started_at = time.monotonic()
                scenario.system.start()
                boot_seconds = time.monotonic() - started_at
            assert {answered.status for answered in outcomes} <= {200, None}
            longest_wait = max(answered.seconds for answered in outcomes)
            assert longest_wait < max(boot_seconds, 1.0), (
                f"somebody waited {longest_wait:.1f} s for a node that needs {boot_seconds:.1f} s to boot"
            )
        scenario.measurements |= {
            "slowest answer in the reload s": round(slowest_seconds, 2),
            "in the restart s": round(longest_wait, 2),
        }


@contextmanager
def poll_health(scenario: Scenario) -> Iterator[list[RequestOutcome]]:
    """Poll the health check in the background, with a new connection each time; yields the outcomes."""
    outcomes: list[RequestOutcome] = []
    is_stopped = threading.Event()

    def poll() -> None:
        while not is_stopped.is_set():
            outcomes.append(send_request(scenario.system.port, "GET", "/healthz", ""))
            time.sleep(0.01)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield outcomes
    finally:
        is_stopped.set()
        thread.join()


@register_fault("F18", "1,000 due at once, workers killed at due time")
def kill_workers_at_due_time(scenario: Scenario, scale: float) -> None:
    count, due_at = max(20, int(1000 * scale)), datetime.now(UTC) + timedelta(seconds=4 + 20 * scale)

    def schedule(n: int) -> None:
        key, started_at = f"due-{scenario.seed}-{n}", time.monotonic()
        body = {"title": key, "content": "Due", "targetType": "ALL", "scheduledAt": due_at.isoformat()}
        outcome = send_request(
            scenario.system.port,
            "POST",
            "/api/admin/broadcasts",
            scenario.environment.admin_token,
            body,
            Idempotency_Key=key,
        )
        scenario.history.record_event(
            "publish", key=key, audience={"kind": "everyone"}, began=started_at, result=outcome.result,
            id=outcome.body["id"] if outcome.result == "ok" else None,
        )  # fmt: skip

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(schedule, range(count)))
    time.sleep(max(0.0, (due_at - datetime.now(UTC)).total_seconds() + 0.05))
    with allow_worker_starts(scenario):
        for worker in scenario.system.get_worker_pids():
            os.kill(worker, signal.SIGKILL)
        killed_at = time.monotonic()
        wait_for_workers(scenario.system)
    scheduled = "/api/admin/broadcasts?filter=scheduled&limit=1"
    wait_for(
        lambda: (
            send_request(scenario.system.port, "GET", scheduled, scenario.environment.admin_token).body
            == {"items": [], "next": None}
        ),
        seconds=120,
        description="all that was due to be sent",
    )
    scenario.measurements |= {"due": count, "all sent s after the kill": round(time.monotonic() - killed_at, 1)}


@register_fault("F19", "50 parallel posts with one key")
def post_in_parallel(scenario: Scenario, scale: float) -> None:
    for _ in range(max(1, int(10 * scale))):
        key = scenario.make_key()
        body = {"title": key, "content": "Once", "targetType": "ALL"}

        def post(_: int, key: str = key, body: dict = body) -> None:
            scenario.publish_once(key, {"kind": "everyone"}, body)

        with ThreadPoolExecutor(50) as pool:
            list(pool.map(post, range(50)))


@register_fault("F21", "roles given and taken while streaming")
def change_roles(scenario: Scenario, scale: float) -> None:
    for _ in range(max(2, int(6 * scale))):
        user = scenario.rng.choice(sorted(scenario.roles_by_user))
        scenario.set_roles(user, sorted(scenario.rng.sample(["ops", "sales", "night"], scenario.rng.randrange(4))))


@register_fault("F23", "streams cut at random under load")
def disconnect_streams(scenario: Scenario, scale: float) -> None:
    deadline = time.monotonic() + 20 * scale
    disconnect_count = 0
    while time.monotonic() < deadline:
        time.sleep(scenario.rng.uniform(0, 0.05))
        scenario.rng.choice(scenario.pages).disconnect()
        disconnect_count += 1
    scenario.measurements["cuts"] = disconnect_count


@register_fault("F24", "cursors that prove nothing")
def send_invalid_cursors(scenario: Scenario, scale: float) -> None:
    user = next(iter(scenario.roles_by_user))
    current_cursor = next(page.cursor for page in scenario.pages if page.user == user)
    epoch, _, seq = current_cursor.rpartition("-")
    invalid_cursors = [
        "unknown",
        f"{epoch}-{int(seq) + 10**6}",
        f"{epoch}--5",
        "x" * 3_000,
        f"ffff0000-{seq}",
        f"{epoch}-1e3",
    ]
    slowest_seconds = 0.0
    for n, cursor in enumerate(invalid_cursors):
        name, started_at = f"stranger/{n}", time.monotonic()
        headers = {"Authorization": f"Bearer {scenario.tokens_by_user[user]}"}
        stream = StreamClient(scenario.system.url, headers=headers, after=cursor)
        try:
            stream.wait_for("CONNECTED")
        finally:
            stream.close()
        slowest_seconds = max(slowest_seconds, time.monotonic() - started_at)
        assert [frame.event for frame in stream.frames][:2] == ["RESET", "CONNECTED"], (name, stream.frames)
    scenario.measurements["slowest RESET s"] = round(slowest_seconds, 2)
