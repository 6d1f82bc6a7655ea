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
from tests.chaos.client import Answered, ask

_EVERY_SECONDS = 0.1
NOTICED_SECONDS = 5.0  # from the beginning of a fault to the first answer that must name it
FORGOTTEN_SECONDS = 15.0  # from its end to the first that must not
_CALM_ANSWERS = 10  # in a row, from whichever workers took them


@dataclass(frozen=True, slots=True)
class Said:
    """One answer: what it names as failing or degraded, with its sentence; asked `at`, and `answered`."""

    at: float
    answered: float
    code: int
    named: dict[str, str]

    @property
    def is_ok(self) -> bool:
        return self.code == 200 and not self.named


@dataclass(slots=True)
class Trouble:
    """Parts that are broken from `since` to `until`. `must`: they are to be named; otherwise they only may be."""

    parts: tuple[str, ...]
    must: bool
    words: str
    since: float
    until: float
    reason_within: float = NOTICED_SECONDS  # from when on the sentence must have the words; before that any will do


def judge(said: list[Said], troubles: list[Trouble]) -> Iterator[Violation]:
    """What was said and is not so, and what is so and was not said."""
    for answer in said:
        around = [
            one for one in troubles if one.since <= answer.answered and answer.at <= one.until + FORGOTTEN_SECONDS
        ]
        if answer.named and not around:
            yield Violation("readyz", f"it names {_told(answer)} though nothing is wrong")
        parts = {part for one in around for part in one.parts}
        if around and (others := {"database", "schema", "redis", "kafka"} & answer.named.keys() - parts):
            yield Violation("readyz", f"it names {sorted(others)} where {sorted(parts)} is broken")
        for one in troubles:
            if not one.must or not (one.since + NOTICED_SECONDS <= answer.at and answer.answered < one.until):
                continue
            for part in one.parts:
                words = one.words if answer.at >= one.since + one.reason_within else ""
                if part not in answer.named or words not in answer.named[part]:
                    yield Violation("readyz", f"it names {_told(answer)} while {part} is broken ({one.words})")


def _told(answer: Said) -> str:
    return "; ".join(f"{part}: {sentence}" for part, sentence in answer.named.items()) or "nothing"


class Readiness:
    """Asks a system from the beginning to the end of a `with` block, in a thread of its own."""

    def __init__(self, port: int):
        self.said: list[Said] = []
        self.troubles: list[Trouble] = []
        self._port, self._over = port, threading.Event()
        self._thread = threading.Thread(target=self._ask_on)

    def __enter__(self) -> "Readiness":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @contextmanager
    def names(self, *parts: str, words: str = "", within: float = NOTICED_SECONDS) -> Iterator[Trouble]:
        """In this block these parts are broken, and it must say so; from `within` seconds on in a sentence that has `words`."""
        with self._trouble(parts, words, must=True) as trouble:
            trouble.reason_within = within
            yield trouble

    @contextmanager
    def may_name(self, *parts: str) -> Iterator[Trouble]:
        """In this block it may say that these parts are broken: they are for moments, or for some of their work."""
        with self._trouble(parts, "", must=False) as trouble:
            yield trouble

    def wait_until_named(self, trouble: Trouble) -> None:
        """Until every worker is obliged to have named it for a while. Whether they have, `judge` says."""
        time.sleep(max(0.0, trouble.since + trouble.reason_within + 10 * _EVERY_SECONDS - time.monotonic()))

    def wait_until_ok(self) -> list[Violation]:
        """Wait until it says "ok" for a while; a violation if it never does."""
        deadline = time.monotonic() + FORGOTTEN_SECONDS
        known = len(self.said)
        while time.monotonic() < deadline:
            newest = self.said[known:][-_CALM_ANSWERS:]
            if len(newest) == _CALM_ANSWERS and all(answer.is_ok for answer in newest):
                return []
            time.sleep(_EVERY_SECONDS)
        newest = next((answer for answer in reversed(self.said) if not answer.is_ok), None)
        return [
            Violation("readyz", f"all is healed and it still names {_told(newest) if newest else 'nobody: no answer'}")
        ]

    def violations(self) -> list[Violation]:
        """Each kind once."""
        return list(dict.fromkeys(judge(list(self.said), self.troubles)))

    @contextmanager
    def _trouble(self, parts: tuple[str, ...], words: str, *, must: bool) -> Iterator[Trouble]:
        self.troubles.append(trouble := Trouble(parts, must, words, time.monotonic(), float("inf")))
        try:
            yield trouble
        finally:
            trouble.until = min(trouble.until, time.monotonic())

    def _ask_on(self) -> None:
        while not self._over.wait(_EVERY_SECONDS):
            began = time.monotonic()
            if (answer := read(ask(self._port, "GET", "/readyz", ""), began)) is not None:
                self.said.append(answer)


def read(answered: Answered, at: float) -> Said | None:
    """None when nobody answered, or a worker that is short of something answered with a page."""
    body = answered.body
    if answered.status is None or not isinstance(body, dict) or "failing" not in body:
        return None
    return Said(at, at + answered.seconds, answered.status, body["failing"] | body["degraded"])
