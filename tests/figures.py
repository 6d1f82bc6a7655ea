"""Figures that a run measured. The terminal shows them at its end; no test judges them, as machines differ."""

import statistics
from collections.abc import Sequence

noted: list[str] = []


def note(what: str, seconds: Sequence[float]) -> None:
    """Remember the spread of a duration under the sentence `what`."""
    in_ms = sorted(1000 * second for second in seconds)
    median, p95 = statistics.median(in_ms), in_ms[int(0.95 * (len(in_ms) - 1))]
    noted.append(f"{what}: median {median:.1f} ms, p95 {p95:.1f} ms, most {in_ms[-1]:.1f} ms (n={len(in_ms)})")
