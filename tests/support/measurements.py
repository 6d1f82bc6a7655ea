"""Measurements of a test run. The terminal shows them at the end; no test asserts them, because machines differ."""

import statistics
from collections.abc import Sequence

measurements: list[str] = []


def record_durations(label: str, durations: Sequence[float]) -> None:
    """Record the distribution of a duration under `label`."""
    durations_ms = sorted(1000 * second for second in durations)
    median, p95 = statistics.median(durations_ms), durations_ms[int(0.95 * (len(durations_ms) - 1))]
    measurements.append(
        f"{label}: median {median:.1f} ms, p95 {p95:.1f} ms, most {durations_ms[-1]:.1f} ms (n={len(durations_ms)})"
    )
