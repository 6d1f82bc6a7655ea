"""One run: people with their pages, somebody who publishes, recalls and reads all the time, and a fault in the middle.

1. Pages open; a second of ordinary work.
2. The fault, while the work goes on. It returns healed.
3. Another second of work; then every page must come to show what a reload shows, by itself.
4. Everybody's final inbox and all that exists are noted, and the checker judges.
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

from tests.chaos.checker import Violation, by_rule, check
from tests.chaos.client import Answered, Page, ask, load_list
from tests.chaos.history import History, of
from tests.chaos.kafka import Kafka
from tests.chaos.lost import without_lost_history
from tests.chaos.populate import ROLES
from tests.chaos.readiness import Readiness
from tests.chaos.servers import Link, RedisServer
from tests.servers import Postgres
from tests.system import System

CONVERGE_SECONDS = 30.0  # how long the run waits; the checker judges by less
_QUIET_SECONDS = 1.0
_PAUSE_SECONDS = 0.05
_PASSING = (503, 504)


@dataclass
class Place:
    """The system under test and the ways to break it."""

    system: System
    redis: RedisServer
    redis_link: Link
    database_link: Link | None  # None on SQLite
    database_url: str | None  # past the link
    failpoints: Path
    roles: dict[str, list[str]]  # of each person, as they are now
    tokens: dict[str, str]
    admin: str
    pair: tuple[Postgres, Postgres] | None = None  # the primary and its standby
    kafka: Kafka | None = None

    @property
    def is_sqlite(self) -> bool:
        return self.database_link is None and self.pair is None


@dataclass
class Verdict:
    fault: str
    seed: int
    frames: int
    seconds: float | None
    violations: list[Violation]
    figures: dict[str, float] = field(default_factory=dict)

    def count(self, *rules: str) -> int:
        counted = by_rule(self.violations)
        return sum(counted[rule] for rule in rules)

    @property
    def is_well(self) -> bool:
        return self.seconds is not None and not self.violations

    @property
    def row(self) -> tuple[str, ...]:
        """fault, seed, events, lost, doubled, leaked, other, seconds to converge, figures."""
        lost, doubled, leaked = self.count("I1", "I6"), self.count("I4", "I7"), self.count("I3")
        other = len(self.violations) - lost - doubled - leaked
        seconds = "never" if self.seconds is None else f"{self.seconds:.1f}"
        figures = ", ".join(f"{name} {value:g}" for name, value in self.figures.items())
        return (
            self.fault,
            str(self.seed),
            str(self.frames),
            str(lost),
            str(doubled),
            str(leaked),
            str(other),
            seconds,
            figures,
        )


class World:
    """What a fault may look at and do. `choose` is the run's only source of chance."""

    def __init__(self, place: Place, *, fault: str, seed: int, streams: int, rate: float, path: Path | None = None):
        self.place, self.system, self.fault, self.seed = place, place.system, fault, seed
        self.choose = random.Random(f"{fault} {seed}")
        self.history = History(path)
        self.readiness = Readiness(self.system.port)
        self.figures: dict[str, float] = {}
        self.roles, self.tokens = place.roles, place.tokens
        self.pages: list[Page] = []
        self.answers: list[Answered] = []
        self.statuses: Counter[int | None] = Counter()
        self._streams, self._rate = streams, rate
        self._healed, self._over = threading.Event(), threading.Event()
        self._numbers = iter(range(10**9))
        self._lock = threading.Lock()
        newest = ask(self.system.port, "GET", "/api/admin/broadcasts?limit=1", place.admin).body["items"]
        self.baseline = newest[0]["id"] if newest else 0

    # ---- the run

    def run(self, fault: Callable[["World"], None]) -> Verdict:
        """Do the steps above and judge them. What the fault itself did not find as it must be is a violation too."""
        with self.readiness:
            return self._run(fault)

    def _run(self, fault: Callable[["World"], None]) -> Verdict:
        for user, roles in self.roles.items():
            self.history.note("person", user=user, roles=roles)
        self._open_pages()
        workers = [threading.Thread(target=self._work, args=[random.Random(f"{self.seed} {n}")]) for n in range(3)]
        for worker in workers:
            worker.start()
        try:
            time.sleep(_QUIET_SECONDS)
            self.history.note("fault", name=self.fault, phase="begin")
            unmet = self._break(fault)
            healed = self.history.note("fault", name=self.fault, phase="heal")["at"]
            self._healed.set()
            time.sleep(_QUIET_SECONDS)
            self._over.set()
            for worker in workers:
                worker.join()
            seconds = self._settle(healed)
            unmet += self.readiness.wait_until_ok()
            self._look_at_everything()
        finally:
            self._over.set()
            for worker in workers:
                worker.join()
            for page in self.pages:
                page.close()
            self.history.close()
        frames = sum(len(page.frames) for page in self.pages)
        unmet += self._mistakes() + self.readiness.violations()
        judged = check(without_lost_history(self.history.events))
        return Verdict(self.fault, self.seed, frames, seconds, unmet + judged, self.figures)

    def _break(self, fault: Callable[["World"], None]) -> list[Violation]:
        try:
            fault(self)
        except (AssertionError, sqlite3.OperationalError, subprocess.TimeoutExpired) as problem:
            return [Violation("expected", str(problem))]
        return []

    def _mistakes(self) -> list[Violation]:
        """Whatever is broken, nobody is answered that we made a mistake; 503 and 504 say that it will pass."""
        told = {status: n for status, n in self.statuses.items() if status and status >= 500 and status not in _PASSING}
        return [Violation("expected", f"{n} requests were answered {status}") for status, n in told.items()]

    def ask(self, method: str, path: str, token: str, body: Any = None, **headers: str) -> Answered:
        """One request of the run's own; its status is counted."""
        answered = ask(self.system.port, method, path, token, body, **headers)
        self.statuses[answered.status] += 1
        return answered

    def _open_pages(self) -> None:
        """One person's after the other's: all at once, a busy machine would answer none in time, and all would ask again."""
        for user in self.roles:
            for n in range(self._streams):
                path = "/inbox/stream" if n % 2 else "/api/sse/connect"
                self.open_page(f"{user}/{n}", user, path=path)
            for page in self.pages[-self._streams :]:
                page.wait_for("CONNECTED", seconds=30)

    def open_page(self, name: str, user: str, *, path: str = "/api/sse/connect") -> Page:
        page = Page(
            self.system,
            self.history,
            name=name,
            user=user,
            token=self.tokens[user],
            baseline=self.baseline,
            path=path,
            statuses=self.statuses,
        )
        self.pages.append(page)
        return page

    # ---- the work

    def _work(self, choose: random.Random) -> None:
        known: list[int] = []
        while not self._over.wait(choose.uniform(0.5, 1.5) * 3 / self._rate):
            match choose.choices(["publish", "brief", "recall", "read", "look", "page"], [70, 4, 6, 10, 8, 2])[0]:
                case "publish":
                    known += filter(None, [self.publish(self.audience(choose))])
                case "brief" if not self._healed.is_set():
                    self.publish(self.audience(choose), lives_seconds=choose.uniform(0.5, 1.5))
                case "recall" if known:
                    self.recall(known.pop(choose.randrange(len(known))))
                case "read":
                    self.read(choose.choice(list(self.roles)), choose)
                case "look":
                    self.look(choose.choice(list(self.roles)))
                case "page":
                    self.ask("GET", "/inbox", self.tokens[choose.choice(list(self.roles))])

    def audience(self, choose: random.Random) -> dict[str, Any]:
        match choose.choice(["everyone", "roles", "users"]):
            case "roles":
                return {"kind": "roles", "roles": [choose.choice(ROLES)]}
            case "users":
                return {"kind": "users", "users": sorted(choose.sample(sorted(self.roles), 2))}
        return {"kind": "everyone"}

    def new_key(self) -> str:
        with self._lock:
            return f"{self.fault}-{self.seed}-{next(self._numbers)}"

    def publish(self, audience: dict[str, Any], *, lives_seconds: float | None = None, tries: int = 40) -> int | None:
        """Publish under one key until it is answered ok; return the id, None when it never was."""
        key = self.new_key()
        body = {"title": key, "content": f"Text of {key}", **_target(audience)}
        ends = time.monotonic() + (lives_seconds or 0)
        if lives_seconds:
            body["expiresAt"] = (datetime.now(UTC) + timedelta(seconds=lives_seconds)).isoformat()
        for _ in range(tries):
            if lives_seconds and time.monotonic() > ends - 0.2:
                return None  # it would be refused, as its end lies in the past
            answered, id = self.try_to_publish(key, audience, body)
            if id is not None:
                if lives_seconds:
                    self.history.note("end", id=id, why="expired", began=ends, at=ends, result="ok")
                return id
            if answered.status not in (None, *_PASSING) or self._over.is_set():
                return None
            time.sleep(_PAUSE_SECONDS)
        return None

    def try_to_publish(self, key: str, audience: dict, body: dict) -> tuple[Answered, int | None]:
        began = time.monotonic()
        answered = self.ask("POST", "/api/admin/broadcasts", self.place.admin, body, Idempotency_Key=key)
        id = answered.body["id"] if answered.result == "ok" else None
        self.answers.append(answered)
        self.history.note("publish", key=key, audience=audience, began=began, result=answered.result, id=id)
        return answered, id

    def recall(self, id: int) -> None:
        began = time.monotonic()
        answered = self.ask("DELETE", f"/api/admin/broadcasts/{id}", self.place.admin, {"reason": "A mistake"})
        self.history.note("end", id=id, why="recalled", began=began, result=answered.result)

    def read(self, user: str, choose: random.Random) -> None:
        if not (cards := [c for page in self.pages if page.user == user for c in list(page.cards)]):
            return
        id = choose.choice(cards)
        answered = self.ask("POST", f"/api/sse/read?messageId={id}", self.tokens[user])
        if answered.result == "ok":
            self.history.note("receipt", user=user, id=id)

    def look(self, user: str, *, final: bool = False) -> list[int] | None:
        listed = load_list(self.system.port, self.tokens[user], self.baseline, self.statuses)
        if listed is None:
            return None
        told = {"began": listed.began, "cards": listed.cards, "read": listed.read, "final": final}
        self.history.note("inbox", user=user, **told)
        return listed.cards

    def set_roles(self, user: str, roles: list[str]) -> None:
        began = time.monotonic()
        words = ("set-roles", "--username", user, *[f"--role={role}" for role in roles])
        self.system.run_module("flask", "--app", "app", *words)  # beside this process, whose threads watch the pages
        self.history.note("roles", user=user, roles=roles, began=began)
        self.roles[user] = roles

    # ---- the end

    def _settle(self, healed: float) -> float | None:
        """Wait until every page shows what a reload shows; return how many seconds after the heal the last one began to, None
        if one never did. The moment of our look says little: to look at everybody's list takes longer.
        """
        last_end = max((event["at"] for event in of(self.history.events, "end")), default=0.0)
        time.sleep(max(0.0, last_end - time.monotonic()))
        deadline, current = time.monotonic() + CONVERGE_SECONDS, {}
        while time.monotonic() < deadline and len(current) < len(self.pages):
            for user in self.roles:
                waiting = [page for page in self.pages if page.user == user and page not in current]
                cards = self.look(user) if waiting else None
                for page in waiting:
                    since = page.since
                    if since and cards is not None and page.cards == set(cards):
                        current[page] = since
                        self.history.note("current", stream=page.name, at=since)
            time.sleep(_PAUSE_SECONDS)
        return max(healed, *current.values()) - healed if len(current) == len(self.pages) else None

    def _look_at_everything(self) -> None:
        for user in self.roles:
            for _ in range(20):
                if self.look(user, final=True) is not None:
                    break
                time.sleep(0.5)
        self.history.note("log", rows=self.rows())

    def rows(self) -> list[tuple[int | None, int, str]]:
        """(seq, id, title) of everything that exists."""
        rows, after = [], ""
        while after is not None:
            page = ask(self.system.port, "GET", f"/api/admin/broadcasts?limit=200{after}", self.place.admin).body
            found = [item for item in page["items"] if item["id"] > self.baseline]
            rows += [(item["seq"], item["id"], item["title"]) for item in found]
            after = page["next"] and f"&after={page['next']}" if len(found) == len(page["items"]) else None
        return rows


def _target(audience: dict[str, Any]) -> dict[str, Any]:
    match audience["kind"]:
        case "roles":
            return {"targetType": "ROLE", "targetIds": audience["roles"]}
        case "users":
            return {"targetType": "SELECTED", "targetIds": audience["users"]}
    return {"targetType": "ALL"}
