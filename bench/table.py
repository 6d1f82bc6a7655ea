"""The table of results: one row for each measurement beside what it is compared with."""

import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

HEADER = "| | this application | beside | | ours : it |\n|---|---|---|---|---|"


@dataclass(frozen=True)
class Row:
    """`ours`, in `unit`, and `theirs`, which the ratio compares; the notes follow the numbers."""

    what: str
    ours: float
    beside: str = ""
    theirs: float | None = None
    unit: str = ""
    ours_note: str = ""
    theirs_note: str = ""

    def __str__(self) -> str:
        theirs = "" if self.theirs is None else f"{_format(self.theirs, self.unit)}{self.theirs_note}"
        ratio = f"{self.ours / self.theirs:.2f}" if self.theirs else ""
        ours = f"{_format(self.ours, self.unit)}{self.ours_note}"
        return f"| {self.what} | {ours} | {self.beside} | {theirs} | {ratio} |"


def _format(value: float, unit: str) -> str:
    return f"{value:,.0f}{unit}" if value >= 100 else f"{value:.{1 if value >= 10 else 2}f}{unit}"


def get_quantile(values: Sequence[float], share: float) -> float:
    """The nearest rank: of 200 values, 0.99 is the second largest."""
    return sorted(values)[int(len(values) * share)]


def median_ms(seconds: Sequence[float]) -> float:
    return 1000 * statistics.median(seconds)


def describe_machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}, Python {sys.version.split()[0]}"
