"""Faults of the table without a scenario here: the tests that cover them, and how `make chaos` runs these."""

import re
import subprocess
import sys
import time
from dataclasses import dataclass

from tests.support.system import PROJECT_ROOT


@dataclass(frozen=True, slots=True)
class ExternalFault:
    """`test_paths` are pytest files or tests; an external audit is written as `judge: name`."""

    name: str
    test_paths: tuple[str, ...]


_STORMS, _BROWSER = "tests/e2e/system/test_connection_storms.py", "tests/e2e/browser/test_streams_in_browser.py"
_KAFKA, _CLOCK = "tests/e2e/kafka/test_exactly_once.py", "tests/integration/worker/test_scheduler_many_due.py"
EXTERNAL_FAULTS: dict[str, ExternalFault] = {
    "F04l": ExternalFault(
        "Redis emptied, full, read-only: limits and registry",
        ("tests/integration/web/core/test_rate_limits.py::test_limits_hold_while_redis_refuses_and_are_in_redis_again_at_once",
         "tests/integration/streams/test_presence.py"),
    ),
    "F05": ExternalFault(
        "Kafka away; its reader killed",
        (f"{_KAFKA}::test_brokers_that_go_away_and_return_cost_nothing_but_time",
         f"{_KAFKA}::test_killed_reader_is_followed_by_another_worker_within_two_seconds"),
    ),
    "F06": ExternalFault(
        "crash between database and offset commit",
        (f"{_KAFKA}::test_every_event_is_one_broadcast_though_a_worker_dies_at_every_point",
         f"{_KAFKA}::test_worker_killed_while_all_read_loses_nothing"),
    ),
    "F07": ExternalFault("the same event again and again", ("tests/integration/actions/test_inbound_events.py",)),
    "F08": ExternalFault(
        "poison", ("tests/e2e/kafka/test_poison_records.py", "tests/integration/web/api/test_events_webhook.py")
    ),
    "F09f": ExternalFault("disk full", ("tests/e2e/system/test_disk_full.py",)),
    "F12s": ExternalFault(
        "HUP and TERM under 2,000 streams",
        (f"{_STORMS}::test_hang_up_under_a_crowd_tells_all_and_spreads_their_return",
         f"{_STORMS}::test_stop_under_a_crowd_tells_all_and_the_next_start_finds_them_again"),
    ),
    "F13": ExternalFault(
        "clients that never read",
        (f"{_STORMS}::test_clients_that_never_read_are_closed_and_cost_the_others_nothing",),
    ),
    "F14": ExternalFault("half-open clients", (f"{_STORMS}::test_half_open_clients_are_forgotten",)),
    "F15": ExternalFault(
        "5,000 return at once",
        (f"{_STORMS}::test_thousands_of_streams_cut_off_at_once_are_current_again_and_pages_answer_meanwhile",),
    ),
    "F16": ExternalFault(
        "429, 502, 503 and HTML on connect",
        (f"{_BROWSER}::test_first_stream_answered_by_a_proxy_is_tried_again_by_itself",
         f"{_BROWSER}::test_stream_that_comes_back_to_a_proxy_is_tried_again_with_its_cursor"),
    ),
    "F17": ExternalFault("behind nginx, haproxy, caddy", ("judge: proxies",)),
    "F18c": ExternalFault("clocks of two nodes differ by ten minutes", ("tests/e2e/system/test_clock_skew.py",)),
    "F18m": ExternalFault("1,000 due, two clocks, a crash", (_CLOCK, "tests/integration/actions/test_endings.py")),
    "F20": ExternalFault(
        "two editors of one draft",
        ("tests/integration/actions/test_edits.py", "tests/integration/web/api/test_api_edits.py"),
    ),
    "F22": ExternalFault("a commit held while a later one commits", ("tests/integration/store/test_log.py",)),
    "F23r": ExternalFault("100 events between replay and live", ("tests/e2e/system/test_replay_to_live.py",)),
    "F24w": ExternalFault("cursors of every wrong kind", ("tests/e2e/system/test_bad_clients.py",)),
    "F25": ExternalFault(
        "hidden, frozen, offline, back, ten tabs",
        (f"{_BROWSER}::test_frozen_tab_is_current_when_it_wakes",
         f"{_BROWSER}::test_frozen_tab_whose_stream_ended_is_current_when_it_wakes",
         f"{_BROWSER}::test_hidden_tab_is_current_as_soon_as_it_is_looked_at",
         f"{_BROWSER}::test_page_one_comes_back_to_is_current",
         f"{_BROWSER}::test_ten_tabs_are_all_usable_and_current",
         "tests/e2e/browser/test_recovery.py::test_offline_page_says_so_and_catches_up"),
    ),
    "F26": ExternalFault("10,000 unread at connect", ("tests/integration/web/inbox/test_many_unread.py",)),
    "F27": ExternalFault(
        "100 broadcasts a second to 1,000 streams",
        (f"{_STORMS}::test_hundred_broadcasts_a_second_to_a_thousand_streams_arrive_all_and_in_bounded_memory",),
    ),
}  # fmt: skip


def run_tests(fault: str) -> tuple[bool, str]:
    """Run the tests of that fault; return whether they pass, and their last output line with the seconds they took."""
    started_at = time.monotonic()
    test_paths = EXTERNAL_FAULTS[fault].test_paths
    audits = [name.removeprefix("judge: ") for name in test_paths if name.startswith("judge: ")]
    command_args = (
        ["tests.support.external_audits", *audits]
        if audits
        else ["pytest", "-q", "-p", "no:cacheprovider", *test_paths]
    )
    result = subprocess.run([sys.executable, "-m", *command_args], cwd=PROJECT_ROOT, capture_output=True, text=True)
    output_lines = result.stdout.strip().splitlines()
    measured = [line.removeprefix("measured: ") for line in output_lines if line.startswith("measured: ")]
    last_line = re.sub(r" in [\d.]+s.*", "", output_lines[-1]) if output_lines else result.stderr[-200:]
    return result.returncode == 0, "; ".join([f"{last_line} ({time.monotonic() - started_at:.0f} s)", *measured])
