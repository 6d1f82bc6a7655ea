"""From the brokers to every screen exactly once, in order per key, whichever process is killed (F05, F06, F07).

Real gunicorn workers on the mock cluster, or on the brokers of KAFKA_BOOTSTRAP_SERVERS.
"""

import os
import signal
import time
import urllib.request
from collections import defaultdict
from pathlib import Path

import pytest

from tests.support import measurements as figures
from tests.support.builders import build_message
from tests.support.failpoints.sitecustomize import FAILPOINT_NAMES
from tests.support.inbound_records import build_cloud_event
from tests.support.kafka.brokers import BOOTSTRAP_SERVERS, Brokers
from tests.support.process_fixtures import StreamOpener, wait_for_workers
from tests.support.system import PROJECT_ROOT, System, wait_for

pytestmark = [pytest.mark.service, pytest.mark.timeout(900)]  # ten kills on a busy machine

EVENTS = 10_000 if BOOTSTRAP_SERVERS else 2_000  # the full number where real brokers are named
KEYS = 20
_FAILPOINTS = PROJECT_ROOT / "tests/support/failpoints"


@pytest.fixture
def failpoints(tmp_path: Path) -> Path:
    folder = tmp_path / "failpoints"
    folder.mkdir()
    return folder


def numbered(first: int, last: int) -> list[dict]:
    """Events first … last - 1; the title says which key, and which of that key."""
    return [build_cloud_event(str(n), data=build_message(title=f"{n % KEYS}/{n // KEYS}")) for n in range(first, last)]


def key_of(event: dict) -> str:
    return event["data"]["title"].partition("/")[0]


def published(system: System) -> list[tuple[int, int, str]]:
    """(seq, id, title) of every broadcast, in the order of the log."""
    token, found, after = system.get_token("alice", "admin"), [], ""
    while after is not None:
        page = system.call("GET", f"/api/admin/broadcasts?limit=200{after}", token=token)[1]
        found += [(item["seq"], item["id"], item["title"]) for item in page["items"]]
        after = page["next"] and f"&after={page['next']}"
    return sorted(found)


