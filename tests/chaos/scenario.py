"""One run: users with open pages, a constant load that publishes, recalls and reads, and a fault in the middle.

1. Pages open; one second of normal load.
2. The fault, under load. When it returns, it is healed.
3. Another second of load; then every page must converge on its own to what a reload shows.
4. Every user's final inbox and all broadcasts are recorded, and the checker runs.
"""

import random
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.chaos.checker import Violation, check_history, count_by_rule
from tests.chaos.history import History, select_events
from tests.chaos.kafka_environment import KafkaEnvironment
from tests.chaos.lost_commits import exclude_lost_events
from tests.chaos.page_client import InboxPage, RequestOutcome, load_inbox, send_request
from tests.chaos.readiness import ReadinessMonitor
from tests.chaos.seed_users import ROLES
from tests.support.servers import PostgresServer, RedisServer
from tests.support.system import System
from tests.support.tcp_proxy import TcpProxy

CONVERGENCE_TIMEOUT_SECONDS = 30.0  # how long the run waits; the checker's limit is shorter
_WARM_UP_SECONDS = 1.0
_RETRY_SECONDS = 0.05
_TRANSIENT_STATUSES = (503, 504)


@dataclass
class ChaosEnvironment:
    """The system under test and the means to break it."""

    system: System
    redis: RedisServer
    redis_proxy: TcpProxy
    database_proxy: TcpProxy | None  # None on SQLite
    database_url: str | None  # bypasses the proxy
    failpoints_dir: Path
    roles_by_user: dict[str, list[str]]  # current roles of each user
    tokens_by_user: dict[str, str]
    admin_token: str
    postgres_pair: tuple[PostgresServer, PostgresServer] | None = None  # the primary and its standby
    kafka: KafkaEnvironment | None = None

    @property
    def is_sqlite(self) -> bool:
        return self.database_proxy is None and self.postgres_pair is None


@dataclass
class Verdict:
    fault: str
    seed: int
    frame_count: int
    convergence_seconds: float | None
    violations: list[Violation]
    measurements: dict[str, float] = field(default_factory=dict)

    def count_violations(self, *rules: str) -> int:
        counts = count_by_rule(self.violations)
        return sum(counts[rule] for rule in rules)

    @property
    def has_passed(self) -> bool:
        return self.convergence_seconds is not None and not self.violations

    @property
    def table_row(self) -> tuple[str, ...]:
        """fault, seed, frames, lost, duplicated, leaked, other violations, seconds to converge, measurements."""
        lost_count, duplicate_count, leak_count = (
            self.count_violations("I1", "I6"),
            self.count_violations("I4", "I7"),
            self.count_violations("I3"),
        )
        other_count = len(self.violations) - lost_count - duplicate_count - leak_count
        seconds = "never" if self.convergence_seconds is None else f"{self.convergence_seconds:.1f}"
        measurements = ", ".join(f"{name} {value:g}" for name, value in self.measurements.items())
        return (
            self.fault,
            str(self.seed),
            str(self.frame_count),
            str(lost_count),
            str(duplicate_count),
            str(leak_count),
            str(other_count),
            seconds,
            measurements,
        )


