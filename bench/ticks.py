"""Stalls of a worker's loop: a ticker in the worker (`ticker/sitecustomize.py`) writes each wait that took too long."""

import os
from pathlib import Path

_TICKER = Path(__file__).resolve().parent / "ticker"


class Ticks:
    """The file of one worker's ticker. Start the worker with `settings`."""

    def __init__(self, path: Path):
        self._path = path
        self.settings = {"TICKER": str(path), "PYTHONPATH": f"{_TICKER}{os.pathsep}{_TICKER.parent.parent}"}

    def clear(self) -> None:
        self._path.write_text("")

    def read_longest_ms(self) -> float:
        """The longest stall since `clear`; 0 if none was long enough."""
        return max(map(float, self._path.read_text().split()), default=0.0)
