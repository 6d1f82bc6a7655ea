"""`python -m tests.chaos.run [F01 …]`: run faults against the real system, print the table, exit 1 if anything is wrong.

First those that are worlds of their own (`faults`), then the tests of the others (`elsewhere`). On SQLite, or on the server of
DATABASE_URL. `minute` is a run of faults drawn by chance; --times repeats what was chosen with the seeds that follow, --hours
goes on for as long. Histories of runs that failed are kept in --keep, one file of JSON lines for each.
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

from tests.chaos import fail_over, kafka_faults  # noqa: F401 - they add theirs to the table
from tests.chaos.elsewhere import ELSEWHERE
from tests.chaos.elsewhere import run as run_elsewhere
from tests.chaos.faults import FAULTS, NEEDS
from tests.chaos.minute import minute
from tests.chaos.place import a_place
from tests.chaos.world import Place, Verdict, World
from tests.databases import DATABASE_URL

WORLDS = FAULTS | {"minute": ("of faults drawn by chance", minute)}
_HEAD = ("fault", "seed", "events", "lost", "doubled", "leaked", "other", "converged s", "measured")


def main() -> int:
    options = _parser().parse_args()
    seed = options.seed if options.seed is not None else random.randrange(10_000)
    print(
        f"database: {'PostgreSQL' if DATABASE_URL else 'SQLite'}; {options.people} people × {options.streams} streams"
    )
    chosen = options.faults or [*FAULTS, *ELSEWHERE]
    print(_line(_HEAD))
    failed = _run_worlds([fault for fault in chosen if fault in WORLDS], options, seed)
    for fault in (fault for fault in chosen if fault in ELSEWHERE):
        is_well, said = run_elsewhere(fault)
        print(_line((f"{fault} {ELSEWHERE[fault].name}", *[""] * 7, said)), flush=True)
        failed += not is_well
    print(f"{failed} of the runs above are not as they should be.")
    return 1 if failed else 0


def _run_worlds(faults: list[str], options: argparse.Namespace, seed: int) -> int:
    """Run each and print its row, and of more than one the sum; return how many are not as they should be."""
    verdicts: list[Verdict] = []
    shared = [fault for fault in faults if not NEEDS.get(fault)]
    for place, fault, one_seed in itertools.chain(
        _in_one_place(shared, options, seed), _in_their_own(faults, options, seed)
    ):
        verdicts.append(verdict := run_one(place, fault, one_seed, options))
        print(_line(verdict.row), flush=True)
        for violation in verdict.violations[:10]:
            print(f"    {violation}", flush=True)
    if len(verdicts) > 1:
        print(_line(_sum(verdicts)))
    return sum(not verdict.is_well for verdict in verdicts)


def _in_one_place(faults: list[str], options: argparse.Namespace, seed: int) -> Iterator[tuple[Place, str, int]]:
    if not faults:
        return
    with tempfile.TemporaryDirectory() as folder, a_place(Path(folder), people=options.people, seed=seed) as place:
        for fault, one_seed in _runs(faults, options, seed):
            yield place, fault, one_seed


def _in_their_own(faults: list[str], options: argparse.Namespace, seed: int) -> Iterator[tuple[Place, str, int]]:
    """Those that need more than the others have, or leave it broken, once each."""
    for fault in filter(NEEDS.get, faults):
        people, needs = options.people, NEEDS[fault]
        with (
            tempfile.TemporaryDirectory() as folder,
            a_place(Path(folder), people=people, seed=seed, needs=needs) as place,
        ):
            yield place, fault, seed


def run_one(place: Place, fault: str, seed: int, options: argparse.Namespace) -> Verdict:
    name, act = WORLDS[fault]
    options.keep.mkdir(parents=True, exist_ok=True)
    path = options.keep / f"{fault}-{seed}.jsonl"
    world = World(place, fault=fault, seed=seed, streams=options.streams, rate=options.rate, path=path)
    verdict = world.run(lambda world: act(world, options.scale))
    if not verdict.violations:
        path.unlink()
    verdict.fault = f"{fault} {name}"
    return verdict


def _runs(faults: list[str], options: argparse.Namespace, seed: int) -> Iterator[tuple[str, int]]:
    """Each fault with its seed: as often as --times says, or until --hours are over."""
    ends = time.monotonic() + 3600 * options.hours
    for turn in itertools.count():
        for fault in faults:
            if turn >= options.times and time.monotonic() >= ends:
                return
            yield fault, seed + turn


def _sum(verdicts: list[Verdict]) -> tuple[str, ...]:
    """The row of all runs: what was counted, added up; the 99th percentile of the seconds to converge, by nearest rank."""
    counted = (sum(int(verdict.row[column]) for verdict in verdicts) for column in range(2, 7))
    seconds = sorted(math.inf if verdict.seconds is None else verdict.seconds for verdict in verdicts)
    p99 = seconds[math.ceil(0.99 * len(seconds)) - 1]
    return f"{len(verdicts)} runs", "", *map(str, counted), f"p99 {p99:.1f}", ""


def _line(cells: tuple[str, ...]) -> str:
    widths = (52, 6, 8, 6, 8, 7, 6, 12, 0)
    return "".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.chaos.run")
    parser.add_argument(
        "faults", nargs="*", choices=[[], *WORLDS, *ELSEWHERE], metavar="FAULT", help=", ".join([*WORLDS, *ELSEWHERE])
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
