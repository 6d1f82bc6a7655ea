"""F09: the disk is full. Writes fail, everything else goes on; the system recovers by itself once there is space."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import measurements
from tests.support.http_session import HttpSession
from tests.support.process_fixtures import StreamOpener, wait_for_workers
from tests.support.system import System, wait_for

pytestmark = [pytest.mark.service, pytest.mark.alike]

_SIZE = "24m"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own for the data folder."""
    disk = tmp_path / "var"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", disk], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no small disk here, only root may mount one: {done.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def fill(disk: Path) -> Path:
    """Leave not one byte; return what takes all the room."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                pass
    assert os.statvfs(disk).f_bavail == 0
    return ballast


def test_full_disk_refuses_what_is_new_keeps_streams_open_and_is_over_when_there_is_room(
    small_disk: Path, tmp_path: Path, streams: StreamOpener
):
    with System(tmp_path, HEARTBEAT_SECONDS="1") as system:
        workers = wait_for_workers(system)
        readers = streams.open_at_each_worker(system, lambda: streams.open(system, "bob"))
        alice = HttpSession(system, token=system.get_token("alice", "admin"))
        ids = [alice.publish("While there was room")]
        ballast, took, title = fill(small_disk), [], "When there was none"
        body = {"title": title, "content": "x" * 10_000, "targetType": "ALL"}

        def publish(key: str):
            began = time.monotonic()
            answer = alice.send("POST", "/api/admin/broadcasts", body, Idempotency_Key=key)
            took.append(time.monotonic() - began)
            assert answer.status in (200, 201, 503), answer.status
            if answer.status == 503:
                return answer
            ids.append(answer.json["id"])  # before the end there was room left in SQLite's own files
            return None

        keys = iter(f"key {n}" for n in range(1000))
        refused = wait_for(lambda: publish(next(keys)), seconds=60, description="a write to be refused")
        last = f"key {len(took) - 1}"
        assert 1 <= int(refused.headers["Retry-After"]) <= 3
        for path in ("/healthz", "/readyz", "/api/user/messages"):
            assert alice.get(path).status == 200, path
        full_at = time.monotonic()
        for reader in readers:
            reader.wait_for("HEARTBEAT", lambda frame: frame.received_at > full_at)
        assert publish(last).status == 503
        measurements.record_durations("disk full: publish → 503", took[-2:])
        ballast.unlink()
        wait_for(lambda: publish(last) is None, seconds=20, description="a write to be taken again")
        assert publish(last) is None, "the answer to a repeat"
        for reader in readers:
            reader.wait_for_message(ids[-1])
            assert reader.message_ids == list(dict.fromkeys(ids))
            assert len(reader.response_headers) == 1, "a stream was closed by a full disk"
        assert system.get_worker_pids() == workers, "a worker died of it"
        assert "none changed and none missing" in system.run_flask("audit", "verify")
