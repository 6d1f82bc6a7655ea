"""`make bench`: the application beside a C loop, nchan and other servers; what it costs to open streams and pages.

    make bench ARGS="[--full] [--only streams pages receipts morning] [--people 1000]"

Centrifugo and Mercure are measured too when CENTRIFUGO and MERCURE name a binary. The server's worker has core 0, the
load client core 1. Results are ratios within one run: absolute values depend on the machine. With --full, numbers are
those of a company, and the table is added to `results/DATE.md`.
"""

import argparse
import tempfile
from datetime import date
from pathlib import Path

from bench import morning, pages, receipts, streams
from bench.client import BENCH_FOLDER, build
from bench.table import HEADER, describe_machine

MIN_BURST = 2500  # streams for receipts: with fewer, all rows of an event are written at once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="10,000 people, 5,000 streams; takes long")
    parser.add_argument("--people", type=int, help="of the morning; half as many streams; 1,000 without --full")
    parser.add_argument("--only", nargs="+", default=["streams", "receipts", "pages", "morning"])
    options = parser.parse_args()
    people, rounds = options.people or (10_000 if options.full else 1000), 200 if options.full else 50
    with tempfile.TemporaryDirectory() as name:
        programs = build(Path(name))
        sections = {
            "streams": lambda: streams.measure(programs, people // 2, messages=rounds),
            "receipts": lambda: receipts.measure(programs, max(people // 2, MIN_BURST), events=rounds),
            "pages": lambda: pages.measure(programs, users=200, rounds=rounds),
            "morning": lambda: morning.measure(programs, people),
        }
        lines = [f"`make bench`, {people:,} people; {describe_machine()}\n", HEADER]
        print("\n".join(lines))
        for section in options.only:
            for row in sections[section]():
                print(row, flush=True)
                lines.append(str(row))
    if options.full:
        _save(lines)


def _save(lines: list[str]) -> None:
    path = BENCH_FOLDER / "results" / f"{date.today()}.md"
    before = path.read_text() if path.exists() else f"# Results of {date.today()}\n"
    path.write_text("\n".join([before, "## `make bench`\n", *lines, ""]))


if __name__ == "__main__":
    main()
