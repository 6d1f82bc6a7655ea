"""The curve of a broadcast as points of a drawing: how many had received it, and had read it, by which time after sending."""

from dataclasses import dataclass

from broadcast.store.broadcast_stats import STEPS, Pace

WIDTH, HEIGHT = 600, 160
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 14, 30  # room for the words of the axes
_WORDS = ("1 min", "5 min", "15 min", "1 h", "4 h", "12 h", "1 day", "3 days", "7 days", "30 days")


@dataclass(frozen=True, slots=True)
class Tick:
    x: float
    words: str
    delivered: int
    read: int


class Curve:
    """Drawn by `_curve.html`. The time axis has one even step for each of STEPS that has passed, and one for now."""

    width, height, bottom, left, right = WIDTH, HEIGHT, HEIGHT - BOTTOM, LEFT, WIDTH - RIGHT

    def __init__(self, pace: Pace, targeted: int):
        words = [*_WORDS[: len(pace.read) - 1], "now"]
        assert len(_WORDS) == len(STEPS)
        self.top = max(targeted, 1)
        step = (WIDTH - LEFT - RIGHT) / len(words)
        self.ticks = [
            Tick(round(LEFT + step * n, 1), word, delivered, read)
            for n, (word, delivered, read) in enumerate(zip(words, pace.delivered, pace.read, strict=True), 1)
        ]
        self.delivered = self._points(pace.delivered)
        self.read = self._points(pace.read)

    def _points(self, counts: list[int]) -> str:
        """`x,y x,y …`, from nobody at the moment of sending."""
        points = [(LEFT, self.y(0)), *((tick.x, self.y(count)) for tick, count in zip(self.ticks, counts, strict=True))]
        return " ".join(f"{x:g},{y:g}" for x, y in points)

    def y(self, count: float) -> float:
        room = HEIGHT - TOP - BOTTOM
        return round(TOP + room * (1 - min(1.0, count / self.top)), 1)
