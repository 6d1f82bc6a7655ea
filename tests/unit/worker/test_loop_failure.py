"""What the console shows about a failed loop names no class of the code."""

import sqlite3

import pytest
import redis
from sqlalchemy.exc import OperationalError

from broadcast.base.errors import Invalid, TemporarilyUnavailable
from broadcast.worker.runtime import describe_loop_failure


def locked() -> sqlite3.OperationalError:
    problem = sqlite3.OperationalError("database is locked")
    problem.sqlite_errorcode = 5
    return problem


@pytest.mark.parametrize(
    ("problem", "sentence"),
    [
        (TemporarilyUnavailable(), "The database is locked or unavailable."),
        (locked(), "The database is locked or unavailable."),
        (OperationalError("SELECT 1", {}, locked()), "The database is locked or unavailable."),
        (Invalid({"title": "It is missing."}), "It is missing."),
        (OSError(28, "No space left on device"), "No space left on device."),
        (redis.exceptions.ConnectionError("Error 111 connecting"), "Redis does not answer."),
        (redis.exceptions.TimeoutError(), "Redis does not answer in time."),
        (redis.exceptions.ReadOnlyError("READONLY"), "Redis refuses to work: READONLY."),
        (KeyError("x"), "An unexpected error. The log has it under loop.failed."),
    ],
)
def test_failure_of_a_loop_is_a_sentence(problem: Exception, sentence: str):
    assert sentence in describe_loop_failure(problem)
