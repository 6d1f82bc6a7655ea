"""Compares what /readyz reports during a run with the truth: an unreported fault is twice as bad.

Every response names a lasting problem from soon after its start to its end; no response names a problem that does not
exist; and when everything is healed, every response says "ok".
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.chaos.checker import Violation
from tests.chaos.page_client import RequestOutcome, send_request

_POLL_INTERVAL_SECONDS = 0.1
MAX_DETECTION_SECONDS = 5.0  # from the start of a fault to the first response that must name it
MAX_RECOVERY_SECONDS = 15.0  # from its end to the first response that must not name it
_MIN_OK_ANSWERS = 10  # in a row, from any workers


@dataclass(frozen=True, slots=True)
class ReadinessAnswer:
    """One response: what it names as failing or degraded, with its sentence, and the times of request and response."""

    asked_at: float
    answered_at: float
    status: int
    problems: dict[str, str]

    @property
    def is_ok(self) -> bool:
        return self.status == 200 and not self.problems


@dataclass(slots=True)
class ExpectedProblem:
    """Components that are broken from `started_at` to `ended_at`. `is_required`: they must be named, not only may."""

    components: tuple[str, ...]
    is_required: bool
    expected_text: str
    started_at: float
    ended_at: float
    reason_within_seconds: float = (
        MAX_DETECTION_SECONDS  # after this the sentence must contain the text; before it any sentence will do
    )


def check_answers(answers: list[ReadinessAnswer], expected_problems: list[ExpectedProblem]) -> Iterator[Violation]:
    """Yield a violation for each false report and each unreported problem."""
    for answer in answers:
        active_problems = [
            problem
            for problem in expected_problems
            if problem.started_at <= answer.answered_at and answer.asked_at <= problem.ended_at + MAX_RECOVERY_SECONDS
        ]
        if answer.problems and not active_problems:
            yield Violation("readyz", f"it names {_describe(answer)} though nothing is wrong")
        components = {component for one in active_problems for component in one.components}
        if active_problems and (
            unexpected_components := {"database", "schema", "redis", "kafka"} & answer.problems.keys() - components
        ):
            yield Violation("readyz", f"it names {sorted(unexpected_components)} where {sorted(components)} is broken")
        for one in expected_problems:
            if not one.is_required or not (
                one.started_at + MAX_DETECTION_SECONDS <= answer.asked_at and answer.answered_at < one.ended_at
            ):
                continue
            for part in one.components:
                expected_text = (
                    one.expected_text if answer.asked_at >= one.started_at + one.reason_within_seconds else ""
                )
                if part not in answer.problems or expected_text not in answer.problems[part]:
                    yield Violation(
                        "readyz", f"it names {_describe(answer)} while {part} is broken ({one.expected_text})"
                    )


def _describe(answer: ReadinessAnswer) -> str:
    return "; ".join(f"{part}: {sentence}" for part, sentence in answer.problems.items()) or "nothing"


class ReadinessMonitor:
    """Polls a system from the start to the end of a `with` block, in its own thread."""

    def __init__(self, port: int):
        self.answers: list[ReadinessAnswer] = []
        self.expected_problems: list[ExpectedProblem] = []
        self._port, self._stopped = port, threading.Event()
        self._thread = threading.Thread(target=self._poll)

    def __enter__(self) -> "ReadinessMonitor":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    @contextmanager
    def must_report(
        self, *components: str, expected_text: str = "", within_seconds: float = MAX_DETECTION_SECONDS
    ) -> Iterator[ExpectedProblem]:
        """In this block these components are broken and must be reported; after `within_seconds` in a sentence that
        contains `expected_text`.
        """
        with self._expect_problem(components, expected_text, is_required=True) as problem:
            problem.reason_within_seconds = within_seconds
            yield problem

    @contextmanager
    def may_report(self, *components: str) -> Iterator[ExpectedProblem]:
        """In this block these components may be reported: they are broken only briefly or partly."""
        with self._expect_problem(components, "", is_required=False) as problem:
            yield problem

    def wait_until_reported(self, problem: ExpectedProblem) -> None:
        """Wait until every worker must have named it for a while. `check_answers` checks whether they have."""
        time.sleep(
            max(
                0.0, problem.started_at + problem.reason_within_seconds + 10 * _POLL_INTERVAL_SECONDS - time.monotonic()
            )
        )

    def wait_until_ok(self) -> list[Violation]:
        """Wait until it says "ok" for a while; return a violation if it never does."""
        deadline = time.monotonic() + MAX_RECOVERY_SECONDS
        known_count = len(self.answers)
        while time.monotonic() < deadline:
            latest = self.answers[known_count:][-_MIN_OK_ANSWERS:]
            if len(latest) == _MIN_OK_ANSWERS and all(answer.is_ok for answer in latest):
                return []
            time.sleep(_POLL_INTERVAL_SECONDS)
        latest = next((answer for answer in reversed(self.answers) if not answer.is_ok), None)
        return [
            Violation(
                "readyz", f"all is healed and it still names {_describe(latest) if latest else 'nobody: no answer'}"
            )
        ]

    def find_violations(self) -> list[Violation]:
        """Return the violations without duplicates."""
        return list(dict.fromkeys(check_answers(list(self.answers), self.expected_problems)))

    @contextmanager
    def _expect_problem(
        self, components: tuple[str, ...], expected_text: str, *, is_required: bool
    ) -> Iterator[ExpectedProblem]:
        self.expected_problems.append(
            problem := ExpectedProblem(components, is_required, expected_text, time.monotonic(), float("inf"))
        )
        try:
            yield problem
        finally:
            problem.ended_at = min(problem.ended_at, time.monotonic())

    def _poll(self) -> None:
        while not self._stopped.wait(_POLL_INTERVAL_SECONDS):
            asked_at = time.monotonic()
            if (answer := parse_answer(send_request(self._port, "GET", "/readyz", ""), asked_at)) is not None:
                self.answers.append(answer)


def parse_answer(outcome: RequestOutcome, asked_at: float) -> ReadinessAnswer | None:
    """Parse a /readyz response; None without a response, or if an overloaded worker answered with a page."""
    body = outcome.body
    if outcome.status is None or not isinstance(body, dict) or "failing" not in body:
        return None
    return ReadinessAnswer(asked_at, asked_at + outcome.seconds, outcome.status, body["failing"] | body["degraded"])