def metric(system: System, name: str) -> float:
    """A sample of /metrics by its name and labels; 0 while there is none."""
    with urllib.request.urlopen(system.url + "/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + " ")), 0.0)


def expect_each_once(found: list[tuple[int, int, str]], count: int) -> None:
    """All there, none twice, the log without gaps, and each key in its order."""
    assert sorted(title for _, _, title in found) == sorted(event["data"]["title"] for event in numbered(0, count))
    assert [seq for seq, _, _ in found] == list(range(1, count + 1))
    by_key: dict[str, list[int]] = defaultdict(list)
    for _, _, title in found:
        key, _, number = title.partition("/")
        by_key[key].append(int(number))
    assert all(numbers == sorted(numbers) for numbers in by_key.values())


def armed(failpoints: Path, point: str) -> Path:
    path = failpoints / point
    path.touch()
    return path


def with_failpoints(folder: Path) -> dict[str, str]:
    return {"FAILPOINTS": str(folder), "PYTHONPATH": f"{_FAILPOINTS}{os.pathsep}{PROJECT_ROOT}"}


def test_every_event_is_one_broadcast_though_a_worker_dies_at_every_point(
    brokers: Brokers, reading, streams: StreamOpener, failpoints: Path
):
    """F06 and F07: killed after the insert, the append, the commit, the ring, the offsets; then all offsets set back by 100."""
    topic = brokers.create_topic()
    system: System = reading(brokers, topic, **with_failpoints(failpoints))
    readers = [streams.open(system, name) for name in ("alice", "bob", "charlie")]
    group = f"group-of-{topic}"
    sent, part = 0, EVENTS // (2 * len(FAILPOINT_NAMES))
    for point in FAILPOINT_NAMES * 2:
        path = armed(failpoints, point)
        brokers.produce(topic, numbered(sent, sent + part), key=key_of)
        sent += part
        wait_for(lambda path=path: not path.exists(), seconds=120, description=f"a worker to die at {point}")
    brokers.wait_until_consumed(group, topic, seconds=240)

    repeated = metric(system, 'broadcast_events_total{outcome="repeated",source="kafka"}')
    brokers.rewind_offsets(group, topic, 100)
    for worker in wait_for_workers(system):
        os.kill(worker, signal.SIGKILL)
    again = repeated + 100 * 3
    wait_for(
        lambda: metric(system, 'broadcast_events_total{outcome="repeated",source="kafka"}') >= again,
        seconds=120, description="the 300 records to come again",
    )  # fmt: skip
    found = published(system)
    expect_each_once(found, EVENTS)
    for reader in readers:
        wait_for(
            lambda reader=reader: len(reader.frames_of("MESSAGE")) >= EVENTS,
            seconds=120,
            description="all cards on every stream",
        )
        assert reader.message_ids == [broadcast_id for _, broadcast_id, _ in found]


def test_killed_reader_is_followed_by_another_worker_within_two_seconds(brokers: Brokers, reading, failpoints: Path):
    """F05: election; the time is of the successor's first card, on an idle topic."""
    topic = brokers.create_topic()
    system: System = reading(brokers, topic, **with_failpoints(failpoints))
    took = []
    for round in range(3):
        path = armed(failpoints, "offsets")
        brokers.produce(topic, numbered(2 * round, 2 * round + 1), key="k")
        wait_for(lambda path=path: not path.exists(), seconds=20, description="the reader to die")
        began = time.monotonic()
        brokers.produce(topic, numbered(2 * round + 1, 2 * round + 2), key="k")
        count = 2 * round + 2
        wait_for(lambda count=count: _head(system) == count, seconds=20, description="the successor's first card")
        took.append(time.monotonic() - began)
        wait_for_workers(system)
    figures.measurements.append(
        f"reader killed → next event published: {', '.join(f'{one:.1f} s' for one in sorted(took))}"
    )


@pytest.mark.parametrize("mode", ["elected", "every-worker"])
def test_brokers_that_go_away_and_return_cost_nothing_but_time(mock: Brokers, reading, streams: StreamOpener, mode):
    """F05: /readyz is degraded and pages go on; afterwards nothing is missing."""
    topic = mock.create_topic()
    system: System = reading(mock, topic, KAFKA_BRIDGE=mode, KAFKA_SESSION_TIMEOUT_MS="2000")
    reader = streams.open(system, "bob")
    patience = 60 if mode == "elected" else 120  # a group of the mock needs its tries
    mock.produce(topic, numbered(0, 500), key=key_of)
    mock.wait_until_consumed(f"group-of-{topic}", topic, seconds=patience)
    mock.send_command("down")
    wait_for(
        lambda: "kafka" in _ready(system)["degraded"],
        seconds=30,
        description="/readyz to tell that the brokers are away",
    )
    assert _ready(system)["failing"] == {}
    status, _ = system.call(
        "POST", "/api/admin/broadcasts", token=system.get_token("alice", "admin"), body=build_message(title="0/25")
    )
    assert status == 201
    mock.send_command("up")
    mock.produce(topic, [event for event in numbered(500, 1000) if event["id"] != "500"], key=key_of)
    mock.wait_until_consumed(f"group-of-{topic}", topic, seconds=patience)
    expect_each_once(published(system), 1000)
    wait_for(lambda: len(reader.frames_of("MESSAGE")) == 1000, seconds=30, description="all cards")
    wait_for(lambda: not _ready(system)["degraded"], seconds=30, description="/readyz to be well again")


def test_worker_killed_while_all_read_loses_nothing(brokers: Brokers, reading, failpoints: Path):
    """F05: a rebalance after a killed consumer."""
    topic = brokers.create_topic()
    settings = {"KAFKA_BRIDGE": "every-worker", "KAFKA_SESSION_TIMEOUT_MS": "6000"}
    system: System = reading(brokers, topic, **settings, **with_failpoints(failpoints))
    brokers.produce(topic, numbered(0, 300), key=key_of)
    brokers.wait_until_consumed(f"group-of-{topic}", topic)
    for n, point in enumerate(("commit", "insert")):
        path = armed(failpoints, point)
        brokers.produce(topic, numbered(300 + 300 * n, 600 + 300 * n), key=key_of)
        wait_for(lambda path=path: not path.exists(), seconds=120, description=f"a worker to die at {point}")
    brokers.wait_until_consumed(f"group-of-{topic}", topic, seconds=90)
    expect_each_once(published(system), 900)


def test_reader_leaves_within_five_seconds_when_told_to_stop(brokers: Brokers, reading):
    topic = brokers.create_topic()
    system: System = reading(brokers, topic)
    brokers.produce(topic, numbered(0, 3000), key=key_of)
    wait_for(lambda: _head(system) > 0, seconds=20, description="the first cards")
    began = time.monotonic()
    os.kill(system.master_pid, signal.SIGTERM)
    system.process.wait(20)
    figures.measurements.append(f"TERM while 3,000 events are read → all ended: {time.monotonic() - began:.1f} s")
    system.start()
    brokers.wait_until_consumed(f"group-of-{topic}", topic)
    expect_each_once(published(system), 3000)


def _head(system: System) -> int:
    listed = system.call("GET", "/api/admin/broadcasts?limit=1", token=system.get_token("alice", "admin"))[1]["items"]
    return listed[0]["seq"] if listed else 0


def _ready(system: System) -> dict:
    import json

    with urllib.request.urlopen(system.url + "/readyz", timeout=5) as answer:
        return json.loads(answer.read())
