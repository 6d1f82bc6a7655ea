"""`python -m tests.chaos.run [F01 …]`: run faults against the real system, print the table, exit 1 if anything is wrong.

First those that are worlds of their own (`faults`), then the tests of the others (`elsewhere`). On SQLite, or on the server of
DATABASE_URL. With --hours it goes on with other seeds and worlds drawn by chance. Histories of runs that failed are kept in
--keep, one file of JSON lines for each.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.elsewhere import ELSEWHERE
from tests.chaos.elsewhere import run as run_elsewhere
from tests.chaos.faults import FAULTS
from tests.chaos.place import a_place
from tests.chaos.world import Place, Verdict, World
from tests.databases import DATABASE_URL

_HEAD = ("fault", "seed", "events", "lost", "doubled", "leaked", "other", "converged s", "measured")


def main() -> int:
    options = _parser().parse_args()
    seed = options.seed if options.seed is not None else random.randrange(10_000)
    print(
        f"database: {'PostgreSQL' if DATABASE_URL else 'SQLite'}; {options.people} people × {options.streams} streams"
    )
    chosen = options.faults or [*FAULTS, *([] if options.hours else ELSEWHERE)]
    print(_line(_HEAD))
    failed = _run_worlds([fault for fault in chosen if fault in FAULTS], options, seed)
    for fault in (fault for fault in chosen if fault in ELSEWHERE):
        is_well, said = run_elsewhere(fault)
        print(_line((f"{fault} {ELSEWHERE[fault].name}", *[""] * 7, said)), flush=True)
        failed += not is_well
    print(f"{failed} of the runs above are not as they should be.")
    return 1 if failed else 0


def _run_worlds(faults: list[str], options: argparse.Namespace, seed: int) -> int:
    """Run each and print its row; return how many are not as they should be."""
    failed = 0
    if not faults:
        return failed
    with tempfile.TemporaryDirectory() as folder, a_place(Path(folder), people=options.people, seed=seed) as place:
        for fault, one_seed in _schedule(faults, options.hours, seed):
            verdict = run_one(place, fault, one_seed, options)
            print(_line(verdict.row), flush=True)
            for violation in verdict.violations[:10]:
                print(f"    {violation}")
            failed += bool(verdict.violations) or verdict.seconds is None
    return failed


def run_one(place: Place, fault: str, seed: int, options: argparse.Namespace) -> Verdict:
    name, act = FAULTS[fault]
    options.keep.mkdir(parents=True, exist_ok=True)
    path = options.keep / f"{fault}-{seed}.jsonl"
    world = World(place, fault=fault, seed=seed, streams=options.streams, rate=options.rate, path=path)
    verdict = world.run(lambda world: act(world, options.scale))
    if not verdict.violations:
        path.unlink()
    verdict.fault = f"{fault} {name}"
    return verdict


def _schedule(faults: list[str], hours: float, seed: int) -> Iterator[tuple[str, int]]:
    if not hours:
        yield from ((fault, seed) for fault in faults)
        return
    choose, until = random.Random(seed), time.monotonic() + 3600 * hours
    while time.monotonic() < until:
        yield choose.choice(faults), choose.randrange(10_000)


def _line(cells: tuple[str, ...]) -> str:
    widths = (52, 6, 8, 6, 8, 7, 6, 12, 0)
    return "".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.chaos.run")
    parser.add_argument(
        "faults", nargs="*", choices=[[], *FAULTS, *ELSEWHERE], metavar="FAULT", help=", ".join([*FAULTS, *ELSEWHERE])
    )
    parser.add_argument("--seed", type=int)
    parser.add_argument("--scale", type=float, default=1.0, help="1 is the length of the table; 0.2 a fifth")
    parser.add_argument("--hours", type=float, default=0, help="go on for this long, faults and seeds drawn by chance")
    parser.add_argument("--people", type=int, default=12)
    parser.add_argument("--streams", type=int, default=2, help="open pages of each person")
    parser.add_argument("--rate", type=float, default=20, help="acts per second")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "chaos")
    return parser


if __name__ == "__main__":
    sys.exit(main())
