"""How far the log has come, remembered outside the database: what tells that an older database was put in its place.

A database cannot know that it is a copy. So every worker notes the newest number of the log in DATA_DIR and in Redis; a
database whose log ends before that, in the same epoch, has been restored. Either place is enough, and neither is needed:
without both, a restore is noticed by its standstill (`actions.plans`), or told by the command `new-epoch`.
"""

import json
import os
from pathlib import Path

import structlog

from broadcast.bus.redis_client import AWAY, Quick
from broadcast.domain.events import Cursor

_log = structlog.get_logger(__name__)
_KEY = "broadcast:log-head:"
_KEPT_SECONDS = 180 * 24 * 3600  # an epoch that nobody works in is forgotten
_MOST_EPOCHS = 20
# in one step, so that a slower worker does not set it back
_RAISE = """
local known = tonumber(redis.call("GET", KEYS[1]) or "0")
if tonumber(ARGV[1]) > known then redis.call("SET", KEYS[1], ARGV[1]) end
redis.call("EXPIRE", KEYS[1], ARGV[2])
"""


class HeadMemory:
    """One worker's. Neither method raises: a place that does not answer is left out."""

    def __init__(self, folder: Path, redis: Quick | None):
        self._file, self._redis = folder / "log_head.json", redis
        self._noted: Cursor | None = None

    def newest(self, epoch: str) -> int:
        """The highest number that was noted in this epoch, 0 for none."""
        return max(self._in_file().get(epoch, 0), self._in_redis(epoch))

    def note(self, head: Cursor) -> None:
        """Remember that the log has come to `head`."""
        if head == self._noted:
            return
        self._noted = head
        known = self._in_file()
        if known.get(head.epoch, 0) < head.seq:
            self._write({name: seq for name, seq in known.items() if name != head.epoch} | {head.epoch: head.seq})
        if self._redis is not None:
            try:
                self._redis.ask(lambda redis: redis.eval(_RAISE, 1, _KEY + head.epoch, head.seq, _KEPT_SECONDS))
            except AWAY:
                self._noted = None  # at the next turn

    def _in_file(self) -> dict[str, int]:
        try:
            known = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return {}
        is_known = isinstance(known, dict) and all(type(seq) is int for seq in known.values())
        return known if is_known else {}

    def _write(self, known: dict[str, int]) -> None:
        """Another worker may write at the same moment; the file is always one or the other, whole."""
        kept = dict(list(known.items())[-_MOST_EPOCHS:])
        beside = self._file.with_suffix(f".{os.getpid()}")
        try:
            beside.write_text(json.dumps(kept))
            beside.replace(self._file)
        except OSError as problem:
            _log.warning("head_memory.not_written", problem=str(problem))

    def _in_redis(self, epoch: str) -> int:
        if self._redis is None:
            return 0
        try:
            text = self._redis.ask(lambda redis: redis.get(_KEY + epoch))
        except AWAY:
            return 0
        return int(text) if text and text.isdigit() else 0