class Scenario:
    """What a fault may read and do. `rng` is the run's only source of randomness."""

    def __init__(
        self,
        environment: ChaosEnvironment,
        *,
        fault: str,
        seed: int,
        streams_per_user: int,
        actions_per_second: float,
        path: Path | None = None,
    ):
        self.environment, self.system, self.fault, self.seed = environment, environment.system, fault, seed
        self.rng = random.Random(f"{fault} {seed}")
        self.history = History(path)
        self.readiness = ReadinessMonitor(self.system.port)
        self.measurements: dict[str, float] = {}
        self.roles_by_user, self.tokens_by_user = environment.roles_by_user, environment.tokens_by_user
        self.pages: list[InboxPage] = []
        self.publish_outcomes: list[RequestOutcome] = []
        self.status_counts: Counter[int | None] = Counter()
        self._streams_per_user, self._actions_per_second = streams_per_user, actions_per_second
        self._is_healed, self._stopped = threading.Event(), threading.Event()
        self._key_numbers = iter(range(10**9))
        self._lock = threading.Lock()
        newest_items = send_request(
            self.system.port, "GET", "/api/admin/broadcasts?limit=1", environment.admin_token
        ).body["items"]
        self.baseline_id = newest_items[0]["id"] if newest_items else 0

    # ---- the run

    def run(self, fault: Callable[["Scenario"], None]) -> Verdict:
        """Run the steps above and check the history. A failed assertion of the fault is a violation too."""
        with self.readiness:
            return self._run(fault)

    def _run(self, fault: Callable[["Scenario"], None]) -> Verdict:
        for user, roles in self.roles_by_user.items():
            self.history.record_event("person", user=user, roles=roles)
        self._open_pages()
        traffic_threads = [
            threading.Thread(target=self._generate_traffic, args=[random.Random(f"{self.seed} {n}")]) for n in range(3)
        ]
        for traffic_thread in traffic_threads:
            traffic_thread.start()
        try:
            time.sleep(_WARM_UP_SECONDS)
            self.history.record_event("fault", name=self.fault, phase="begin")
            violations = self._inject_fault(fault)
            healed_at = self.history.record_event("fault", name=self.fault, phase="heal")["at"]
            self._is_healed.set()
            time.sleep(_WARM_UP_SECONDS)
            self._stopped.set()
            for traffic_thread in traffic_threads:
                traffic_thread.join()
            seconds = self._wait_for_convergence(healed_at)
            violations += self.readiness.wait_until_ok()
            self._record_final_state()
        finally:
            self._stopped.set()
            for traffic_thread in traffic_threads:
                traffic_thread.join()
            for page in self.pages:
                page.close()
            self.history.close()
        frame_count = sum(len(page.frames) for page in self.pages)
        violations += self._find_server_errors() + self.readiness.find_violations()
        history_violations = check_history(exclude_lost_events(self.history.events))
        return Verdict(self.fault, self.seed, frame_count, seconds, violations + history_violations, self.measurements)

    def _inject_fault(self, fault: Callable[["Scenario"], None]) -> list[Violation]:
        try:
            fault(self)
        except (AssertionError, sqlite3.OperationalError, subprocess.TimeoutExpired) as error:
            return [Violation("expected", str(error))]
        return []

    def _find_server_errors(self) -> list[Violation]:
        """Return a violation for each server error except 503 and 504, which say that the problem is temporary."""
        error_counts = {
            status: n
            for status, n in self.status_counts.items()
            if status and status >= 500 and status not in _TRANSIENT_STATUSES
        }
        return [Violation("expected", f"{n} requests were answered {status}") for status, n in error_counts.items()]

    def send_request(self, method: str, path: str, token: str, body: Any = None, **headers: str) -> RequestOutcome:
        """Send one request and count its status."""
        outcome = send_request(self.system.port, method, path, token, body, **headers)
        self.status_counts[outcome.status] += 1
        return outcome

    def _open_pages(self) -> None:
        """Open one user's pages at a time: a busy machine would answer none of all in time, and all would retry."""
        for user in self.roles_by_user:
            for n in range(self._streams_per_user):
                path = "/inbox/stream" if n % 2 else "/api/sse/connect"
                self.open_page(f"{user}/{n}", user, path=path)
            for page in self.pages[-self._streams_per_user :]:
                page.wait_for("CONNECTED", seconds=30)

    def open_page(self, name: str, user: str, *, path: str = "/api/sse/connect") -> InboxPage:
        page = InboxPage(
            self.system,
            self.history,
            name=name,
            user=user,
            token=self.tokens_by_user[user],
            baseline=self.baseline_id,
            path=path,
            status_counts=self.status_counts,
        )
        self.pages.append(page)
        return page

    # ---- the load

    def _generate_traffic(self, rng: random.Random) -> None:
        known_ids: list[int] = []
        while not self._stopped.wait(rng.uniform(0.5, 1.5) * 3 / self._actions_per_second):
            match rng.choices(["publish", "brief", "recall", "read", "look", "page"], [70, 4, 6, 10, 8, 2])[0]:
                case "publish":
                    known_ids += filter(None, [self.publish(self.draw_audience(rng))])
                case "brief" if not self._is_healed.is_set():
                    self.publish(self.draw_audience(rng), lifetime_seconds=rng.uniform(0.5, 1.5))
                case "recall" if known_ids:
                    self.recall_broadcast(known_ids.pop(rng.randrange(len(known_ids))))
                case "read":
                    self.mark_read(rng.choice(list(self.roles_by_user)), rng)
                case "look":
                    self.record_inbox(rng.choice(list(self.roles_by_user)))
                case "page":
                    self.send_request("GET", "/inbox", self.tokens_by_user[rng.choice(list(self.roles_by_user))])

    def draw_audience(self, rng: random.Random) -> dict[str, Any]:
        match rng.choice(["everyone", "roles", "users"]):
            case "roles":
                return {"kind": "roles", "roles": [rng.choice(ROLES)]}
            case "users":
                return {"kind": "users", "users": sorted(rng.sample(sorted(self.roles_by_user), 2))}
        return {"kind": "everyone"}

    def make_key(self) -> str:
        with self._lock:
            return f"{self.fault}-{self.seed}-{next(self._key_numbers)}"

    def publish(
        self, audience: dict[str, Any], *, lifetime_seconds: float | None = None, max_tries: int = 40
    ) -> int | None:
        """Publish with one idempotency key until it is answered ok; return the id, None if it never was."""
        key = self.make_key()
        body = {"title": key, "content": f"Text of {key}", **_to_target_fields(audience)}
        expires_at = time.monotonic() + (lifetime_seconds or 0)
        if lifetime_seconds:
            body["expiresAt"] = (datetime.now(UTC) + timedelta(seconds=lifetime_seconds)).isoformat()
        for _ in range(max_tries):
            if lifetime_seconds and time.monotonic() > expires_at - 0.2:
                return None  # it would be refused, because its expiry is in the past
            outcome, id = self.publish_once(key, audience, body)
            if id is not None:
                if lifetime_seconds:
                    self.history.record_event("end", id=id, why="expired", began=expires_at, at=expires_at, result="ok")
                return id
            if outcome.status not in (None, *_TRANSIENT_STATUSES) or self._stopped.is_set():
                return None
            time.sleep(_RETRY_SECONDS)
        return None

    def publish_once(self, key: str, audience: dict, body: dict) -> tuple[RequestOutcome, int | None]:
        started_at = time.monotonic()
        outcome = self.send_request(
            "POST", "/api/admin/broadcasts", self.environment.admin_token, body, Idempotency_Key=key
        )
        id = outcome.body["id"] if outcome.result == "ok" else None
        self.publish_outcomes.append(outcome)
        self.history.record_event("publish", key=key, audience=audience, began=started_at, result=outcome.result, id=id)
        return outcome, id

    def recall_broadcast(self, id: int) -> None:
        started_at = time.monotonic()
        outcome = self.send_request(
            "DELETE", f"/api/admin/broadcasts/{id}", self.environment.admin_token, {"reason": "A mistake"}
        )
        self.history.record_event("end", id=id, why="recalled", began=started_at, result=outcome.result)

    def mark_read(self, user: str, rng: random.Random) -> None:
        if not (card_ids := [c for page in self.pages if page.user == user for c in list(page.card_ids)]):
            return
        id = rng.choice(card_ids)
        outcome = self.send_request("POST", f"/api/sse/read?messageId={id}", self.tokens_by_user[user])
        if outcome.result == "ok":
            self.history.record_event("receipt", user=user, id=id)

    def record_inbox(self, user: str, *, is_final: bool = False) -> list[int] | None:
        snapshot = load_inbox(self.system.port, self.tokens_by_user[user], self.baseline_id, self.status_counts)
        if snapshot is None:
            return None
        fields = {
            "began": snapshot.started_at,
            "cards": snapshot.card_ids,
            "read": snapshot.read_ids,
            "final": is_final,
        }
        self.history.record_event("inbox", user=user, **fields)
        return snapshot.card_ids

    def set_roles(self, user: str, roles: list[str]) -> None:
        started_at = time.monotonic()
        command_args = ("set-roles", "--username", user, *[f"--role={role}" for role in roles])
        self.system.run_module(
            "flask", "--app", "app", *command_args
        )  # in another process; the threads of this one run the pages
        self.history.record_event("roles", user=user, roles=roles, began=started_at)
        self.roles_by_user[user] = roles

    # ---- the end

    def _wait_for_convergence(self, healed_at: float) -> float | None:
        """Wait until every page shows what a reload shows; return how many seconds after the heal the last one did,
        None if one never did. The time of this check does not count: loading all lists takes longer.
        """
        last_end = max((event["at"] for event in select_events(self.history.events, "end")), default=0.0)
        time.sleep(max(0.0, last_end - time.monotonic()))
        deadline, converged_at = time.monotonic() + CONVERGENCE_TIMEOUT_SECONDS, {}
        while time.monotonic() < deadline and len(converged_at) < len(self.pages):
            for user in self.roles_by_user:
                pending_pages = [page for page in self.pages if page.user == user and page not in converged_at]
                card_ids = self.record_inbox(user) if pending_pages else None
                for page in pending_pages:
                    current_since = page.current_since
                    if current_since and card_ids is not None and page.card_ids == set(card_ids):
                        converged_at[page] = current_since
                        self.history.record_event("current", stream=page.name, at=current_since)
            time.sleep(_RETRY_SECONDS)
        return max(healed_at, *converged_at.values()) - healed_at if len(converged_at) == len(self.pages) else None

    def _record_final_state(self) -> None:
        for user in self.roles_by_user:
            for _ in range(20):
                if self.record_inbox(user, is_final=True) is not None:
                    break
                time.sleep(0.5)
        self.history.record_event("log", rows=self.list_broadcasts())

    def list_broadcasts(self) -> list[tuple[int | None, int, str]]:
        """Return (seq, id, title) of every broadcast."""
        rows, page_query = [], ""
        while page_query is not None:
            page = send_request(
                self.system.port, "GET", f"/api/admin/broadcasts?limit=200{page_query}", self.environment.admin_token
            ).body
            new_items = [item for item in page["items"] if item["id"] > self.baseline_id]
            rows += [(item["seq"], item["id"], item["title"]) for item in new_items]
            page_query = page["next"] and f"&after={page['next']}" if len(new_items) == len(page["items"]) else None
        return rows


def _to_target_fields(audience: dict[str, Any]) -> dict[str, Any]:
    match audience["kind"]:
        case "roles":
            return {"targetType": "ROLE", "targetIds": audience["roles"]}
        case "users":
            return {"targetType": "SELECTED", "targetIds": audience["users"]}
    return {"targetType": "ALL"}
