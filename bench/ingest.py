"""Events per second from Kafka into the log and onto streams, and their cost for the worker that reads them.

    python -m bench.ingest [--events 8000] [--seconds 20] [--rate 500] [--streams 50] [--waiting 0]

One worker, started as an operator does, on the embedded defaults or DATABASE_URL; brokers: KAFKA_BOOTSTRAP_SERVERS,
else the mock cluster. Events have 1 KB, are distinct, and go to the role ops. Prints:
1. backlog: events per second into the log, and to every stream (`load.c`, which needs little CPU; the mock cluster
   keeps about 5 MB per partition, which limits the backlog);
2. steady rate: p50 and p99 from produced to the frame read;
3. for both, the longest stall of a 10 ms ticker in the worker; its CPU time per event, which a busy machine changes
   less than elapsed time; and its peak memory, before and after the backlog.
With --waiting, that many events wait before the system starts, and only memory is printed while it reads for --seconds.
The mock cluster drops most of a million, so use real brokers:
python -m tests.support.kafka.server -- python -m bench.ingest --waiting 1000000
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

from bench.client import LoadClient, Target, build, build_get, read_cpu_seconds
from bench.ticks import Ticks
from tests.support.inbound_records import build_cloud_event
from tests.support.kafka.brokers import Brokers
from tests.support.stream_client import StreamClient
from tests.support.system import System, wait_for

_FILLER = "All trains towards the harbour are late; please allow for twenty minutes more. "


def main() -> None:
    options = _parse_options()
    brokers = Brokers()
    topic, group = brokers.create_topic(), "bench"
    with tempfile.TemporaryDirectory() as folder:
        ticks = Ticks(Path(folder) / "ticks")
        settings = {"KAFKA_BOOTSTRAP_SERVERS": brokers.address, "KAFKA_TOPICS": topic, "KAFKA_GROUP_ID": group}
        settings |= ticks.settings | {"WEB_CONCURRENCY": "1", "STREAMS_PER_USER": "100000"}
        brokers.produce(topic, (_make_event(f"w{n}") for n in range(options.waiting)))
        with System(Path(folder), database_url=os.environ.get("DATABASE_URL"), **settings) as system:
            worker = Worker(system.get_worker_pids()[0], ticks)
            if options.waiting:
                _watch_reading(system, options, worker)
            else:
                _measure_backlog(brokers, topic, system, options, worker)
                _measure_steady_rate(brokers, topic, system, options, worker)
    brokers.close()


class Worker:
    """The worker that reads: its usage since the last call."""

    def __init__(self, pid: int, ticks: Ticks):
        self._pid, self._ticks = pid, ticks
        self._cpu_seconds_before = 0.0

    def start_measuring(self) -> None:
        self._cpu_seconds_before = read_cpu_seconds(self._pid)
        self._ticks.clear()

    def describe_usage(self, events: int) -> str:
        """Return the usage as text, for that many events."""
        cpu = (read_cpu_seconds(self._pid) - self._cpu_seconds_before) / events * 1e6
        return f"{cpu:.0f} µs of the worker's processor each, longest stall {self._ticks.read_longest_ms():.0f} ms"

    def read_peak_mib(self) -> int:
        status = Path(f"/proc/{self._pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def _watch_reading(system: System, options: argparse.Namespace, worker: Worker) -> None:
    for _ in range(6):
        time.sleep(options.seconds / 6)
        read_count = int(_fetch_cursor(system).rpartition("-")[2])
        print(
            f"{read_count:,} of {options.waiting:,} read; memory of the worker at most {worker.read_peak_mib()} MiB",
            flush=True,
        )


def _measure_backlog(brokers: Brokers, topic: str, system: System, options: argparse.Namespace, worker: Worker) -> None:
    count, streams = options.events, options.streams
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder) / "tokens"
        tokens.write_text(f"{system.get_token('bob')}\n" * streams)
        request = build_get(f"/api/sse/connect?after={_fetch_cursor(system)}", "Authorization: Bearer {}")
        load = LoadClient(build(Path(folder)), Target(system.port, tokens, request), streams)
        try:
            load.wait_until_open()
            brokers.produce(topic, [_make_event("warm")])
            load.wait_for_message(1)
            memory_before_mib = worker.read_peak_mib()
            worker.start_measuring()
            started_at = time.time()
            event_ids = (f"b{n}" for n in range(count))
            sender = threading.Thread(
                target=brokers.produce, args=(topic, map(_make_event, event_ids)), kwargs={"key": _get_record_key}
            )
            sender.start()
            elapsed_seconds = load.wait_for_message(1 + count) - started_at
            sender.join()
        finally:
            load.stop()
    print(
        f"backlog of {count:,}: {count / elapsed_seconds:,.0f} events/s into log and {streams} streams; "
        f"{worker.describe_usage(count)}"
    )
    print(
        f"memory of the worker at most: {memory_before_mib} MiB before the backlog, {worker.read_peak_mib()} MiB after it",
        flush=True,
    )


def _fetch_cursor(system: System) -> str:
    return system.call("GET", "/api/user/messages?limit=1", token=system.get_token("bob"))[1]["cursor"]


def _measure_steady_rate(
    brokers: Brokers, topic: str, system: System, options: argparse.Namespace, worker: Worker
) -> None:
    rate, seconds = options.rate, options.seconds
    stream = StreamClient(
        system.url, headers={"Authorization": f"Bearer {system.get_token('bob')}"}, after=_fetch_cursor(system)
    )
    stream.wait_for("CONNECTED", seconds=30)
    sent_at: dict[str, float] = {}
    frames_before = len(stream.frames)
    worker.start_measuring()
    started_at = time.monotonic()
    for n in range(rate * seconds):
        time.sleep(max(0.0, started_at + n / rate - time.monotonic()))
        sent_at[f"s{n}"] = time.monotonic()
        brokers.producer.produce(topic, json.dumps(_make_event(f"s{n}")).encode(), key=str(n % 100))
        brokers.producer.poll(0)
    brokers.producer.flush(30)
    wait_for(lambda: len(stream.frames) - frames_before >= len(sent_at), seconds=120, description="the last event")
    latencies = sorted(
        frame.received_at - sent_at[frame.json["title"]]
        for frame in stream.frames[frames_before:]
        if frame.event == "MESSAGE"
    )
    p50, p99 = statistics.median(latencies), latencies[int(len(latencies) * 0.99)]
    print(
        f"{rate}/s for {seconds} s: produced → frame p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms; "
        f"{worker.describe_usage(len(sent_at))}"
    )
    stream.close()


def _make_event(id: str) -> dict:
    content = (_FILLER * 12)[:850]
    return build_cloud_event(id, data={"title": id, "content": content, "targetType": "ROLE", "targetIds": ["ops"]})


def _get_record_key(event: dict) -> str:
    """Spread a backlog over the partitions; without keys one gets most of it, and the mock drops its oldest records."""
    return event["id"]


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.ingest")
    for name, default in (("events", 8_000), ("seconds", 20), ("rate", 500), ("streams", 50), ("waiting", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


if __name__ == "__main__":
    main()
