"""Compares what /readyz says, all through a run, with what is true: a fault that nobody is told of counts twice.

What lasts is named in every answer from soon after its beginning to its end; nothing is named that is not so; and when all is
healed every answer says "ok".
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.chaos.checker import Violation
from tests.chaos.page_client import RequestOutcome, send_request

_POLL_INTERVAL_SECONDS = 0.1
MAX_DETECTION_SECONDS = 5.0  # from the beginning of a fault to the first answer that must name it
MAX_RECOVERY_SECONDS = 15.0  # from its end to the first that must not
_MIN_OK_ANSWERS = 10  # in a row, from whichever workers took them


@dataclass(frozen=True, slots=True)
class ReadinessAnswer:
    """One answer: what it names as failing or degraded, with its sentence; asked `asked_at`, and `answered`."""

    asked_at: float
    answered_at: float
    status: int
    problems: dict[str, str]

    @property
    def is_ok(self) -> bool:
        return self.status == 200 and not self.problems


@dataclass(slots=True)
class ExpectedProblem:
    """Parts that are broken from `started_at` to `ended_at`. `is_required`: they are to be named; otherwise they only
    may be.
    """

    components: tuple[str, ...]
    is_required: bool
    expected_text: str
    started_at: float
    ended_at: float
    reason_within_seconds: float = (
        MAX_DETECTION_SECONDS  # from when on the sentence must have the words; before that any will do
    )


def check_answers(answers: list[ReadinessAnswer], expected_problems: list[ExpectedProblem]) -> Iterator[Violation]:
    """What was said and is not so, and what is so and was not said."""
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
    """Asks a system from the beginning to the end of a `with` block, in a thread of its own."""

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
        """In this block these parts are broken, and it must say so; from `within_seconds` seconds on in a sentence
        that has `expected_text`.
        """
        with self._expect_problem(components, expected_text, is_required=True) as problem:
            problem.reason_within_seconds = within_seconds
            yield problem

    @contextmanager
    def may_report(self, *components: str) -> Iterator[ExpectedProblem]:
        """In this block it may say that these parts are broken: they are for moments, or for some of their work."""
        with self._expect_problem(components, "", is_required=False) as problem:
            yield problem

    def wait_until_reported(self, problem: ExpectedProblem) -> None:
        """Until every worker is obliged to have named it for a while. Whether they have, `check_answers` says."""
        time.sleep(
            max(
                0.0, problem.started_at + problem.reason_within_seconds + 10 * _POLL_INTERVAL_SECONDS - time.monotonic()
            )
        )

    def wait_until_ok(self) -> list[Violation]:
        """Wait until it says "ok" for a while; a violation if it never does."""
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
        """Each kind once."""
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
    """None when nobody answered, or a worker that is short of something answered with a page."""
    body = outcome.body
    if outcome.status is None or not isinstance(body, dict) or "failing" not in body:
        return None
    return ReadinessAnswer(asked_at, asked_at + outcome.seconds, outcome.status, body["failing"] | body["degraded"])
