"""The points of a broadcast's read chart: how many had received and read it, by time since sending."""

from dataclasses import dataclass

from broadcast.store.broadcast_stats import CURVE_OFFSETS, ReadLatency

WIDTH, HEIGHT = 600, 160
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 14, 30  # margins for the axis labels
_STEP_LABELS = ("1 min", "5 min", "15 min", "1 h", "4 h", "12 h", "1 day", "3 days", "7 days", "30 days")


@dataclass(frozen=True, slots=True)
class Tick:
    x: float
    label: str
    delivered: int
    read: int


class ReadChart:
    """Rendered by `_read_chart.html`. The time axis has equal steps: one per label that has passed, one for now."""

    width, height, bottom, left, right = WIDTH, HEIGHT, HEIGHT - BOTTOM, LEFT, WIDTH - RIGHT

    def __init__(self, pace: ReadLatency, targeted: int):
        labels = [*_STEP_LABELS[: len(pace.read) - 1], "now"]
        assert len(_STEP_LABELS) == len(CURVE_OFFSETS)
        self.max_count = max(targeted, 1)
        step = (WIDTH - LEFT - RIGHT) / len(labels)
        self.ticks = [
            Tick(round(LEFT + step * n, 1), word, delivered, read)
            for n, (word, delivered, read) in enumerate(zip(labels, pace.delivered, pace.read, strict=True), 1)
        ]
        self.delivered = self._build_points(pace.delivered)
        self.read = self._build_points(pace.read)

    def _build_points(self, counts: list[int]) -> str:
        """`x,y x,y …`, starting with zero at the moment of sending."""
        points = [
            (LEFT, self.to_y(0)),
            *((tick.x, self.to_y(count)) for tick, count in zip(self.ticks, counts, strict=True)),
        ]
        return " ".join(f"{x:g},{y:g}" for x, y in points)

    def to_y(self, count: float) -> float:
        plot_height = HEIGHT - TOP - BOTTOM
        return round(TOP + plot_height * (1 - min(1.0, count / self.max_count)), 1)
