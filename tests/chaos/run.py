"""`python -m tests.chaos.run [F01 …]`: run faults against the real system, print the table, exit 1 if a run fails.

First the faults with a scenario (`faults`), then the tests of the others (`external_faults`). On SQLite, or on the
server of DATABASE_URL. `minute` is a run of random faults; --times repeats the chosen faults with consecutive seeds,
--hours repeats them for that long. Histories of failed runs are kept in --keep, one JSON Lines file each.
"""

import argparse
import itertools
import math
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.chaos import access_faults, failover_faults, kafka_faults  # noqa: F401 - they add theirs to the table
from tests.chaos.environment import start_environment
from tests.chaos.external_faults import EXTERNAL_FAULTS
from tests.chaos.external_faults import run_tests as run_elsewhere
from tests.chaos.faults import FAULT_REQUIREMENTS, FAULTS
from tests.chaos.random_faults import run_random_faults
from tests.chaos.scenario import ChaosEnvironment, Scenario, Verdict
from tests.support.databases import DATABASE_URL

SCENARIOS = FAULTS | {"minute": ("of faults drawn by chance", run_random_faults)}
_TABLE_HEADER = ("fault", "seed", "events", "lost", "doubled", "leaked", "other", "converged s", "measured")


def main() -> int:
    options = _build_parser().parse_args()
    seed = options.seed if options.seed is not None else random.randrange(10_000)
    print(
        f"database: {'PostgreSQL' if DATABASE_URL else 'SQLite'}; {options.people} people × {options.streams} streams"
    )
    selected = options.faults or [*FAULTS, *EXTERNAL_FAULTS]
    print(_format_row(_TABLE_HEADER))
    failed_count = _run_scenarios([fault for fault in selected if fault in SCENARIOS], options, seed)
    for fault in (fault for fault in selected if fault in EXTERNAL_FAULTS):
        has_passed, summary = run_elsewhere(fault)
        print(_format_row((f"{fault} {EXTERNAL_FAULTS[fault].name}", *[""] * 7, summary)), flush=True)
        failed_count += not has_passed
    print(f"{failed_count} of the runs above are not as they should be.")
    return 1 if failed_count else 0


def _run_scenarios(faults: list[str], options: argparse.Namespace, seed: int) -> int:
    """Run each fault and print its row, and a summary if there are several; return how many failed."""
    verdicts: list[Verdict] = []
    shared_faults = [fault for fault in faults if not FAULT_REQUIREMENTS.get(fault)]
    for environment, fault, run_seed in itertools.chain(
        _iterate_shared_runs(shared_faults, options, seed), _iterate_standalone_runs(faults, options, seed)
    ):
        verdicts.append(verdict := run_scenario(environment, fault, run_seed, options))
        print(_format_row(verdict.table_row), flush=True)
        for violation in verdict.violations[:10]:
            print(f"    {violation}", flush=True)
    if len(verdicts) > 1:
        print(_format_row(_summarize(verdicts)))
    return sum(not verdict.has_passed for verdict in verdicts)


def _iterate_shared_runs(
    faults: list[str], options: argparse.Namespace, seed: int
) -> Iterator[tuple[ChaosEnvironment, str, int]]:
    if not faults:
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        start_environment(Path(folder), user_count=options.people, seed=seed) as environment,
    ):
        for fault, run_seed in _iterate_runs(faults, options, seed):
            yield environment, fault, run_seed


def _iterate_standalone_runs(
    faults: list[str], options: argparse.Namespace, seed: int
) -> Iterator[tuple[ChaosEnvironment, str, int]]:
    """Yield once each the faults that need a special environment, or leave it broken."""
    for fault in filter(FAULT_REQUIREMENTS.get, faults):
        user_count, requirement = options.people, FAULT_REQUIREMENTS[fault]
        with (
            tempfile.TemporaryDirectory() as folder,
            start_environment(Path(folder), user_count=user_count, seed=seed, requirement=requirement) as environment,
        ):
            yield environment, fault, seed


def run_scenario(environment: ChaosEnvironment, fault: str, seed: int, options: argparse.Namespace) -> Verdict:
    name, inject_fault = SCENARIOS[fault]
    options.keep.mkdir(parents=True, exist_ok=True)
    path = options.keep / f"{fault}-{seed}.jsonl"
    scenario = Scenario(
        environment,
        fault=fault,
        seed=seed,
        streams_per_user=options.streams,
        actions_per_second=options.rate,
        path=path,
    )
    verdict = scenario.run(lambda world: inject_fault(world, options.scale))
    if not verdict.violations:
        path.unlink()
    verdict.fault = f"{fault} {name}"
    return verdict


def _iterate_runs(faults: list[str], options: argparse.Namespace, seed: int) -> Iterator[tuple[str, int]]:
    """Yield each fault with its seed: --times times, or until --hours are over."""
    deadline = time.monotonic() + 3600 * options.hours
    for round_number in itertools.count():
        for fault in faults:
            if round_number >= options.times and time.monotonic() >= deadline:
                return
            yield fault, seed + round_number


def _summarize(verdicts: list[Verdict]) -> tuple[str, ...]:
    """Return the row of all runs: sums of the counts; 99th percentile of the seconds to converge, by nearest rank."""
    counts = (sum(int(verdict.table_row[column]) for verdict in verdicts) for column in range(2, 7))
    seconds = sorted(
        math.inf if verdict.convergence_seconds is None else verdict.convergence_seconds for verdict in verdicts
    )
    p99 = seconds[math.ceil(0.99 * len(seconds)) - 1]
    return f"{len(verdicts)} runs", "", *map(str, counts), f"p99 {p99:.1f}", ""


def _format_row(cells: tuple[str, ...]) -> str:
    widths = (52, 6, 8, 6, 8, 7, 6, 12, 0)
    return "".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.chaos.run")
    parser.add_argument(
        "faults",
        nargs="*",
        choices=[[], *SCENARIOS, *EXTERNAL_FAULTS],
        metavar="FAULT",
        help=", ".join([*SCENARIOS, *EXTERNAL_FAULTS]),
    )
    parser.add_argument("--seed", type=int)
    parser.add_argument("--scale", type=float, default=1.0, help="1 is the length of the table; 0.2 a fifth")
    parser.add_argument(
        "--times", type=int, default=1, help="run what was chosen as often, each time with the next seed"
    )
    parser.add_argument("--hours", type=float, default=0, help="go on for at least this long")
    parser.add_argument("--people", type=int, default=12)
    parser.add_argument("--streams", type=int, default=2, help="open pages of each person")
    parser.add_argument("--rate", type=float, default=20, help="acts per second")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "chaos")
    return parser


if __name__ == "__main__":
    sys.exit(main())
