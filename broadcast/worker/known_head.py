"""The newest known head of the log, stored outside the database, to detect that an older database was restored.

A database cannot know that it is a copy. So every worker records the newest seq in DATA_DIR and in Redis; a database
whose log ends before it, in the same epoch, was restored. Either place is enough, and neither is required: without
both, a restore is noticed by the standstill of its schedules (`actions.overdue_schedules`), or declared with the
command `new-epoch`.
"""

import json
import os
from pathlib import Path

import structlog

from broadcast.bus.redis_client import CONNECTION_ERRORS, CircuitBreaker
from broadcast.domain.events import Cursor

_log = structlog.get_logger(__name__)
_KEY_PREFIX = "broadcast:log-head:"
_TTL_SECONDS = 180 * 24 * 3600  # an unused epoch expires
_MAX_EPOCHS = 20
# Atomic, so that a slower worker does not lower the value.
_RAISE_SCRIPT = """
local known = tonumber(redis.call("GET", KEYS[1]) or "0")
if tonumber(ARGV[1]) > known then redis.call("SET", KEYS[1], ARGV[1]) end
redis.call("EXPIRE", KEYS[1], ARGV[2])
"""


class HighWaterMark:
    """One worker's high-water mark. No method raises: a place that does not answer is skipped."""

    def __init__(self, folder: Path, redis: CircuitBreaker | None):
        self._file, self._redis = folder / "log_head.json", redis
        self._last_recorded: Cursor | None = None

    def get_seq(self, epoch: str) -> int:
        """The highest seq recorded in this epoch, 0 for none."""
        return max(self._read_file().get(epoch, 0), self._read_redis(epoch))

    def record(self, head: Cursor) -> None:
        if head == self._last_recorded:
            return
        self._last_recorded = head
        seq_by_epoch = self._read_file()
        if seq_by_epoch.get(head.epoch, 0) < head.seq:
            seq_by_epoch.pop(head.epoch, None)  # the newest epoch is the last one in the file
            self._write_file(seq_by_epoch | {head.epoch: head.seq})
        if self._redis is not None:
            try:
                self._redis.call(
                    lambda redis: redis.eval(_RAISE_SCRIPT, 1, _KEY_PREFIX + head.epoch, head.seq, _TTL_SECONDS)
                )
            except CONNECTION_ERRORS:
                self._last_recorded = None  # retry at the next call

    def _read_file(self) -> dict[str, int]:
        try:
            seq_by_epoch = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return {}
        is_valid = isinstance(seq_by_epoch, dict) and all(type(seq) is int for seq in seq_by_epoch.values())
        return seq_by_epoch if is_valid else {}

    def _write_file(self, seq_by_epoch: dict[str, int]) -> None:
        """Write the file atomically, as other workers may write at the same moment."""
        newest_epochs = dict(list(seq_by_epoch.items())[-_MAX_EPOCHS:])
        temporary = self._file.with_suffix(f".{os.getpid()}")
        try:
            temporary.write_text(json.dumps(newest_epochs))
            temporary.replace(self._file)
        except OSError as problem:
            _log.warning("head_memory.not_written", problem=str(problem))

    def _read_redis(self, epoch: str) -> int:
        if self._redis is None:
            return 0
        try:
            text = self._redis.call(lambda redis: redis.get(_KEY_PREFIX + epoch))
        except CONNECTION_ERRORS:
            return 0
        return int(text) if text and text.isdigit() else 0
